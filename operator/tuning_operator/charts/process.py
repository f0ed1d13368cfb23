"""What the process does that renders figures (see `renderer`).

The cap on time is an alarm inside that process. A future can be given up, but the work behind it could not be stopped.

NB: a reader may wait for these imports. What only the server needs, such as the database, is not among them.
"""

import signal
from importlib import import_module
from types import FrameType

from tuning_operator.charts.figures import render
from tuning_operator.charts.subject import Subject

AGAIN_SECONDS = 0.1
"""The alarm is repeated, since a library may catch whatever happens in an import that it can do without."""


def import_all() -> None:
    """What the first figures would import: this module has its own imports, and `importances` puts one off."""
    import_module("scipy.optimize")


def render_within(subject: Subject, seconds: float) -> dict[str, str]:
    """Render in this process.

    Raises:
        TimeoutError: it took too long.
    """
    signal.signal(signal.SIGALRM, _give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN_SECONDS)
    try:
        return render(subject)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _give_up(_: int, __: FrameType | None) -> None:
    raise TimeoutError
