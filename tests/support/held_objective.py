"""An objective that lasts until it is let go, so that a test can do something in the middle of a trial.

It travels to the cluster as a ConfigMap, and runs there without anything else of the tests.
"""

import time
from pathlib import Path

from optuna import Trial

ALL = "all"


def objective(trial: Trial) -> float:
    """Reports, and ends when its pod has a file in /tmp that is named for its number, or for all of them."""
    x = trial.suggest_float("x", 0, 1)
    step = 0
    while not any(Path("/tmp", name).exists() for name in (ALL, str(trial.number))):  # noqa: S108
        trial.report(x, step)
        step += 1
        time.sleep(0.5)
    return x
