"""Files that other people have named or made: read only where they are regular files, up to a size, and below a folder.

A name may lead to a pipe that nobody writes to, to a device without an end, or by a link to what a person keeps
elsewhere. What is wrong is an OSError, whose `strerror` is the sentence for the person.
"""

import errno
import os
import stat
from pathlib import Path

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
    _check_kind(_stat(path))  # NB: to open a device may change its state already
    # NB: without O_NONBLOCK a pipe that took the file's place meanwhile is opened when somebody writes to it.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        found = os.fstat(file.fileno())
        _check_kind(found)
        content = file.read(most + 1) if found.st_size <= most else b""
    if len(content) > most or found.st_size > most:
        raise OSError(errno.EFBIG, f"it has more than {most:,} bytes")
    return content


def resolved_below(path: Path, folder: Path) -> Path:
    """Where a path leads, past all links, if that is in a folder or below it.

    Raises:
        OSError: it leads elsewhere, or nowhere.
    """
    real = Path(_real(path))
    if not real.is_relative_to(_real(folder)):
        raise OSError(errno.EXDEV, f"it leads out of {folder}")
    return real


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


def _check_kind(found: os.stat_result) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(found.st_mode):
        kind = next((words for is_kind, words in _KINDS if is_kind(found.st_mode)), "something else")
        raise OSError(errno.EINVAL, f"it is {kind}, not a file")
