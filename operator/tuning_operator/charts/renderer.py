"""Figures are rendered in a process of its own: it may take long, and it may die, and pages are served all the same."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import asynccontextmanager
from multiprocessing import get_context

from tuning_operator.charts.figures import in_words
from tuning_operator.charts.process import import_all, render_within
from tuning_operator.charts.source import StudyData
from tuning_operator.charts.subject import Subject

SECONDS = 30.0
KEPT = 64
MOST_WAITING = 32
"""Studies that wait to be drawn; fewer than are kept."""


class Crowded(Exception):  # noqa: N818 - a word as the others, see errors.py
    """More studies wait to be drawn than may."""


class FairQueue:
    """Who is drawn next: namespaces take turns, and within one the first who asked is the first.

    So a namespace that asks for many studies' charts, each of which may take all its time, waits for itself.
    """

    def __init__(self) -> None:
        self._is_taken = False
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @asynccontextmanager
    async def turn(self, namespace: str) -> AsyncIterator[None]:
        """Wait for a turn, which lasts until the end of the block.

        Raises:
            Crowded: too many wait; it may also come later, when a namespace with fewer studies needs the place.
        """
        if self._is_taken:
            await self._join(namespace)
        self._is_taken = True
        try:
            yield
        finally:
            self._call_next()

    def _join(self, namespace: str) -> asyncio.Future[None]:
        own = self._waiting.get(namespace, deque())
        if sum(map(len, self._waiting.values())) >= MOST_WAITING:
            longest = max(self._waiting.values(), key=len)
            if len(longest) <= len(own) + 1:
                raise Crowded
            longest.pop().set_exception(Crowded())
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        own.append(place)
        self._waiting[namespace] = own
        return place

    def _call_next(self) -> None:
        self._is_taken = False
        while self._waiting and not self._is_taken:
            namespace, places = self._waiting.popitem(last=False)
            place = places.popleft()
            if places:
                self._waiting[namespace] = places
            if not place.done():  # it is where the server stops
                place.set_result(None)
                self._is_taken = True


class Renderer:
    """Owns the process. Figures are kept for as long as no further trial ends, and made once for all who wait."""

    def __init__(self, *, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._pool = _pool()
        self._queue = FairQueue()
        self._known: OrderedDict[tuple[str, str, str], asyncio.Task[dict[str, str] | None]] = OrderedDict()

    def start(self) -> None:
        """Start the process before anybody waits for it."""
        self._pool.submit(import_all)

    async def figures(self, data: StudyData, subject: Subject) -> dict[str, str]:
        """All figures of a study as JSON; words in their place if they could not be made.

        Raises:
            Crowded: too many others wait; ask again later.
        """
        key = (data.namespace, data.name, figures_version(data))
        if key not in self._known:
            self._known[key] = asyncio.create_task(self._wait_and_render(data.namespace, subject))
            if len(self._known) > KEPT:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        task = self._known[key]
        # NB: shielded, since one reader who goes away would cancel it for all others.
        figures = await asyncio.shield(task)
        if figures is None:
            if self._known.get(key) is task:
                del self._known[key]
            raise Crowded
        return figures

    async def _wait_and_render(self, namespace: str, subject: Subject) -> dict[str, str] | None:
        """None where too many wait: all who asked for it are told so, and the next to ask waits again."""
        try:
            async with self._queue.turn(namespace):
                return await self._render(subject)
        except Crowded:
            return None

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
