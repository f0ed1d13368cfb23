"""How large the rows of a trial may be, and how many: what one trial writes, all who look at its study read.

Postgres refuses a worker's row beyond them (`tuning_operator.row_limits`), the worker says so before it asks (SQLite has no
such rules), and what was written all the same is left out by whoever reads (`tuning_api.rows`). Numbers are of one trial.
"""

from tuning_api.contract import (
    CHECKPOINT_ATTRIBUTE,
    EPOCHS_ATTRIBUTE,
    FAILURE_ATTRIBUTE,
    LIMITED_ATTRIBUTE,
    MAX_EPOCHS_ATTRIBUTE,
    OWNER_ATTRIBUTE,
    SEED_ATTRIBUTE,
)

LONGEST_NAME = 512
"""Bytes of the name of an attribute or a parameter."""
LONGEST_TEXT = 65_536
"""Bytes of an attribute as JSON, and of a distribution."""
MOST_ROWS = 1000
"""Attributes of either kind, and parameters."""
MOST_BYTES = 1_048_576
"""Bytes of all attributes of a kind together, and of all distributions. The state of CMA-ES with 500 parameters fits in."""
MOST_REPORTS = 10_000
"""Reports. A study of a hundred trials that report so often takes a worker 130 MB."""
MOST_VALUES = 16
"""Results; a study has three objectives at most."""

WORKERS_ATTRIBUTES = (
    OWNER_ATTRIBUTE,
    FAILURE_ATTRIBUTE,
    SEED_ATTRIBUTE,
    EPOCHS_ATTRIBUTE,
    MAX_EPOCHS_ATTRIBUTE,
    CHECKPOINT_ATTRIBUTE,
    LIMITED_ATTRIBUTE,
)
"""What a worker itself notes of a trial. It is not counted, so that a trial which has written all that it may can end."""

LONGEST_FAILURE = 16_384
"""Bytes of the failure of a trial, which its worker cuts."""

SAVE_AS_FILE = "save it as a file in ${trial.dir}/checkpoints"
REPORT_LESS = "report once an epoch, or every so many batches"


class RowRefusedError(ValueError):
    """A trial wrote more about itself than it may; the message says how much that is, and what to do."""


def too_long(what: str, name: str, *, size: int) -> str:
    """A text of so many bytes is none that a trial may write."""
    return f"{what} {name[:100]} has {size} bytes, and may have {LONGEST_TEXT}: {SAVE_AS_FILE}"


def too_many(what: str) -> str:
    """A trial has written all attributes or parameters that it may."""
    return f"a trial may have {MOST_ROWS} {what}s with {MOST_BYTES} bytes in all: {SAVE_AS_FILE}"


def bad_name(what: str) -> str:
    """A name is too long, or missing."""
    return f"the name of each {what} may have {LONGEST_NAME} bytes: choose a shorter one"


TOO_MANY_REPORTS = f"a trial may have {MOST_REPORTS} reports: {REPORT_LESS}"
TOO_MANY_VALUES = f"a trial may have {MOST_VALUES} values: return one for each objective"
