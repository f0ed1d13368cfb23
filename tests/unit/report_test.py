"""The status that people read, as a function of what was observed and decided."""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.support.builders import DIGITS_TRIAL, NOW, a_snapshot, a_spec, a_study, a_trial, a_worker, trials

from tuning_api.contract import Failure, FailureReason
from tuning_api.status import Condition, ConditionStatus, ConditionType, Phase, Reason, StudyStatus
from tuning_operator import decide
from tuning_operator.decide import report
from tuning_operator.model import Snapshot, Trial, Trouble, WorkerState

UNSCHEDULABLE = Trouble(Reason.POD_UNSCHEDULABLE, "pod digits-0-abc cannot be scheduled: 0/1 nodes: Insufficient GPU")


def status_of(snapshot: Snapshot, *, refusal: Trouble | None = None) -> StudyStatus:
    return report.status(snapshot, decide.plan(snapshot), charts=None, refusal=refusal)


def condition(status: StudyStatus, type_: ConditionType) -> Condition:
    found = status.condition(type_)
    assert found is not None, f"{type_} is missing"
    return found


def failures(count: int) -> tuple[Trial, ...]:
    failure = Failure(reason=FailureReason.ERROR, message="ValueError: hidden_dim must be divisible by heads")
    return tuple(a_trial(number, "FAIL", failure=failure) for number in range(count))


def misfits(count: int, *, first: int = 0) -> tuple[Trial, ...]:
    failure = Failure(reason=FailureReason.OUT_OF_MEMORY, message="CUDA out of memory")
    return tuple(a_trial(number, "FAIL", failure=failure) for number in range(first, first + count))


FAILS = a_spec(maxFailedTrials=3, trial=DIGITS_TRIAL | {"outOfMemory": "fail"})
SITUATIONS = {
    "before anything runs": (a_snapshot(), Phase.PENDING, Reason.STARTING, "0 of 10 trials done, 0 workers running"),
    "while trials run": (
        a_snapshot(trials=trials("COMPLETE", "PRUNED", "RUNNING"), workers=(a_worker(owners=("pod-2",)),)),
        Phase.RUNNING,
        Reason.TRIALS_RUNNING,
        "2 of 10 trials done, 1 worker running",
    ),
    "when the budget is spent": (
        a_snapshot(spec=a_spec(maxTrials=2), trials=trials("COMPLETE", "PRUNED")),
        Phase.COMPLETE,
        Reason.ENDED,
        "2 of 2 trials done: 1 complete, 1 pruned, 0 failed",
    ),
    "when suspended": (
        a_snapshot(spec=a_spec(suspend=True), trials=trials("COMPLETE")),
        Phase.SUSPENDED,
        Reason.SUSPENDED,
        "1 of 10 trials done, suspended",
    ),
    "when no node fits": (
        a_snapshot(workers=(a_worker(running=False, trouble=UNSCHEDULABLE),)),
        Phase.PENDING,
        Reason.POD_UNSCHEDULABLE,
        UNSCHEDULABLE.message,
    ),
    "when one of two workers has no node, the study still advances": (
        a_snapshot(workers=(a_worker(0), a_worker(1, running=False, trouble=UNSCHEDULABLE))),
        Phase.RUNNING,
        Reason.TRIALS_RUNNING,
        "0 of 10 trials done, 1 worker running",
    ),
    "when the last trials failed": (
        a_snapshot(trials=failures(3)),
        Phase.RUNNING,
        Reason.TRIALS_FAILING,
        "the last 3 trials failed; the last: trial 2: Error: ValueError: hidden_dim must be divisible by heads",
    ),
    "when too many trials failed": (
        a_snapshot(spec=a_spec(maxFailedTrials=3), trials=failures(3)),
        Phase.FAILED,
        Reason.TRIALS_FAILING,
        (
            "3 trials have failed and maxFailedTrials is 3;"
            " the last: trial 2: Error: ValueError: hidden_dim must be divisible by heads"
        ),
    ),
    "when some parameters do not fit": (
        a_snapshot(spec=a_spec(maxFailedTrials=3), trials=(a_trial(0), *misfits(4, first=1))),
        Phase.RUNNING,
        Reason.TRIALS_RUNNING,
        "5 of 10 trials done, 0 workers running",
    ),
    "when no parameters have fitted yet": (
        a_snapshot(spec=a_spec(maxFailedTrials=3), trials=misfits(4)),
        Phase.RUNNING,
        Reason.TRIALS_FAILING,
        "the last 4 trials failed; the last: trial 3: OutOfMemory: CUDA out of memory",
    ),
    "when no parameters fit at all": (
        a_snapshot(spec=a_spec(maxTrials=4), trials=misfits(4)),
        Phase.FAILED,
        Reason.TRIALS_FAILING,
        "all 4 trials have failed; the last: trial 3: OutOfMemory: CUDA out of memory",
    ),
    "when what does not fit is a failure": (
        a_snapshot(spec=FAILS, trials=(a_trial(0), *misfits(3, first=1))),
        Phase.FAILED,
        Reason.TRIALS_FAILING,
        "3 trials have failed and maxFailedTrials is 3; the last: trial 3: OutOfMemory: CUDA out of memory",
    ),
    "when the budget is spent, and some did not fit": (
        a_snapshot(spec=a_spec(maxTrials=3), trials=(a_trial(0), *misfits(2, first=1))),
        Phase.COMPLETE,
        Reason.ENDED,
        "3 of 3 trials done: 1 complete, 0 pruned, 2 failed (2 out of memory)",
    ),
    "when nobody wants workers": (
        a_snapshot(spec=a_spec(parallelism=0)),
        Phase.PENDING,
        Reason.NO_WORKERS_WANTED,
        "spec.parallelism is 0: raise it to go on",
    ),
}


@pytest.mark.parametrize(("snapshot", "phase", "reason", "message"), SITUATIONS.values(), ids=SITUATIONS)
def test_the_status_says_in_one_sentence_where_the_study_is(
    snapshot: Snapshot, phase: Phase, reason: Reason, message: str
) -> None:
    """Phase, the reason of Progressing and the message agree."""
    status = status_of(snapshot)
    assert (phase, reason, message) == (
        status.phase,
        condition(status, ConditionType.PROGRESSING).reason,
        status.message,
    )


@pytest.mark.parametrize("snapshot", [case[0] for case in SITUATIONS.values()], ids=SITUATIONS)
def test_every_condition_is_always_present_with_its_generation(snapshot: Snapshot) -> None:
    """A kstatus reader takes a missing condition or generation for 'done'."""
    status = status_of(snapshot)
    assert set(ConditionType) == {item.type for item in status.conditions or []}
    assert {1, status.observed_generation} == {item.observed_generation for item in status.conditions or []} | {1}
    assert condition(status, ConditionType.READY).status is ConditionStatus.TRUE


def test_what_the_api_server_refused_is_said() -> None:
    """A quota that refuses Jobs must not look like a study that is starting."""
    refusal = Trouble(Reason.QUOTA_EXCEEDED, "a worker cannot be created: exceeded quota: team-a")
    progressing = condition(status_of(a_snapshot(), refusal=refusal), ConditionType.PROGRESSING)
    assert (progressing.status, progressing.reason) == (ConditionStatus.FALSE, Reason.QUOTA_EXCEEDED)


def test_an_invalid_spec_keeps_what_was_known() -> None:
    """An edit that is refused must not wipe the best parameters."""
    known = status_of(a_snapshot(trials=trials("COMPLETE")))
    study = a_study(status=known, generation=2)
    status = report.status_of_fault(study, Trouble(Reason.INVALID_SPEC, "spec.sampler.type grid"), charts=None, now=NOW)
    assert (known.best, 2) == (status.best, status.observed_generation)
    assert condition(status, ConditionType.READY).reason is Reason.INVALID_SPEC


@pytest.mark.parametrize(
    ("generation", "phase", "complete"),
    [(1, Phase.COMPLETE, ConditionStatus.TRUE), (2, Phase.PENDING, ConditionStatus.UNKNOWN)],
    ids=["the same spec", "a spec that was changed meanwhile"],
)
def test_a_study_that_ended_and_is_changed_while_the_database_is_away_is_not_called_complete(
    generation: int, phase: Phase, complete: ConditionStatus
) -> None:
    """`kubectl wait` would end at once after maxTrials was raised."""
    spent = trials(*["COMPLETE"] * a_spec().max_trials)
    study = a_study(status=status_of(a_snapshot(trials=spent)), generation=generation)
    status = report.status_of_fault(
        study, Trouble(Reason.DATABASE_UNAVAILABLE, "connection refused"), charts=None, now=NOW
    )
    assert (status.phase, condition(status, ConditionType.COMPLETE).status) == (phase, complete)


def test_a_database_that_is_away_does_not_take_back_ready() -> None:
    """Flux and Argo CD would roll back a study that only waits."""
    study = a_study(status=status_of(a_snapshot()))
    status = report.status_of_fault(
        study, Trouble(Reason.DATABASE_UNAVAILABLE, "connection refused"), charts=None, now=NOW
    )
    assert condition(status, ConditionType.READY).status is ConditionStatus.TRUE
    assert condition(status, ConditionType.PROGRESSING).reason is Reason.DATABASE_UNAVAILABLE


def test_the_transition_time_moves_with_the_status_only() -> None:
    """A new message is not a transition (Kubernetes API conventions)."""
    first = status_of(a_snapshot())
    study = a_study(status=first)
    later = NOW + timedelta(minutes=1)
    second = status_of(replace(a_snapshot(study=study, trials=trials("COMPLETE")), now=later))
    moved = {
        item.type
        for item in second.conditions or []
        if item.last_transition_time != condition(first, item.type).last_transition_time
    }
    assert set() == moved


def test_the_best_trial_follows_the_direction() -> None:
    """Of equals the first wins, and only complete trials count."""
    rows = (
        a_trial(0, values=(0.7,)),
        a_trial(1, values=(0.2,)),
        a_trial(2, "PRUNED", values=(0.9,)),
        a_trial(3, values=(0.7,)),
    )
    maximize = status_of(a_snapshot(trials=rows)).best
    minimize = status_of(
        a_snapshot(spec=a_spec(objectives=[{"metric": "val_loss", "direction": "minimize"}]), trials=rows)
    ).best
    assert (maximize and maximize.trial, minimize and minimize.trial) == (0, 1)


def test_epochs_saved_are_those_that_pruned_trials_did_not_run() -> None:
    """What pruning is worth, in the unit that costs."""
    rows = (
        a_trial(0, epochs=20, max_epochs=20),
        a_trial(1, "PRUNED", epochs=11, max_epochs=20),
        a_trial(2, "FAIL", epochs=3, max_epochs=20),
    )
    status = status_of(a_snapshot(trials=rows))
    assert (status.epochs_run, status.epochs_saved_by_pruning) == (34, 9)


def test_epochs_of_a_running_trial_alone_are_no_change() -> None:
    """Else a study of long trials would be written as often as its pace allows."""
    first = status_of(a_snapshot(trials=(a_trial(0, "RUNNING", epochs=1, max_epochs=90),)))
    later = status_of(a_snapshot(study=a_study(status=first), trials=(a_trial(0, "RUNNING", epochs=2, max_epochs=90),)))
    assert (first.epochs_run, later.epochs_run) == (1, 2)
    assert not report.differs(later, first)


def test_the_passing_of_time_alone_is_no_change() -> None:
    """Nothing is written when nothing changed."""
    first = status_of(a_snapshot(trials=trials("RUNNING"), workers=(a_worker(owners=("pod-0",)),)))
    later = status_of(
        a_snapshot(
            study=a_study(status=first),
            trials=trials("RUNNING"),
            workers=(a_worker(owners=("pod-0",)),),
            now=NOW + timedelta(seconds=30),
        )
    )
    assert first.elapsed_seconds != later.elapsed_seconds
    assert not report.differs(later, first)


def test_counts_are_not_urgent_and_verdicts_are() -> None:
    """Counts may wait for the next write; a person waits for a verdict."""
    running = status_of(a_snapshot(trials=trials("COMPLETE", "RUNNING"), workers=(a_worker(owners=("pod-1",)),)))
    further = status_of(a_snapshot(trials=trials("COMPLETE", "COMPLETE"), workers=(a_worker(),)))
    stuck = status_of(a_snapshot(trials=trials("COMPLETE"), workers=(a_worker(running=False, trouble=UNSCHEDULABLE),)))
    assert (report.is_urgent(further, running), report.is_urgent(stuck, running)) == (False, True)


def test_the_last_worker_of_a_study_that_ended_is_not_left_in_its_status() -> None:
    """No later pass would write it: nothing looks at a study that ended but the events of its Jobs."""
    ended = trials(*["COMPLETE"] * a_spec().max_trials)
    with_worker = status_of(a_snapshot(trials=ended, workers=(a_worker(),)))
    without = status_of(a_snapshot(trials=ended, workers=()))
    assert (with_worker.workers, without.workers) == (1, 0)
    assert report.is_urgent(without, with_worker)


def test_a_status_survives_being_written_and_read() -> None:
    """The next pass compares with what the API server stored."""
    status = status_of(a_snapshot(trials=trials("COMPLETE", "RUNNING"), workers=(a_worker(state=WorkerState.ACTIVE),)))
    assert status == StudyStatus.model_validate(status.to_document())


KEPT = {
    "a claim": ({"persistentVolumeClaim": "ckpts", "keep": 2}, "pvc://ckpts/digits/trial-1.final-1.ckpt"),
    "a folder": ({"uri": "file:///data/", "keep": 2}, "file:///data/digits/trial-1.final-1.ckpt"),
    "a bucket": ({"uri": "s3://bucket/prefix/", "keep": 2}, "s3://bucket/prefix/digits/trial-1.final-1.ckpt"),
    "nothing is kept": ({"persistentVolumeClaim": "ckpts"}, None),
}


@pytest.mark.parametrize(("checkpoints", "expected"), KEPT.values(), ids=KEPT)
def test_the_best_trial_says_where_its_checkpoint_is(checkpoints: dict[str, Any], expected: str | None) -> None:
    """As a URI; and only while it is kept."""
    spec = a_spec(trial=DIGITS_TRIAL | {"checkpoints": checkpoints})
    best = a_trial(1, values=(0.9,), checkpoint="digits/trial-1.final-1.ckpt")
    status = status_of(a_snapshot(spec=spec, trials=(a_trial(0), best)))
    assert status.best is not None
    assert (status.best.trial, status.best.checkpoint) == (1, expected)


ESCAPE = "\x1b]0;owned\x07 \u202e"


def test_no_text_of_a_status_moves_a_terminals_cursor_or_fills_it() -> None:
    """Whoever prints a field alone, as `kubectl get -o jsonpath` does, prints what tenants have written."""
    rows = (a_trial(0, params={ESCAPE: ESCAPE * 100, "plain": 5}, checkpoint=ESCAPE),)
    failed = a_trial(1, "FAIL", failure=Failure(reason=FailureReason.ERROR, message=ESCAPE * 10_000))
    spec = a_spec(
        maxFailedTrials=1, trial={"lightning": a_spec().trial.lightning, "checkpoints": {"uri": "s3://a/b", "keep": 1}}
    )
    snapshot = a_snapshot(spec=spec, trials=(*rows, failed))
    snapshot = replace(snapshot, record=replace(snapshot.record, importances={ESCAPE: 1.0}))
    status = report.status(snapshot, decide.plan(snapshot), charts=None)
    texts = json.dumps(status.to_document(), ensure_ascii=False)
    assert not set(texts) & set(ESCAPE) - set("]0;owned ")
    assert len(texts) < 50_000
    assert status.best is not None
    assert status.best.params["plain"] == 5
    assert StudyStatus.model_validate(status.to_document()) == status, "or it would be written again and again"


def test_a_fault_is_as_readable() -> None:
    """It quotes the spec."""
    trouble = Trouble(Reason.INVALID_SPEC, ESCAPE * 10_000)
    status = report.status_of_fault(a_study(), trouble, charts=None, now=NOW)
    texts = json.dumps(status.to_document(), ensure_ascii=False)
    assert not set(texts) & set(ESCAPE) - set("]0;owned ")
    assert len(texts) < 50_000


def test_what_does_not_fit_is_counted_as_infeasible() -> None:
    """Beside complete trials that break a constraint; the best is looked for among the others."""
    rows = (a_trial(0), a_trial(1, is_feasible=False), *misfits(2, first=2), *failures(1))
    counts = status_of(a_snapshot(trials=rows)).trials
    assert counts is not None
    assert (counts.infeasible, counts.failed, counts.finished) == (3, 3, 5)
    counts = status_of(a_snapshot(spec=FAILS, trials=rows[:4])).trials
    assert counts is not None
    assert counts.infeasible == 1
