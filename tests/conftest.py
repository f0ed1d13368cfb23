"""Fixtures for all levels."""

import os

from hypothesis import settings

# Before torch is imported. NB: a process in which OpenMP has started its threads cannot be forked: the child waits for
# ever in its first parallel loop (libgomp; gcc-patches, February 2014: "OMP on both sides of a fork"). Some tests train
# in this process, others fork workers from it.
os.environ["OMP_NUM_THREADS"] = "1"

pytest_plugins = [
    "tests.support.chromium",
    "tests.support.cluster",
    "tests.support.installed",
    "tests.support.postgres",
    "tests.support.s3_server",
]

# Nothing is timed: the machine may be busy. `pytest --hypothesis-profile=many` looks for longer.
settings.register_profile("default", deadline=None)
settings.register_profile("many", deadline=None, max_examples=5000, print_blob=True)
settings.load_profile("default")
