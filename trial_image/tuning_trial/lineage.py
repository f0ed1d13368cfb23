"""PURE: a trial and those that it continues.

When a worker is lost, its trial fails and a successor with the same parameters takes its place (ADR 0005). To a person
they are one trial: it has one seed, one curve, one checkpoint, and is known by the first of its rows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial

from tuning_api.contract import REQUEUED_ATTRIBUTE, RETRY_OF_ATTRIBUTE, SEED_ATTRIBUTE

SEEDS = 2**32
"""How many there are."""


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """What a trial has in common with those that it continues."""

    first: int
    """Number of the first trial."""
    identity: str
    """Nothing else ever had it, not even a study of the same name that was deleted."""
    seed: int | None
    """The seed that was recorded; None before there is one."""


def trace(trial: FrozenTrial, read: Callable[[int], FrozenTrial]) -> Lineage:
    """Follow a trial back to the first.

    Args:
        trial: Where to start.
        read: The trial of a number.
    """
    seed = _seed(trial)
    while (before := _continued_by(trial)) is not None:
        trial = read(before)
        seed = _seed(trial) if seed is None else seed
    return Lineage(first=trial.number, identity=f"{trial.number} of {trial.datetime_start}", seed=seed)


def lasts(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """For each trial the last of those that continue it; itself if there is none.

    Args:
        trials: All trials of the study, in the order of their numbers.
    """
    found = list(trials)
    for trial in reversed(trials):
        if (before := _continued_by(trial)) is not None:
            found[before] = found[trial.number]
    return found


def has_ended(last: FrozenTrial) -> bool:
    """Whether nobody will continue a trial any more, given the last of its lineage."""
    return last.state.is_finished() and REQUEUED_ATTRIBUTE not in last.user_attrs


def _continued_by(trial: FrozenTrial) -> int | None:
    """NB: user code may write any attribute. A successor is newer, so whatever is not older goes round in a circle."""
    number = _integer(trial, RETRY_OF_ATTRIBUTE)
    return number if number is not None and 0 <= number < trial.number else None


def _seed(trial: FrozenTrial) -> int | None:
    """NB: user code of an earlier trial may have written it, and numpy takes 32 bits and no more."""
    seed = _integer(trial, SEED_ATTRIBUTE)
    return seed if seed is not None and 0 <= seed < SEEDS else None


def _integer(trial: FrozenTrial, attribute: str) -> int | None:
    value = trial.user_attrs.get(attribute)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
