"""PURE: what the end of a trial's process means.

The process sends a :class:`Result` when it can. When it cannot (killed, crashed, out of memory), its exit status has to
do. Only the parent tells Optuna, and it tells what :func:`outcome` says.
"""

import json
import math
import re
import signal
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from tuning_api.contract import (
    CHECKPOINT_ATTRIBUTE,
    EPOCHS_ATTRIBUTE,
    FAILURE_ATTRIBUTE,
    LIMITED_ATTRIBUTE,
    MAX_EPOCHS_ATTRIBUTE,
    Failure,
    FailureReason,
)
from tuning_api.row_limits import LONGEST_FAILURE
from tuning_trial.errors import TrialError


@dataclass(frozen=True)
class Progress:
    """How far the training is; sent after every epoch."""

    epochs: int
    """Epochs that were trained to their end."""
    max_epochs: int | None
    """Epochs of the whole trial; None when something else ends it, such as max_steps."""


@dataclass(frozen=True)
class Beat:
    """The trial makes progress, see :class:`tuning_trial.pulse.Pulse`."""


@dataclass(frozen=True)
class Completed:
    """The training ran to its end, or was ended by the user's own callback."""

    values: tuple[float, ...]
    checkpoint: str | None = None
    """What it left to be kept, as a path below the place of the checkpoints."""
    limited: Mapping[str, float] = field(default_factory=dict)
    """The last values of the metrics that spec.constraints is about."""


@dataclass(frozen=True)
class Pruned:
    """The pruner stopped the training."""


@dataclass(frozen=True)
class Failed:
    """The trial has no value, and it is not the worker's fault."""

    failure: Failure


@dataclass(frozen=True)
class Replaced:
    """The controller ended this trial meanwhile, and gave its parameters to another one."""


@dataclass(frozen=True)
class DatabaseLost:
    """A report did not get through for as long as the worker waits."""

    message: str


@dataclass(frozen=True)
class Interrupted:
    """The worker was asked to stop; the controller queues the trial again."""


Result = Completed | Pruned | Failed | Replaced | DatabaseLost
"""What a trial's process says of itself."""
Outcome = Result | Interrupted
"""What came of a trial."""


class StoppedFor(Enum):
    """Why the parent stopped the trial's process."""

    INTERRUPTION = auto()
    TIMEOUT = auto()
    STALL = auto()


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a trial's process ended, as its parent saw it."""

    result: Result | None = None
    exit_code: int | None = None
    """As in `multiprocessing.Process.exitcode`: negative for a signal."""
    stopped_for: StoppedFor | None = None
    was_out_of_memory: bool = False
    """Whether the kernel killed a process of this container for its memory meanwhile."""
    timeout: str | None = None
    """trial.timeout as it was written."""
    progress_timeout: str | None = None
    """trial.progressTimeout, likewise."""


def outcome(ended: Ended) -> Outcome:
    """What a trial's end means.

    A value that arrived counts, even when the process was being stopped: the work is done. A failure that arrived then
    does not: it may come from the stopping.
    """
    if isinstance(ended.result, Completed | Pruned):
        return ended.result
    if ended.stopped_for:
        return _stopped(ended)
    if isinstance(ended.result, Failed) and ended.was_out_of_memory:
        return _of_a_killed_helper(ended.result.failure)
    if ended.result is not None:
        return ended.result
    return _without_result(ended.exit_code, was_out_of_memory=ended.was_out_of_memory)


def _stopped(ended: Ended) -> Interrupted | Failed:
    if ended.stopped_for is StoppedFor.INTERRUPTION:
        return Interrupted()
    if ended.stopped_for is StoppedFor.TIMEOUT:
        return _failed(FailureReason.TIMED_OUT, f"the trial took longer than trial.timeout, {ended.timeout}")
    message = f"no batch ended and nothing was reported for longer than trial.progressTimeout, {ended.progress_timeout}"
    return _failed(FailureReason.STALLED, message)


def _of_a_killed_helper(failure: Failure) -> Failed:
    """A trial that lost a process of its own to the kernel, such as a data loader's, raises some exception for it."""
    if failure.reason not in {FailureReason.ERROR, FailureReason.CRASHED}:
        return Failed(failure)
    message = f"{_MORE_MEMORY.format('a process that the trial started')}; it then raised {failure.message}"
    return Failed(failure.model_copy(update={"reason": FailureReason.OUT_OF_MEMORY, "message": message}))


def _without_result(exit_code: int | None, *, was_out_of_memory: bool) -> Failed:
    if exit_code == -signal.SIGKILL and was_out_of_memory:
        return _failed(FailureReason.OUT_OF_MEMORY, _MORE_MEMORY.format("the trial's process"))
    if exit_code is not None and exit_code < 0:
        return _failed(FailureReason.CRASHED, f"the trial's process was ended by {_signal_name(-exit_code)}")
    message = f"the trial's process left with exit status {exit_code} before it had a result"
    return _failed(FailureReason.CRASHED, message)


_MORE_MEMORY = "{} needed more memory than the pod's limit: raise it in trial.podTemplate"


def _signal_name(number: int) -> str:
    try:
        return f"{signal.Signals(number).name} ({signal.strsignal(number)})"
    except ValueError:
        return f"signal {number}"


def _failed(reason: FailureReason, message: str) -> Failed:
    return Failed(Failure(reason=reason, message=message))


@dataclass(frozen=True, kw_only=True)
class Record:
    """What is written about a trial that ended."""

    state: TrialState
    values: tuple[float, ...] = ()
    attributes: Mapping[str, Any]
    system_attributes: Mapping[str, Any] = field(default_factory=dict)
    """Optuna's own."""


def record(outcome: Outcome, progress: Progress | None, *, curve: Mapping[int, float]) -> Record | None:
    """What is written about a trial; None when it is not ours to end.

    Args:
        outcome: What came of it.
        progress: How far it came.
        curve: What a pruned trial has reported, by step. Its value is the last one, as `Study.tell` has it.
    """
    attributes: dict[str, Any] = {}
    if progress:
        attributes[EPOCHS_ATTRIBUTE] = progress.epochs
        if progress.max_epochs is not None:
            attributes[MAX_EPOCHS_ATTRIBUTE] = progress.max_epochs
    match outcome:
        case Completed(values, checkpoint, limited):
            if checkpoint:
                attributes[CHECKPOINT_ATTRIBUTE] = checkpoint
            if limited:
                attributes[LIMITED_ATTRIBUTE] = dict(limited)
            return Record(state=TrialState.COMPLETE, values=values, attributes=attributes)
        case Pruned():
            last = curve[max(curve)] if curve else math.nan
            values = () if math.isnan(last) else (last,)
            return Record(state=TrialState.PRUNED, values=values, attributes=attributes)
        case Failed():
            return failed(outcome, attributes)
        case Replaced() | DatabaseLost() | Interrupted():
            return None


def failed(outcome: Failed, attributes: Mapping[str, Any] | None = None) -> Record:
    """What is written about a trial that failed, besides other attributes."""
    failure = {FAILURE_ATTRIBUTE: _fitting(outcome.failure).to_document()}
    return Record(state=TrialState.FAIL, attributes=dict(attributes or {}) | failure)


def _fitting(failure: Failure) -> Failure:
    """A failure that fits into a row. NB: JSON takes six bytes for a letter that is not ASCII, and twelve for an emoji."""
    while len(json.dumps(failure.to_document())) > LONGEST_FAILURE:
        details, message = failure.details or "", failure.message
        cut = (
            {"details": details[len(details) // 2 + 1 :] or None}
            if details
            else {"message": message[: len(message) // 2]}
        )
        failure = failure.model_copy(update=cut)
    return failure


def completed(values: Mapping[str, float], limited: Mapping[str, float] | None = None) -> Completed | Failed:
    """The result of a training that came to its end.

    Args:
        values: The last value of each objective's metric.
        limited: The last value of each metric that a constraint is about.
    """
    limited = limited or {}
    for metric, value in (*values.items(), *limited.items()):
        if not math.isfinite(value):
            return _failed(FailureReason.NOT_FINITE, f"{metric} is {value} at the end of the training")
    return Completed(tuple(values.values()), limited=limited)


def returned(result: object, *, metrics: Sequence[str]) -> Completed | Failed:
    """The result of an objective, as Optuna takes it: a number, or a sequence with one for each objective.

    NB: Optuna takes infinite values; here they fail the trial, as those of a training do.
    """
    values = list(result) if isinstance(result, Sequence) and not isinstance(result, str) else [result]
    if len(values) != len(metrics):
        wanted = f"one value for each of {', '.join(metrics)}" if len(metrics) > 1 else f"one value, {metrics[0]}"
        return _failed(
            FailureReason.INVALID_VALUE, f"the objective returned {_shown(result)}, and should return {wanted}"
        )
    numbers = [_number(value) for value in values]
    for metric, value, number in zip(metrics, values, numbers, strict=True):
        if number is None:
            message = f"the objective returned {_shown(value)} as {metric}, which is no number"
            return _failed(FailureReason.INVALID_VALUE, message)
        if not math.isfinite(number):
            return _failed(FailureReason.NOT_FINITE, f"the objective returned {number} as {metric}")
    return Completed(tuple(number for number in numbers if number is not None))


def _number(value: Any) -> float | None:
    """What `float` takes, such as a tensor of one element; but no text."""
    if isinstance(value, str | bytes):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return None


def _shown(value: object) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"


_LONGEST_VALUE = 80
_LONGEST_MESSAGE = 500
_LAST_LINES = 40
_LAST_CHARACTERS = 8_000
_FRAMEWORKS = frozenset(
    {
        "joblib",
        "jsonargparse",
        "lightning",
        "lightning_fabric",
        "lightning_utilities",
        "numpy",
        "optuna",
        "pytorch_lightning",
        "scipy",
        "sklearn",
        "tenacity",
        "stamina",
        "torch",
        "torchmetrics",
        "tuning_api",
        "tuning_trial",
    }
)
_EXAMPLES = "tuning_trial.examples"


def failure_of(error: BaseException, *, folders: Iterable[str] = ()) -> Failure:
    """An exception of the user's code in words, with the place in that code where it came from.

    Args:
        error: The exception, with its traceback.
        folders: Where modules are found (`sys.path`): a file is named from there.
    """
    if isinstance(error, TrialError):
        return Failure(reason=error.reason, message=_shortened(str(error)))
    place = _place(error, folders=folders)
    message = _shortened(f"{type(error).__name__}: {_in_a_line(error)}".removesuffix(": ")) + (place and f" ({place})")
    lines = "".join(traceback.format_exception(error)).splitlines()
    return Failure(reason=_reason(error), message=message, details="\n".join(lines[-_LAST_LINES:])[-_LAST_CHARACTERS:])


def _reason(error: BaseException) -> FailureReason:
    """By names and texts: this module does not import torch, whose exceptions most of these are.

    NB: what CUDA reports was a RuntimeError before torch 2.8, and an AcceleratorError since. Of two errors that CUDA may
    report, an allocation that failed outside of torch's allocator is the first.
    """
    name, text = type(error).__name__, str(error)
    if isinstance(error, MemoryError) or name == "OutOfMemoryError" or "CUDA error: out of memory" in text:
        return FailureReason.OUT_OF_MEMORY
    if name == "AcceleratorError" or (isinstance(error, RuntimeError) and _OF_CUDA.search(text)):
        return FailureReason.CUDA_ERROR
    if isinstance(error, RuntimeError) and _KILLED_LOADER.search(text):
        return FailureReason.CRASHED
    return FailureReason.ERROR


_OF_CUDA = re.compile(
    r"\b(CUDA error|CUDA driver error|CUBLAS_STATUS_\w+|CUSOLVER_STATUS_\w+|CUDNN_STATUS_\w+|cuDNN error)\b"
)
_KILLED_LOADER = re.compile(r"^DataLoader worker \(pid\b.*\) (is killed by signal|exited unexpectedly)")
_RAISED_IN_LOADER = re.compile(r"^Caught \w+ in DataLoader worker process \d+\.")


def _in_a_line(error: BaseException) -> str:
    """The first line of a message, and those that it announces with a colon.

    NB: what a data loader's process raised comes with its traceback, and is the last one.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return ""
    if _RAISED_IN_LOADER.match(lines[0]):
        return lines[-1].removeprefix(f"{type(error).__name__}: ")
    announced = next((index for index, line in enumerate(lines) if not line.endswith(":")), len(lines) - 1)
    return " ".join(lines[: announced + 1])


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_MESSAGE else text[: _LONGEST_MESSAGE - 1] + "…"


def _place(error: BaseException, *, folders: Iterable[str]) -> str:
    """file:line of the last frame in the user's code, or of the last frame at all."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_relative(error.filename, folders=folders)}:{error.lineno}"
    frames = list(traceback.walk_tb(error.__traceback__))
    if not frames:
        return ""
    of_user = [frame for frame in frames if _is_of_user(frame[0].f_globals.get("__name__") or "")]
    # The user's own package may be installed too: then it is the last that is no framework.
    own = [frame for frame in of_user if not _is_installed(frame[0].f_code.co_filename)]
    frame, line = (own or of_user or frames)[-1]
    return f"{_relative(frame.f_code.co_filename, folders=folders)}:{line}"


def _is_of_user(module: str) -> bool:
    package = module.partition(".")[0]
    return module.startswith(_EXAMPLES) or package not in _FRAMEWORKS | sys.stdlib_module_names


def _is_installed(file: str) -> bool:
    return not _INSTALLED.isdisjoint(Path(file).parts) or file.startswith("<")


_INSTALLED = frozenset({"site-packages", "dist-packages"})


def _relative(file: str, *, folders: Iterable[str]) -> str:
    path = Path(file)
    known = [Path(folder) for folder in folders if folder and path.is_relative_to(folder)]
    return str(path.relative_to(max(known, key=lambda folder: len(folder.parts)))) if known else file
