"""The trials: how many may still be created, which have lost their worker, which are too many.

The budget is a function of the rows alone: trials that ended and were not continued by another one. So it survives any
crash, and counting it again gives the same number.
"""

import math
from statistics import median

from tuning_api.contract import Failure, FailureReason
from tuning_operator.decide.points import budget, missing_entries, outdated
from tuning_operator.model import (
    Abandon,
    Ending,
    Outcome,
    Requeue,
    Snapshot,
    Trial,
    TrialsPlan,
    TrialState,
    Verdict,
    Worker,
)

LARGEST_BUFFER = 256
"""Waiting rows cost each worker before each trial, 9 ms for so many, so the whole budget is never added at once. Trials that do
nothing are claimed at some 20 a second by four workers on two cores."""
BUFFER_PER_WORKER = 2
SECONDS_AHEAD = 10
"""Waiting trials should last for two passes of the controller, or short trials are over before anybody adds new ones."""
_LATEST = 20
_SHORTEST_SECONDS = 0.001
CRASHES_PER_TRIAL = 3
"""A trial whose worker crashes this often fails; interruptions do not count."""


def ended(trials: tuple[Trial, ...]) -> int:
    """Trials that count against the budget for good."""
    return sum(trial.is_ended for trial in trials)


def failures(snapshot: Snapshot) -> tuple[Trial, ...]:
    """Trials that count against maxFailedTrials."""
    failed = (trial for trial in snapshot.record.trials if trial.is_ended and trial.state is TrialState.FAIL)
    return tuple(trial for trial in failed if not is_misfit(snapshot, trial))


def is_misfit(snapshot: Snapshot, trial: Trial) -> bool:
    """Whether a trial is infeasible since it ran out of memory: a result, and no fault of the study."""
    return trial.is_ended and trial.ran_out_of_memory and snapshot.spec.trial.learns_what_fits


def in_state(trials: tuple[Trial, ...], state: TrialState) -> tuple[Trial, ...]:
    """The trials of a state."""
    return tuple(trial for trial in trials if trial.state is state)


def plan_trials(snapshot: Snapshot, outcome: Outcome) -> TrialsPlan:
    """Decide what happens to the rows of a study."""
    trials = snapshot.record.trials
    abandon, requeue = _lost(snapshot)
    owed = _owed_successors(trials)
    waiting = in_state(trials, TrialState.WAITING)
    running = len(in_state(trials, TrialState.RUNNING)) - len(abandon) - len(requeue)
    room = budget(snapshot) - ended(trials) - len(abandon) - running - len(requeue) - len(owed)
    runs = outcome.verdict is Verdict.RUN
    free = _free(snapshot, waiting=len(waiting), running=running, room=room) if runs else 0
    entries = missing_entries(snapshot) if runs else ()
    return TrialsPlan(
        cancel=_withdrawn(snapshot, surplus=len(waiting) - max(0, room), wanted=len(entries) - free),
        abandon=abandon,
        requeue=requeue,
        successors=owed,
        enqueue=entries[:free],
        add=max(0, free - len(entries)),
    )


def _free(snapshot: Snapshot, *, waiting: int, running: int, room: int) -> int:
    """How many waiting trials may be added.

    No more are on their way than may still fail: a broken model fails trials faster than anybody looks, and a study that
    stops at three failures should have three. Workers are not idled for it, so trials that already run may add theirs.
    """
    spec = snapshot.spec
    may_fail = spec.max_failed_trials - len(failures(snapshot))
    on_their_way = max(spec.parallelism, may_fail) - running
    return max(0, min(buffer(snapshot), room, on_their_way) - waiting)


def buffer(snapshot: Snapshot) -> int:
    """How many trials should wait, by how long the latest took that ended well; failed ones may be a broken model's."""
    latest = lengths(snapshot.record.trials)[-_LATEST:]
    seconds = max(median(latest), _SHORTEST_SECONDS) if latest else math.inf
    per_worker = max(BUFFER_PER_WORKER, SECONDS_AHEAD / seconds)
    return min(LARGEST_BUFFER, math.ceil(per_worker * snapshot.spec.parallelism))


def lengths(trials: tuple[Trial, ...]) -> list[float]:
    """Seconds that the trials took that ended well."""
    return [
        (trial.ended - trial.started).total_seconds()
        for trial in trials
        if trial.state in {TrialState.COMPLETE, TrialState.PRUNED} and trial.started and trial.ended
    ]


def _withdrawn(snapshot: Snapshot, *, surplus: int, wanted: int) -> tuple[Trial, ...]:
    """Waiting trials that are no longer asked for, too many, or in the way of an entry of spec.enqueue.

    Nothing is added in their place in this pass: a worker may be faster, and then there would be one too many.
    """
    gone = outdated(snapshot.spec, snapshot.record.trials, study=snapshot.study.key.name)
    others = _least_wanted(
        tuple(trial for trial in in_state(snapshot.record.trials, TrialState.WAITING) if trial not in gone)
    )
    in_the_way = sum(not _is_wanted_first(trial) for trial in others)
    return gone + others[: max(0, surplus - len(gone), min(wanted, in_the_way))]


def _least_wanted(waiting: tuple[Trial, ...]) -> tuple[Trial, ...]:
    """The newest first, then those of spec.enqueue, and trials that continue others last."""
    return tuple(
        sorted(waiting, key=lambda trial: (trial.retry_of is not None, _is_wanted_first(trial), -trial.number))
    )


def _is_wanted_first(trial: Trial) -> bool:
    return trial.retry_of is not None or (trial.given is not None and trial.given.entry is not None)


def _owed_successors(trials: tuple[Trial, ...]) -> tuple[Trial, ...]:
    """Lost trials that nobody continues yet: the controller died between failing one and adding its successor."""
    continued = {trial.retry_of for trial in trials}
    return tuple(trial for trial in trials if trial.is_lost and trial.number not in continued)


def _lost(snapshot: Snapshot) -> tuple[tuple[Abandon, ...], tuple[Requeue, ...]]:
    alive = {owner for worker in snapshot.workers for owner in worker.live_owners}
    abandon, requeue = [], []
    for trial in in_state(snapshot.record.trials, TrialState.RUNNING):
        if trial.owner is not None and trial.owner.id in alive:
            continue
        ending = _ending(trial, snapshot.workers)
        if failure := _failure(trial, ending=ending, trials=snapshot.record.trials):
            abandon.append(Abandon(trial, failure))
        else:
            requeue.append(Requeue(trial, ending))
    return tuple(abandon), tuple(requeue)


def _ending(trial: Trial, workers: tuple[Worker, ...]) -> Ending:
    endings = {owner: ending for worker in workers for owner, ending in worker.endings.items()}
    return endings.get(trial.owner.id, Ending.INTERRUPTED) if trial.owner else Ending.INTERRUPTED


def _failure(trial: Trial, *, ending: Ending, trials: tuple[Trial, ...]) -> Failure | None:
    """Why a lost trial is not tried again, if it is not."""
    worker = trial.owner.name if trial.owner else "its worker"
    if ending is Ending.OUT_OF_MEMORY:
        message = f"worker {worker} was killed for its memory while it ran this trial: raise the memory limit"
        return Failure(reason=FailureReason.OUT_OF_MEMORY, message=message)
    if ending is Ending.INTERRUPTED:
        return None
    crashes = 1 + _earlier_crashes(trial, trials)
    if crashes < CRASHES_PER_TRIAL:
        return None
    message = f"{crashes} workers in a row crashed while they ran this trial, the last was {worker}"
    return Failure(reason=FailureReason.WORKER_LOST, message=message)


def _earlier_crashes(trial: Trial, trials: tuple[Trial, ...]) -> int:
    """NB: user code may write any attribute of its trial. A trial continues an earlier one, else there were no end to it."""
    by_number = {item.number: item for item in trials}
    crashes = 0
    while trial.retry_of is not None and trial.retry_of < trial.number and trial.retry_of in by_number:
        trial = by_number[trial.retry_of]
        crashes += trial.requeued == Ending.CRASHED
    return crashes
