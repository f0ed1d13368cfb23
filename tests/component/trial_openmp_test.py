"""OpenMP's threads and forks, with the real libgomp that torch brings."""

import os
import subprocess
import sys

import pytest

LOOP = "lambda: torch.ones(1 << 20)"
PROGRAM = f"""
import threading
import torch
from tuning_trial import forking

print(forking.obstacle(torch_has_cuda=False, threads=threading.enumerate(), parallel_loop={LOOP}))
({LOOP})()
print(forking.hangs({LOOP}, seconds=3))
"""


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core: torch's loops are not parallel")
def test_a_model_that_computes_when_it_is_imported_is_found_out() -> None:
    """A fork of it would hang in its first large sum; before, it would not."""
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["None", "True"]
