"""The end of a trial's process: what its code has left for the interpreter's end is done, as in a program of its own.

NB: a fork that multiprocessing has made leaves by os._exit. No exit handler runs, no file that is still open is written to its
end, and a thread that never ends keeps the process for ever. Loggers (W&B, MLflow), executors and temporary folders rely on
those.

Whose exit handlers run: those that the trial's own process has registered. Those that were there before the fork, from the
imports, are the worker's. They remove folders and stop servers that the next trials use, and nothing tells them from those
that only write out. In a fresh interpreter (`isolation: process`) all of them are the trial's own.
"""

import atexit
import gc
import io
import logging
import multiprocessing
import os
import sys
import threading
import time
import weakref
from collections.abc import Iterable
from multiprocessing import util
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any, NoReturn

from tuning_trial.log import logger

MOMENT_SECONDS = 5.0
"""For threads that are no daemons, and then for processes of multiprocessing, to end by themselves."""

_FILE: type = io.IOBase.__base__  # type: ignore[assignment]
"""What is a file, without asking an object that may lie about its class."""
_opened_by_imports: list["weakref.ref[Any]"] = []


def remember_files() -> None:
    """Write out the files that the imports have opened, before the first fork; each fork writes its own part of them.

    NB: has to come before gc.freeze: frozen objects cannot be listed.
    """
    files = _open_files()
    _write_out(files)
    _opened_by_imports[:] = [weakref.ref(file) for file in files]


def begin_fork() -> None:
    """Forget what the worker does at its own end. Has to come before the trial's code."""
    # NB: atexit cannot list what it has, so that the worker's handlers could not be told from the trial's later.
    atexit._clear()  # noqa: SLF001
    for finalizer in list(weakref.finalize._registry):  # type: ignore[attr-defined]  # noqa: SLF001 - no public way
        finalizer.atexit = False
    weakref.finalize._registered_with_atexit = False  # type: ignore[attr-defined]  # noqa: SLF001 - the next one does it again
    # It writes out what handlers keep, and they are this process's own: first to be registered, last to run.
    atexit.register(logging.shutdown)


def leave(name: str, *, seconds: float = MOMENT_SECONDS, code: int = 0) -> None:
    """Do what the interpreter's end does, in its order; multiprocessing does the rest.

    Exit handlers may take as long as the worker lets this process live. Threads and processes that do not end are left behind:
    the call does not return then.

    Args:
        name: What log lines call the trial.
        seconds: For all threads, and for all processes.
        code: The exit code, where the call does not return.
    """
    left = [f"thread {thread.name}" for thread in _join_threads(seconds)]
    atexit._run_exitfuncs()  # noqa: SLF001 - there is no public way
    _write_out(_open_files(), is_end=True)
    _write_out([file for known in _opened_by_imports if (file := known()) is not None])
    left += [f"process {process.name}" for process in _join_processes(seconds)]
    if not left:
        return
    logger.warning("%s: did not wait longer than %g s for what it started: %s", name, seconds, ", ".join(left))
    util._run_finalizers()  # type: ignore[attr-defined]  # noqa: SLF001 - all but the waiting of util._exit_function
    end(code)


def end(code: int) -> NoReturn:
    """End this process without the rest of the interpreter's end.

    NB: objects that were frozen (gc.freeze) are not freed there, and nanobind writes a page of those that it misses.
    """
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and not stream.closed:
            stream.flush()
    os._exit(code)


def _join_threads(seconds: float) -> list[threading.Thread]:
    """Let executors end, then wait for the threads that are no daemons; those that have not ended."""
    if not _threads():
        threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001 - there is no public way
        return []
    # NB: it waits without a limit, so it does that in a thread, which nobody waits for.
    shutdown = threading.Thread(target=threading._shutdown, name="end", daemon=True)  # type: ignore[attr-defined]  # noqa: SLF001
    shutdown.start()
    shutdown.join(seconds)
    # They have begun, and whoever shuts down once more need not call them again.
    threading._threading_atexits.clear()  # type: ignore[attr-defined]  # noqa: SLF001
    return _threads()


def _threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if not thread.daemon and thread is not threading.main_thread()]


def _join_processes(seconds: float) -> list[BaseProcess]:
    """Wait for the processes of multiprocessing that are no daemons; those that have not ended."""
    deadline = time.monotonic() + seconds
    while left := [process for process in multiprocessing.active_children() if not process.daemon]:
        if not wait([process.sentinel for process in left], timeout=max(0.0, deadline - time.monotonic())):
            return left
    return []


def _open_files() -> list[io.IOBase]:
    """Files of Python that are open for writing. NB: frozen objects are not among them, see `remember_files`."""
    objects = gc.get_objects()
    files = {kind for kind in set(map(type, objects)) if issubclass(kind, _FILE)}  # there are a million objects
    return [found for found in objects if type(found) in files and _is_open_for_writing(found)]


def _is_open_for_writing(file: io.IOBase) -> bool:
    try:
        return not file.closed and file.writable()
    except Exception:  # noqa: BLE001 - one that was never opened, or a class of the user
        return False


def _write_out(files: Iterable[io.IOBase], *, is_end: bool = False) -> None:
    """Write what is still in memory. At the end also the last part of a file that compresses, which only closing it writes."""
    for file in sorted(files, key=_depth):
        try:
            if is_end and _depth(file) == 1:
                file.close()
            else:
                file.flush()
        except Exception as error:  # noqa: BLE001 - the disk is full, or what a class of the user raises
            logger.warning("cannot write the rest of %r: %s", file, error)


def _depth(file: io.IOBase) -> int:
    """A text file (0) writes into what it wraps; that may be one that compresses or uploads (1), or one of the disk (2)."""
    if isinstance(file, io.TextIOBase):
        return 0
    return 2 if type(file).__module__ == "_io" else 1
