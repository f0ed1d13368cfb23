"""The threads in which passes are made, and whose turn it is: namespaces in turn, and no namespace holds them all.

A pass waits for the database and computes with what tenants wrote, so one of them can be slow on purpose: rows that are
locked, a spec that is made to be hard. No namespace has more than a few threads, and whoever waits is served namespace by
namespace, however many wait in one of them.

Threads cannot be ended. One whose work is overdue is given up: another one takes its place, and only its namespace goes
on without it. When many are stuck for long, nothing but a restart helps (`is_stuck`, which liveness asks).
"""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

THREADS = 8
FOR_EACH = 2
"""Of a namespace."""
OVERDUE_SECONDS = 60.0
"""Longer than any honest pass: a statement takes 10 s at most, a request 15 s."""
STUCK_SECONDS = 600.0
MOST_STUCK = 4
"""With more of them, the operator starts again: each takes its share of the interpreter."""
MOST_GIVEN_UP = 8
"""So many threads are replaced at most."""

Result = TypeVar("Result")


@dataclass(eq=False)
class _Turn(Generic[Result]):
    """What is to be done, or is under way."""

    namespace: str
    work: Callable[[], Result]
    name: Hashable = None
    is_first: bool = False
    is_alone: bool = False
    future: "Future[Result]" = field(default_factory=Future)
    begun: float | None = None


class Turns:
    """Threads, and the queue before them; safe to use from any thread.

    Threads are started as they are needed and end when nothing waits. They end with the process, whatever they do.
    """

    def __init__(
        self, *, threads: int = THREADS, for_each: int = FOR_EACH, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._threads = threads
        self._for_each = for_each
        self._clock = clock
        self._waiting: dict[str, deque[_Turn[Any]]] = {}
        self._running: list[_Turn[Any]] = []
        self._is_closed = False
        self._changed = threading.Condition()

    def submit(
        self,
        namespace: str,
        work: Callable[[], Result],
        *,
        name: Hashable = None,
        first: bool = False,
        alone: bool = False,
    ) -> "Future[Result]":
        """Have something done when it is its namespace's turn.

        Args:
            namespace: Whose it is.
            work: What to do.
            name: What `overdue` calls it; None: it is never overdue.
            first: Before all else of its namespace, and beside what is overdue there.
            alone: Never beside another one of this kind: it is known to take long.
        """
        turn = _Turn(namespace, work, name, is_first=first, is_alone=alone)
        with self._changed:
            queue = self._waiting.setdefault(namespace, deque())
            if first:
                queue.appendleft(turn)
            else:
                queue.append(turn)
            self._fill()
        return turn.future

    def overdue(self) -> list[Hashable]:
        """The names of what takes too long; others take its place."""
        with self._changed:
            self._fill()
            return [turn.name for turn in self._running if turn.name is not None and self._is_overdue(turn)]

    def is_stuck(self) -> bool:
        """Whether so many threads stand still for so long that only a restart gives them back."""
        with self._changed:
            return sum(self._age(turn) > STUCK_SECONDS for turn in self._running) >= MOST_STUCK

    def close(self, seconds: float) -> None:
        """Start nothing more, and wait so long for what is under way."""
        with self._changed:
            self._is_closed = True
            self._changed.wait_for(lambda: not self._running, seconds)

    def _fill(self) -> None:
        """Start what may start."""
        while not self._is_closed and (turn := self._next()):
            turn.begun = self._clock()
            self._running.append(turn)
            threading.Thread(target=self._run, args=(turn,), name="pass", daemon=True).start()

    def _next(self) -> "_Turn[Any] | None":
        """The first one of the next namespace that may have a thread; that namespace is then the last."""
        given_up = min(MOST_GIVEN_UP, sum(map(self._is_overdue, self._running)))
        if len(self._running) - given_up >= self._threads:
            return None
        held = Counter(turn.namespace for turn in self._running)
        in_time = Counter(turn.namespace for turn in self._running if not self._is_overdue(turn))
        for namespace, queue in list(self._waiting.items()):
            holders = in_time if queue[0].is_first else held
            if holders[namespace] < self._for_each and (turn := self._take(namespace)):
                return turn
        return None

    def _take(self, namespace: str) -> "_Turn[Any] | None":
        queue = self._waiting.pop(namespace)
        is_taken = any(turn.is_alone for turn in self._running)
        turn = next((turn for turn in queue if not (turn.is_alone and is_taken)), None)
        if turn is not None:
            queue.remove(turn)
        if queue:
            self._waiting[namespace] = queue
        return turn

    def _run(self, turn: "_Turn[Any]") -> None:
        try:
            if turn.future.set_running_or_notify_cancel():
                _fulfil(turn)
        finally:
            with self._changed:
                self._running.remove(turn)
                self._fill()
                self._changed.notify_all()

    def _is_overdue(self, turn: "_Turn[Any]") -> bool:
        return self._age(turn) > OVERDUE_SECONDS

    def _age(self, turn: "_Turn[Any]") -> float:
        return 0.0 if turn.begun is None else self._clock() - turn.begun


def _fulfil(turn: "_Turn[Any]") -> None:
    try:
        result = turn.work()
    except BaseException as error:  # noqa: BLE001 - whoever waits for it gets it
        turn.future.set_exception(error)
    else:
        turn.future.set_result(result)
