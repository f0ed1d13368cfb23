"""What a benchmark is judged by, and how its numbers are written."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Aim:
    """An aim, and what was measured."""

    what: str
    wanted: str
    measured: str
    reached: bool
    cause: str = ""
    """Why it was missed, in a sentence."""


def spread(values: Sequence[float], form: str = ".1f") -> str:
    """The median with the range, such as `1.5 (1.2 to 1.9)`; a single value stands alone.

    Args:
        values: At least one.
        form: How each number is written, as for `format`.
    """
    median = format(statistics.median(values), form)
    if len(values) == 1:
        return median
    return f"{median} ({min(values):{form}} to {max(values):{form}})"
