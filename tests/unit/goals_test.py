"""What a study looks for and when it has found it: fronts, constraints, and rules that stop it early."""

from datetime import timedelta
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.study import StudyDirection
from tests.support.builders import NOW, a_snapshot, a_spec, a_spec_document, a_trial, a_worker
from tests.support.wait import within

from tuning_api.search import Direction
from tuning_api.spec import Constraint, StudySpec
from tuning_api.status import MOST_OF_FRONT, Reason, StudyStatus
from tuning_operator import decide
from tuning_operator.decide import report
from tuning_operator.decide.completion import compute_seconds
from tuning_operator.decide.front import even_choice, front
from tuning_operator.model import Outcome, Snapshot, Trial, Verdict

MAX, MIN = Direction.MAXIMIZE, Direction.MINIMIZE
TWO = [{"metric": "val_acc", "direction": "maximize"}, {"metric": "latency", "direction": "minimize"}]
LATENCY = [{"metric": "latency", "upper": 50}]

DIRECTIONS = st.lists(st.sampled_from(Direction), min_size=1, max_size=3)


@st.composite
def judged(draw: st.DrawFn) -> tuple[list[tuple[float, ...]], list[Direction]]:
    """Values from a small grid, so that many are equal somewhere, with directions."""
    directions = draw(DIRECTIONS)
    values = st.tuples(*[st.integers(0, 4).map(float) for _ in directions])
    return draw(st.lists(values, max_size=25)), directions


def is_better(one: tuple[float, ...], other: tuple[float, ...], directions: list[Direction]) -> bool:
    """The definition: as good everywhere, and better somewhere."""
    pairs = [(a, b) if direction is MAX else (b, a) for a, b, direction in zip(one, other, directions, strict=True)]
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)


@given(judged())
def test_the_front_is_what_nothing_is_better_than(case: tuple[list[tuple[float, ...]], list[Direction]]) -> None:
    """By the definition, value by value."""
    values, directions = case
    undominated = {
        place for place, value in enumerate(values) if not any(is_better(other, value, directions) for other in values)
    }
    assert undominated == set(front(values, directions))


@pytest.mark.parametrize("objectives", [2, 3])
def test_a_front_of_as_many_values_as_a_study_may_have_is_found_at_once(objectives: int) -> None:
    """Each of them is better than all others somewhere: compared one by one, a pass would take hours."""
    values = [(float(place), *[float(100_000 - place)] * (objectives - 1)) for place in range(100_000)]
    with within(10):
        assert len(front(values, [MIN] * objectives)) == len(values)


@given(judged().filter(lambda case: len(case[1]) > 1))
def test_the_front_is_that_of_optuna(case: tuple[list[tuple[float, ...]], list[Direction]]) -> None:
    """Whoever opens the database with Optuna sees the same best trials."""
    values, directions = case
    study = optuna.create_study(directions=[StudyDirection[direction.name] for direction in directions])
    study.add_trials([optuna.trial.create_trial(values=value) for value in values])
    assert {trial.number for trial in study.best_trials} == set(front(values, directions))


def test_a_front_begins_with_the_best_of_the_first_objective() -> None:
    """Of equals the first; and what is infinite, or has too few values, is no value."""
    inf = float("inf")
    values = [(0.5, 10.0), (0.9, 40.0), (0.9, 40.0), (0.7, 20.0), (inf, 1.0), (0.6,), (0.4, 15.0)]
    assert front(values, [MAX, MIN]) == [1, 2, 3, 0]


@given(st.integers(0, 200), st.integers(2, 30))
def test_of_a_large_front_both_ends_stay(size: int, most: int) -> None:
    """A status is bounded, and an even choice says more than the first twenty."""
    chosen = even_choice(range(size), most=most)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(size, most)
    assert not chosen or (chosen[0], chosen[-1]) == (0, size - 1)


def outcome(snapshot: Snapshot) -> Outcome:
    return decide.plan(snapshot).outcome


def status_of(snapshot: Snapshot) -> StudyStatus:
    return report.status(snapshot, decide.plan(snapshot), charts=None)


def of_values(*values: float | None, **changes: Any) -> tuple[Trial, ...]:
    """Complete trials with these values; None is a pruned one."""
    return tuple(
        a_trial(number, "PRUNED") if value is None else a_trial(number, values=(value,), **changes)
        for number, value in enumerate(values)
    )


def minimized(**changes: Any) -> StudySpec:
    return a_spec(objectives=[{"metric": "val_loss", "direction": "minimize"}], **changes)


TARGETS = {
    "not yet": (a_spec(stopWhen={"target": 0.8}), of_values(0.7, 0.79), Verdict.RUN),
    "exactly": (a_spec(stopWhen={"target": 0.8}), of_values(0.7, 0.8), Verdict.COMPLETE),
    "zero is a target, too": (minimized(stopWhen={"target": 0}), of_values(0.1, 0.0), Verdict.COMPLETE),
    "from above, of what is minimised": (minimized(stopWhen={"target": 0.3}), of_values(0.5, 0.4), Verdict.RUN),
    "only a complete trial has a value": (a_spec(stopWhen={"target": 0.1}), of_values(None, None), Verdict.RUN),
    "a trial that breaks a constraint has not reached it": (
        a_spec(stopWhen={"target": 0.8}, constraints=LATENCY),
        of_values(0.9, is_feasible=False),
        Verdict.RUN,
    ),
    "failures of trials that still ran do not take it back": (
        a_spec(stopWhen={"target": 0.8}, maxFailedTrials=1),
        (*of_values(0.9), a_trial(1, "FAIL")),
        Verdict.COMPLETE,
    ),
}


@pytest.mark.parametrize(("spec", "rows", "verdict"), TARGETS.values(), ids=TARGETS)
def test_a_target_stops_the_study(spec: StudySpec, rows: tuple[Trial, ...], verdict: Verdict) -> None:
    """As soon as the best value is as good."""
    found = outcome(a_snapshot(spec=spec, trials=rows))
    assert (verdict, verdict is Verdict.COMPLETE) == (found.verdict, found.reason is Reason.TARGET_REACHED)


def test_a_target_that_was_reached_says_how_to_go_on() -> None:
    """Raising maxTrials alone would not."""
    snapshot = a_snapshot(spec=a_spec(stopWhen={"target": 0.8}, maxTrials=500), trials=of_values(0.7, 0.85, 0.9))
    assert status_of(snapshot).message == (
        "trial 2 has reached the target: val_acc is 0.9, stopWhen.target 0.8; move or remove it to go on"
    )


def out_of_order() -> tuple[Trial, ...]:
    """Trial 0 is the best, and ends last."""
    late = a_trial(0, values=(0.9,), ended=NOW)
    return (late, *(a_trial(number, values=(0.5,)) for number in range(1, 4)))


ROWS = {
    "two worse ones": (of_values(0.9, 0.5, 0.6), 2, True),
    "one of them is missing": (of_values(0.9, 0.5), 2, False),
    "an equal value is no better one": (of_values(0.9, 0.9, 0.9), 2, True),
    "a better one begins the row anew": (of_values(0.5, 0.4, 0.6, 0.5), 2, False),
    "pruned ones count": (of_values(0.9, None, None), 2, True),
    "failed ones count": ((*of_values(0.9), a_trial(1, "FAIL"), a_trial(2, "FAIL")), 2, True),
    "running and waiting ones do not": ((*of_values(0.9, 0.5), a_trial(2, "RUNNING"), a_trial(3, "WAITING")), 2, False),
    "lost ones do not": ((*of_values(0.9, 0.5), a_trial(2, "FAIL", requeued="Crashed")), 2, False),
    "without any value there is nothing to be better than": (of_values(None, None, None), 2, False),
    "what breaks a constraint is no better value": (
        (*of_values(0.5), *(a_trial(number, values=(0.9,), is_feasible=False) for number in (1, 2))),
        2,
        True,
    ),
    "a better value that came too late changes nothing": (of_values(0.5, 0.4, 0.4, 0.9), 2, True),
    "what counts is the order in which they ended": (out_of_order(), 2, True),
    "and not that of their numbers": (out_of_order(), 3, False),
}


@pytest.mark.parametrize(("rows", "limit", "stops"), ROWS.values(), ids=ROWS)
def test_a_row_of_trials_without_a_better_value_stops_the_study(
    rows: tuple[Trial, ...],
    limit: int,
    stops: bool,  # noqa: FBT001
) -> None:
    """Counted from the first value on, in the order in which trials ended."""
    owners = tuple(trial.owner.id for trial in rows if trial.owner)
    spec = a_spec(stopWhen={"noImprovementTrials": limit})
    found = outcome(a_snapshot(spec=spec, trials=rows, workers=(a_worker(owners=owners),)))
    assert stops == (found.reason is Reason.NO_IMPROVEMENT)
    raised = a_spec(stopWhen={"noImprovementTrials": limit + 10})
    assert outcome(a_snapshot(spec=raised, trials=rows)).verdict is Verdict.RUN


def test_a_study_that_gets_no_better_says_than_what() -> None:
    """The number that matters, and the way on."""
    snapshot = a_snapshot(spec=a_spec(stopWhen={"noImprovementTrials": 2}), trials=of_values(0.9, 0.5, None))
    assert status_of(snapshot).message == (
        "2 trials in a row have ended without a better value than 0.9 of trial 0;"
        " raise or remove stopWhen.noImprovementTrials to go on"
    )


def test_compute_is_spent_by_whatever_has_run() -> None:
    """Ended, lost and running trials alike; waiting ones have not begun."""
    rows = (
        a_trial(0),
        a_trial(1, "FAIL", requeued="Interrupted"),
        a_trial(2, "RUNNING", started=NOW - timedelta(seconds=30)),
        a_trial(3, "WAITING"),
    )
    assert compute_seconds(rows, now=NOW) == 60 + 60 + 30


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500) | st.none()), max_size=20), st.integers(0, 100))
def test_compute_is_the_area_under_the_running_trials(spans: list[tuple[int, int | None]], later: int) -> None:
    """By counting, second by second, how many trials ran; and each running one spends a second a second."""
    now = NOW + timedelta(seconds=1000)
    rows = [
        a_trial(
            number,
            "COMPLETE" if length is not None else "RUNNING",
            started=NOW + timedelta(seconds=start),
            ended=NOW + timedelta(seconds=start + length) if length is not None else None,
        )
        for number, (start, length) in enumerate(spans)
    ]
    area = sum(
        start <= second < (start + length if length is not None else 1000)
        for second in range(1000)
        for start, length in spans
    )
    assert compute_seconds(rows, now=now) == area
    running = sum(length is None for _, length in spans)
    assert compute_seconds(rows, now=now + timedelta(seconds=later)) == area + later * running


@pytest.mark.parametrize(("limit", "reason"), [(120, Reason.COMPUTE_SPENT), (121, Reason.TRIALS_RUNNING)])
def test_compute_that_is_spent_completes_the_study(limit: int, reason: Reason) -> None:
    """Two trials of a minute; suspended or not."""
    rows = (a_trial(0), a_trial(1, "FAIL", requeued="Interrupted"), a_trial(2, "WAITING", retry_of=1))
    assert outcome(a_snapshot(spec=a_spec(maxComputeSeconds=limit), trials=rows)).reason is reason
    snapshot = a_snapshot(spec=a_spec(maxComputeSeconds=120, suspend=True), trials=rows)
    assert status_of(snapshot).message == (
        "the trials have run for 120 s together and maxComputeSeconds is 120, 1 of 10 trials have ended; raise it to go on"
    )


EARLY_ENDS = {
    "the target": {"stopWhen": {"target": 0.8}},
    "no improvement": {"stopWhen": {"noImprovementTrials": 1}},
    "the compute": {"maxComputeSeconds": 60},
    "the time": {"timeout": "5m"},
}


@pytest.mark.parametrize("changes", EARLY_ENDS.values(), ids=EARLY_ENDS)
def test_an_early_end_interrupts_what_runs_and_keeps_what_waits(changes: dict[str, Any]) -> None:
    """Alike for every such rule: workers are asked to stop, their trials wait, and go on when the rule is moved."""
    rows = (*of_values(0.9, 0.5), a_trial(2, "RUNNING"), a_trial(3, "WAITING"))
    worker = a_worker(owners=("pod-2",))
    plan = decide.plan(a_snapshot(spec=a_spec(**changes), trials=rows, workers=(worker,)))
    assert plan.outcome.verdict is Verdict.COMPLETE
    assert plan.workers.stop == (worker.name,)
    assert (plan.trials.cancel, plan.trials.add) == ((), 0)
    gone = decide.plan(a_snapshot(spec=a_spec(**changes), trials=rows, workers=()))
    assert [item.trial.number for item in gone.trials.requeue] == [2]


def several(*values: tuple[float, float], **changes: Any) -> tuple[Trial, ...]:
    return tuple(a_trial(number, values=value, **changes) for number, value in enumerate(values))


def test_several_objectives_have_a_front_and_no_best() -> None:
    """Sorted by the first objective; the column of `kubectl get` says how many there are."""
    rows = several((0.9, 40.0), (0.8, 45.0), (0.7, 20.0))
    status = status_of(a_snapshot(spec=a_spec(objectives=TWO), trials=rows))
    assert [(item.trial, item.values, item.display) for item in status.best_trials or []] == [
        (0, [0.9, 40.0], "0.9, 40"),
        (2, [0.7, 20.0], "0.7, 20"),
    ]
    assert (status.best, status.best_display) == (None, "front of 2")


def test_a_large_front_is_bounded_and_counted_in_full() -> None:
    """A status is stored in etcd."""
    rows = several(*((number / 100, float(number)) for number in range(75)))
    status = status_of(a_snapshot(spec=a_spec(objectives=TWO, maxTrials=100), trials=rows))
    shown = status.best_trials or []
    assert (len(shown), shown[0].trial, shown[-1].trial, status.best_display) == (MOST_OF_FRONT, 74, 0, "front of 75")


def test_the_best_is_the_best_that_breaks_no_constraint() -> None:
    """What breaks one is counted."""
    rows = (a_trial(0, values=(0.9,), is_feasible=False), a_trial(1, values=(0.6,)), a_trial(2, values=(0.7,)))
    status = status_of(a_snapshot(spec=a_spec(constraints=LATENCY), trials=rows))
    assert status.best is not None
    assert status.trials is not None
    assert (status.best.trial, status.best_display, status.trials.infeasible, status.trials.complete) == (
        2,
        "0.7",
        1,
        3,
    )


def test_constraints_leave_only_what_keeps_them_on_the_front() -> None:
    """The infeasible one would dominate both."""
    rows = (*several((0.5, 9.0), (0.6, 9.5)), a_trial(2, values=(0.9, 1.0), is_feasible=False))
    status = status_of(a_snapshot(spec=a_spec(objectives=TWO, constraints=LATENCY), trials=rows))
    assert [item.trial for item in status.best_trials or []] == [1, 0]


INFEASIBLE_WORDS = "; none of the 2 complete ones is feasible: each breaks a constraint"
WITHOUT_BEST = {
    "while it runs": ({}, f"3 of 10 trials done, 0 workers running{INFEASIBLE_WORDS}"),
    "at its end": ({"maxTrials": 3}, f"3 of 3 trials done: 2 complete, 1 pruned, 0 failed{INFEASIBLE_WORDS}"),
    "at an early end": (
        {"timeout": "1m"},
        f"the study's timeout of 1m is over, 3 of 10 trials have ended; raise it to go on{INFEASIBLE_WORDS}",
    ),
}


@pytest.mark.parametrize(("changes", "message"), WITHOUT_BEST.values(), ids=WITHOUT_BEST)
def test_a_study_without_a_feasible_trial_says_so(changes: dict[str, Any], message: str) -> None:
    """Else somebody looks for the best in vain."""
    rows = (*(a_trial(number, is_feasible=False) for number in range(2)), a_trial(2, "PRUNED"))
    status = status_of(a_snapshot(spec=a_spec(constraints=LATENCY, **changes), trials=rows))
    assert (status.best, status.best_display, message) == (None, "none feasible", status.message)


def test_without_constraints_nothing_is_said_of_them() -> None:
    """The status of a plain study stays as it was."""
    counts = status_of(a_snapshot(trials=of_values(0.5))).trials
    assert counts is not None
    assert "infeasible" not in counts.to_document()


BOUNDS = {
    "kept": ({"upper": 50}, 40.0, {"latency <= 50": -10.0}),
    "at the bound": ({"upper": 50}, 50.0, {"latency <= 50": 0.0}),
    "broken": ({"upper": 50}, 61.5, {"latency <= 50": 11.5}),
    "from below": ({"lower": 0.5}, 0.25, {"latency >= 0.5": 0.25}),
    "between two": ({"lower": 1, "upper": 3}, 2.0, {"latency <= 3": -1.0, "latency >= 1": -1.0}),
}


@pytest.mark.parametrize(("bounds", "value", "violations"), BOUNDS.values(), ids=BOUNDS)
def test_a_constraint_says_how_far_a_value_is_beyond_its_bounds(
    bounds: dict[str, float], value: float, violations: dict[str, float]
) -> None:
    """As Optuna counts: 0 or less is kept."""
    assert violations == Constraint.model_validate({"metric": "latency"} | bounds).violations(value)


REFUSED = {
    "a constraint without a bound": ({"constraints": [{"metric": "latency"}]}, "needs upper or lower"),
    "bounds the wrong way round": (
        {"constraints": [{"metric": "latency", "lower": 3, "upper": 2}]},
        "lower must not be greater than upper, and 3 > 2",
    ),
    "two constraints on one metric": (
        {"constraints": [*LATENCY, {"metric": "latency", "lower": 1}]},
        "constraints: two are about latency",
    ),
    "an empty list of constraints": ({"constraints": []}, "at least 1 item"),
    "constraints on an objective of one's own": (
        {"constraints": LATENCY, "trial": {"objective": "my.train:objective"}},
        "constraints need trial.lightning: an objective of your own calls trial.set_constraint",
    ),
    "two objectives of one name": (
        {"objectives": [TWO[0], TWO[0] | {"direction": "minimize"}]},
        "two objectives have the same metric: results are told by its name",
    ),
    "a target of two objectives": (
        {"objectives": TWO, "stopWhen": {"target": 0.9}},
        "stopWhen needs exactly one objective",
    ),
    "compute of nothing": ({"maxComputeSeconds": 0}, "greater than or equal to 1"),
}


@pytest.mark.parametrize(("changes", "words"), REFUSED.values(), ids=REFUSED)
def test_goals_that_make_no_sense_are_refused_in_words(changes: dict[str, Any], words: str) -> None:
    """By the models as by the API server."""
    with pytest.raises(ValueError, match=words):
        StudySpec.model_validate(a_spec_document(**changes))
