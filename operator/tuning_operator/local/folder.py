"""A study's folder: all that a study without a cluster leaves on the disk, and who runs it at the moment.

::

    .tuningstudy/NAME/        beside the manifest
        study.json            where the manifest and the database are
        study.db              the trials, in SQLite, unless --database said otherwise
        status.json           what `kubectl get -o yaml` would show under status
        report.html           the study's page
        workers/ logs/        who works, and what they say
        checkpoints/          where trials go on that were interrupted
        scratch/              what trials leave behind; removed with each of them
"""

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tuning_operator.local.errors import BadInputError

PARENT = ".tuningstudy"


@dataclass(frozen=True)
class StudyFolder:
    """Paths below a study's folder."""

    path: Path

    @classmethod
    def beside(cls, manifest: Path, name: str) -> "StudyFolder":
        """The folder of a manifest's study."""
        return cls(manifest.absolute().parent / PARENT / name)

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.path / "study.db"

    @property
    def status(self) -> Path:
        """The status, as JSON."""
        return self.path / "status.json"

    @property
    def record(self) -> Path:
        """Where the manifest and the database are."""
        return self.path / "study.json"

    @property
    def report(self) -> Path:
        """The study's page, when the study has ended."""
        return self.path / "report.html"

    @property
    def workers(self) -> Path:
        """A record of each worker."""
        return self.path / "workers"

    @property
    def logs(self) -> Path:
        """What workers say."""
        return self.path / "logs"

    @property
    def checkpoints(self) -> Path:
        """Where trials save their state."""
        return self.path / "checkpoints"

    @property
    def scratch(self) -> Path:
        """What trials leave behind."""
        return self.path / "scratch"

    @property
    def lock(self) -> Path:
        """Held by the process that runs the study."""
        return self.path / "lock"

    def create(self) -> None:
        """Make it; what is there stays.

        Raises:
            BadInputError: it cannot be made or written to.
        """
        try:
            for folder in (self.workers, self.logs, self.checkpoints, self.scratch):
                folder.mkdir(parents=True, exist_ok=True)
            if self.path.parent.name == PARENT:
                (self.path.parent / ".gitignore").write_text("*\n")
            if self.database.exists() and not os.access(self.database, os.W_OK):
                raise PermissionError(None, "Permission denied", str(self.database))
        except OSError as error:
            advice = "choose another place with --folder"
            raise BadInputError(f"{error.filename}: cannot be written: {error.strerror}; {advice}") from error

    @contextmanager
    def held(self, *, command: str) -> Iterator[datetime | None]:
        """Be the one who runs this study.

        Yields:
            When it was last run; None if it never was.

        Raises:
            BadInputError: somebody else runs it.
        """
        with self.lock.open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                file.seek(0)
                who = _holder(file.read())
                raise BadInputError(f"{self.path}: the study is being run already, by {who}") from error
            last_run = datetime.fromtimestamp(self.lock.stat().st_mtime, UTC) if self.lock.stat().st_size else None
            file.truncate(0)
            holder = {"pid": os.getpid(), "host": socket.gethostname(), "command": command}
            file.write(json.dumps(holder))
            file.flush()
            yield last_run

    def still_run(self) -> None:
        """Leave a sign of life, from which the next run knows when this one ended."""
        os.utime(self.lock)


def _holder(text: str) -> str:
    try:
        holder = json.loads(text)
        return f"process {holder['pid']} on {holder['host']} ({holder['command']})"
    except (ValueError, KeyError, TypeError):
        return "another process"


def read_json(file: Path) -> dict[str, Any]:
    """A document that was written; an empty one if it never was, or cannot be read."""
    try:
        document = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def write_json(file: Path, document: dict[str, Any]) -> None:
    """Write a document so that a reader sees the old one or the new one, whenever the writer is killed."""
    temporary = file.with_name(f".{file.name}.new")
    temporary.write_text(json.dumps(document, indent=2) + "\n")
    temporary.replace(file)
