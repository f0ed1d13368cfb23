"""The end of a trial's process: what its code has left for the interpreter's end, in forks of the test's own."""

import atexit
import gc
import gzip
import logging.handlers
import multiprocessing
import os
import signal
import tempfile
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.support.wait import wait_until

from tuning_trial import group, leaving

KEPT: list[Any] = []
"""What a module keeps until the interpreter ends."""


def fork(code: Callable[[], object], *, seconds: float = 5.0) -> int | None:
    """Run code as a trial's process does, to its exit code.

    NB: to join it would be to wait for all that it started, see `tuning_trial.interrupts`.
    """
    process = multiprocessing.get_context("fork").Process(target=_run, args=(code, seconds))
    process.start()
    try:
        return wait_until(
            lambda: process.exitcode, lambda code: code is not None, seconds=60, what="the fork has ended"
        )
    finally:
        process.kill()


def _run(code: Callable[[], object], seconds: float) -> None:
    leaving.begin_fork()
    code()
    leaving.leave("trial 7", seconds=seconds)


def writing(path: Path, text: str = "the last line") -> Callable[[], object]:
    return lambda: path.write_text(text)


def an_exit_handler(path: Path) -> None:
    atexit.register(writing(path))


def a_finalizer(path: Path) -> None:
    KEPT.append(threading.Event())
    weakref.finalize(KEPT[-1], writing(path))


def a_finalizer_of_multiprocessing(path: Path) -> None:
    multiprocessing.util.Finalize(None, writing(path), exitpriority=1)


def a_finalizer_of_threading(path: Path) -> None:
    threading._register_atexit(writing(path))  # type: ignore[attr-defined]


def an_open_file(path: Path) -> None:
    KEPT.append(path.open("w"))
    KEPT[-1].write("the last line")


def an_open_binary_file(path: Path) -> None:
    KEPT.append(path.open("wb"))
    KEPT[-1].write(b"the last line")


def a_handler_that_collects(path: Path) -> None:
    target = logging.FileHandler(path, delay=True)
    KEPT.append(logging.handlers.MemoryHandler(1000, flushLevel=logging.CRITICAL, target=target))
    KEPT[-1].handle(logging.makeLogRecord({"msg": "the last line", "levelno": logging.INFO}))


def an_executor(path: Path) -> None:
    KEPT.append(ThreadPoolExecutor(1))
    KEPT[-1].submit(lambda: (time.sleep(0.2), writing(path)()))


def a_thread(path: Path) -> None:
    threading.Thread(target=lambda: (time.sleep(0.2), writing(path)())).start()


def a_process(path: Path) -> None:
    multiprocessing.get_context("fork").Process(target=lambda: (time.sleep(0.2), writing(path)())).start()


@pytest.mark.parametrize(
    "leave",
    [
        an_exit_handler,
        a_finalizer,
        a_finalizer_of_multiprocessing,
        a_finalizer_of_threading,
        an_open_file,
        an_open_binary_file,
        a_handler_that_collects,
        an_executor,
        a_thread,
        a_process,
    ],
)
def test_what_is_left_for_the_end_is_done(leave: Callable[[Path], None], tmp_path: Path) -> None:
    """As at the end of a program, though a fork leaves by os._exit."""
    assert fork(lambda: leave(tmp_path / "file")) == 0
    assert (tmp_path / "file").read_text().strip() == "the last line"


def test_a_compressed_file_is_written_to_its_end(tmp_path: Path) -> None:
    """Its last part has the length and the checksum; without it, it cannot be read."""

    def compress() -> None:
        KEPT.append(gzip.open(tmp_path / "file", "wt"))  # noqa: SIM115 - left open is what the test is about
        KEPT[-1].write("the last line")

    assert fork(compress) == 0
    with gzip.open(tmp_path / "file", "rt") as file:
        assert file.read() == "the last line"


def test_threads_end_before_exit_handlers_run_and_the_last_registered_is_the_first(tmp_path: Path) -> None:
    """A handler may close what a thread still writes to."""
    seen = tmp_path / "seen"

    def note(word: str) -> None:
        with seen.open("a") as file:
            file.write(f"{word} ")

    def code() -> None:
        atexit.register(note, "first")
        atexit.register(note, "second")
        threading.Thread(target=lambda: (time.sleep(0.2), note("thread"))).start()

    assert fork(code) == 0
    assert seen.read_text().split() == ["thread", "second", "first"]


def test_what_the_worker_has_registered_is_left_to_the_worker(tmp_path: Path) -> None:
    """A folder that an import has made serves all trials."""
    folder = tempfile.TemporaryDirectory(dir=tmp_path)
    atexit.register(writing(tmp_path / "the worker has ended"))
    assert fork(lambda: atexit.register(writing(tmp_path / "the trial has ended"))) == 0
    assert (tmp_path / "the trial has ended").exists()
    assert not (tmp_path / "the worker has ended").exists()
    assert Path(folder.name).exists()
    folder.cleanup()


def test_a_file_that_an_import_has_opened_gets_each_line_once(tmp_path: Path) -> None:
    """The line of the import is written before the first fork, and frozen objects are found all the same."""
    path = tmp_path / "lines"
    with path.open("a") as file:
        file.write("header\n")
        leaving.remember_files()
        gc.freeze()
        try:
            for name in ("one", "two"):
                assert fork(lambda name=name: file.write(f"{name}\n")) == 0  # type: ignore[misc]
        finally:
            gc.unfreeze()
    assert path.read_text().split() == ["header", "one", "two"]


def test_an_exit_handler_that_raises_stops_no_other(tmp_path: Path) -> None:
    """Nor is the exit code another one."""

    def code() -> None:
        an_exit_handler(tmp_path / "file")
        atexit.register(lambda: 1 / 0)

    assert fork(code) == 0
    assert (tmp_path / "file").exists()


def wait_for_ever() -> None:
    threading.Event().wait()


@pytest.mark.parametrize(
    ("start", "name"),
    [
        (threading.Thread, "thread uploader"),
        (multiprocessing.get_context("fork").Process, "process uploader"),
    ],
)
def test_what_never_ends_is_named_and_left_behind(
    start: Callable[..., Any], name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """And the exit handlers run all the same."""

    def code() -> None:
        os.setsid()
        (tmp_path / "group").write_text(str(os.getpid()))
        an_exit_handler(tmp_path / "file")
        logging.basicConfig(force=True)
        start(target=wait_for_ever, name="uploader").start()

    try:
        assert fork(code, seconds=0.3) == 0
        assert (tmp_path / "file").exists()
        assert f"trial 7: did not wait longer than 0.3 s for what it started: {name}" in capfd.readouterr().err
        assert len(group.alive(int((tmp_path / "group").read_text()))) == (1 if name.startswith("process") else 0)
    finally:
        left = int((tmp_path / "group").read_text())
        group.signal(left, signal.SIGKILL)
    wait_until(lambda: group.alive(left), lambda left: not left, seconds=30, what="the process is gone")
