"""Figures are rendered in a process of its own: it may take long, and it may die, and pages are served all the same."""

import asyncio
from collections import OrderedDict
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

from tuning_operator.charts.figures import in_words
from tuning_operator.charts.process import import_all, render_within
from tuning_operator.charts.source import StudyData
from tuning_operator.charts.subject import Subject

SECONDS = 30.0
KEPT = 64


class Renderer:
    """Owns the process. Figures are kept for as long as no further trial ends, and made once for all who wait."""

    def __init__(self, *, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._pool = _pool()
        self._known: OrderedDict[tuple[str, str, str], asyncio.Task[dict[str, str]]] = OrderedDict()

    def start(self) -> None:
        """Start the process before anybody waits for it."""
        self._pool.submit(import_all)

    async def figures(self, data: StudyData, subject: Subject) -> dict[str, str]:
        """All figures of a study as JSON; words in their place if they could not be made."""
        key = (data.namespace, data.name, figures_version(data))
        if key not in self._known:
            self._known[key] = asyncio.create_task(self._render(subject))
            if len(self._known) > KEPT:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        # NB: shielded, since one reader who goes away would cancel it for all others.
        return await asyncio.shield(self._known[key])

    async def _render(self, subject: Subject) -> dict[str, str]:
        pool = self._pool
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, render_within, subject, self._seconds)
        except TimeoutError:
            return in_words(f"Drawing took longer than {self._seconds:g} seconds and was given up.", subject)
        except BrokenProcessPool:
            if pool is self._pool:
                self._pool = _pool()
            words = "The process that draws the charts ended; the next trial that ends starts it again."
            return in_words(words, subject)

    def close(self) -> None:
        """End the process."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def figures_version(data: StudyData) -> str:
    """Changes whenever a figure would: when a trial ends, or when one is created."""
    ended = sum(trial.state.is_finished() for trial in data.trials)
    last = max((trial._trial_id for trial in data.trials), default=-1)  # noqa: SLF001 - the number is not the row's
    return f"{ended}-{last}"


def _pool() -> ProcessPoolExecutor:
    # NB: spawned, since the server has threads, and a fork would copy locks that they hold.
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"))
