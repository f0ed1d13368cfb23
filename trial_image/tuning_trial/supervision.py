"""A trial's process from its start to its end, as the worker sees it."""

import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Literal

import optuna

from tuning_api.schema import seconds
from tuning_trial import cgroup, child, group, interrupts
from tuning_trial.child import Assignment
from tuning_trial.interrupts import Interrupts
from tuning_trial.log import logger
from tuning_trial.outcomes import Beat, Ended, Progress, Result, StoppedFor

GRACE_SECONDS = 20.0
"""For a trial's process to end from SIGTERM, or from its result: enough to end a batch and to close loggers, and well within
the pod's grace period. A process may not end by itself, with an exit handler that waits for a server."""

_PARTING_SECONDS = 0.2
"""For what a trial's process has started to see that it has ended, and to end too."""
_MOMENT_SECONDS = 3.0
"""From SIGTERM to SIGKILL for what a trial has left running."""
_POLL_SECONDS = 0.01

Isolation = Literal["fork", "process"]


@dataclass
class _Trial:
    """A trial's process, and what it has sent."""

    process: BaseProcess
    results: Connection
    progress: Progress | None = None
    result: Result | None = None
    is_silent: bool = False
    moved: float = field(default_factory=time.monotonic)
    """When it last gave a sign of progress; at first, when it started."""

    @property
    def has_ended(self) -> bool:
        return self.process.exitcode is not None

    def wait(self, signals: Interrupts, *, until: float) -> None:
        """Sleep until a message, a signal or the given time; then take what has arrived."""
        left = None if until == math.inf else max(0.0, until - time.monotonic())
        wait([signals.fileno()] if self.is_silent else [signals.fileno(), self.results], timeout=left)
        signals.clear()
        self.receive()

    def receive(self) -> None:
        try:
            while not self.is_silent and self.results.poll():
                message = self.results.recv()
                self.moved = time.monotonic()
                match message:
                    case Beat():
                        pass
                    case Progress():
                        self.progress = message
                    case _:
                        self.result = message
        except (EOFError, OSError):
            # NB: a process that is killed in the middle of a message leaves half of it.
            self.is_silent = True


@contextmanager
def running(
    assignment: Assignment,
    *,
    study: optuna.Study,
    isolation: Isolation,
    timeout: str | None,
    progress_timeout: str | None,
    signals: Interrupts,
    grace: float,
) -> Iterator[tuple[Ended, Progress | None]]:
    """Run a trial in a process of its own.

    What comes of it is known within the context, so that it can be told while the process still runs its exit handlers; after
    the context nothing of the trial runs.

    Args:
        assignment: The trial.
        study: The worker's study, which a fork takes over.
        isolation: A fork of this process, or a fresh interpreter.
        timeout: trial.timeout; None for no limit.
        progress_timeout: trial.progressTimeout, likewise.
        signals: Ends the trial when the worker is asked to stop.
        grace: Seconds that the process has to end, once it sent its result or was asked to stop.

    Yields:
        How it ended, and how far it came.
    """
    _bury_orphans()
    kills_before = cgroup.oom_kills()
    trial = _start(assignment, study=study, isolation=isolation)
    end_at = math.inf
    try:
        stopped_for = _watch(trial, signals=signals, timeout=timeout, progress_timeout=progress_timeout)
        end_at = time.monotonic() + grace
        if stopped_for:
            trial.process.terminate()
        _await(trial, lambda: trial.result is not None or trial.has_ended, signals=signals, until=end_at)
        if trial.result is None:
            trial.process.kill()
            trial.process.join()
        kills = cgroup.oom_kills()
        ended = Ended(
            result=trial.result,
            exit_code=trial.process.exitcode,
            stopped_for=stopped_for,
            was_out_of_memory=kills is not None and kills_before is not None and kills > kills_before,
            timeout=timeout,
            progress_timeout=progress_timeout,
        )
        yield ended, trial.progress
        if not _await(trial, lambda: trial.has_ended, signals=signals, until=end_at):
            logger.warning("%s: its exit handlers did not end within %g s, and are ended", assignment.name, grace)
    finally:
        _end_group(trial.process, name=assignment.name)
        trial.process.close()
        trial.results.close()


def _start(assignment: Assignment, *, study: optuna.Study, isolation: Isolation) -> _Trial:
    is_fork = isolation == "fork"
    context = get_context("fork") if is_fork else get_context("spawn")
    results, sender = context.Pipe(duplex=False)
    process = context.Process(
        target=child.run,
        name=assignment.name,
        args=(assignment, sender, study if is_fork else None),
        kwargs={"parent": os.getpid()},
    )
    with interrupts.held():
        process.start()
    sender.close()
    return _Trial(process, results)


def _watch(
    trial: _Trial, *, signals: Interrupts, timeout: str | None, progress_timeout: str | None
) -> StoppedFor | None:
    """Wait for a result or an end, and say for what the process has to be stopped before either."""
    deadline = time.monotonic() + seconds(timeout) if timeout else math.inf
    patience = seconds(progress_timeout) if progress_timeout else math.inf
    while trial.result is None and not trial.has_ended:
        if signals.requested:
            return StoppedFor.INTERRUPTION
        if time.monotonic() >= deadline:
            return StoppedFor.TIMEOUT
        if time.monotonic() >= trial.moved + patience:
            return StoppedFor.STALL
        trial.wait(signals, until=min(deadline, trial.moved + patience))
    return None


def _await(trial: _Trial, is_there: Callable[[], bool], *, signals: Interrupts, until: float) -> bool:
    """Wait for something of the trial, and say whether it came; what it has sent up to then is taken."""
    while not (came := is_there()) and time.monotonic() < until:
        trial.wait(signals, until=until)
    trial.receive()
    return came


def _end_group(process: BaseProcess, *, name: str) -> None:
    """End what is left of a trial's process and of those that it started; some have still something to write.

    NB: those that end with their parent, such as Python's resource tracker, hear of it by the end of a pipe.
    """
    number = process.pid or 0
    if left := _wait_for_end(number, seconds=_PARTING_SECONDS):
        logger.info("%s: what it left running is asked to end: %s", name, ", ".join(left))
        group.signal(number, signal.SIGTERM)
        if left := _wait_for_end(number, seconds=_MOMENT_SECONDS):
            logger.warning("%s: killed what did not end within %g s: %s", name, _MOMENT_SECONDS, ", ".join(left))
    group.signal(number, signal.SIGKILL)
    process.kill()
    process.join()


def _wait_for_end(number: int, *, seconds: float) -> list[str]:
    """Wait until nothing of a group runs; what still does then."""
    deadline = time.monotonic() + seconds
    while (left := group.alive(number)) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    return left


def _bury_orphans() -> None:
    """Data loader workers outlive a trial that was killed; in a pod their new parent is this process, PID 1."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass
