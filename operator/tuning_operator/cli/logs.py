"""`tuningstudy logs`: what the workers of a cluster's study say, or what one trial said."""

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from tuning_api.schema import Document
from tuning_operator.charts.wording import counted
from tuning_operator.cli.terminal import say
from tuning_operator.errors import ClusterUnavailable, Missing, TuningError
from tuning_operator.local.errors import BadInputError
from tuning_operator.remote.charts import progress_of
from tuning_operator.remote.gateway import Gateway
from tuning_operator.remote.trial_lines import TrialFilter, lines_of

POLL_SECONDS = 2.0
NOT_FOUND = 1
INTERRUPTED = 130
_OVER = frozenset({"Complete", "Failed", "Suspended"})

Lines = queue.SimpleQueue[tuple[str, str | None]]
"""A pod and a line of it; None: there will be no more."""


def logs(gateway: Gateway, name: str, *, trial: int | None, follow: bool) -> int:
    """Print the lines of all workers that still exist, or those of one trial.

    Returns:
        0; 1 when no pod that still exists ran the trial; 130 when somebody does not want to wait.
    """
    study = gateway.study(name)
    try:
        if follow:
            has_any = _Following(gateway, study, trial).run()
        else:
            has_any = _print_all(gateway, study) if trial is None else _print_trial(gateway, study, trial)
    except KeyboardInterrupt:
        return INTERRUPTED
    if not has_any:
        say(_why_nothing(gateway, study, trial), err=True)
    return 0 if has_any else NOT_FOUND


def _print_all(gateway: Gateway, study: Document) -> bool:
    has_any = False
    for pod in _started_pods(gateway, study):
        try:
            for line in gateway.log(pod, follow=False):
                say(prefixed(pod, line))
                has_any = True
        except Missing:
            continue  # it went away meanwhile
    return has_any


def _print_trial(gateway: Gateway, study: Document, trial: int) -> bool:
    for pod in _started_pods(gateway, study):
        has_any = False
        try:
            for line in lines_of(trial, gateway.log(pod, follow=False)):
                if not has_any:
                    say(f"trial {trial} in pod {pod}", err=True)
                say(line)
                has_any = True
        except Missing:
            continue
        if has_any:
            return True
    return False


def _started_pods(gateway: Gateway, study: Document) -> list[str]:
    pods = gateway.workers(uid=study["metadata"]["uid"])
    return [pod["metadata"]["name"] for pod in pods if has_started(pod)]


def has_started(pod: Document) -> bool:
    """Whether a pod has a log: before its container starts, the API server refuses."""
    states = [item.get("state", {}) for item in pod.get("status", {}).get("containerStatuses", [])]
    return any("running" in state or "terminated" in state for state in states)


def prefixed(pod: str, line: str) -> str:
    """A line with the pod that it is from, as kubectl writes it."""
    return f"[{pod}] {line}"


def _why_nothing(gateway: Gateway, study: Document, trial: int | None) -> str:
    name = study["metadata"]["name"]
    pods = gateway.workers(uid=study["metadata"]["uid"])
    if trial is None:
        return f"study {name} has no pod with a log: {study.get('status', {}).get('message', 'it has not begun')}"
    if where := _where_it_ran(gateway, study, trial):
        return where
    return (
        f"trial {trial} is in the log of no pod that still exists ({counted(len(pods), 'pod')} of study {name}): it has not"
        " started, or its pod is gone; a finished pod is kept for a day at most"
    )


def _where_it_ran(gateway: Gateway, study: Document, trial: int) -> str | None:
    """The charts server knows, if it can be asked."""
    try:
        progress = progress_of(gateway, study, operator_namespace=None)
    except BadInputError:
        return None
    found = next((view for view in (*progress.running, *progress.ended) if view.number == trial), None)
    if found is None:
        return f"trial {trial} of study {progress.name} has not started"
    return f"trial {trial} ran in pod {found.worker}, which is gone, and its log with it"


@dataclass
class _Following:
    """Reads the logs of all workers at the same time, a thread for each."""

    gateway: Gateway
    study: Document
    trial: int | None
    lines: Lines = field(default_factory=queue.SimpleQueue)
    readers: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)
    filters: dict[str, TrialFilter] = field(default_factory=dict)

    def run(self) -> bool:
        """Print until the trial, or the study, is over; whether there was anything."""
        has_any = False
        while not self._is_over():
            self._read_new_pods()
            while (item := self._next()) is not None:
                pod, line = item
                if line is None:
                    self.ended.add(pod)
                elif self._is_wanted(pod, line):
                    has_any = True
                    say(line if self.trial is not None else prefixed(pod, line))
                if self._has_passed():
                    return True
        return has_any

    def _next(self) -> tuple[str, str | None] | None:
        try:
            return self.lines.get(timeout=POLL_SECONDS)
        except queue.Empty:
            return None

    def _read_new_pods(self) -> None:
        try:
            pods = _started_pods(self.gateway, self.study)
        except ClusterUnavailable:
            return  # the next round looks again
        for pod in pods:
            if pod not in self.readers:
                self.readers.add(pod)
                threading.Thread(target=self._read, args=(pod, self.lines.put), daemon=True).start()

    def _read(self, pod: str, put: Callable[[tuple[str, str | None]], None]) -> None:
        try:
            for line in self.gateway.log(pod, follow=True):
                put((pod, line))
        except TuningError as error:
            say(f"{pod}: {error}", err=True)
        finally:
            put((pod, None))

    def _is_wanted(self, pod: str, line: str) -> bool:
        if self.trial is None:
            return True
        return self.filters.setdefault(pod, TrialFilter(self.trial)).takes(line)

    def _has_passed(self) -> bool:
        return any(each.is_over or (each.has_begun and pod in self.ended) for pod, each in self.filters.items())

    def _is_over(self) -> bool:
        """The study has ended, and every log that there was."""
        if not self.lines.empty() or self.readers != self.ended:
            return False
        try:
            self.study = self.gateway.study(self.study["metadata"]["name"])
        except ClusterUnavailable:
            return False
        status = self.study.get("status", {})
        return status.get("phase") in _OVER and not status.get("workers") and self._has_read_all()

    def _has_read_all(self) -> bool:
        return self.readers >= set(_started_pods(self.gateway, self.study))
