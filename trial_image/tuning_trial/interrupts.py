"""Signals as something that one can wait for, together with a trial's pipe.

A handler that raised would break into a transaction or a half-sent message. This one only notes the signal and writes a
byte to a pipe; the worker looks at it between two steps, and wakes up when it sleeps.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from types import FrameType, TracebackType
from typing import Self

_STOP = (signal.SIGTERM, signal.SIGINT)
_ALL = (*_STOP, signal.SIGCHLD)


class Interrupts:
    """SIGTERM and SIGINT ask the worker to stop; SIGCHLD only wakes it up.

    NB: the sentinel of `multiprocessing.Process` is a pipe that data loader workers inherit, so it stays silent until the
    last of them is gone; SIGCHLD comes when the trial's own process ends.
    """

    def __init__(self) -> None:
        self.requested = False
        self._readable, self._writable = os.pipe()
        os.set_blocking(self._readable, False)
        os.set_blocking(self._writable, False)

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._note) for number in _ALL}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._readable)
        os.close(self._writable)

    def take_back(self) -> None:
        """Handle the signals again, after an import that has put its own handlers there."""
        for number in _ALL:
            signal.signal(number, self._note)

    def fileno(self) -> int:
        """The end of the pipe to wait for; readable after a signal."""
        return self._readable

    def pause(self, seconds: float) -> None:
        """Sleep, and wake up early when asked to stop."""
        if not self.requested:
            wait([self._readable], timeout=seconds)
            self.clear()

    def clear(self) -> None:
        """Empty the pipe, so that the next wait sleeps again; `requested` stays."""
        try:
            while os.read(self._readable, 1024):
                pass
        except BlockingIOError:
            return

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if number in _STOP:
            self.requested = True
        try:
            os.write(self._writable, b".")
        except BlockingIOError:
            return  # the pipe is full: whoever waits for it wakes up anyway


@contextmanager
def held() -> Iterator[None]:
    """Hold signals back while a process is started: it would run our handlers on pipes that it shares with us."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ALL)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def restore_in_child() -> None:
    """In a trial's process: default handlers, which Lightning and torch's data loader then put theirs on.

    Ctrl-C reaches a whole group of processes; the worker alone decides what it means.
    """
    for number in _ALL:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ALL)
