"""A trial's signs of life, for `trial.progressTimeout`: its worker ends a trial that gives none."""

import time
from collections.abc import Callable

from tuning_api.schema import seconds
from tuning_trial.outcomes import Beat

_LONGEST_SECONDS = 1.0
_SHARE = 0.1


class Pulse:
    """Sends beats to the worker, and no more of them than it needs: batches may be a thousand a second."""

    def __init__(self, send: Callable[[Beat], None], *, progress_timeout: str | None) -> None:
        """Prepare for one trial.

        Args:
            send: To the worker.
            progress_timeout: As in the spec; None when nobody waits for beats, and none are sent.
        """
        self._send = send
        self._pause = min(_LONGEST_SECONDS, seconds(progress_timeout) * _SHARE) if progress_timeout else None
        self._next = 0.0

    def beat(self) -> None:
        """The trial made progress: a batch ended, a value was reported; or it waits for something that is not its own."""
        now = time.monotonic()
        if self._pause is None or now < self._next:
            return
        self._next = now + self._pause
        self._send(Beat())
