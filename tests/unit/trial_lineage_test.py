"""A trial and those that it continues, as tables."""

from datetime import datetime
from typing import Any

import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from tuning_trial.lineage import Lineage, has_ended, lasts, trace

REQUEUED = {"tuningstudy:requeued": "Crashed"}
LOST = (TrialState.FAIL, REQUEUED)


def trials(*rows: tuple[TrialState, dict[str, Any]]) -> list[FrozenTrial]:
    """Rows of a study, numbered from 0."""
    made = []
    for number, (state, attributes) in enumerate(rows):
        trial = create_trial(state=state, value=1.0 if state is TrialState.COMPLETE else None, user_attrs=attributes)
        trial.number = number
        trial.datetime_start = datetime(2026, 1, 1, 12, number)  # noqa: DTZ001 - as Optuna stores it
        made.append(trial)
    return made


def continues(number: Any, state: TrialState = TrialState.RUNNING, **more: Any) -> tuple[TrialState, dict[str, Any]]:
    return state, {"tuningstudy:retryOf": number} | {f"tuningstudy:{key}": value for key, value in more.items()}


def test_a_trial_that_continues_nothing_is_its_own_first() -> None:
    """And has no seed before the worker chose one."""
    (only,) = trials((TrialState.RUNNING, {}))
    assert trace(only, [only].__getitem__) == Lineage(first=0, identity="0 of 2026-01-01 12:00:00", seed=None)


def test_a_successor_is_known_by_the_first_and_has_its_seed() -> None:
    """However often it was lost; one that was lost before it had a seed does not matter."""
    rows = trials((TrialState.FAIL, REQUEUED | {"tuningstudy:seed": 7}), continues(0, *LOST[:1]), continues(1))
    assert trace(rows[2], rows.__getitem__) == Lineage(first=0, identity="0 of 2026-01-01 12:00:00", seed=7)


@pytest.mark.parametrize("number", [1, 2, -1, "0", None, True, 0.0])
def test_an_attribute_that_makes_no_sense_continues_nothing(number: Any) -> None:
    """User code may write any; whatever is not older would go round in a circle."""
    rows = trials((TrialState.FAIL, {}), continues(number))
    assert trace(rows[1], rows.__getitem__).first == 1


@pytest.mark.parametrize(
    ("rows", "ended"),
    [
        ([(TrialState.RUNNING, {})], False),
        ([(TrialState.COMPLETE, {})], True),
        ([(TrialState.PRUNED, {})], True),
        ([(TrialState.FAIL, {})], True),
        ([LOST], False),  # owed a successor
        ([LOST, continues(0, TrialState.WAITING)], False),
        ([LOST, continues(0)], False),
        ([LOST, continues(0, TrialState.COMPLETE)], True),
        ([LOST, continues(0, TrialState.FAIL, requeued="Crashed"), continues(1)], False),
        ([LOST, continues(0, TrialState.FAIL, requeued="Crashed"), continues(1, TrialState.FAIL)], True),
        ([LOST, continues(0, TrialState.FAIL, cancelled=True)], True),
    ],
)
def test_a_trial_has_ended_when_nobody_will_continue_it(
    rows: list[tuple[TrialState, dict[str, Any]]],
    ended: bool,  # noqa: FBT001
) -> None:
    """Only then its checkpoint may go."""
    assert has_ended(lasts(trials(*rows))[0]) is ended


def test_the_last_of_a_lineage_stands_for_all_of_it() -> None:
    """Also where others began in between."""
    rows = trials(LOST, LOST, continues(0), (TrialState.COMPLETE, {}), continues(1), continues(2))
    assert [trial.number for trial in lasts(rows)] == [5, 4, 5, 3, 4, 5]
