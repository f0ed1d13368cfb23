"""Files in which trials save their state: those of a trial and of the trials that continue it, replaced as a whole.

    STUDY/trial-3.ckpt            the state from which a trial of Lightning goes on
    STUDY/trial-3.final-9.ckpt    the weights of trial 9, which continues trial 3 and is complete
    STUDY/trial-3.files/          what an objective saves, to go on from and to be kept

When a trial has ended, all of its files are removed but those that are kept.
"""

import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_NAME = re.compile(r"^trial-(\d+)\.")


@dataclass(frozen=True, kw_only=True)
class CheckpointFile:
    """Where a trial saves its state; travels to the trial's process."""

    path: Path
    identity: str
    """Of the lineage; written into the file, since a path may outlive a study and meet another one of its name."""

    @property
    def folder(self) -> Path:
        """Where an objective saves what it wants."""
        return self.path.with_suffix(".files")

    def final(self, number: int) -> Path:
        """Where the weights of a trial are when it is complete: one that was believed lost does not meet its successor."""
        return self.path.with_suffix(f".final-{number}.ckpt")

    def relative(self, path: Path) -> str:
        """The path below the place of all checkpoints."""
        return f"{self.path.parent.name}/{path.name}"

    def write(self, write: Callable[[Path], None], *, path: Path | None = None) -> None:
        """Replace a file at once or not at all, and only by what is on the disk.

        Args:
            write: Writes to the path that it is given.
            path: The file; by default that of the trial's state.

        Raises:
            OSError: the folder is full, or gone.
            Exception: whatever `write` raises.
        """
        path = path or self.path
        path.parent.mkdir(parents=True, exist_ok=True)
        # A name of its own: the worker that was believed lost may be writing too.
        temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
        try:
            write(temporary)
            _sync(temporary)
            temporary.replace(path)
            _sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)

    def discard(self, *, but: str | None = None) -> None:
        """Remove the files, and what was left of them by a process that was killed while it wrote.

        Args:
            but: The one that is kept, as a path below the place of all checkpoints.
        """
        with suppress(OSError):
            for found in self.path.parent.glob(f"{self.path.stem}.*"):
                if self.relative(found) == but:
                    continue
                if found.is_dir():
                    shutil.rmtree(found, ignore_errors=True)
                else:
                    found.unlink(missing_ok=True)


def of_trial(folder: Path, *, study: str, first: int, identity: str = "") -> CheckpointFile:
    """The file of a trial, by the first of its lineage."""
    return CheckpointFile(path=folder / study / f"trial-{first}.ckpt", identity=identity)


def found(folder: Path, *, study: str) -> Iterator[int]:
    """First trials of the lineages of which there are files."""
    with suppress(OSError):
        numbers = {int(name[1]) for file in (folder / study).iterdir() if (name := _NAME.match(file.name))}
        yield from sorted(numbers)


def _sync(path: Path) -> None:
    """NB: a rename may reach the disk before the contents do, and a folder has to be synced for its names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
