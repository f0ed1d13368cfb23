"""The decisions: budgets, workers, endings. Each case is a situation and what must follow from it."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.builders import NOW, a_snapshot, a_spec, a_trial, a_worker, trials
from tests.support.wait import within

from tuning_api.contract import Failure, FailureReason
from tuning_api.status import Reason
from tuning_operator import decide
from tuning_operator.decide.budget import ended
from tuning_operator.model import Clock, Ending, Snapshot, Trial, TrialState, Trouble, Verdict, Worker, WorkerState

AN_ERROR = Failure(reason=FailureReason.ERROR, message="ValueError: no")


def failed(number: int) -> Trial:
    return a_trial(number, "FAIL", failure=AN_ERROR)


def lost(number: int, because: Ending = Ending.INTERRUPTED) -> Trial:
    return a_trial(number, "FAIL", requeued=str(because))


VERDICTS = {
    "a new study runs": (a_snapshot(), Verdict.RUN, Reason.TRIALS_RUNNING),
    "a spent budget completes": (
        a_snapshot(spec=a_spec(maxTrials=2), trials=trials("COMPLETE", "PRUNED")),
        Verdict.COMPLETE,
        Reason.BUDGET_SPENT,
    ),
    "a lost trial does not count as ended": (
        a_snapshot(spec=a_spec(maxTrials=2), trials=(a_trial(0), lost(1))),
        Verdict.RUN,
        Reason.TRIALS_RUNNING,
    ),
    "a cancelled trial does not count as ended": (
        a_snapshot(spec=a_spec(maxTrials=2), trials=(a_trial(0), a_trial(1, "FAIL", cancelled=True))),
        Verdict.RUN,
        Reason.TRIALS_RUNNING,
    ),
    "too many failures fail the study": (
        a_snapshot(spec=a_spec(maxFailedTrials=2), trials=(failed(0), failed(1))),
        Verdict.FAIL,
        Reason.TOO_MANY_FAILED_TRIALS,
    ),
    "a budget spent on failures alone is a failure": (
        a_snapshot(spec=a_spec(maxTrials=2, maxFailedTrials=10), trials=(failed(0), failed(1))),
        Verdict.FAIL,
        Reason.TOO_MANY_FAILED_TRIALS,
    ),
    "a last failure does not spoil a spent budget": (
        a_snapshot(spec=a_spec(maxTrials=2, maxFailedTrials=1), trials=(a_trial(0), failed(1))),
        Verdict.COMPLETE,
        Reason.BUDGET_SPENT,
    ),
    "a timeout completes": (
        a_snapshot(spec=a_spec(timeout="5m"), clock=Clock(0, NOW - timedelta(minutes=5))),
        Verdict.COMPLETE,
        Reason.TIMED_OUT,
    ),
    "time before a suspension counts": (
        a_snapshot(spec=a_spec(timeout="5m"), clock=Clock(200, NOW - timedelta(seconds=100))),
        Verdict.COMPLETE,
        Reason.TIMED_OUT,
    ),
    "a suspended clock stands still": (
        a_snapshot(spec=a_spec(timeout="5m", suspend=True), clock=Clock(299, None)),
        Verdict.SUSPEND,
        Reason.SUSPENDED,
    ),
    "a complete study stays complete when suspended": (
        a_snapshot(spec=a_spec(maxTrials=1, suspend=True), trials=trials("COMPLETE")),
        Verdict.COMPLETE,
        Reason.BUDGET_SPENT,
    ),
    "raising maxTrials goes on": (
        a_snapshot(spec=a_spec(maxTrials=3), trials=trials("COMPLETE", "PRUNED")),
        Verdict.RUN,
        Reason.TRIALS_RUNNING,
    ),
}


@pytest.mark.parametrize(("snapshot", "verdict", "reason"), VERDICTS.values(), ids=VERDICTS)
def test_verdict(snapshot: Snapshot, verdict: Verdict, reason: Reason) -> None:
    """The first reason to stop wins, and none is forgotten."""
    outcome = decide.plan(snapshot).outcome
    assert (verdict, reason) == (outcome.verdict, outcome.reason)


def lasting(number: int, seconds: float) -> Trial:
    """A trial that is complete, and took so long."""
    return a_trial(number, started=NOW, ended=NOW + timedelta(seconds=seconds))


BUFFERS = {
    "two for each worker": (a_spec(maxTrials=100, parallelism=4), (), 8),
    "never more than the budget": (a_spec(maxTrials=3, parallelism=4), (), 3),
    "running trials take their share of the budget": (
        a_spec(maxTrials=4, parallelism=2),
        trials("RUNNING", "RUNNING", "COMPLETE"),
        1,
    ),
    "waiting trials are not added again": (a_spec(maxTrials=100, parallelism=2), trials("WAITING", "WAITING"), 2),
    "at most 256": (a_spec(maxTrials=1000, parallelism=300), (), 256),
    "as many as last for ten seconds": (
        a_spec(maxTrials=1000, parallelism=2, maxFailedTrials=100),
        tuple(lasting(number, 1.0) for number in range(3)),
        20,
    ),
    "by the median, whichever trials were pruned early": (
        a_spec(maxTrials=1000, parallelism=2, maxFailedTrials=100),
        (lasting(0, 1.0), lasting(1, 60.0), lasting(2, 60.0)),
        4,
    ),
    "by the latest, when parameters that take long were left behind": (
        a_spec(maxTrials=1000, parallelism=2, maxFailedTrials=100),
        (*(lasting(number, 60.0) for number in range(30)), *(lasting(number, 0.5) for number in range(30, 50))),
        40,
    ),
    "trials that take no time ask for no more than 256": (
        a_spec(maxTrials=1000, parallelism=2, maxFailedTrials=1000),
        (lasting(0, 0.0),),
        256,
    ),
    "trials that fail at once ask for none": (
        a_spec(maxTrials=1000, parallelism=2, maxFailedTrials=100),
        (replace(lasting(0, 0.0), state=TrialState.FAIL),),
        4,
    ),
    "no more on their way than may still fail": (
        a_spec(maxTrials=100, parallelism=1, maxFailedTrials=3),
        (failed(0), failed(1)),
        1,
    ),
    "but enough for every worker": (a_spec(maxTrials=100, parallelism=4, maxFailedTrials=2), (failed(0),), 4),
    "none without workers": (a_spec(parallelism=0), (), 0),
    "none for a suspended study": (a_spec(suspend=True), (), 0),
}


@pytest.mark.parametrize(("spec", "rows", "added"), BUFFERS.values(), ids=BUFFERS)
def test_trials_added(spec: object, rows: tuple[Trial, ...], added: int) -> None:
    """The buffer is small, and the budget is never exceeded."""
    owners = tuple(f"pod-{trial.number}" for trial in rows)
    snapshot = a_snapshot(spec=spec, trials=rows, workers=(a_worker(owners=owners),))  # type: ignore[arg-type]
    assert added == decide.plan(snapshot).trials.add


def test_a_trial_whose_owner_is_gone_is_queued_again() -> None:
    """Kill anything: the trial goes on elsewhere."""
    rows = trials("RUNNING", "RUNNING")
    plan = decide.plan(a_snapshot(trials=rows, workers=(a_worker(owners=("pod-0",)),)))
    assert [item.trial.number for item in plan.trials.requeue] == [1]


def test_a_stopping_worker_still_owns_its_trial() -> None:
    """During its grace period a worker may write; failing its trial then would waste the result."""
    worker = a_worker(owners=("pod-0",), stopping=True)
    assert decide.plan(a_snapshot(trials=trials("RUNNING"), workers=(worker,))).trials.requeue == ()


def test_a_crash_between_failing_and_continuing_is_repaired() -> None:
    """A lost trial without a successor is owed one, exactly once."""
    owed = decide.plan(a_snapshot(trials=(lost(0),))).trials.successors
    repaired = decide.plan(a_snapshot(trials=(lost(0), a_trial(1, "WAITING", retry_of=0)))).trials.successors
    assert ([trial.number for trial in owed], repaired) == ([0], ())


def test_a_trial_that_crashes_three_workers_fails() -> None:
    """Interruptions are free, crashes are not."""
    rows = (
        lost(0, Ending.CRASHED),
        a_trial(1, "FAIL", retry_of=0, requeued=str(Ending.INTERRUPTED)),
        a_trial(2, "FAIL", retry_of=1, requeued=str(Ending.CRASHED)),
        a_trial(3, "RUNNING", retry_of=2),
    )
    crashed = a_worker(state=WorkerState.FAILED, running=False, endings={"pod-3": Ending.CRASHED})
    plan = decide.plan(a_snapshot(trials=rows, workers=(crashed,))).trials
    assert [item.failure.reason for item in plan.abandon] == [FailureReason.WORKER_LOST]


@pytest.mark.parametrize("continued", [(0,), (1, 0)], ids=["itself", "each other"])
def test_trials_that_say_to_continue_each_other_have_an_end(continued: tuple[int, ...]) -> None:
    """User code may write any attribute of its trial."""
    rows = tuple(a_trial(number, "RUNNING", retry_of=other) for number, other in enumerate(continued))
    endings = {f"pod-{number}": Ending.CRASHED for number in range(len(rows))}
    crashed = a_worker(state=WorkerState.FAILED, running=False, endings=endings)
    with within(5):
        plan = decide.plan(a_snapshot(trials=rows, workers=(crashed,))).trials
    assert len(plan.requeue) == len(rows)


def test_a_trial_that_ran_out_of_memory_is_not_tried_again() -> None:
    """The same parameters would be killed again."""
    killed = a_worker(state=WorkerState.FAILED, running=False, endings={"pod-0": Ending.OUT_OF_MEMORY})
    plan = decide.plan(a_snapshot(trials=trials("RUNNING"), workers=(killed,))).trials
    assert [item.failure.reason for item in plan.abandon] == [FailureReason.OUT_OF_MEMORY]


def test_lowering_the_budget_withdraws_the_newest_waiting_trials_first() -> None:
    """Trials that continue others are kept the longest: work was already spent on them."""
    rows = (a_trial(0), a_trial(1, "WAITING", retry_of=9), a_trial(2, "WAITING"), a_trial(3, "WAITING"))
    plan = decide.plan(a_snapshot(spec=a_spec(maxTrials=3), trials=rows)).trials
    assert [trial.number for trial in plan.cancel] == [3]


WORKERS = {
    "as many as parallelism": (a_spec(parallelism=3), (), (), (0, 1, 2), ()),
    "no more than trials that are left": (a_spec(parallelism=3, maxTrials=1), (), (), (0,), ()),
    "indices go on": (a_spec(parallelism=2), (), (a_worker(4),), (5,), ()),
    "idle workers are not stopped, they end by themselves": (
        a_spec(parallelism=2, maxTrials=2),
        trials("COMPLETE", "RUNNING"),
        (a_worker(0, owners=("pod-1",)), a_worker(1)),
        (),
        (),
    ),
    "scaling down stops the idle ones first": (
        a_spec(parallelism=1),
        trials("RUNNING"),
        (a_worker(0), a_worker(1, owners=("pod-0",))),
        (),
        ("digits-0",),
    ),
    "suspending stops all": (a_spec(suspend=True), (), (a_worker(0), a_worker(1)), (), ("digits-0", "digits-1")),
    "a stopping worker is not stopped again": (a_spec(suspend=True), (), (a_worker(0, stopping=True),), (), ()),
    "a complete study stops workers that never started": (
        a_spec(maxTrials=1),
        trials("COMPLETE"),
        (a_worker(0), a_worker(1, running=False)),
        (),
        ("digits-1",),
    ),
    "a complete study leaves a worker whose pod has just ended": (
        a_spec(maxTrials=1),
        trials("COMPLETE"),
        (a_worker(0, running=False, endings={"pod-0": Ending.INTERRUPTED}),),
        (),
        (),
    ),
    "a finished worker is replaced while trials wait": (
        a_spec(parallelism=1),
        trials("WAITING"),
        (a_worker(0, state=WorkerState.SUCCEEDED, running=False),),
        (1,),
        (),
    ),
}


@pytest.mark.parametrize(("spec", "rows", "workers", "start", "stop"), WORKERS.values(), ids=WORKERS)
def test_workers(spec: object, rows: object, workers: object, start: tuple[int, ...], stop: tuple[str, ...]) -> None:
    """A slot is a Job; wanted are as many as there are trials to claim."""
    plan = decide.plan(a_snapshot(spec=spec, trials=rows, workers=workers)).workers  # type: ignore[arg-type]
    assert (start, stop) == (plan.start, plan.stop)


def _that_failed(*seconds_ago: int) -> tuple[Worker, ...]:
    trouble = Trouble(Reason.WORKERS_FAILING, "exit code 1: no module named torch")
    return tuple(
        a_worker(
            index,
            state=WorkerState.FAILED,
            running=False,
            trouble=trouble,
            ended=NOW - timedelta(seconds=seconds),
        )
        for index, seconds in enumerate(seconds_ago)
    )


@pytest.mark.parametrize(
    ("failures", "seconds_ago", "starts"),
    [(1, 5, False), (1, 11, True), (3, 39, False), (3, 41, True), (20, 299, False), (60, 299, False), (60, 301, True)],
)
def test_failing_workers_are_replaced_ever_more_slowly(failures: int, seconds_ago: int, starts: bool) -> None:  # noqa: FBT001
    """A broken image costs a Job each five minutes at worst, never a hot loop; also after a night of it."""
    workers = _that_failed(*(seconds_ago + 10 * (failures - 1 - index) for index in range(failures)))
    plan = decide.plan(a_snapshot(spec=a_spec(parallelism=1), workers=workers)).workers
    assert starts == bool(plan.start)
    assert starts or (plan.postponed is not None and "no module named torch" in plan.postponed.message)


def test_workers_that_fail_together_count_once() -> None:
    """A lost node takes all of its workers: eight that ended at once would else keep a study waiting for five minutes."""
    workers = _that_failed(*(11 + index // 4 for index in range(8)))
    assert len(decide.plan(a_snapshot(spec=a_spec(parallelism=8, maxTrials=8), workers=workers)).workers.start) == 8


STATES = st.sampled_from(["WAITING", "RUNNING", "COMPLETE", "PRUNED", "FAIL", "LOST", "CANCELLED", "ORPHAN"])


def _row(number: int, kind: str) -> Trial:
    if kind == "LOST":
        return lost(number)
    if kind == "CANCELLED":
        return a_trial(number, "FAIL", cancelled=True)
    if kind == "ORPHAN":
        return a_trial(number, "RUNNING", owner=None)
    return failed(number) if kind == "FAIL" else a_trial(number, kind)


@given(st.lists(STATES, max_size=40), st.integers(1, 40), st.integers(0, 10), st.booleans())
def test_no_plan_can_exceed_the_budget(kinds: list[str], budget: int, parallelism: int, suspend: bool) -> None:  # noqa: FBT001
    """Whatever the rows are: what has ended and what still may end never exceed maxTrials, unless they did before."""
    rows = tuple(_row(number, kind) for number, kind in enumerate(kinds))
    owners = tuple(f"pod-{row.number}" for row in rows if row.owner)
    spec = a_spec(maxTrials=budget, parallelism=parallelism, suspend=suspend, maxFailedTrials=1000)
    plan = decide.plan(a_snapshot(spec=spec, trials=rows, workers=(a_worker(owners=owners),)))
    trials_plan = plan.trials
    waiting = sum(row.state is TrialState.WAITING for row in rows)
    running = sum(row.state is TrialState.RUNNING for row in rows)
    bound = ended(rows) + running + len(trials_plan.successors)
    after = bound + waiting - len(trials_plan.cancel) + trials_plan.add
    assert after <= max(budget, bound)
    assert trials_plan.add == 0 or plan.outcome.verdict is Verdict.RUN


@given(st.lists(STATES, max_size=30), st.integers(1, 30))
def test_a_plan_that_was_carried_out_is_not_planned_again(kinds: list[str], budget: int) -> None:
    """A crash after any step, or a second pass at once, changes nothing: decisions are functions of the rows."""
    rows = [_row(number, kind) for number, kind in enumerate(kinds)]
    spec = a_spec(maxTrials=budget, maxFailedTrials=1000)
    first = decide.plan(a_snapshot(spec=spec, trials=tuple(rows))).trials
    cancelled = {trial.number for trial in first.cancel}
    requeued = {item.trial.number for item in first.requeue}
    for number, row in enumerate(rows):
        if number in cancelled:
            rows[number] = a_trial(number, "FAIL", cancelled=True)
        if number in requeued:
            rows[number] = lost(row.number)
    for continued in (*sorted(requeued), *(trial.number for trial in first.successors)):
        rows.append(a_trial(len(rows), "WAITING", retry_of=continued))
    for _ in range(first.add):
        rows.append(a_trial(len(rows), "WAITING"))
    second = decide.plan(a_snapshot(spec=spec, trials=tuple(rows))).trials
    assert (second.add, second.requeue, second.successors) == (0, (), ())
