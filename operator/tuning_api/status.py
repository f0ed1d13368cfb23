"""What a person reads: the status of a TuningStudy, its phases, and the closed sets of condition types and reasons."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator

from tuning_api import limits
from tuning_api.printable import printable
from tuning_api.schema import Document, Schema, kubernetes

MOST_OF_FRONT = 20
"""A status is read by people and stored in etcd; the study's page and the database have the whole front."""
LONGEST_MESSAGE = 4_096
LONGEST_VALUE = 256


def _readable(value: Any, *, most: int = LONGEST_VALUE) -> Any:
    """A text as it may stand in a status; anything else as it is. What was made readable stays as it is.

    Tenants write much of it (names, choices, what their code raises), and `kubectl get -o jsonpath` prints it as it is.
    """
    if not isinstance(value, str):
        return value
    plain = printable(value)
    return plain if len(plain) <= most else plain[: most - 1] + "…"


def _message(value: Any) -> Any:
    return _readable(value, most=LONGEST_MESSAGE)


Message = Annotated[str, BeforeValidator(_message)]
Text = Annotated[str, BeforeValidator(_readable)]


class Phase(StrEnum):
    """Where a study is, in one word."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    COMPLETE = "Complete"
    FAILED = "Failed"


class ConditionType(StrEnum):
    """The conditions of a study; all of them are always present."""

    READY = "Ready"
    """The study was accepted and is running or done: what `helm --wait`, Flux and Argo CD wait for."""
    COMPLETE = "Complete"
    """The study has ended as asked: its budget is spent, its time is over, or a stopping rule was met."""
    FAILED = "Failed"
    """The study has stopped, since too many trials failed."""
    SUSPENDED = "Suspended"
    """spec.suspend is set and no worker runs."""
    PROGRESSING = "Progressing"
    """Trials advance; when False, the reason names the cause that a person can act on."""


class Reason(StrEnum):
    """Why a condition is as it is."""

    # Ready, Progressing: all is well
    ACCEPTED = "Accepted"
    STARTING = "Starting"
    TRIALS_RUNNING = "TrialsRunning"
    # Complete
    BUDGET_SPENT = "BudgetSpent"
    SEARCH_SPACE_EXHAUSTED = "SearchSpaceExhausted"
    TIMED_OUT = "TimedOut"
    TARGET_REACHED = "TargetReached"
    NO_IMPROVEMENT = "NoImprovement"
    COMPUTE_SPENT = "ComputeSpent"
    # Failed
    TOO_MANY_FAILED_TRIALS = "TooManyFailedTrials"
    # Suspended
    SUSPENDED = "Suspended"
    NOT_SUSPENDED = "NotSuspended"
    # an event, of no condition
    WARM_STARTED = "WarmStarted"
    # anything that has not (yet) happened
    NOT_YET = "NotYet"
    ENDED = "Ended"
    # Progressing=False: what a person can act on
    INVALID_SPEC = "InvalidSpec"
    DATABASE_UNAVAILABLE = "DatabaseUnavailable"
    POD_UNSCHEDULABLE = "PodUnschedulable"
    IMAGE_PULL = "ImagePull"
    QUOTA_EXCEEDED = "QuotaExceeded"
    QUEUED_BY_KUEUE = "QueuedByKueue"
    WORKERS_FAILING = "WorkersFailing"
    TRIALS_FAILING = "TrialsFailing"
    NO_WORKERS_WANTED = "NoWorkersWanted"
    OPERATOR_ERROR = "OperatorError"


class ConditionStatus(StrEnum):
    """Kubernetes writes booleans of conditions as words."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(Schema):
    """A Kubernetes condition (meta/v1)."""

    type: ConditionType
    status: ConditionStatus
    reason: Reason
    message: Message = Field(max_length=32_768)
    last_transition_time: datetime
    observed_generation: int


class TrialCounts(Schema):
    """Trials by state; finished = complete + pruned + failed, and never more than total."""

    total: int = Field(description="spec.maxTrials")
    finished: int = Field(description="Trials that have ended")
    complete: int = Field(description="Trials that ran to their end")
    pruned: int = Field(description="Trials that the pruner stopped")
    failed: int = Field(description="Trials that ended with an error")
    running: int = Field(description="Trials that a worker is running")
    waiting: int = Field(description="Trials that wait for a worker")
    infeasible: int | None = Field(
        default=None,
        description="Complete trials that break a constraint, and failed ones that ran out of memory unless"
        " spec.trial.outOfMemory is fail; absent where there is none",
    )
    retried: int = Field(description="Trials that lost their worker and were queued again; they do not count as ended")


class BestTrial(Schema):
    """The best trial, or one of the Pareto front."""

    trial: int = Field(description="The trial's number")
    value: float | None = Field(default=None, description="The objective's value")
    values: list[float] | None = Field(default=None, description="The objectives' values, where there are several")
    display: Text = Field(description="The value or values, rounded")
    params: Document = Field(description="The trial's parameters")
    checkpoint: Message | None = Field(default=None, description="Where the trial's best checkpoint is")

    @field_validator("params", mode="before")
    @classmethod
    def _has_readable_params(cls, params: Any) -> Any:
        return (
            {_readable(name): _readable(value) for name, value in params.items()}
            if isinstance(params, dict)
            else params
        )


class Charts(Schema):
    """Signed links; each opens this study and nothing else, until it ends. Fresh ones come in time: read them here."""

    report: str = Field(description="The study's page, live while it runs")
    optimization_history: str | None = None
    param_importances: str | None = None
    parallel_coordinate: str | None = None
    slice: str | None = None


class StudyRecord(Schema):
    """Where the study is in the database."""

    name: str = Field(description="Name of the Optuna study")
    schema_: str = Field(alias="schema", description="Schema of the database")


class StudyStatus(Schema):
    """The status of a TuningStudy."""

    observed_generation: int | None = None
    phase: Phase | None = None
    message: Message | None = None
    trials: TrialCounts | None = None
    progress: str | None = Field(default=None, description="Ended trials of the budget, such as 37/100")
    workers: int | None = Field(default=None, description="Worker pods that are running")
    selector: str | None = Field(default=None, description="Label selector of the workers, for the scale subresource")
    best: BestTrial | None = None
    best_trials: list[BestTrial] | None = Field(
        default=None,
        max_length=MOST_OF_FRONT,
        description=(
            "The Pareto front of a study with several objectives, from the best of the first one on;"
            " of a larger front an even choice, with both ends"
        ),
    )
    best_display: Text | None = Field(
        default=None,
        description="What `kubectl get` shows as the best: a value, or how many trials the Pareto front has",
    )
    importances: dict[Text, float] | None = Field(
        default=None,
        description="Share of each parameter in what makes trials differ, under the first objective",
    )
    charts: Charts | None = None
    start_time: datetime | None = None
    completion_time: datetime | None = None
    elapsed_seconds: int | None = Field(default=None, description="Wall clock while not suspended")
    compute_seconds: int | None = Field(
        default=None, description="Seconds of all trials together, those included that lost their worker"
    )
    warm_started: dict[Text, int] | None = Field(
        default=None, description="Trials that were taken over from earlier studies, by study; they are in no count"
    )
    epochs_run: int | None = None
    epochs_saved_by_pruning: int | None = None
    study: StudyRecord | None = None
    conditions: list[Condition] | None = Field(default=None, json_schema_extra=kubernetes(list_map_keys=["type"]))

    def condition(self, type_: ConditionType) -> Condition | None:
        """The condition of a type, if it was ever written."""
        return next((item for item in self.conditions or [] if item.type is type_), None)


def read_status(document: dict[str, Any] | None) -> StudyStatus:
    """Read a stored status; what an older or newer version wrote and this one cannot read counts as not written."""
    if limits.fault_of(document, path="status"):
        return StudyStatus()
    try:
        return StudyStatus.model_validate(document or {})
    except ValueError:
        return StudyStatus()
