"""The worker of a study: claims a trial, chooses its parameters, trains it in a process of its own, tells the result.

It runs in a pod or as a process on a laptop, and knows only its database (`tuning_api.contract`). Nothing here imports
the operator, and importing a module here imports torch only where its name says so (`lightning_*`, `pruning`).
"""
