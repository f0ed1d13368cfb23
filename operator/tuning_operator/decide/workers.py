"""The workers: how many are wanted, which to start and which to stop.

One Job per worker slot, never one Job with parallelism N: with a single Job the first exit 0 ends replacement, Kueue
admits all or nothing, and GPUs that are idle at the tail of a study cannot be released (docs/adr/0002).
"""

from datetime import datetime, timedelta
from itertools import pairwise

from tuning_api.status import Reason
from tuning_operator.decide.budget import in_state
from tuning_operator.model import (
    Outcome,
    Snapshot,
    TrialsPlan,
    TrialState,
    Trouble,
    Verdict,
    Worker,
    WorkersPlan,
    WorkerState,
)

FIRST_DELAY = timedelta(seconds=10)
LONGEST_DELAY = timedelta(minutes=5)
_MOST_DOUBLINGS = 5
"""More would be longer than LONGEST_DELAY, and after forty a time span has no place for it."""


def plan_workers(snapshot: Snapshot, outcome: Outcome, trials: TrialsPlan) -> WorkersPlan:
    """Decide which workers start and stop."""
    active = tuple(item for item in snapshot.workers if item.state is WorkerState.ACTIVE and not item.stopping)
    if outcome.verdict is not Verdict.RUN:
        return WorkersPlan(stop=tuple(item.name for item in active if not _may_idle_out(item, snapshot, outcome)))
    wanted = min(snapshot.spec.parallelism, _claimable(snapshot, trials))
    if len(active) > snapshot.spec.parallelism:
        surplus = _least_busy_first(active, snapshot)[: len(active) - snapshot.spec.parallelism]
        return WorkersPlan(stop=tuple(item.name for item in surplus))
    if len(active) >= wanted:
        return WorkersPlan()
    if trouble := _failing(snapshot):
        return WorkersPlan(postponed=trouble)
    first = 1 + max((item.index for item in snapshot.workers), default=-1)
    return WorkersPlan(start=tuple(range(first, first + wanted - len(active))))


def _claimable(snapshot: Snapshot, plan: TrialsPlan) -> int:
    trials = snapshot.record.trials
    waiting = len(in_state(trials, TrialState.WAITING)) - len(plan.cancel) + plan.added
    running = len(in_state(trials, TrialState.RUNNING)) - len(plan.abandon)
    return waiting + running


def _may_idle_out(worker: Worker, snapshot: Snapshot, outcome: Outcome) -> bool:
    """A worker that finds nothing to claim ends by itself, or has just done so, and leaves its log for a day."""
    spent = {Reason.BUDGET_SPENT, Reason.SEARCH_SPACE_EXHAUSTED}
    budget_is_spent = outcome.verdict is Verdict.COMPLETE and outcome.reason in spent
    has_begun = worker.running or bool(worker.endings)
    return budget_is_spent and has_begun and not _trials_of(worker, snapshot)


def _least_busy_first(workers: tuple[Worker, ...], snapshot: Snapshot) -> list[Worker]:
    return sorted(workers, key=lambda item: (_trials_of(item, snapshot), item.running, -item.index))


def _trials_of(worker: Worker, snapshot: Snapshot) -> int:
    running = in_state(snapshot.record.trials, TrialState.RUNNING)
    return sum(trial.owner is not None and trial.owner.id in worker.live_owners for trial in running)


def _failing(snapshot: Snapshot) -> Trouble | None:
    """Workers that fail without ending a trial are started again ever more slowly."""
    last_result = max((trial.ended for trial in snapshot.record.trials if trial.ended), default=None)
    failures = sorted(
        (item.ended, item.name, item.trouble)
        for item in snapshot.workers
        if item.state is WorkerState.FAILED and item.ended and _after(item.ended, last_result)
    )
    if not failures:
        return None
    doublings = _moments([ended for ended, _, _ in failures]) - 1
    delay = min(LONGEST_DELAY, FIRST_DELAY * 2 ** min(doublings, _MOST_DOUBLINGS))
    last_end, name, trouble = failures[-1]
    if snapshot.now >= last_end + delay:
        return None
    cause = trouble.message if trouble else f"worker {name} failed"
    failed = "a worker" if len(failures) == 1 else f"{len(failures)} workers in a row"
    message = f"{failed} failed, the next starts in {delay.seconds} s at most; the last: {cause}"
    return Trouble(Reason.WORKERS_FAILING, message)


def _moments(ends: list[datetime]) -> int:
    """How often workers failed, where those that failed together count once: a lost node takes all of its workers.

    After a failure nothing starts for FIRST_DELAY at least, so that the failures of two attempts lie further apart.
    """
    return 1 + sum(later - earlier >= FIRST_DELAY for earlier, later in pairwise(ends))


def _after(moment: datetime, other: datetime | None) -> bool:
    return other is None or moment > other
