"""Whether the worker may still be forked after importing the user's code."""

import ctypes
import threading
from typing import Any

import pytest

from tuning_trial import forking

ALONE = (threading.main_thread(),)


class Driver:
    """libcuda, as far as it is asked."""

    def __init__(self, answer: int) -> None:
        self._answer = answer

    def cuDeviceGetCount(self, _devices: Any) -> int:  # noqa: N802 - the driver's own name
        return self._answer


def not_loaded(*_: Any, **__: Any) -> ctypes.CDLL:
    raise OSError("libcuda.so.1: cannot open shared object file")


def loaded(answer: int) -> Any:
    return lambda *_, **__: Driver(answer)


def nothing() -> None:
    """No loop at all."""


@pytest.mark.parametrize("load", [not_loaded, loaded(3)], ids=["driver not loaded", "driver not initialised"])
def test_a_process_that_never_asked_for_the_gpu_may_be_forked(load: Any) -> None:
    """Linking against the driver is harmless; cuInit is not."""
    assert forking.obstacle(torch_has_cuda=False, threads=ALONE, parallel_loop=nothing, load=load) is None


@pytest.mark.parametrize(("torch_has_cuda", "answer"), [(True, 3), (False, 0), (False, 100)])
def test_cuda_that_anybody_initialised_forbids_a_fork(torch_has_cuda: bool, answer: int) -> None:  # noqa: FBT001
    """Other libraries call cuInit without torch's knowing."""
    why = forking.obstacle(torch_has_cuda=torch_has_cuda, threads=ALONE, parallel_loop=nothing, load=loaded(answer))
    assert why == "importing the model initialised CUDA"


def test_a_thread_forbids_a_fork() -> None:
    """A lock that it holds would stay locked in every trial."""
    threads = [*ALONE, threading.Thread(name="prefetch"), threading.Thread(name="monitor")]
    why = forking.obstacle(torch_has_cuda=False, threads=threads, parallel_loop=nothing, load=not_loaded)
    assert why == "importing the model started threads (monitor, prefetch)"


def test_a_loop_that_a_fork_does_not_finish_forbids_a_fork() -> None:
    """It is tried, and given up after a while."""
    assert forking.hangs(lambda: threading.Event().wait(), seconds=0.1)
    assert not forking.hangs(nothing)
