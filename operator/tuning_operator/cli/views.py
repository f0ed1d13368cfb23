"""What a person, a log file or a program sees while a study runs.

Progress goes to standard error and results to standard output, so that `> result.txt` keeps the results.
"""

import json
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol, Self

from optuna.trial import TrialState

from tuning_api.contract import FailureReason
from tuning_api.status import Phase, Reason, StudyStatus
from tuning_operator.charts.wording import LABELS, counted, duration, shown
from tuning_operator.cli.terminal import say
from tuning_operator.local.progress import Progress, TrialView


class View(Protocol):
    """Shows a study that runs."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def update(self, progress: Progress) -> None:
        """Take the study as it is now."""

    def event(self, reason: Reason, message: str, is_warning: bool) -> None:  # noqa: FBT001 - the executor's Listener
        """Take a transition."""

    def say(self, words: str) -> None:
        """Tell the person something."""


class _Memory:
    """Which trials were shown; those that had ended before the first look are an earlier run's."""

    def __init__(self) -> None:
        self._seen: set[int] | None = None

    def news(self, progress: Progress) -> list[tuple[int, TrialView]]:
        """Trials that have ended since the last look, each with how many had ended with it."""
        if self._seen is None:
            self._seen = {trial.number for trial in progress.ended}
        places = enumerate(progress.ended, start=1)
        fresh = [(place, trial) for place, trial in places if trial.number not in self._seen]
        self._seen |= {trial.number for _, trial in fresh}
        return fresh


class _HoldsNothing:
    """A view that only writes."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class PlainView(_HoldsNothing):
    """A line for each trial that ends: for log files, and for terminals that cannot do more."""

    def __init__(self) -> None:
        self._memory = _Memory()

    def update(self, progress: Progress) -> None:
        """See `View`."""
        for finished, trial in self._memory.news(progress):
            self.say(f"[{finished}/{progress.total}] {ending(trial, progress)}")

    def event(self, reason: Reason, message: str, is_warning: bool) -> None:  # noqa: FBT001
        """See `View`."""
        self.say(in_a_line(f"{'warning: ' if is_warning else ''}{message} ({reason})"))

    def say(self, words: str) -> None:
        """See `View`."""
        say(words, err=True)


class JsonView(_HoldsNothing):
    """A JSON document for each trial that ends and for each transition, on standard output."""

    def __init__(self) -> None:
        self._memory = _Memory()

    def update(self, progress: Progress) -> None:
        """See `View`."""
        for finished, trial in self._memory.news(progress):
            self._write(
                "trial",
                trial=trial.number,
                state=LABELS[trial.state],
                value=trial.value,
                **self._more(trial, progress),
                params=dict(trial.params),
                epochs=trial.epochs,
                seconds=round(trial.seconds, 3),
                failure=trial.failure.to_document() if trial.failure else None,
                finished=finished,
                total=progress.total,
                best=progress.best.number if progress.best else None,
            )

    def event(self, reason: Reason, message: str, is_warning: bool) -> None:  # noqa: FBT001
        """See `View`."""
        self._write("event", reason=str(reason), message=message, warning=is_warning)

    def say(self, words: str) -> None:
        """See `View`."""
        self._write("message", message=words)

    def _more(self, trial: TrialView, progress: Progress) -> dict[str, Any]:
        """What only studies with several objectives, or with constraints, have."""
        more: dict[str, Any] = {}
        if len(progress.metrics) > 1:
            more["values"] = dict(zip(progress.metrics, trial.values, strict=True))
        if progress.has_front:
            more["front"] = [best.number for best in progress.front]
        if progress.is_constrained:
            more["feasible"] = not trial.broken
        return more

    def status(self, status: StudyStatus) -> None:
        """The last line: the whole status."""
        self._write("status", status=status.to_document())

    def _write(self, kind: str, **fields: Any) -> None:
        say(json.dumps({"type": kind} | fields))


class SilentView(_HoldsNothing):
    """Nobody looks: the terminal is gone."""

    def update(self, progress: Progress) -> None:
        """See `View`."""

    def event(self, reason: Reason, message: str, is_warning: bool) -> None:  # noqa: FBT001
        """See `View`."""

    def say(self, words: str) -> None:
        """See `View`."""


# Words that views share


def in_a_line(text: str) -> str:
    r"""The text with its line ends written out, as `\n`: a line is a trial."""
    return "\\n".join(text.splitlines())


def ending(trial: TrialView, progress: Progress) -> str:
    """How a trial ended, in one line."""
    return in_a_line(_ending(trial, progress))


def _ending(trial: TrialView, progress: Progress) -> str:
    words = f"trial {trial.number} {LABELS[trial.state].lower()}"
    if trial.failure:
        return f"{words}: {trial.failure.reason}: {trial.failure.message}"
    said = measured(trial, progress)
    value = f": {said}" if said else ""
    return f"{words}{value}{_standing(trial, progress)}, {epochs(trial)}{duration(trial.seconds)}; {in_words(trial.params)}"


def _standing(trial: TrialView, progress: Progress) -> str:
    if trial.broken:
        return f" (infeasible: {', '.join(trial.broken)})"
    if trial.number not in {best.number for best in progress.front}:
        return ""
    return " (on the front so far)" if progress.has_front else " (the best so far)"


def measured(trial: TrialView, progress: Progress) -> str:
    """What a trial is told by, in one line."""
    known = [(name, value) for name, value in zip(progress.metrics, trial.values, strict=True) if value is not None]
    return " ".join(f"{name}={shown(value)}" for name, value in known)


def epochs(trial: TrialView) -> str:
    """How many epochs a trial trained, ready to be followed by its time."""
    if not trial.epochs:
        return ""
    of = f" of {trial.max_epochs}" if trial.max_epochs and trial.state is TrialState.PRUNED else ""
    return f"{trial.epochs}{of} epochs in " if of or trial.epochs > 1 else "1 epoch in "


def in_words(params: Mapping[str, Any]) -> str:
    """Parameters in one line."""
    return in_a_line(" ".join(f"{name}={shown(value)}" for name, value in params.items()))


def counts(progress: Progress) -> list[tuple[str, str]]:
    """What has become of the trials, each with the style that tells it apart."""
    states = ((TrialState.COMPLETE, "green"), (TrialState.PRUNED, "yellow"), (TrialState.FAIL, "red"))
    words = [(f"{progress.count(state)} {LABELS[state].lower()}", style) for state, style in states]
    if broken := sum(bool(trial.broken) for trial in progress.ended):
        words.insert(1, (f"{broken} of them infeasible", "yellow"))
    failures = [trial.failure for trial in progress.ended if trial.failure]
    if misfits := sum(failure.reason is FailureReason.OUT_OF_MEMORY for failure in failures):
        words[-1] = (f"{words[-1][0]} ({misfits} out of memory)", "red")
    if progress.retried:
        words.append((f"{progress.retried} retried", "dim"))
    return [*words, (counted(progress.workers, "worker"), "dim")]


def what_happens(progress: Progress) -> str:
    """What a person should know while no trial runs."""
    if progress.phase in {Phase.COMPLETE, Phase.FAILED, Phase.SUSPENDED} or progress.running:
        return ""
    if progress.workers:
        return f"{counted(progress.workers, 'worker')} starting: torch and the model are being imported"
    return "no worker runs"
