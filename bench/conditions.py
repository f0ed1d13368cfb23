"""Under what conditions a benchmark ran: the machine, the versions, and how busy it was before."""

import os
import platform
import re
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from tests.support.postgres import BINARIES

ROOT = Path(__file__).resolve().parent.parent
_KIB_PER_GIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What a reader has to know to compare figures."""

    machine: str
    date: str
    commit: str
    python: str
    optuna: str
    postgres: str
    longer: bool
    load: float | None = None
    """The load average of the minute before; None where nobody looked."""
    seconds: float | None = None
    """So long it took."""


def conditions(*, longer: bool) -> Conditions:
    """The conditions here and now."""
    return Conditions(
        machine=machine(
            Path("/proc/cpuinfo").read_text(), Path("/proc/meminfo").read_text(), cores=len(os.sched_getaffinity(0))
        ),
        date=datetime.now(UTC).date().isoformat(),
        commit=_commit(),
        python=platform.python_version(),
        optuna=version("optuna"),
        postgres=_output(str(BINARIES / "postgres"), "--version").split()[-1],
        longer=longer,
        load=round(os.getloadavg()[0], 2),
    )


def machine(cpuinfo: str, meminfo: str, *, cores: int) -> str:
    """A machine in words.

    Args:
        cpuinfo: The text of /proc/cpuinfo.
        meminfo: The text of /proc/meminfo.
        cores: How many of its processors may be used.
    """
    model = re.search(r"^model name\s*: (.+)$", cpuinfo, re.MULTILINE)
    total = re.search(r"^MemTotal:\s+(\d+) kB$", meminfo, re.MULTILINE)
    memory = f"{int(total[1]) / _KIB_PER_GIB:.0f} GiB of memory" if total else "an unknown amount of memory"
    return f"{cores} cores of {model[1] if model else platform.machine()}, {memory}"


def _commit() -> str:
    """The commit; with a sign where files differ from it, but for what the benchmarks write."""
    changed = _output("git", "status", "--porcelain", "--", ".", ":!bench/results", ":!docs")
    return _output("git", "rev-parse", "--short", "HEAD") + ("+" if changed else "")


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout.strip()
