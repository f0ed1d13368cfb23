"""Files in which trials save their state: those of a trial and of the trials that continue it, replaced as a whole.

    STUDY/trial-3.ckpt            the state from which a trial of Lightning goes on, at the start of an epoch
    STUDY/trial-3.middle.ckpt     the state in the middle of that epoch, if the trial was asked to stop there
    STUDY/trial-3.final-9.ckpt    the weights of trial 9, which continues trial 3 and is complete
    STUDY/trial-3.files/          what an objective saves, to go on from and to be kept

When a trial has ended, all of its files are removed but those that are kept.

They lie in a folder that all workers share, or in a bucket. What goes to a bucket is written to the trial's own folder
first, and what comes from one is read from there: only this module knows the difference.
"""

import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tuning_api.store import Store, StoreError
from tuning_trial.log import logger

PAUSE_SECONDS = 60.0
"""Between two tries to write to a bucket that is away: a try may take as long, and the training waits for it."""
_NAME = re.compile(r"^trial-(\d+)\.")


@dataclass
class Bucket:
    """A place of checkpoints that is reached over the network."""

    store: Store
    _next_try: float = 0.0

    def check_turn(self) -> None:
        """Say early that a file would not be sent.

        Raises:
            StoreError: it has just failed.
        """
        if time.monotonic() < self._next_try:
            raise StoreError(f"{self.store.uri}: it has just failed, and is tried again in a minute")

    def put(self, file: Path, name: str) -> None:
        """Write a file, or wait for the next turn.

        Raises:
            StoreError: it is away.
        """
        self.check_turn()
        try:
            self.store.put(file, name)
        except StoreError:
            self._next_try = time.monotonic() + PAUSE_SECONDS
            raise


Place = Path | Bucket
"""Where the checkpoints of all studies are: a folder, or a bucket."""


@dataclass(frozen=True, kw_only=True)
class CheckpointFile:
    """Where a trial saves its state; travels to the trial's process."""

    path: Path
    """The file itself; of a bucket, where it lies on this machine when it was fetched."""
    identity: str
    """Of the lineage; written into the file, since a path may outlive a study and meet another one of its name."""
    bucket: Bucket | None = None

    @property
    def folder(self) -> Path:
        """Where an objective saves what it wants."""
        return self.path.with_suffix(".files")

    @property
    def middle(self) -> Path:
        """Where the state in the middle of an epoch is; beside the one of its start, from which the epoch is begun again."""
        return self.path.with_suffix(".middle.ckpt")

    def final(self, number: int) -> Path:
        """Where the weights of a trial are when it is complete: one that was believed lost does not meet its successor."""
        return self.path.with_suffix(f".final-{number}.ckpt")

    def relative(self, path: Path) -> str:
        """The path below the place of all checkpoints."""
        return f"{self.path.parent.name}/{path.name}"

    def fetch(self) -> None:
        """Bring here what an earlier process has saved; in a folder it is here.

        Raises:
            StoreError: the bucket is away.
        """
        if self.bucket:
            for path in (self.path, self.middle):
                self.bucket.store.get(self.relative(path), path)
            self.bucket.store.get_folder(self.relative(self.folder), self.folder)

    def write(self, write: Callable[[Path], None], *, path: Path | None = None) -> None:
        """Replace a file at once or not at all, and only by what is on the disk.

        Args:
            write: Writes to the path that it is given.
            path: The file; by default that of the trial's state.

        Raises:
            OSError: the folder is full, or gone.
            StoreError: the bucket is away.
            Exception: whatever `write` raises.
        """
        path = path or self.path
        if self.bucket:
            self.bucket.check_turn()
        path.parent.mkdir(parents=True, exist_ok=True)
        # A name of its own: the worker that was believed lost may be writing too.
        temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
        try:
            write(temporary)
            if self.bucket:
                self.bucket.put(temporary, self.relative(path))
            else:
                _sync(temporary)
                temporary.replace(path)
                _sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)

    def discard_middle(self) -> None:
        """Remove the middle of an epoch, if it was found. A bucket may keep it: it is of no other epoch."""
        if not self.middle.exists():
            return
        self.middle.unlink()
        if self.bucket:
            with suppress(StoreError):
                self.bucket.store.remove(self.relative(self.middle))

    def discard(self, *, but: str | None = None) -> None:
        """Remove the files, and what was left of them by a process that was killed while it wrote.

        Args:
            but: The one that is kept, as a path below the place of all checkpoints.

        Raises:
            StoreError: the bucket is away.
        """
        study, place = self.path.parent.name, self.bucket or self.path.parent.parent
        for name in _names(place, study):
            if name.startswith(f"{self.path.stem}.") and f"{study}/{name}" != but:
                _remove(place, f"{study}/{name}")


class ObjectiveFiles:
    """What an objective has saved in its folder, and its copy in a bucket. In a folder that is shared there is no copy."""

    def __init__(self, file: CheckpointFile, *, name: str) -> None:
        """Prepare for one trial, whose files were fetched.

        Args:
            file: The trial's files.
            name: What log lines call the trial.
        """
        self._file = file
        self._name = name
        self._sent = self._here()
        self._cannot_send = False

    def send(self) -> bool:
        """Write to the bucket what has changed; a trial is not failed for it.

        Returns:
            Whether the bucket has all of it.
        """
        if self._file.bucket is None:
            return True
        try:
            self._send(self._file.bucket)
        except (StoreError, OSError) as error:
            if not self._cannot_send:
                logger.warning("%s: cannot send what it has saved (%s); it goes on", self._name, error)
            self._cannot_send = True
            return False
        self._cannot_send = False
        return True

    def kept(self) -> str | None:
        """What a complete trial leaves to be kept, as a path below the place of the checkpoints; None if that is nothing."""
        return self._file.relative(self._file.folder) if self._here() and self.send() else None

    def _send(self, bucket: Bucket) -> None:
        here, target = self._here(), self._file.relative(self._file.folder)
        for name in sorted(name for name, state in here.items() if self._sent.get(name) != state):
            bucket.put(self._file.folder / name, f"{target}/{name}")
            self._sent[name] = here[name]
        for name in sorted(self._sent.keys() - here.keys()):
            bucket.store.remove(f"{target}/{name}")
            del self._sent[name]

    def _here(self) -> dict[str, tuple[int, int]]:
        files = [path for path in self._file.folder.rglob("*") if path.is_file()]
        states = [(path.stat().st_size, path.stat().st_mtime_ns) for path in files]
        return {str(path.relative_to(self._file.folder)): state for path, state in zip(files, states, strict=True)}


def of_trial(
    place: Place, *, study: str, first: int, identity: str = "", scratch: Path = Path("checkpoints")
) -> CheckpointFile:
    """The file of a trial, by the first of its lineage.

    Args:
        place: Where the checkpoints are.
        study: The study's name.
        first: Number of the first trial of the lineage.
        identity: See :attr:`CheckpointFile.identity`.
        scratch: A folder for what is on its way to or from a bucket.
    """
    folder = place if isinstance(place, Path) else scratch
    bucket = place if isinstance(place, Bucket) else None
    return CheckpointFile(path=folder / study / f"trial-{first}.ckpt", identity=identity, bucket=bucket)


def found(place: Place, *, study: str) -> list[int]:
    """First trials of the lineages of which there are files.

    Raises:
        StoreError: the bucket is away.
    """
    return sorted({int(found[1]) for name in _names(place, study) if (found := _NAME.match(name))})


def discard_all(files: Iterable[tuple[CheckpointFile, str | None]]) -> None:
    """Remove the files of several trials, each with what is kept of it.

    Raises:
        StoreError: the bucket is away.
    """
    for file, kept in files:
        file.discard(but=kept)


def _names(place: Place, study: str) -> list[str]:
    if isinstance(place, Bucket):
        return place.store.names(study)
    with suppress(OSError):
        return [file.name for file in (place / study).iterdir()]
    return []


def _remove(place: Place, name: str) -> None:
    if isinstance(place, Bucket):
        place.store.remove(name)
        return
    with suppress(OSError):
        if (place / name).is_dir():
            shutil.rmtree(place / name, ignore_errors=True)
        else:
            (place / name).unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """NB: a rename may reach the disk before the contents do, and a folder has to be synced for its names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
