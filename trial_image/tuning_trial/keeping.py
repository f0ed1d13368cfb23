"""PURE: which trials keep their checkpoint after their end (`trial.checkpoints.keep`): the best of the study.

Complete trials only become more, so one that is no longer among the best never will be again. Whatever a worker removes,
by whatever it knew, every other worker would remove too; and the one that tells its result last knows all of them.
"""

import math
from collections.abc import Iterable

from optuna.trial import FrozenTrial, TrialState

from tuning_api.contract import COPIED_ATTRIBUTE
from tuning_api.search import Direction


def best(trials: Iterable[FrozenTrial], *, keep: int, direction: Direction) -> frozenset[int]:
    """Numbers of the best complete trials; of equals the first.

    Args:
        trials: The study's. What breaks a constraint, or was taken over from another study, is not among its best.
        keep: How many.
        direction: Which way the one objective improves.
    """
    sign = _sign(direction)
    ranked = sorted(_results(trials), key=lambda trial: (sign * _value(trial), trial.number))
    return frozenset(trial.number for trial in ranked[:keep])


def may_be_kept(value: float, trials: Iterable[FrozenTrial], *, keep: int, direction: Direction) -> bool:
    """Whether a trial that completes with a value can be among the best; to write what is removed at once would be a waste."""
    sign = _sign(direction)
    return sum(sign * _value(trial) <= sign * value for trial in _results(trials)) < keep


def _results(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    return [
        trial
        for trial in trials
        if trial.state is TrialState.COMPLETE
        and math.isfinite(_value(trial))
        and COPIED_ATTRIBUTE not in trial.user_attrs
        and all(excess <= 0 for excess in trial.constraints.values())
    ]


def _sign(direction: Direction) -> int:
    return 1 if direction is Direction.MINIMIZE else -1


def _value(trial: FrozenTrial) -> float:
    return trial.values[0] if trial.values else math.nan
