"""What one process of this machine does at a time, whichever study it works for."""

import fcntl
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tuning_trial.log import logger

_POLL_SECONDS = 0.1


@contextmanager
def held(what: str, *, beat: Callable[[], None]) -> Iterator[None]:
    """Hold a lock; the system gives it back when its holder ends, however that ends.

    Args:
        what: Names the lock.
        beat: Called while another process holds it: to wait for another one is not to stand still.
    """
    name = hashlib.sha256(what.encode(errors="replace")).hexdigest()[:16]
    path = Path(tempfile.gettempdir()) / f"tuningstudy-{os.getuid()}-{name}.lock"
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        if not _take(file):
            logger.info("waits while another trial prepares the data of %s", what)
        while not _take(file):
            beat()
            time.sleep(_POLL_SECONDS)
        yield
    finally:
        os.close(file)


def _take(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
