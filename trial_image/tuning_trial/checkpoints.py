"""Files in which trials save their state: one for each trial and those that continue it, replaced as a whole."""

import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_NAME = re.compile(r"^trial-(\d+)\.ckpt")


@dataclass(frozen=True, kw_only=True)
class CheckpointFile:
    """Where a trial saves its state; travels to the trial's process."""

    path: Path
    identity: str
    """Of the lineage; written into the file, since a path may outlive a study and meet another one of its name."""

    def write(self, write: Callable[[Path], None]) -> None:
        """Replace the file at once or not at all, and only by what is on the disk.

        Args:
            write: Writes to the path that it is given.

        Raises:
            OSError: the folder is full, or gone.
            Exception: whatever `write` raises.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # A name of its own: the worker that was believed lost may be writing too.
        temporary = self.path.with_name(f"{self.path.name}.{secrets.token_hex(4)}.tmp")
        try:
            write(temporary)
            _sync(temporary)
            temporary.replace(self.path)
            _sync(self.path.parent)
        finally:
            temporary.unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove the file, and what was left of it by a process that was killed while it wrote."""
        with suppress(OSError):
            for file in self.path.parent.glob(f"{self.path.name}*"):
                file.unlink(missing_ok=True)


def of_trial(folder: Path, *, study: str, first: int, identity: str = "") -> CheckpointFile:
    """The file of a trial, by the first of its lineage."""
    return CheckpointFile(path=folder / study / f"trial-{first}.ckpt", identity=identity)


def kept(folder: Path, *, study: str) -> Iterator[int]:
    """First trials of the lineages of which there are files."""
    with suppress(OSError):
        numbers = {int(found[1]) for file in (folder / study).iterdir() if (found := _NAME.match(file.name))}
        yield from sorted(numbers)


def _sync(path: Path) -> None:
    """NB: a rename may reach the disk before the contents do, and a folder has to be synced for its names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
