"""Whether the worker may still be forked after importing the user's code."""

import ctypes
import threading
from typing import Any

import pytest

from tuning_trial import forking


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


@pytest.mark.parametrize("load", [not_loaded, loaded(3)], ids=["driver not loaded", "driver not initialised"])
def test_a_process_that_never_asked_for_the_gpu_may_be_forked(load: Any) -> None:
    """Linking against the driver is harmless; cuInit is not."""
    assert forking.obstacle(torch_has_cuda=False, load=load) is None


@pytest.mark.parametrize(("torch_has_cuda", "answer"), [(True, 3), (False, 0), (False, 100)])
def test_cuda_that_anybody_initialised_forbids_a_fork(torch_has_cuda: bool, answer: int) -> None:  # noqa: FBT001
    """Other libraries call cuInit without torch's knowing."""
    assert (
        forking.obstacle(torch_has_cuda=torch_has_cuda, load=loaded(answer)) == "importing the model initialised CUDA"
    )


def test_a_thread_forbids_a_fork() -> None:
    """A lock that it holds would stay locked in every trial."""
    done = threading.Event()
    thread = threading.Thread(target=done.wait, name="prefetch")
    thread.start()
    try:
        assert (
            forking.obstacle(torch_has_cuda=False, load=not_loaded) == "importing the model started threads (prefetch)"
        )
    finally:
        done.set()
        thread.join()
