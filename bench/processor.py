"""How much the processors of this machine were busy, whoever kept them so: workers, Postgres, Kubernetes."""

import os
import threading
import time
from bisect import bisect_left
from pathlib import Path
from types import TracebackType
from typing import Self

_SECONDS_BETWEEN_LOOKS = 0.05
_TICKS = os.sysconf("SC_CLK_TCK")
_BUSY_COLUMNS = (0, 1, 2, 5, 6)
"""user, nice, system, irq and softirq of the first line of /proc/stat, see proc(5)."""


class Meter:
    """Looks at /proc/stat while it is open."""

    def __init__(self) -> None:
        self._times: list[float] = []
        self._busy: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._look_once()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._look_once()

    def busy(self, start: float, end: float) -> float:
        """Seconds that all processors together were busy between two times, as of `time.time`."""
        return self._at(end) - self._at(start)

    def _at(self, moment: float) -> float:
        return self._busy[min(bisect_left(self._times, moment), len(self._times) - 1)]

    def _look(self) -> None:
        while not self._stop.wait(_SECONDS_BETWEEN_LOOKS):
            self._look_once()

    def _look_once(self) -> None:
        columns = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
        self._busy.append(sum(int(columns[place]) for place in _BUSY_COLUMNS) / _TICKS)
        self._times.append(time.time())
