"""Waiting for a condition with a deadline; tests never sleep for a fixed time."""

import time
from collections.abc import Callable
from typing import TypeVar

Seen = TypeVar("Seen")


def wait_until(look: Callable[[], Seen], holds: Callable[[Seen], bool], *, seconds: float, what: str) -> Seen:
    """Look again and again until what is seen holds.

    Returns:
        What was seen when it held.

    Raises:
        AssertionError: it did not hold in time; says what was seen last.
    """
    deadline = time.monotonic() + seconds
    while True:
        seen = look()
        if holds(seen):
            return seen
        if time.monotonic() > deadline:
            raise AssertionError(f"after {seconds:.0f} s still not: {what}; last seen: {seen}")
        time.sleep(0.05)
