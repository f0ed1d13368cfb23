"""The contract between the people who write a TuningStudy, the operator and the trial image.

Everything here is a value or a function of values. Both sides import this package; it imports neither.
"""
