"""Whether this process can still be forked, after importing what the user wrote.

A fork takes over neither threads nor the state of the GPU's driver: a lock that a thread held stays locked, and CUDA
that was initialised cannot be used.
"""

import ctypes
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable

_DRIVER = "libcuda.so.1"
PROBE_SECONDS = 10.0
_NOT_INITIALISED = 3
"""CUDA_ERROR_NOT_INITIALIZED, the answer to any question before cuInit."""


def obstacle(
    *,
    torch_has_cuda: bool,
    threads: Iterable[threading.Thread],
    parallel_loop: Callable[[], object],
    load: Callable[..., ctypes.CDLL] = ctypes.CDLL,
) -> str | None:
    """Why this process must not be forked, or None.

    Args:
        torch_has_cuda: What `torch.cuda.is_initialized()` says.
        threads: What `threading.enumerate()` says.
        parallel_loop: Does something with all of torch's threads; it is done in a fork.
        load: Opens a shared library.
    """
    if torch_has_cuda or _driver_is_initialised(load):
        return "importing the model initialised CUDA"
    names = sorted(thread.name for thread in threads if thread is not threading.main_thread())
    if names:
        return f"importing the model started threads ({', '.join(names)})"
    if hangs(parallel_loop):
        return "importing the model computed something with OpenMP, whose threads a fork does not have"
    return None


def _driver_is_initialised(load: Callable[..., ctypes.CDLL]) -> bool:
    """Ask the driver itself: other libraries call cuInit without torch's knowing (triton-lang/triton#10938)."""
    try:
        driver = load(_DRIVER, mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
    except OSError:
        return False  # nobody has even loaded it
    devices = ctypes.c_int()
    return bool(driver.cuDeviceGetCount(ctypes.byref(devices)) != _NOT_INITIALISED)


def hangs(work: Callable[[], object], *, seconds: float = PROBE_SECONDS) -> bool:
    """Whether a fork of this process cannot do some work. It is tried, since there is nobody to ask.

    NB: libgomp keeps the threads of a parallel loop for the next one, and a fork waits for ever for those that it does not
    have (gcc-patches, February 2014: "OMP on both sides of a fork"). They are threads like any other: numpy's and scipy's,
    which do survive a fork, cannot be told from them.
    """
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if os.waitpid(child, os.WNOHANG)[0]:
            return False
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True
