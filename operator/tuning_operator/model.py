"""The values that the controller thinks in: what was observed, and what is to be done. No I/O, no clock."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum, StrEnum, auto
from typing import Any

from tuning_api.contract import Failure, FailureReason, Given, Owner
from tuning_api.search import Direction
from tuning_api.spec import StudySpec
from tuning_api.status import Reason, StudyStatus


@dataclass(frozen=True, order=True)
class StudyKey:
    """Which study."""

    namespace: str
    name: str

    def __str__(self) -> str:
        """As log lines name it."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True)
class Study:
    """A TuningStudy as the API server (or a file) has it; `fault` says why there is no `spec`."""

    key: StudyKey
    uid: str
    generation: int
    spec: StudySpec | None
    fault: str | None
    status: StudyStatus
    version: str = ""
    """The resource's version that was read: a status is written to no other."""


class TrialState(StrEnum):
    """Optuna's trial states."""

    WAITING = "WAITING"
    RUNNING = "RUNNING"
    COMPLETE = "COMPLETE"
    PRUNED = "PRUNED"
    FAIL = "FAIL"


@dataclass(frozen=True)
class Trial:
    """A row of the study in the database."""

    trial_id: int
    number: int
    state: TrialState
    values: tuple[float, ...] = ()
    is_feasible: bool = True
    """It breaks no constraint."""
    params: dict[str, Any] = field(default_factory=dict)
    owner: Owner | None = None
    failure: Failure | None = None
    requeued: str | None = None
    retry_of: int | None = None
    cancelled: bool = False
    given: Given | None = None
    """Where its parameters come from, if they were chosen before it started."""
    fixed: dict[str, Any] = field(default_factory=dict)
    """The parameters that it was given."""
    epochs: int | None = None
    max_epochs: int | None = None
    checkpoint: str | None = None
    """What it left to be kept, as a path below the place of the checkpoints."""
    started: datetime | None = None
    ended: datetime | None = None

    @property
    def is_lost(self) -> bool:
        """It lost its worker and has (or is owed) a successor that counts in its place."""
        return self.state is TrialState.FAIL and self.requeued is not None

    @property
    def ran_out_of_memory(self) -> bool:
        """It failed since its parameters did not fit into the memory of the GPU or of the pod."""
        return (
            self.state is TrialState.FAIL
            and self.failure is not None
            and self.failure.reason is FailureReason.OUT_OF_MEMORY
        )

    @property
    def is_ended(self) -> bool:
        """It counts against the budget."""
        if self.state in {TrialState.COMPLETE, TrialState.PRUNED}:
            return True
        return self.state is TrialState.FAIL and self.requeued is None and not self.cancelled


@dataclass(frozen=True)
class Clock:
    """How long a study has run, while it was not suspended; kept in the database, so that it outlives the resource."""

    elapsed_seconds: float = 0.0
    running_since: datetime | None = None

    @classmethod
    def from_document(cls, document: dict[str, Any] | None) -> "Clock":
        """The clock that was stored; one that never was, or that somebody has damaged, has not run."""
        try:
            since = (document or {}).get("runningSince")
            elapsed = float((document or {}).get("elapsedSeconds", 0.0))
            return cls(elapsed, datetime.fromisoformat(since) if since else None)
        except (AttributeError, TypeError, ValueError):
            return cls()

    def to_document(self) -> dict[str, Any]:
        """The clock as it is stored."""
        since = self.running_since.isoformat() if self.running_since else None
        return {"elapsedSeconds": self.elapsed_seconds, "runningSince": since}

    def elapsed_at(self, now: datetime) -> float:
        """Seconds of wall clock until now."""
        if self.running_since is None:
            return self.elapsed_seconds
        return self.elapsed_seconds + max(0.0, (now - self.running_since).total_seconds())

    def ticking(self, *, now: datetime, runs: bool) -> "Clock":
        """The clock, started or stopped."""
        if runs == (self.running_since is not None):
            return self
        return Clock(self.elapsed_at(now), now if runs else None)


def utc(moment: datetime | None) -> datetime | None:
    """A time of Optuna's. NB: Optuna 5 gives times that are UTC, with or without saying so (optuna/optuna#6708)."""
    if moment is None:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


class Ending(StrEnum):
    """How a worker's process ended, as far as its trial is concerned."""

    INTERRUPTED = "Interrupted"
    """Asked to stop, drained, preempted, deleted: nobody's fault, so it is not counted as a retry."""
    CRASHED = "Crashed"
    """It died while it ran a trial."""
    OUT_OF_MEMORY = "OutOfMemory"
    """It was killed for its memory; the same parameters would be killed again."""


class WorkerState(StrEnum):
    """Whether a worker may still claim trials."""

    ACTIVE = "Active"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


@dataclass(frozen=True)
class Trouble:
    """Why a worker does not run, in the words of whoever knows."""

    reason: Reason
    message: str


@dataclass(frozen=True)
class Worker:
    """A worker slot: a Job in a cluster, a process on a laptop."""

    name: str
    index: int
    state: WorkerState
    stopping: bool = False
    running: bool = False
    live_owners: frozenset[str] = frozenset()
    """Identities that may still write to the database."""
    endings: dict[str, Ending] = field(default_factory=dict)
    """How identities that are gone went, where that is still known."""
    trouble: Trouble | None = None
    ended: datetime | None = None


@dataclass(frozen=True)
class Record:
    """A study in the database."""

    stored_spec: dict[str, Any] | None
    clock: Clock
    trials: tuple[Trial, ...]
    importances: dict[str, float] = field(default_factory=dict)
    warm_started: dict[str, int] = field(default_factory=dict)
    """Earlier studies whose trials were taken over, and how many; these are not among `trials`."""
    directions: tuple[Direction, ...] | None = None
    """Those that Optuna has, which were the objectives' when the study was made; None where nobody asked."""

    @property
    def has_trials(self) -> bool:
        """Whether there is anything that a changed spec could not be compared with."""
        return bool(self.trials) or any(self.warm_started.values())


@dataclass(frozen=True)
class TakenOver:
    """What an earlier study has given to a new one."""

    study: str
    taken: int
    skipped: dict[str, int] = field(default_factory=dict)
    """Finished trials that do not fit, by why."""


@dataclass(frozen=True)
class Snapshot:
    """Everything that a decision may look at, observed at `now`: the trials first and the workers after them.

    NB: in this order a trial whose owner is not among the workers has lost it; in the other order a worker that started
    in between would look lost.
    """

    now: datetime
    study: Study
    spec: StudySpec
    record: Record
    workers: tuple[Worker, ...]


@dataclass(frozen=True)
class Pulse:
    """How many rows of a study are in each state: what all studies can be asked for in one statement.

    No trial changes its state and leaves these numbers as they were: trials that have ended stay so and rows are only added,
    so with as many of each there can be neither an end nor an addition, and then no claim either.
    """

    waiting: int = 0
    running: int = 0
    complete: int = 0
    pruned: int = 0
    failed: int = 0


class Said(Enum):
    """What a pass had to say of a study, and whether it has."""

    NOTHING = auto()
    """The status is what it was, but for what grows by itself."""
    COUNTS = auto()
    """Counts, which were written."""
    COUNTS_LATER = auto()
    """Counts, which may not be written yet."""
    NEWS = auto()
    """What a person waits for."""


@dataclass(frozen=True)
class Look:
    """What a pass leaves for whoever decides when the next one comes."""

    has_news: bool
    """It did or said something from which more may follow that neither an event nor a pulse tells."""
    moves: bool
    """Its rows may change without an event: it has workers, or is about to."""
    enough_waiting: int = 0
    """With fewer trials waiting, workers might soon find none."""
    heeds_each: bool = False
    """Every trial that ends may end the study."""
    counts_at: datetime | None = None
    """When counts may be written again."""
    deadline: datetime | None = None
    """When a pass has something to do, even if nothing changes until then."""
    hurries_until: datetime | None = None
    """How long its trials are is not known yet: until then the few that wait may be gone in no time."""


@dataclass(frozen=True)
class Requeue:
    """A running trial that lost its worker: fail it and let a successor continue it."""

    trial: Trial
    because: Ending


@dataclass(frozen=True)
class Abandon:
    """A running trial that lost its worker for good: fail it, and count it."""

    trial: Trial
    failure: Failure


@dataclass(frozen=True)
class TrialsPlan:
    """What to do to the rows of the database, in this order."""

    cancel: tuple[Trial, ...] = ()
    abandon: tuple[Abandon, ...] = ()
    requeue: tuple[Requeue, ...] = ()
    successors: tuple[Trial, ...] = ()
    enqueue: tuple[dict[str, Any], ...] = ()
    """Entries of spec.enqueue to be added."""
    add: int = 0
    """How many other trials to add; of a planned sampler, the next points of its plan."""

    @property
    def added(self) -> int:
        """All waiting trials that are added."""
        return len(self.successors) + len(self.enqueue) + self.add


@dataclass(frozen=True)
class WorkersPlan:
    """Which workers to start (by index) and to stop (by name)."""

    start: tuple[int, ...] = ()
    stop: tuple[str, ...] = ()
    postponed: Trouble | None = None


class Verdict(StrEnum):
    """Whether the study goes on."""

    RUN = "Run"
    SUSPEND = "Suspend"
    COMPLETE = "Complete"
    FAIL = "Fail"


@dataclass(frozen=True)
class Outcome:
    """The verdict, and why."""

    verdict: Verdict
    reason: Reason
    message: str


@dataclass(frozen=True)
class Plan:
    """What is to be done; doing it twice does no harm."""

    outcome: Outcome
    clock: Clock
    trials: TrialsPlan
    workers: WorkersPlan
