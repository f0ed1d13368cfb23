"""Exceptions as torch raises them, and the reasons that are made of them."""

import os
import re
import signal
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from tuning_trial.outcomes import failure_of

_ASSERTION = """CUDA error: device-side assert triggered
CUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be incorrect.
For debugging consider passing CUDA_LAUNCH_BLOCKING=1
"""


@pytest.mark.parametrize(
    ("error", "reason", "message"),
    [
        (MemoryError(), "OutOfMemory", "MemoryError"),
        (
            torch.OutOfMemoryError(
                "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79 GiB"
            ),
            "OutOfMemory",
            "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
        ),
        (torch.cuda.OutOfMemoryError("CUDA out of memory."), "OutOfMemory", "OutOfMemoryError: CUDA out of memory."),
        (
            torch.AcceleratorError("CUDA error: out of memory"),
            "OutOfMemory",
            "AcceleratorError: CUDA error: out of memory",
        ),
        (RuntimeError("CUDA error: out of memory"), "OutOfMemory", "RuntimeError: CUDA error: out of memory"),
        (
            torch.AcceleratorError(_ASSERTION),
            "CudaError",
            "AcceleratorError: CUDA error: device-side assert triggered",
        ),
        (RuntimeError(_ASSERTION), "CudaError", "RuntimeError: CUDA error: device-side assert triggered"),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm( handle, ...)`"),
            "CudaError",
            "RuntimeError: CUDA error: CUBLAS_STATUS_EXECUTION_FAILED",
        ),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), "CudaError", "RuntimeError: cuDNN error"),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), "Error", "RuntimeError: mat1 and mat2"),
        (ValueError("the file is named CUDA error: it is a test"), "Error", "ValueError: the file is named"),
    ],
    ids=lambda value: repr(value) if isinstance(value, BaseException) else "",
)
def test_an_exception_has_the_reason_of_its_kind(error: BaseException, reason: str, message: str) -> None:
    """A full GPU wants another model, or batches; what CUDA reports otherwise wants a look at the node."""
    failure = failure_of(error)
    assert failure.reason == reason
    assert failure.message.startswith(message)


class Points(Dataset[Any]):
    """What reading one point does."""

    def __init__(self, does: str) -> None:
        self.does = does

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        if self.does == "raises":
            raise ValueError(f"point {index} has no class")
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("does", "reason", "message"),
    [
        ("raises", "Error", r"ValueError: point 0 has no class \("),
        (
            "is killed",
            "Crashed",
            r"RuntimeError: DataLoader worker \(pid\(?s?\)? \d+\) (is killed|exited unexpectedly)",
        ),
    ],
)
def test_what_happens_to_a_data_loaders_process_is_told_as_it_happened(does: str, reason: str, message: str) -> None:
    """Torch passes on what was raised there, with the whole traceback for a message."""
    with pytest.raises((ValueError, RuntimeError)) as caught:
        list(DataLoader(Points(does), num_workers=1))
    failure = failure_of(caught.value)
    assert failure.reason == reason
    assert re.match(message, failure.message), failure.message
