"""The storm's two pure parts: which faults a seed brings, and what would be seen if the product were wrong."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from tests.storm import plan, verdict
from tests.storm.plan import Fault, Kind
from tests.storm.trials import EPOCHS, value
from tests.storm.verdict import Fact, Sample

from tuning_api.contract import FAILURE_ATTRIBUTE, OWNER_ATTRIBUTE, REQUEUED_ATTRIBUTE, RETRY_OF_ATTRIBUTE

X = 0.5
LAST = EPOCHS - 1


def storm(seed: int, *, seconds: float = 120) -> tuple[Fault, ...]:
    return plan.draw(seed, seconds=seconds, gap=4, studies=2, workers=4)


@pytest.mark.parametrize("seed", range(20))
def test_a_storm_can_be_had_again(seed: int) -> None:
    """The printed seed is all that is needed."""
    assert storm(seed) == storm(seed)
    assert storm(seed) != storm(seed + 1)


@pytest.mark.parametrize("seed", range(20))
def test_a_storm_is_over_in_time_and_has_every_kind(seed: int) -> None:
    """Bounded, and no kind is left to chance."""
    faults = storm(seed)
    assert {fault.kind for fault in faults} == set(Kind)
    assert all(0 < fault.begins <= fault.ends < 120 for fault in faults)


@pytest.mark.parametrize("seed", range(20))
def test_nothing_is_taken_away_twice_and_all_comes_back(seed: int) -> None:
    """What is away cannot be taken away, and a storm must not end with it."""
    away: set[Kind] = set()
    for step in plan.steps(storm(seed)):
        if step.is_end:
            away.remove(step.fault.kind)
        elif step.fault.ends > step.fault.begins:
            assert step.fault.kind not in away
            away.add(step.fault.kind)
    assert not away


def a_trial(
    number: int, state: TrialState = TrialState.COMPLETE, *, x: float = X, marks: dict[str, Any] | None = None
) -> FrozenTrial:
    """A row as the product should leave it."""
    is_complete = state is TrialState.COMPLETE
    trial = create_trial(
        state=state,
        values=[value(x, LAST)] if is_complete else None,
        params={"x": x},
        distributions={"x": FloatDistribution(0, 1)},
        intermediate_values={epoch: value(x, epoch) for epoch in range(EPOCHS)} if is_complete else {},
        user_attrs={OWNER_ATTRIBUTE: {"id": f"pod-{number}", "name": f"pod-{number}"}} | (marks or {}),
    )
    trial.number = number
    return trial


def epochs(trial: int, first: int, last: int = LAST, *, x: float = X, is_whole: bool = True) -> list[Fact]:
    """What one process writes down; the last epoch may be cut off."""
    facts = [
        Fact(what=what, x=x, trial=trial, epoch=epoch, pod=f"pod-{trial}", process=trial)
        for epoch in range(first, last + 1)
        for what in ("begins", "ends")
    ]
    return facts if is_whole else facts[:-1]


LOST = {REQUEUED_ATTRIBUTE: "Crashed"}
ROWS = [a_trial(0, TrialState.FAIL, marks=LOST), a_trial(1, marks={RETRY_OF_ATTRIBUTE: 0}), a_trial(2, x=0.25)]
FACTS = [*epochs(0, 0, 1, is_whole=False), *epochs(2, 0, x=0.25), *epochs(1, 1)]
STATUS: dict[str, Any] = {
    "phase": "Complete",
    "progress": "2/2",
    "workers": 0,
    "trials": {
        "total": 2,
        "finished": 2,
        "complete": 2,
        "pruned": 0,
        "failed": 0,
        "running": 0,
        "waiting": 0,
        "retried": 1,
    },
    "best": {"trial": 1, "value": X, "params": {"x": X}},
}


def wrong(
    rows: list[FrozenTrial] = ROWS, facts: list[Fact] = FACTS, status: dict[str, Any] = STATUS, budget: int = 2
) -> str:
    return "\n".join(verdict.violations(rows, facts, status, budget=budget, killed={"pod-0"}))


def test_nothing_is_wrong_with_a_trial_that_lost_its_worker_and_went_on() -> None:
    """It counts once, and its epochs follow one another."""
    assert wrong() == ""
    tried = verdict.attempts(FACTS)
    assert verdict.lost_epochs(tried) == [1]
    assert verdict.finished_in_vain(tried) == 0


def _with_curve(curve: dict[int, float]) -> FrozenTrial:
    trial = a_trial(2, x=0.25)
    trial.intermediate_values = curve
    return trial


FAILURE = {FAILURE_ATTRIBUTE: {"reason": "Error"}}
WRONG: dict[str, tuple[Callable[[], str], str]] = {
    "one too many": (lambda: wrong(budget=1), "2 trials have ended, and the budget is 1"),
    "one still runs": (lambda: wrong([*ROWS[:2], a_trial(2, TrialState.RUNNING, x=0.25)]), "trial 2 is still RUNNING"),
    "one counts twice": (
        lambda: wrong([*ROWS, a_trial(3, marks={RETRY_OF_ATTRIBUTE: 0})]),
        "trial 0 counts 2 times, as [1, 3]",
    ),
    "a lost one is continued twice": (
        lambda: wrong([*ROWS, a_trial(3, marks={RETRY_OF_ATTRIBUTE: 0})]),
        "trial 0 lost its worker and is continued 2 times",
    ),
    "a lost one is forgotten": (lambda: wrong([ROWS[0], ROWS[2]]), "trial 0 lost its worker and is continued 0 times"),
    "other parameters": (
        lambda: wrong([ROWS[0], a_trial(1, x=0.75, marks={RETRY_OF_ATTRIBUTE: 0}), ROWS[2]]),
        "trial 1 continues 0 with other parameters",
    ),
    "a failure": (lambda: wrong([*ROWS[:2], a_trial(2, TrialState.FAIL, x=0.25, marks=FAILURE)]), "trial 2 failed:"),
    "a gap in the curve": (
        lambda: wrong([*ROWS[:2], _with_curve({0: value(0.25, 0), LAST: value(0.25, LAST)})]),
        "trial 2 is COMPLETE with the curve",
    ),
    "nobody trained it": (lambda: wrong(facts=epochs(0, 0, 1) + epochs(1, 2)), "trial 2 is COMPLETE, and nobody saw"),
    "it never came to the end": (
        lambda: wrong(facts=[*FACTS[:-1]]),
        "trial 1 is COMPLETE, and its last epochs were [1, 2]",
    ),
    "begun anew": (
        lambda: wrong(facts=[*epochs(0, 0, 1), *epochs(2, 0, x=0.25), *epochs(1, 0)]),
        "trial 1 went on at epoch 0, and trial 0 before it came to 1",
    ),
    "an epoch left out": (
        lambda: wrong(facts=[*epochs(0, 0, 1, is_whole=False), *epochs(2, 0, x=0.25), *epochs(1, 2)]),
        "trial 1 went on at epoch 2, and trial 0 before it came to 1",
    ),
    "two at once": (
        lambda: wrong(facts=[*FACTS, *epochs(0, 2, 2)]),
        "trials [0, 1, 0] ran at the same time, and are one",
    ),
    "a count of the status": (
        lambda: wrong(status=STATUS | {"trials": STATUS["trials"] | {"running": 1}}),
        "status.trials.running is 1, and the database says 0",
    ),
    "the best of the status": (
        lambda: wrong(status=STATUS | {"best": {"trial": 2, "value": 0.25, "params": {"x": 0.25}}}),
        "status.best.trial is 2, and the database says 1",
    ),
}


@pytest.mark.parametrize(("found", "words"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_said(found: Callable[[], str], words: str) -> None:
    """A storm that could not find it would be worth nothing."""
    assert words in found()


def test_a_trial_may_fail_when_three_of_its_workers_were_killed() -> None:
    """That is the rule (`CRASHES_PER_TRIAL`); and no other worker counts."""
    rows = [
        a_trial(0, TrialState.FAIL, marks=LOST),
        a_trial(1, TrialState.FAIL, marks=LOST | {RETRY_OF_ATTRIBUTE: 0}),
        a_trial(2, TrialState.FAIL, marks={RETRY_OF_ATTRIBUTE: 1, FAILURE_ATTRIBUTE: {"reason": "WorkerLost"}}),
    ]
    killed = {f"pod-{number}" for number in range(3)}
    assert "trial 2 failed" not in "".join(verdict.violations(rows, [], {}, budget=1, killed=killed))
    assert "trial 2 failed" in "".join(verdict.violations(rows, [], {}, budget=1, killed=killed - {"pod-1"}))


WELL = Sample(at=0, ended=5, left=5, workers=4, wanted=4, epochs=9, last_pass=12)


@pytest.mark.parametrize(
    ("unwell", "why"),
    [
        ({"ended": None}, "the database does not answer"),
        ({"workers": 3}, "a worker is missing"),
        ({"wanted": 0, "workers": 0}, "the study is suspended"),
        ({"epochs": 7}, "no epoch has begun since"),
        ({"last_pass": 9.0}, "the operator has made no pass since"),
    ],
    ids=lambda item: item if isinstance(item, str) else "",
)
def test_all_is_well_when_nothing_is_missing(unwell: dict[str, Any], why: str) -> None:
    """From the end of the fault to the first look at which all is as it should be."""
    samples = [replace(WELL, at=9, epochs=7), replace(WELL, at=11, **unwell), replace(WELL, at=14)]
    assert verdict.recovery(over=10, samples=samples) == 4, why
    assert verdict.recovery(over=10, samples=samples[:2]) is None
    assert verdict.recovery(over=10, samples=[samples[0], replace(samples[1], left=0)]) == 1
