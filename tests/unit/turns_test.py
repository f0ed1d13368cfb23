"""Whose turn it is: no namespace waits for what another one does, be it slow, many or without an end."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, wait

import pytest

from tuning_operator.turns import FOR_EACH, MOST_STUCK, OVERDUE_SECONDS, STUCK_SECONDS, THREADS, Turns

SOON = 10.0


class Gate:
    """Work that ends when it is told to."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self.begun = threading.Semaphore(0)

    def work(self) -> str:
        """Wait."""
        self.begun.release()
        assert self._open.wait(60)
        return "done"

    def await_begun(self, times: int) -> None:
        """So many threads are in it."""
        for _ in range(times):
            assert self.begun.acquire(timeout=SOON)

    def open(self) -> None:
        """Let all through."""
        self._open.set()


@pytest.fixture
def gate() -> Iterator[Gate]:
    """What is still in it at the end of the test goes on then."""
    gate = Gate()
    yield gate
    gate.open()


class Clock:
    """A clock that is set."""

    now = 0.0

    def __call__(self) -> float:
        """The time."""
        return self.now


def test_what_is_done_is_told_and_what_failed_is_raised() -> None:
    """As by any executor."""
    turns = Turns()
    assert turns.submit("research", lambda: 5).result(SOON) == 5
    failed: Future[float] = turns.submit("research", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        failed.result(SOON)


def test_a_namespace_whose_work_does_not_end_holds_up_no_other(gate: Gate) -> None:
    """Neither by what runs nor by what waits."""
    turns = Turns()
    held = [turns.submit("mallory", gate.work, name=number) for number in range(60)]
    gate.await_begun(FOR_EACH)
    for number in range(60):
        assert turns.submit(f"team-{number}", lambda: "done").result(SOON) == "done"
    assert not any(future.done() for future in held)
    gate.open()
    assert {future.result(SOON) for future in held} == {"done"}


def test_whoever_waits_is_served_namespace_by_namespace(gate: Gate) -> None:
    """However many wait in one of them: here one thread does all, in the order of turns."""
    turns, order = Turns(threads=1), list[str]()
    first = turns.submit("other", gate.work)
    gate.await_begun(1)
    waiting = [
        turns.submit(name, lambda name=name: order.append(name))
        for name in ("mallory", "mallory", "mallory", "team-a", "team-b", "team-a")
    ]
    gate.open()
    wait([first, *waiting], SOON)
    assert order == ["mallory", "team-a", "team-b", "mallory", "team-a", "mallory"]


def test_a_deletion_comes_before_passes_of_its_namespace(gate: Gate) -> None:
    """It is waited for by whoever deletes the namespace."""
    turns, order = Turns(for_each=1), list[str]()
    first = turns.submit("research", gate.work)
    gate.await_begun(1)
    futures = [turns.submit("research", lambda: order.append("a pass"))]
    futures.append(turns.submit("research", lambda: order.append("a deletion"), first=True))
    gate.open()
    wait([first, *futures], SOON)
    assert order == ["a deletion", "a pass"]


def test_threads_whose_work_is_overdue_are_replaced_and_their_namespaces_go_without(gate: Gate) -> None:
    """Four namespaces could otherwise hold all threads."""
    clock = Clock()
    turns = Turns(clock=clock)
    for number in range(THREADS):
        turns.submit(f"mallory-{number // FOR_EACH}", gate.work, name=number)
    gate.await_begun(THREADS)
    victims = turns.submit("victim", lambda: "done")
    assert not turns.overdue()
    assert not victims.done()
    clock.now = OVERDUE_SECONDS + 1
    assert turns.overdue() == list(range(THREADS))
    assert victims.result(SOON) == "done"
    more = turns.submit("mallory-0", lambda: "done")
    assert turns.submit("mallory-0", lambda: "gone", first=True).result(SOON) == "gone", "its studies can be deleted"
    assert not more.done()


def test_many_threads_that_are_stuck_for_long_ask_for_a_restart(gate: Gate) -> None:
    """One or two do not: a restart holds up all."""
    clock = Clock()
    turns = Turns(clock=clock)
    for number in range(MOST_STUCK):
        turns.submit(f"mallory-{number}", gate.work, name=number)
    gate.await_begun(MOST_STUCK)
    clock.now = STUCK_SECONDS
    assert not turns.is_stuck()
    clock.now += 1
    assert turns.is_stuck()
    gate.open()
    turns.close(SOON)
    assert not turns.is_stuck()


def test_what_was_stuck_before_a_restart_is_tried_one_by_one(gate: Gate) -> None:
    """So that they hold one thread and not all; what is not of that kind passes by."""
    turns = Turns()
    suspected = [turns.submit(f"mallory-{number}", gate.work, alone=True) for number in range(4)]
    gate.await_begun(1)
    assert turns.submit("mallory-1", lambda: "done").result(SOON) == "done"
    assert not gate.begun.acquire(blocking=False)
    gate.open()
    assert {future.result(SOON) for future in suspected} == {"done"}


def test_the_end_waits_for_what_is_under_way_and_starts_nothing(gate: Gate) -> None:
    """And not for ever."""
    turns = Turns(for_each=1)
    under_way, waiting = turns.submit("research", gate.work), turns.submit("research", gate.work)
    gate.await_begun(1)
    turns.close(0.01)
    assert not under_way.done()
    gate.open()
    turns.close(SOON)
    assert under_way.done()
    assert not waiting.done()


def test_threads_end_with_the_process() -> None:
    """Whatever they do: Python would wait for others for ever."""
    ended: list[bool] = []
    Turns().submit("research", lambda: ended.append(threading.current_thread().daemon)).result(SOON)
    assert ended == [True]
