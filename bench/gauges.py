"""What processes use, and how a lot of figures is spread."""

import math
from collections.abc import Sequence
from contextlib import suppress

import psutil

_MIB = 1 << 20


def cpu_seconds(pid: int) -> float:
    """Processor time of a process and of all that it has started: of those that run, and of those that have ended."""
    process = psutil.Process(pid)
    running = 0.0
    for child in process.children():
        with suppress(psutil.NoSuchProcess):  # then it counts below, among those that have ended
            running += cpu_seconds(child.pid)
    times = process.cpu_times()
    return times.user + times.system + times.children_user + times.children_system + running


def memory_mib(pid: int) -> float:
    """Resident memory of a process and of those that it has started, in MiB; what they share counts once for each."""
    process = psutil.Process(pid)
    return math.fsum(one.memory_info().rss for one in (process, *process.children(recursive=True))) / _MIB


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest of the values that at least so large a share of them does not exceed; at least one value is needed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
