"""The operator: reads TuningStudies, keeps their budgets in the database, and runs their workers as Jobs.

Read `controller.py` first: observe, decide, act, report. Everything that decides is pure and lives in `decide/`.
"""
