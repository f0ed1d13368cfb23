"""Files that other people have named or made: read only where they are regular files, up to a size, and below a folder.

A name may lead to a pipe that nobody writes to, to a device without an end, or by a link to what a person keeps
elsewhere. What is wrong is an OSError, whose `strerror` is the sentence for the person.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

_KINDS = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def read(path: Path, *, most: int) -> bytes:
    """The content of a regular file.

    Args:
        path: The file, or a link to it.
        most: The most bytes that it may have.

    Raises:
        OSError: it is none, has more bytes, or cannot be read.
    """
    with opened(path) as file:
        content = file.read(most + 1) if os.fstat(file.fileno()).st_size <= most else None
    if content is None or len(content) > most:
        raise OSError(errno.EFBIG, f"it has more than {most:,} bytes", str(path))
    return content


def opened(path: Path) -> BinaryIO:
    """A regular file, opened to be read.

    Raises:
        OSError: it is none, or cannot be read.
    """
    _check_kind(path, _stat(path))  # NB: to open a device may change its state already
    # NB: without O_NONBLOCK a pipe that took the file's place meanwhile is opened when somebody writes to it.
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    try:
        _check_kind(path, os.fstat(file.fileno()))
    except OSError:
        file.close()
        raise
    return file


def resolved_below(path: Path, folder: Path) -> Path:
    """Where a path leads, past all links, if that is in a folder or below it.

    Raises:
        OSError: it leads elsewhere, or nowhere.
    """
    real = Path(_real(path))
    if not real.is_relative_to(_real(folder)):
        raise OSError(errno.EXDEV, f"it leads out of {folder}", str(path))
    return real


def walk(folder: Path, *, most: int, levels: int, enters: Callable[[Path], bool] = lambda _: True) -> Iterator[Path]:
    """What is in a folder and below it and is no folder; links are named, and not followed.

    Args:
        folder: The folder.
        most: The most files and folders that are looked at.
        levels: The most folders within one another.
        enters: Whether a folder is looked into.

    Raises:
        OSError: there are more, or a folder cannot be read.
    """
    waiting = [(folder, 1)]
    seen = 0
    while waiting:
        here, level = waiting.pop()
        with os.scandir(here) as found:
            for item in found:
                seen += 1
                if seen > most:
                    raise OSError(errno.EFBIG, f"it has more than {most:,} files and folders", str(folder))
                path = Path(item.path)
                if not item.is_dir(follow_symlinks=False):
                    yield path
                elif enters(path):
                    if level == levels:
                        raise OSError(errno.ELOOP, f"it has folders more than {levels} levels deep", str(folder))
                    waiting.append((path, level + 1))


def _stat(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except ValueError:
        raise OSError(errno.EINVAL, "its name has a NUL") from None


def _real(path: Path) -> str:
    try:
        return os.path.realpath(path, strict=True)
    except ValueError:
        raise OSError(errno.EINVAL, "its name has a NUL") from None


def _check_kind(path: Path, found: os.stat_result) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(found.st_mode):
        kind = next((words for is_kind, words in _KINDS if is_kind(found.st_mode)), "something else")
        raise OSError(errno.EINVAL, f"it is {kind}, not a file", str(path))
