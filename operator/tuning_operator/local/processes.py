"""Workers as processes that outlive whoever started them: a later run finds those of a run that was killed.

A worker holds a lock on a file of its own. The kernel lets go of it when the worker's last process ends, however it
ends, so that nobody mistakes another process with the same number for it: not after a crash, not after a boot.
"""

import fcntl
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from tuning_operator.local.folder import read_json, write_json

GRACE_SECONDS = 30.0
"""From SIGTERM to SIGKILL: a worker gives the process of its trial 20 s, and then ends at once."""

_WRITE_PID_THEN_RUN = 'echo $$ > "$0"; exec "$@"'
"""NB: the worker itself writes its number, before anything else; a run that is killed here has lost nobody."""


@dataclass(frozen=True)
class Identity:
    """A worker as it is recorded."""

    name: str
    index: int
    id: str
    gpus: tuple[str, ...] = ()


@dataclass
class Process:
    """A worker that was found or started."""

    identity: Identity
    child: "subprocess.Popen[bytes] | None" = None
    """None where another run started it: how that one ends, nobody learns."""
    exit_code: int | None = None
    ended: datetime | None = None
    kill_at: float | None = None
    """When patience with it ends, since it was asked to stop."""

    @property
    def is_alive(self) -> bool:
        """Whether it may still write to the database."""
        return self.ended is None


class Processes:
    """The workers of one study; only the process that holds the study's folder may have these."""

    def __init__(self, records: Path, logs: Path) -> None:
        self._records = records
        self._logs = logs
        self._known = {item.identity.name: item for item in self._found()}

    def all(self) -> list[Process]:
        """All of them as they are now; those that do not stop in time are killed."""
        for process in self._known.values():
            if process.is_alive:
                self._look(process)
        return list(self._known.values())

    def start(
        self, identity: Identity, command: Sequence[str], *, environment: Mapping[str, str], folder: Path
    ) -> None:
        """Start a worker, detached from the terminal: Ctrl-C reaches us, and we stop workers in order."""
        write_json(self._record(identity.name), asdict(identity))
        lock = self._lock(identity.name)
        with lock.open("w") as held, self.log(identity.name).open("ab") as log:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            child = subprocess.Popen(
                ["/bin/sh", "-c", _WRITE_PID_THEN_RUN, str(lock), *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                cwd=folder,
                pass_fds=[held.fileno()],
                start_new_session=True,
            )
        self._known[identity.name] = Process(identity, child)

    def stop(self, name: str) -> None:
        """Ask a worker to stop; a second time changes nothing."""
        process = self._known.get(name)
        if process and process.is_alive and process.kill_at is None:
            process.kill_at = time.monotonic() + GRACE_SECONDS
            self._signal(process, signal.SIGTERM)

    def kill(self, name: str) -> None:
        """End a worker and its trial."""
        process = self._known[name]
        process.kill_at = time.monotonic()
        self._signal(process, signal.SIGKILL)

    def log(self, name: str) -> Path:
        """What a worker has said."""
        return self._logs / f"{name}.log"

    def _found(self) -> list[Process]:
        """Workers of an earlier run that still work; the records of others are removed, and their names free again."""
        found = []
        for record in sorted(self._records.glob("[!.]*.json")):
            if self._holds(record.stem):
                found.append(Process(_identity(record)))
            else:
                record.unlink()
                self._lock(record.stem).unlink(missing_ok=True)
        return found

    def _look(self, process: Process) -> None:
        if process.kill_at is not None and time.monotonic() >= process.kill_at:
            self._signal(process, signal.SIGKILL)
        if process.child is not None:
            process.exit_code = process.child.poll()
            has_ended = process.exit_code is not None
        else:
            has_ended = not self._holds(process.identity.name)
        if has_ended:
            process.ended = datetime.now(UTC)

    def _holds(self, name: str) -> bool:
        try:
            with self._lock(name).open() as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def _signal(self, process: Process, number: signal.Signals) -> None:
        """NB: SIGTERM to the worker alone, which ends its trial in order; SIGKILL to its whole group."""
        pid = process.child.pid if process.child else self._pid(process.identity.name)
        if pid is None:
            return
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number) if number is signal.SIGTERM else os.killpg(pid, number)

    def _pid(self, name: str) -> int | None:
        text = self._lock(name).read_text().strip()
        return int(text) if text.isdigit() else None

    def _record(self, name: str) -> Path:
        return self._records / f"{name}.json"

    def _lock(self, name: str) -> Path:
        return self._records / f"{name}.lock"


def new_identity(study: str, index: int, *, gpus: tuple[str, ...]) -> Identity:
    """A worker that never was before."""
    return Identity(name=f"{study}-{index}", index=index, id=str(uuid.uuid4()), gpus=gpus)


def _identity(record: Path) -> Identity:
    document = read_json(record)
    return Identity(
        name=record.stem,
        index=int(document.get("index", 0)),
        id=str(document.get("id", record.stem)),
        gpus=tuple(document.get("gpus", ())),
    )
