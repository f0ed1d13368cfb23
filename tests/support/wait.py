"""Waiting for a condition with a deadline; tests never sleep for a fixed time."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Fail what takes longer, in the middle of it: a computation without an end would otherwise hold the whole run."""

    def stop(*_: object) -> None:
        raise AssertionError(f"not done after {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
