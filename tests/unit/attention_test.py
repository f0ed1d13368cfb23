"""When a study gets its next pass: as soon as something follows from it, and ever more rarely where nothing happens."""

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.support.builders import NOW, a_snapshot, a_spec, a_trial, a_worker, trials

from tuning_operator import decide
from tuning_operator.decide.attention import AT_REST, LONGEST, LONGEST_PUT_OFF, Attention, after_pass, is_due, look_of
from tuning_operator.errors import DatabaseUnavailable
from tuning_operator.model import Ending, Look, Pulse, Requeue, Said, StudyKey, Trial, TrialsPlan, WorkersPlan
from tuning_operator.rounds import Rounds
from tuning_operator.turns import Turns

TICK = timedelta(seconds=5)
SECOND = timedelta(seconds=1)
BEFORE = Pulse(waiting=4, running=2, complete=3)
MOVING = Look(has_news=False, moves=True, enough_waiting=2, counts_at=NOW + 20 * SECOND)


def known(**changes: Any) -> Attention:
    """A live study that had a pass just now."""
    look = Look(**({name: getattr(MOVING, name) for name in MOVING.__dataclass_fields__} | changes))
    return Attention(look=look, pulse=BEFORE, at=NOW, patience=LONGEST)


CHANGES: dict[str, tuple[Attention, Pulse | None, bool]] = {
    "nothing": (known(), BEFORE, False),
    "counts alone": (known(), Pulse(waiting=3, running=2, complete=4), False),
    "counts that may be written": (known(counts_at=NOW), Pulse(waiting=3, running=2, complete=4), True),
    "few wait": (known(), Pulse(waiting=1, running=2, complete=6), True),
    "a trial has failed": (known(), Pulse(waiting=3, running=2, complete=3, failed=1), True),
    "nothing runs any more": (known(), Pulse(waiting=4, running=0, complete=5), True),
    "a trial that may end the study": (known(heeds_each=True), Pulse(waiting=3, running=2, complete=4), True),
    "a pulse that was not read": (known(), None, False),
    "a deadline that is over": (known(deadline=NOW + SECOND), BEFORE, True),
    "no pass yet": (Attention(), None, True),
    "a pass that failed just now": (Attention(pulse=BEFORE, at=NOW, patience=LONGEST), Pulse(), False),
    "a pass that failed a while ago": (Attention(pulse=BEFORE, at=NOW, patience=SECOND), BEFORE, True),
}


@pytest.mark.parametrize(("item", "pulse", "due"), CHANGES.values(), ids=CHANGES)
def test_a_change_brings_a_pass_if_something_follows_from_it(
    item: Attention, pulse: Pulse | None, *, due: bool
) -> None:
    """Whoever waits for trials, an end or a verdict is served at the next tick; counts wait for their turn."""
    assert is_due(item, pulse, now=NOW + 2 * SECOND) is due


def test_without_workers_only_links_need_a_pass_and_an_hour_is_soon_enough() -> None:
    """One more comes at once after news, since whoever had them looked before they were written."""
    at_rest = Look(has_news=False, moves=False)
    item = after_pass(Attention(), replace(at_rest, has_news=True), now=NOW, tick=TICK)
    assert item.patience == TICK
    assert after_pass(item, at_rest, now=NOW, tick=TICK).patience == AT_REST


def test_passes_without_news_come_ever_more_rarely_and_at_least_every_five_minutes() -> None:
    """News begin it anew."""
    item, pauses = Attention(), []
    for _ in range(9):
        item = after_pass(item, MOVING, now=NOW, tick=TICK)
        pauses.append(item.patience.total_seconds())
        assert is_due(item, None, now=NOW + item.patience)
        assert not is_due(item, None, now=NOW + item.patience - SECOND)
    assert pauses == [5, 10, 20, 40, 80, 160, 300, 300, 300]
    news = Look(has_news=True, moves=True)
    assert after_pass(item, news, now=NOW, tick=TICK).patience == TICK


DEADLINES = {
    "none": ({}, None),
    "its timeout": ({"timeout": "7m"}, 120.0),  # the clock has run for five minutes
    "a timeout of ages": ({"timeout": "99999999999999d"}, 300.0),
    "its compute": ({"maxComputeSeconds": 600}, 240.0),  # one trial took a minute, two have run for half a minute
    "compute for ages": ({"maxComputeSeconds": 2**53}, 300.0),
}


@pytest.mark.parametrize(("changes", "seconds"), DEADLINES.values(), ids=DEADLINES)
def test_a_pass_comes_when_the_time_of_a_study_is_over(changes: dict[str, Any], seconds: float | None) -> None:
    """Nothing changes until then, and nobody would look."""
    begun = NOW - timedelta(seconds=30)
    rows = (a_trial(0), *(a_trial(number, "RUNNING", started=begun) for number in (1, 2)))
    snapshot = a_snapshot(spec=a_spec(**changes), trials=rows, workers=(a_worker(owners=("pod-1", "pod-2")),))
    look = look_of(snapshot, decide.plan(snapshot), said=Said.NOTHING, counts_at=None)
    assert look.deadline == (None if seconds is None else NOW + timedelta(seconds=seconds))


def test_counts_that_were_held_back_are_written_when_they_may_be() -> None:
    """Though nothing changes any more until then."""
    snapshot = a_snapshot(trials=trials("COMPLETE", "RUNNING"))
    look = look_of(snapshot, decide.plan(snapshot), said=Said.COUNTS_LATER, counts_at=NOW + 7 * SECOND)
    assert look.deadline == NOW + 7 * SECOND


STEADY = a_snapshot(trials=trials("COMPLETE", "RUNNING"), workers=(a_worker(owners=("pod-1",)),))
REQUEUED = TrialsPlan(requeue=(Requeue(a_trial(1, "RUNNING"), Ending.INTERRUPTED),))
NEWS: dict[str, tuple[dict[str, Any], Said, bool]] = {
    "nothing was done or said": ({}, Said.NOTHING, False),
    "counts were written": ({}, Said.COUNTS, False),
    "counts may not be written yet": ({}, Said.COUNTS_LATER, False),
    "a person waits for what was said": ({}, Said.NEWS, True),
    "trials were added": ({"trials": TrialsPlan(add=2, enqueue=({"lr": 0.1},))}, Said.COUNTS, False),
    "a trial has lost its worker": ({"trials": REQUEUED}, Said.COUNTS, True),
    "a worker was started": ({"workers": WorkersPlan(start=(1,))}, Said.NOTHING, True),
    "a worker was stopped": ({"workers": WorkersPlan(stop=("digits-0",))}, Said.NOTHING, True),
}


@pytest.mark.parametrize(("done", "said", "has_news"), NEWS.values(), ids=NEWS)
def test_news_are_what_may_have_consequences_that_no_pulse_tells(
    done: dict[str, Any], said: Said, *, has_news: bool
) -> None:
    """Else a study whose trials end all the time would get a pass at each tick, and counts are written more rarely."""
    plan = replace(decide.plan(STEADY), **({"trials": TrialsPlan(), "workers": WorkersPlan()} | done))
    assert look_of(STEADY, plan, said=said, counts_at=NOW).has_news is has_news


def test_a_suspended_study_without_workers_does_not_move() -> None:
    """Its rows need not be counted at each tick."""
    snapshot = a_snapshot(spec=a_spec(suspend=True), trials=trials("COMPLETE"))
    assert not look_of(snapshot, decide.plan(snapshot), said=Said.NOTHING, counts_at=None).moves


HURRIES: dict[str, tuple[tuple[Trial, ...], dict[str, Any], timedelta | None]] = {
    "workers that have claimed nothing yet": (trials("WAITING"), {}, LONGEST),
    "workers that are not there yet": (trials("WAITING"), {"running": False}, None),
    "first trials that run": ((a_trial(0, "RUNNING", started=NOW - SECOND), *trials("WAITING")), {}, 9 * SECOND),
    "first trials that take longer": ((a_trial(0, "RUNNING", started=NOW - 30 * SECOND),), {}, -20 * SECOND),
    "first trials that have failed": ((a_trial(0, "FAIL", started=NOW - SECOND),), {}, 9 * SECOND),
    "a trial that has ended": (trials("COMPLETE", "WAITING"), {}, None),
}


@pytest.mark.parametrize(("rows", "worker", "left"), HURRIES.values(), ids=HURRIES)
def test_a_study_hurries_until_it_is_known_how_long_its_trials_take(
    rows: tuple[Trial, ...], worker: dict[str, Any], left: timedelta | None
) -> None:
    """The few that wait at first may be gone in no time, and nobody would look for seconds."""
    snapshot = a_snapshot(trials=rows, workers=(replace(a_worker(), **({"running": True} | worker)),))
    look = look_of(snapshot, decide.plan(snapshot), said=Said.NOTHING, counts_at=None)
    assert look.hurries_until == (None if left is None else NOW + left)


def test_a_suspended_study_does_not_hurry() -> None:
    """Its workers are being stopped."""
    workers = (replace(a_worker(), running=True),)
    snapshot = a_snapshot(spec=a_spec(suspend=True), trials=trials("WAITING"), workers=workers)
    assert look_of(snapshot, decide.plan(snapshot), said=Said.NOTHING, counts_at=None).hurries_until is None


# The rounds

KEY, OTHER = StudyKey("research", "digits"), StudyKey("research", "other")


class Ward:
    """Rounds over two studies, whose pulses a test sets."""

    def __init__(self) -> None:
        self.pulses: dict[StudyKey, Pulse] = {}
        self.asked: list[set[StudyKey]] = []
        self.rounds = Rounds(pulses=self._read, turns=Turns(), seconds=5)
        for key in (KEY, OTHER):
            self.rounds.add(key)

    def _read(self, keys: Iterable[StudyKey]) -> dict[StudyKey, Pulse]:
        self.asked.append(set(keys))
        if not self.pulses:
            raise DatabaseUnavailable("connection refused")
        return {key: self.pulses[key] for key in keys if key in self.pulses}

    def tick(self, *, is_tick: bool = True) -> set[StudyKey]:
        """The studies that are due."""
        return set(asyncio.run(self.rounds.due(is_tick=is_tick)))


def test_pulses_are_read_of_studies_that_move_and_make_them_due() -> None:
    """One statement for all of them; a study that is gone is forgotten."""
    ward = Ward()
    assert ward.tick() == {KEY, OTHER}, "none had a pass yet"
    ward.rounds.passed(KEY, MOVING)
    ward.rounds.passed(OTHER, Look(has_news=False, moves=False))
    ward.pulses = {KEY: BEFORE}
    assert ward.tick() == {KEY}, "its pulse was never read"
    ward.rounds.passed(KEY, MOVING)
    assert ward.tick() == set()
    ward.pulses = {KEY: Pulse(waiting=1, running=2, complete=6)}
    assert ward.tick() == {KEY}
    assert ward.asked == [{KEY}] * 3
    ward.rounds.drop(KEY)
    assert ward.tick() == set()


def test_studies_that_had_ended_before_a_restart_are_looked_at_within_the_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not all at one moment; one that is known already is what it was."""
    ward = Ward()
    ended = [StudyKey("research", f"ended-{number}") for number in range(3)]
    for key, ago in zip(ended, (0.0, 0.5, 1.0), strict=True):
        monkeypatch.setattr("random.uniform", lambda *_, ago=ago: ago)
        ward.rounds.add(key, has_ended=True)
    ward.rounds.add(KEY, has_ended=True)
    assert ward.tick() == {KEY, OTHER, ended[2]}
    assert not ward.asked, "there are no pulses to read"


def test_between_ticks_only_those_are_looked_at_that_hurry() -> None:
    """Their pulses alone are read, for as long as they do."""
    ward = Ward()
    ward.pulses = {KEY: BEFORE, OTHER: BEFORE}
    ward.rounds.passed(KEY, replace(MOVING, hurries_until=datetime.now(UTC) + LONGEST))
    ward.rounds.passed(OTHER, MOVING)
    assert ward.tick(is_tick=False) == {KEY}, "its pulse was never read"
    ward.rounds.passed(KEY, replace(MOVING, hurries_until=datetime.now(UTC) - SECOND))
    assert ward.tick(is_tick=False) == set()
    assert ward.asked == [{KEY}]
    assert ward.tick() == {OTHER}


def test_a_database_that_is_away_is_said_by_passes() -> None:
    """Each live study gets one at once, which writes the condition; then they come more rarely, until one succeeds."""
    ward = Ward()
    for key in (KEY, OTHER):
        ward.rounds.passed(key, MOVING)
    assert ward.tick() == {KEY, OTHER}
    ward.rounds.passed(KEY, None)
    assert ward.tick() == {OTHER}


def test_a_namespace_whose_pulses_cannot_be_read_is_looked_at_by_passes() -> None:
    """Soon, and not at each tick; another's are read."""
    ward = Ward()
    ward.pulses = {KEY: BEFORE}
    ago = datetime.now(UTC) - LONGEST_PUT_OFF
    for key in (KEY, OTHER):
        ward.rounds._known[key] = Attention(look=MOVING, pulse=BEFORE, at=ago, patience=LONGEST)
    assert ward.tick() == {OTHER}
    ward.rounds.passed(OTHER, MOVING)
    assert ward.tick() == set()


def test_passes_that_fail_come_ever_more_rarely_and_at_least_every_half_minute() -> None:
    """Each may wait for locks, and hold a thread for as long; one that succeeds begins it anew."""
    item, pauses = after_pass(Attention(), MOVING, now=NOW, tick=TICK), []
    for _ in range(6):
        item = after_pass(item, None, now=NOW, tick=TICK)
        pauses.append(item.patience.total_seconds())
        assert is_due(item, None, now=NOW + item.patience)
        assert not is_due(item, None, now=NOW + item.patience - SECOND)
    assert pauses == [5, 10, 20, 30, 30, 30]
    assert after_pass(item, MOVING, now=NOW, tick=TICK).patience == LONGEST_PUT_OFF * 2


def test_a_mistake_in_one_round_does_not_end_the_rounds(caplog: pytest.LogCaptureFixture) -> None:
    """The operator would seem to live, and look after nothing."""
    readings = iter([ZeroDivisionError("a mistake of ours"), None])

    def read(_: Iterable[StudyKey]) -> dict[StudyKey, Pulse]:
        if error := next(readings):
            raise error
        return {}

    went: list[str] = []

    async def two_rounds() -> StudyKey:
        passes: asyncio.Queue[StudyKey] = asyncio.Queue()
        rounds = Rounds(pulses=read, turns=Turns(), seconds=0.01, went=lambda: went.append("a round"))
        rounds.add(KEY)
        rounds.passed(KEY, MOVING)
        task = asyncio.create_task(rounds.run(passes.put))
        try:
            return await asyncio.wait_for(passes.get(), timeout=10)
        finally:
            task.cancel()

    assert asyncio.run(two_rounds()) == KEY
    assert "a mistake of ours" in caplog.text
    assert went == ["a round"], "an alert asks when one last went well"
