"""Objectives that score the parameters that the spec's search space has, in a millisecond."""

import math

import optuna
from optuna import Trial


def score(params: dict[str, object]) -> float:
    """Something to minimise."""
    numbers = [float(value) for value in params.values() if isinstance(value, int | float)]
    return math.fsum((number - 0.4) ** 2 for number in numbers) + 0.1 * (params.get("optimizer") == "sgd")


def hilly(trial: Trial) -> float:
    """Reports as a training would, and may be pruned."""
    value = score(trial.params)
    for step in range(4):
        trial.report(value + (4 - step) / 10, step)
        if trial.should_prune():
            raise optuna.TrialPruned
    return value


def two_values(trial: Trial) -> tuple[float, float]:
    """A small one is good, and a large one is good."""
    value = score(trial.params)
    return value, -value
