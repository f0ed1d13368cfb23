"""Wait for a condition with a deadline, never for a fixed time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(condition: Callable[[], T | None], *, timeout: float, waiting_for: str, interval: float = 0.05) -> T:
    """Return the first true value of `condition`.

    Args:
        condition: Called about every `interval` seconds. What it raises is not caught.
        timeout: Seconds.
        waiting_for: Ends the sentence "gave up after 10 s waiting for ...".
        interval: Seconds.

    Raises:
        TimeoutError: The condition did not become true in time.
    """
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"gave up after {timeout:g} s waiting for {waiting_for}")
        time.sleep(interval)
    return value
