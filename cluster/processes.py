"""Start, record and stop processes, so that whoever comes later can stop exactly those and no others.

`up` ends while its processes live on, and `down` is another process: so each one is written to a file. A process id
alone is not enough, for the kernel hands it out again; an id together with its start time is unique until the next boot,
and the boot is part of the record too.
"""

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cluster.waiting import wait_until

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class ProcessEndedError(RuntimeError):
    """A process that should run on has ended; the message holds the last lines of its log."""


@dataclass(frozen=True)
class Process:
    """One process that we started, told apart from any other that may get its id later."""

    pid: int
    started: int
    """Clock ticks from boot to start: field 22 of /proc/PID/stat."""
    boot: str

    def is_alive(self) -> bool:
        """Whether this very process still runs; a zombie does not."""
        return self.boot == _boot() and _start_time(self.pid) == self.started

    def terminate(self) -> None:
        """Ask it to end."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it without its consent."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


def identify(pid: int) -> Process | None:
    """The process that has this id now, or None."""
    started = _start_time(pid)
    return None if started is None else Process(pid=pid, started=started, boot=_boot())


def _boot() -> str:
    return BOOT_ID.read_text().strip()


def _start_time(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # NB: field 2 is the program's name in parentheses and may hold spaces and parentheses: count from the last one.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


class Processes:
    """Named processes with their logs and records below one directory."""

    def __init__(self, directory: Path, *, die_with_parent: bool) -> None:
        """Processes of `directory`, also those that an earlier run started there.

        Args:
            directory: Holds `logs/NAME.log` and `processes/NAME.json`.
            die_with_parent: The kernel kills new ones when the thread that started them ends, however it ends. Else
                they are detached from the terminal and live on.
        """
        self._records = directory / "processes"
        self._logs = directory / "logs"
        self._die_with_parent = die_with_parent
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, command: Sequence[str | Path], *, environment: Mapping[str, str] | None = None) -> None:
        """Start a process; an earlier one of the same name is stopped first, and its log is continued."""
        self.stop(name)
        self._records.mkdir(parents=True, exist_ok=True)
        self._logs.mkdir(parents=True, exist_ok=True)
        # NB: the signal is bound to the starting thread, not the process (prctl(2), PR_SET_PDEATHSIG).
        prefix = ["setpriv", "--pdeathsig", "KILL"] if self._die_with_parent else []
        with self.log(name).open("ab") as log:
            child = subprocess.Popen(
                [*prefix, *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **(environment or {})},
                start_new_session=True,  # Ctrl-C in the terminal reaches us; we stop them in order
            )
        self._children[name] = child
        process = identify(child.pid)
        if process is None:
            raise ProcessEndedError(f"{name} ended at once:\n{self.last_lines(name)}")
        temporary = self._records / f".{name}.json"
        temporary.write_text(json.dumps(asdict(process)))
        temporary.replace(self._record(name))

    def log(self, name: str) -> Path:
        """The file that holds what the process printed."""
        return self._logs / f"{name}.log"

    def last_lines(self, name: str, *, lines: int = 15) -> str:
        """The end of its log, for an error message."""
        if not self.log(name).exists():
            return "(no log)"
        return "\n".join(self.log(name).read_text(errors="replace").splitlines()[-lines:])

    def names(self) -> list[str]:
        """All recorded processes, dead ones too, in the order in which they were started."""
        return [
            path.stem for path in sorted(self._records.glob("[!.]*.json"), key=lambda path: path.stat().st_mtime_ns)
        ]

    def find(self, name: str) -> Process | None:
        """The process of this name if it runs."""
        try:
            process = Process(**json.loads(self._record(name).read_text()))
        except FileNotFoundError:
            return None
        return process if process.is_alive() else None

    def check_alive(self, name: str) -> None:
        """Raise ProcessEndedError with the end of its log unless the process runs."""
        if self.find(name) is None:
            raise ProcessEndedError(f"{name} has ended. The end of {self.log(name)}:\n{self.last_lines(name)}")

    def stop(self, name: str, *, patience: float = 5) -> None:
        """End a process and wait until it is gone: SIGTERM, and SIGKILL after `patience` seconds (at once if 0)."""
        process = self.find(name)
        if process is not None:
            process.terminate() if patience else process.kill()
            try:
                wait_until(lambda: not process.is_alive(), timeout=patience, waiting_for=f"{name} to end")
            except TimeoutError:
                process.kill()
                wait_until(lambda: not process.is_alive(), timeout=30, waiting_for=f"{name} to be killed")
        if child := self._children.pop(name, None):
            child.wait()  # else it stays a zombie, and Python warns of it
        self._record(name).unlink(missing_ok=True)

    def stop_all(self, *, patience: float = 5) -> None:
        """End all of them, the last started first."""
        for name in reversed(self.names()):
            self.stop(name, patience=patience)

    def _record(self, name: str) -> Path:
        return self._records / f"{name}.json"
