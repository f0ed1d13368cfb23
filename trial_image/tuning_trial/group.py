"""The process group of a trial: its own process, and those that it started."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_PROCESSES = Path("/proc")
_ZOMBIE = "Z"


def signal(group: int, number: int) -> bool:
    """Send a signal to all of a group, 0 for none; False where there is no such group."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # it belongs to another user by now
    return True


def alive(group: int) -> list[str]:
    """What runs in a group: name and number of each process, or a word for all where the system does not list them.

    NB: a zombie belongs to its group until it is buried, in a container perhaps never.
    """
    if not signal(group, 0):
        return []
    return list(_members(group)) if _PROCESSES.is_dir() else ["a process"]


def _members(group: int) -> Iterator[str]:
    """By proc_pid_stat(5): pid (name) state ppid pgrp. A name may have parentheses, and blanks."""
    for folder in _PROCESSES.glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile
            before, _, after = (folder / "stat").read_text(errors="replace").rpartition(")")
            state, _parent, of = after.split()[:3]
            if int(of) == group and state != _ZOMBIE:
                yield f"{before.partition('(')[2]} ({folder.name})"
