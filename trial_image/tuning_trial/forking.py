"""Whether this process can still be forked, after importing what the user wrote.

A fork takes over neither threads nor the state of the GPU's driver: a lock that a thread held stays locked, and CUDA
that was initialised cannot be used.
"""

import ctypes
import os
import threading
from collections.abc import Callable

_DRIVER = "libcuda.so.1"
_NOT_INITIALISED = 3
"""CUDA_ERROR_NOT_INITIALIZED, the answer to any question before cuInit."""


def obstacle(*, torch_has_cuda: bool, load: Callable[..., ctypes.CDLL] = ctypes.CDLL) -> str | None:
    """Why this process must not be forked, or None.

    Args:
        torch_has_cuda: What `torch.cuda.is_initialized()` says.
        load: Opens a shared library.
    """
    if torch_has_cuda or _driver_is_initialised(load):
        return "importing the model initialised CUDA"
    if threading.active_count() > 1:
        names = sorted(thread.name for thread in threading.enumerate() if thread is not threading.main_thread())
        return f"importing the model started threads ({', '.join(names)})"
    return None


def _driver_is_initialised(load: Callable[..., ctypes.CDLL]) -> bool:
    """Ask the driver itself: other libraries call cuInit without torch's knowing (triton-lang/triton#10938)."""
    try:
        driver = load(_DRIVER, mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
    except OSError:
        return False  # nobody has even loaded it
    devices = ctypes.c_int()
    return bool(driver.cuDeviceGetCount(ctypes.byref(devices)) != _NOT_INITIALISED)
