"""What can go wrong in a worker, and what that means.

    WorkerError            the worker cannot go on; __main__ turns each into an exit code
    ├── MisconfiguredError      it never can: exit 78
    └── DatabaseAwayError       it can later: exit 75, and the trial is queued again
    TrialError             this trial fails, with a reason that a person can act on
    ├── InvalidConfigError      of trial.lightning, or of trial.objective
    └── MissingMetricError
    UnusableCheckpointError the trial starts from its beginning
    StoreError             of tuning_api.store: a bucket is away, and the trial goes on; only when a worker starts, it may be
                           a MisconfiguredError
    UnreadableSpecError    what was given to `check` or `try` is no study

Whatever else is raised in a trial's process comes from the user's code, and is that trial's failure.
"""

import difflib
from collections.abc import Iterable
from typing import ClassVar

from tuning_api.contract import FailureReason


class WorkerError(Exception):
    """The worker cannot go on."""


class MisconfiguredError(WorkerError):
    """The worker cannot work, however often it is tried."""


class DatabaseAwayError(WorkerError):
    """The database stayed away for longer than the worker waits."""


class TrialError(Exception):
    """The trial fails for a reason that needs no traceback."""

    reason: ClassVar[FailureReason]


class InvalidConfigError(TrialError):
    """The trial's configuration cannot be built."""

    reason = FailureReason.INVALID_CONFIG


class MissingMetricError(TrialError):
    """The objective's metric was never logged."""

    reason = FailureReason.MISSING_METRIC


class UnusableCheckpointError(Exception):
    """A trial cannot go on from its checkpoint."""


class UnreadableSpecError(Exception):
    """A document is no study; it has a sentence for each fault."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


def nearest(name: str, names: Iterable[str]) -> str:
    """What a person may have meant, to be put behind a name that does not exist; empty when nothing is near."""
    close = difflib.get_close_matches(name, list(names), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
