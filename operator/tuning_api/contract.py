"""What the operator and a worker agree on, besides the spec: environment, exit codes, and attributes in the database.

A worker knows nothing but its database, its study's name and its own identity. Everything else (the spec, so that a
changed pruner or narrower bounds reach a running worker) it reads from the study's user attributes, which only the
operator writes.
"""

import re
from collections.abc import Mapping
from enum import IntEnum, StrEnum
from typing import Any, TypeVar

from pydantic import Field, field_validator

from tuning_api.printable import printable
from tuning_api.schema import Schema

Model = TypeVar("Model", bound=Schema)


def read_attribute(kind: type[Model], value: object) -> Model | None:
    """What an attribute says. NB: user code may write any attribute of its trial: what cannot be read is not written."""
    if value is None:
        return None
    try:
        return kind.model_validate(value)
    except ValueError:
        return None


_NUMBER = "(0|[1-9][0-9]{0,9})"
_KEPT = re.compile(rf"([^/]+)/trial-{_NUMBER}\.(?:files|final-{_NUMBER}\.ckpt)")


def kept_path(value: object, *, study: str, trial: int) -> str | None:
    """What a complete trial has left to be kept, as a path below the place of all checkpoints; None if that is nothing.

    NB: user code may write any attribute of its trial, and this one becomes a path on the machine of who fetches it. So
    only what a worker writes is taken (`tuning_trial.checkpoints`): STUDY/trial-N.files of an objective, or
    STUDY/trial-N.final-M.ckpt, where M is the trial, and N is the first of the trials that it continues.

    Args:
        value: The attribute, or the path of a status.
        study: The study's name.
        trial: The trial's number.
    """
    found = _KEPT.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return None
    of_study, first, itself = found.groups(default=str(trial))
    is_written = of_study == study and int(first) <= trial and int(itself) == trial
    return found[0] if is_written else None


class Env(StrEnum):
    """Environment variables of a worker."""

    DATABASE_URL = "TUNING_DATABASE_URL"
    """SQLAlchemy URL; a secret."""
    STUDY = "TUNING_STUDY"
    """Name of the Optuna study: the resource's name."""
    WORKER_ID = "TUNING_WORKER_ID"
    """Identity that nothing else ever had: the pod's UID, or a process's start."""
    WORKER_NAME = "TUNING_WORKER_NAME"
    """Name that a person knows the worker by: the pod's."""
    SCRATCH = "TUNING_SCRATCH"
    """A writable folder; each trial gets a sub-folder, `${trial.dir}`."""
    CHECKPOINTS = "TUNING_CHECKPOINTS"
    """A durable folder that all workers of the study share, or the URI of a bucket, in which trials save their state;
    without it, a trial that was interrupted starts from its beginning."""
    IDLE_SECONDS = "TUNING_IDLE_SECONDS"
    """How long a worker waits for a trial before it exits and frees its GPU."""
    CODE = "TUNING_CODE"
    """Without a cluster: the manifest's folder, whose modules are found once Python has started."""


class ExitCode(IntEnum):
    """How a worker ends; Kubernetes' podFailurePolicy reads these (KEP-3329). From BSD's sysexits where one fits."""

    NOTHING_LEFT = 0
    """No trial to claim: the GPU is free."""
    INTERRUPTED = 75
    """Asked to stop (drain, preemption, scale-down); the trial will be queued again. EX_TEMPFAIL."""
    MISCONFIGURED = 78
    """Cannot work, however often it is tried: no database URL, no such study. EX_CONFIG."""


SPEC_ATTRIBUTE = "tuningstudy:spec"
"""Study attribute: the spec, as camelCase document."""
STATUS_ATTRIBUTE = "tuningstudy:status"
"""Study attribute: the status as last computed, for the charts server, which cannot read the cluster."""
CLOCK_ATTRIBUTE = "tuningstudy:clock"
"""Study attribute: how long the study has run (`tuning_operator.model.Clock`)."""

OWNER_ATTRIBUTE = "tuningstudy:owner"
"""Trial attribute, written in the transaction that claims it: an :class:`Owner`."""
FAILURE_ATTRIBUTE = "tuningstudy:failure"
"""Trial attribute of a failed trial: a :class:`Failure`."""
REQUEUED_ATTRIBUTE = "tuningstudy:requeued"
"""Trial attribute, written before a lost trial is failed: it has a successor and does not count as ended."""
RETRY_OF_ATTRIBUTE = "tuningstudy:retryOf"
"""Trial attribute of a successor: number of the trial that it continues."""
SEED_ATTRIBUTE = "tuningstudy:seed"
"""Trial attribute: the seed of its parameters and of its training; a successor has that of the trial that it continues."""
CANCELLED_ATTRIBUTE = "tuningstudy:cancelled"
"""Trial attribute of a trial that was withdrawn before it ran, since the budget was lowered; does not count as ended."""
EPOCHS_ATTRIBUTE = "tuningstudy:epochs"
"""Trial attribute: epochs that were trained, by this trial and by those that it continues; of an objective, the steps that it
reported."""
MAX_EPOCHS_ATTRIBUTE = "tuningstudy:maxEpochs"
"""Trial attribute: epochs of the whole trial, had it not been pruned."""
CHECKPOINT_ATTRIBUTE = "tuningstudy:checkpoint"
"""Trial attribute of a complete trial: what it leaves to be kept, as a path below the place of the checkpoints. It is there
for as long as the trial is among the study's best (`trial.checkpoints.keep`)."""
LIMITED_ATTRIBUTE = "tuningstudy:limited"
"""Trial attribute of a complete trial: the last values of the metrics that spec.constraints is about, by metric. How far they
are beyond their bounds is in Optuna's own constraints of the trial."""
COPIED_ATTRIBUTE = "tuningstudy:copiedFrom"
"""Trial attribute of a trial that was taken over from an earlier study (spec.warmStart): an :class:`Origin`. It teaches the
sampler, and is in no count."""
WARM_START_ATTRIBUTE = "tuningstudy:warmStart"
"""Study attribute, written when all trials of an earlier study were taken over: how many, by the name of that study."""
GIVEN_ATTRIBUTE = "tuningstudy:given"
"""Trial attribute of a trial that was given parameters before it started: a :class:`Given`."""


TRIAL_ATTRIBUTES = (
    OWNER_ATTRIBUTE,
    FAILURE_ATTRIBUTE,
    REQUEUED_ATTRIBUTE,
    RETRY_OF_ATTRIBUTE,
    SEED_ATTRIBUTE,
    CANCELLED_ATTRIBUTE,
    EPOCHS_ATTRIBUTE,
    MAX_EPOCHS_ATTRIBUTE,
    CHECKPOINT_ATTRIBUTE,
    LIMITED_ATTRIBUTE,
    COPIED_ATTRIBUTE,
    GIVEN_ATTRIBUTE,
)
"""All attributes of trials that are ours; any other is the trial's own code's."""


class Given(Schema):
    """Where the parameters of a trial come from that were chosen before it started."""

    entry: dict[str, Any] | None = None
    """An entry of spec.enqueue, as it was written."""
    plan: str | None = None
    """A plan of points, by what it follows from (:func:`tuning_api.space.plan_id`)."""
    number: int | None = None
    """Which point of the plan, from 0."""


class Origin(Schema):
    """Where a trial was run that was taken over."""

    study: str
    trial: int


class Owner(Schema):
    """Who runs a trial."""

    id: str
    name: str


class FailureReason(StrEnum):
    """Why a trial failed."""

    ERROR = "Error"
    """The user's code raised."""
    INVALID_CONFIG = "InvalidConfig"
    """The trial's configuration cannot be built: an unknown class or argument."""
    MISSING_METRIC = "MissingMetric"
    """The objective's metric was never logged."""
    NOT_FINITE = "NotFinite"
    """The objective is NaN or infinite; -inf would otherwise be the best of a minimise study."""
    INVALID_VALUE = "InvalidValue"
    """The objective returned something that is no number, or another number of values than the study has objectives."""
    TIMED_OUT = "TimedOut"
    """The trial took longer than trial.timeout."""
    STALLED = "Stalled"
    """The trial made no progress for longer than trial.progressTimeout."""
    OUT_OF_MEMORY = "OutOfMemory"
    """A process of the trial was killed for its memory, or an allocation was refused: of the GPU, or of the host."""
    CUDA_ERROR = "CudaError"
    """The GPU, its driver or a library on it reported an error: an illegal access, a failed assertion, a lost device."""
    CRASHED = "Crashed"
    """The trial's process, or a data loader's, ended by a signal, such as a segmentation fault, or without a word."""
    WORKER_LOST = "WorkerLost"
    """The worker went away, and the trial was retried as often as allowed."""


def ran_out_of_memory(attributes: Mapping[str, Any]) -> bool:
    """Whether a trial's attributes say that it failed for its memory. NB: user code may write anything there."""
    failure = attributes.get(FAILURE_ATTRIBUTE)
    return isinstance(failure, dict) and failure.get("reason") == FailureReason.OUT_OF_MEMORY


class Failure(Schema):
    """Why a trial failed, in words."""

    reason: FailureReason
    message: str = Field(description="One sentence with the cause")
    details: str | None = Field(default=None, description="The traceback, cut to its last lines")

    @field_validator("message", mode="before")
    @classmethod
    def _in_a_line(cls, text: object) -> object:
        """What the user's code raised may have line ends, and halves of letters (file names of an old encoding)."""
        return printable(" ".join(text.splitlines())) if isinstance(text, str) else text

    @field_validator("details", mode="before")
    @classmethod
    def _printable(cls, text: object) -> object:
        return printable(text) if isinstance(text, str) else text
