"""Known good points and planned ones among the rows: which come next, which are withdrawn, and when a space is exhausted."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.builders import a_snapshot, a_spec, a_trial
from tests.unit.controller_test import System

from tuning_api import space
from tuning_api.contract import Given
from tuning_api.status import Phase, Reason
from tuning_operator import decide
from tuning_operator.decide.points import budget, missing_entries
from tuning_operator.model import Snapshot, Trial, TrialState, Verdict

GOOD = {"learning_rate": 0.01, "hidden_dim": 8}
BETTER = {"learning_rate": 0.02}
GRID: dict[str, Any] = {
    "sampler": {"type": "grid"},
    "searchSpace": [
        {"name": "learning_rate", "type": "float", "low": 0.01, "high": 0.03, "step": 0.01},
        {"name": "hidden_dim", "type": "categorical", "choices": [8, 16]},
    ],
}


def of_entry(number: int, entry: dict[str, Any], state: str = "COMPLETE", **changes: Any) -> Trial:
    return a_trial(number, state, given=Given(entry=entry), fixed=entry, **changes)


def of_plan(number: int, state: str, *, plan: str, point: dict[str, Any] | None = None, **changes: Any) -> Trial:
    point = point or {"learning_rate": 0.01 * (1 + number // 2), "hidden_dim": (8, 16)[number % 2]}
    return a_trial(number, state, given=Given(plan=plan, number=number), fixed=point, params=point, **changes)


def plan_of(snapshot: Snapshot) -> str:
    spec = snapshot.spec
    return space.plan_id(spec.search_space, spec.resolved_sampler, study=snapshot.study.key.name) or ""


MISSING = {
    "at first all": ((), (GOOD, BETTER)),
    "none that was tried": ((of_entry(0, GOOD),), (BETTER,)),
    "none that waits or runs": ((of_entry(0, GOOD, "WAITING"), of_entry(1, BETTER, "RUNNING")), ()),
    "none that failed": ((of_entry(0, GOOD, "FAIL"),), (BETTER,)),
    "one that was withdrawn": ((of_entry(0, GOOD, "FAIL", cancelled=True),), (GOOD, BETTER)),
    "none that is continued": (
        (of_entry(0, GOOD, "FAIL", requeued="Crashed"), of_entry(1, GOOD, "WAITING", retry_of=0)),
        (BETTER,),
    ),
    "none that was written in another order": (
        (of_entry(0, {"hidden_dim": 8.0, "learning_rate": 0.01}),),
        (BETTER,),
    ),
    "one that a sampler drew by chance": ((a_trial(0, params=GOOD),), (GOOD, BETTER)),
}


@pytest.mark.parametrize(("rows", "expected"), MISSING.values(), ids=MISSING)
def test_known_good_points_are_tried_once(rows: tuple[Trial, ...], expected: tuple[dict[str, Any], ...]) -> None:
    """The rows say which were: also to another operator, and to a resource that was made anew."""
    assert missing_entries(a_snapshot(spec=a_spec(enqueue=[GOOD, BETTER]), trials=rows)) == expected


def test_a_point_that_is_listed_twice_is_tried_twice() -> None:
    """To see the noise."""
    snapshot = a_snapshot(spec=a_spec(enqueue=[GOOD, GOOD]), trials=(of_entry(0, GOOD),))
    assert missing_entries(snapshot) == (GOOD,)


def test_known_good_points_come_first_and_within_the_budget() -> None:
    """They are trials like any other."""
    plan = decide.plan(a_snapshot(spec=a_spec(enqueue=[GOOD, BETTER], parallelism=2))).trials
    assert (plan.enqueue, plan.add) == ((GOOD, BETTER), 2)
    plan = decide.plan(a_snapshot(spec=a_spec(enqueue=[GOOD, BETTER], maxTrials=1))).trials
    assert (plan.enqueue, plan.add) == ((GOOD,), 0)


def test_trials_that_wait_give_way_to_a_point_that_is_appended() -> None:
    """It takes a place in the next pass: a worker may have taken the trial in this one."""
    rows = tuple(a_trial(number, "WAITING") for number in range(4))
    plan = decide.plan(a_snapshot(spec=a_spec(enqueue=[GOOD], parallelism=2), trials=rows)).trials
    assert ([trial.number for trial in plan.cancel], plan.enqueue, plan.add) == ([3], (), 0)
    withdrawn = (*rows[:3], a_trial(3, "FAIL", cancelled=True))
    plan = decide.plan(a_snapshot(spec=a_spec(enqueue=[GOOD], parallelism=2), trials=withdrawn)).trials
    assert (plan.cancel, plan.enqueue, plan.add) == ((), (GOOD,), 0)


def test_a_point_that_is_removed_before_it_started_is_withdrawn() -> None:
    """And one that runs goes on."""
    rows = (of_entry(0, GOOD, "WAITING"), of_entry(1, BETTER, "RUNNING"))
    plan = decide.plan(a_snapshot(spec=a_spec(), trials=rows)).trials
    assert [trial.number for trial in plan.cancel] == [0]


def test_planned_trials_of_other_bounds_are_withdrawn_and_those_that_began_are_not() -> None:
    """Bounds that move take effect for trials that have not started; a continued trial has."""
    now = plan_of(a_snapshot(spec=a_spec(**GRID)))
    rows = (
        of_plan(0, "COMPLETE", plan="before"),
        of_plan(1, "WAITING", plan="before"),
        of_plan(2, "WAITING", plan=now),
        of_plan(3, "WAITING", plan="before", retry_of=9),
        a_trial(4, "WAITING"),
    )
    plan = decide.plan(a_snapshot(spec=a_spec(**GRID), trials=rows)).trials
    assert [trial.number for trial in plan.cancel] == [1, 4]


def test_a_sampler_that_learns_withdraws_planned_trials() -> None:
    """After a grid, say, the person goes on with tpe."""
    plan = decide.plan(a_snapshot(spec=a_spec(), trials=(of_plan(0, "WAITING", plan="grid"), a_trial(1, "WAITING"))))
    assert [trial.number for trial in plan.trials.cancel] == [0]


BUDGETS = {
    "the space when it is smaller": ({"maxTrials": 100}, 0, 6),
    "maxTrials when it is smaller": ({"maxTrials": 4}, 0, 4),
    "also when all has been tried": ({"maxTrials": 100}, 6, 6),
    "a point of the space is in it": ({"maxTrials": 100, "enqueue": [GOOD]}, 0, 6),
    "one that was tried by the grid is tried again": ({"maxTrials": 100, "enqueue": [GOOD]}, 6, 7),
    "one that leaves something open is in it, while there are points": (
        {"maxTrials": 100, "enqueue": [BETTER]},
        3,
        6,
    ),
}


@pytest.mark.parametrize(("changes", "tried", "expected"), BUDGETS.values(), ids=BUDGETS)
def test_a_space_with_an_end_bounds_the_budget(changes: dict[str, Any], tried: int, expected: int) -> None:
    """What the status shows as total, from the first pass on."""
    spec = a_spec(**GRID | changes)
    plan = plan_of(a_snapshot(spec=spec))
    rows = tuple(of_plan(number, "COMPLETE", plan=plan) for number in range(tried))
    assert budget(a_snapshot(spec=spec, trials=rows)) == expected


def test_what_is_shown_before_there_are_rows_is_the_same() -> None:
    """Progress bars have only the spec."""
    assert [a_spec(**GRID | {"maxTrials": number}).most_trials for number in (4, 100)] == [4, 6]
    assert a_spec(maxTrials=100).most_trials == 100


def test_an_exhausted_space_completes_the_study_and_says_so() -> None:
    """Not as a budget that was spent: it was not."""
    spec = a_spec(**GRID | {"maxTrials": 100})
    rows = tuple(of_plan(number, "COMPLETE", plan=plan_of(a_snapshot(spec=spec))) for number in range(6))
    outcome = decide.plan(a_snapshot(spec=spec, trials=rows)).outcome
    assert (outcome.verdict, outcome.reason) == (Verdict.COMPLETE, Reason.SEARCH_SPACE_EXHAUSTED)
    assert outcome.message == (
        "all points of the search space have been tried, in 6 trials of which 0 failed; maxTrials is 100: widen the space"
        " to go on"
    )
    wider = GRID["searchSpace"][0] | {"high": 0.04}
    again = a_spec(**GRID | {"maxTrials": 100, "searchSpace": [wider, GRID["searchSpace"][1]]})
    plan = decide.plan(a_snapshot(spec=again, trials=rows))
    assert (plan.outcome.verdict, plan.trials.add) == (Verdict.RUN, 2)


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(["grid", "bruteforce"]),
    max_trials=st.integers(1, 12),
    parallelism=st.integers(1, 4),
    entries=st.lists(st.sampled_from([GOOD, BETTER, {"learning_rate": 0.015}]), max_size=3),
    crashes=st.lists(st.integers(0, 12), max_size=8),
    data=st.data(),
)
def test_a_crash_at_any_line_repeats_no_point_and_leaves_none_out(  # noqa: PLR0917 - hypothesis gives them by name
    kind: str,
    max_trials: int,
    parallelism: int,
    entries: list[dict[str, Any]],
    crashes: list[int],
    data: st.DataObject,
) -> None:
    """The promise of the budget, for spaces with an end: each point once, those of enqueue as often as they are listed."""
    wide = GRID["searchSpace"][0] | {"step": 0.005}
    spec = a_spec(
        **GRID
        | {
            "sampler": {"type": kind},
            "searchSpace": [wide, GRID["searchSpace"][1]],
            "maxTrials": max_trials,
            "parallelism": parallelism,
            "enqueue": entries,
        }
    )
    system = System(spec)
    actions = st.sampled_from(["finish", "claim", "claim", "lose", "nothing"])
    for after in crashes:
        system.interrupted(after)
        system.work(lambda: data.draw(actions))
        assert system.ended() <= max_trials
    for _ in range(4 * max_trials + 8):
        system.reconcile()
        system.work(lambda: "claim")
        system.work(lambda: "finish")
    system.reconcile()
    ended = [trial for trial in system.studies.trials if trial.is_ended]
    covered = {space.identity(trial.fixed) for trial in ended if space.is_point(spec.search_space, trial.fixed)}
    assert len(ended) == max_trials or len(covered) == space.size(spec.search_space)
    assert system.executor.status.phase is Phase.COMPLETE
    counts = Counter(space.identity(trial.fixed) for trial in ended if trial.given and trial.given.entry is None)
    assert all(count == 1 for count in counts.values())
    tried = Counter(space.identity(trial.given.entry) for trial in ended if trial.given and trial.given.entry)
    listed = Counter(map(space.identity, entries))
    assert tried <= listed
    assert tried == listed or len(ended) == max_trials
    assert not [trial for trial in system.studies.trials if trial.state in {TrialState.RUNNING, TrialState.WAITING}]
