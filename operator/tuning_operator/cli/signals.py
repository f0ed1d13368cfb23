"""Ctrl-C as something that the loop looks at between two passes, and that ends its waiting."""

import os
import select
import signal
from types import FrameType, TracebackType
from typing import Self

_STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Signals:
    """SIGINT, SIGTERM and SIGHUP ask to stop; the end of a worker only wakes up.

    Attributes:
        requests: how often somebody asked to stop; the third time the process ends as it would without us.
        hung_up: the terminal is gone, and nothing can be shown any more.
    """

    def __init__(self) -> None:
        self.requests = 0
        self.hung_up = False

    def __enter__(self) -> Self:
        self._readable, self._writable = os.pipe()
        for end in (self._readable, self._writable):
            os.set_blocking(end, False)
        self._before = {number: signal.getsignal(number) for number in (*_STOP, signal.SIGCHLD)}
        for number, before in self._before.items():
            if before is not signal.SIG_IGN or number is signal.SIGCHLD:  # `nohup` means what it says
                signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        os.close(self._readable)
        os.close(self._writable)

    def wait(self, seconds: float) -> None:
        """Sleep, and wake up early when something happens."""
        select.select([self._readable], [], [], seconds)
        try:
            while os.read(self._readable, 1024):
                pass
        except BlockingIOError:
            return

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if number in _STOP:
            self.requests += 1
            self.hung_up = self.hung_up or number == signal.SIGHUP
            if self.requests > 2:  # noqa: PLR2004 - once in order, twice at once, then whatever it takes
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
        try:
            os.write(self._writable, b".")
        except BlockingIOError:
            return  # the pipe is full: whoever waits wakes up anyway
