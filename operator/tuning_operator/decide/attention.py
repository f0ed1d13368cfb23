"""When a study wants its next pass. Pure; who asks is `rounds`.

Events tell of resources and Jobs, and each brings a pass. No event tells of trials: at each tick the pulses of all studies
are read in one statement, and a study gets a pass if its pulse has changed and somebody waits for what follows from that.
A change of counts alone waits until the status may be written. Before the first trials have ended, nobody knows how soon
the few that wait are gone, and the pulse is read more often. Where nothing happens, passes come ever more rarely: they
are there for what neither an event nor a pulse tells, such as why a pod cannot start. A study without workers, suspended
or ended, is at rest.
"""

import math
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from tuning_api.schema import seconds
from tuning_operator.decide import budget
from tuning_operator.decide.completion import compute_seconds
from tuning_operator.model import (
    Look,
    Plan,
    Pulse,
    Said,
    Snapshot,
    TrialsPlan,
    TrialState,
    Verdict,
    WorkersPlan,
    WorkerState,
)

LONGEST = timedelta(minutes=5)
"""A study with workers gets a pass at least this often."""
AT_REST = timedelta(hours=1)
"""And one without: only its chart links need it, and they are good for days."""
LONGEST_PUT_OFF = timedelta(seconds=30)
"""And one whose passes fail: whatever is in their way, it is gone at some time, and a person waits for that."""
HURRY = timedelta(seconds=budget.SECONDS_AHEAD)
"""Trials that take longer than this leave time enough for the next tick."""


@dataclass(frozen=True)
class Attention:
    """What is remembered of a study: nothing that a restart may not forget."""

    look: Look | None = None
    """What the last pass left; None if there was none, or if it failed."""
    pulse: Pulse | None = None
    """The pulse before it."""
    at: datetime | None = None
    """When it was."""
    patience: timedelta = timedelta(0)
    """So long nothing has to come after it."""


def since(moment: datetime) -> Attention:
    """What there is to know of a study that had ended by then, without a pass over it."""
    return Attention(look=Look(has_news=False, moves=False), at=moment, patience=AT_REST)


def is_due(known: Attention, pulse: Pulse | None, *, now: datetime) -> bool:
    """Whether a study wants a pass.

    Args:
        known: What is remembered of it.
        pulse: Its pulse now; None where it was not read.
        now: The time.
    """
    look = known.look
    if known.at is None or now >= known.at + known.patience:
        return True
    if look is None:
        return False
    if look.deadline is not None and now >= look.deadline:
        return True
    if pulse is None or pulse == known.pulse:
        return False
    return _is_pressing(look, before=known.pulse, pulse=pulse) or look.counts_at is None or now >= look.counts_at


def hurries(known: Attention, *, now: datetime) -> bool:
    """Whether a study cannot wait for the next tick."""
    return known.look is not None and known.look.hurries_until is not None and now < known.look.hurries_until


def after_pass(known: Attention, look: Look | None, *, now: datetime, tick: timedelta) -> Attention:
    """What is remembered after a pass: where it had no news or failed again, the next one may come later than this one."""
    has_failed = known.look is None and known.at is not None
    patience = _patience(look, before=known.patience, tick=tick, has_failed=has_failed)
    return replace(known, look=look, at=now, patience=patience)


def look_of(snapshot: Snapshot, plan: Plan, *, said: Said, counts_at: datetime | None) -> Look:
    """What a pass leaves.

    Args:
        snapshot: What it observed.
        plan: What it decided.
        said: What became of the status.
        counts_at: When counts may be written again.
    """
    spec = snapshot.spec
    held_back = counts_at if said is Said.COUNTS_LATER else None
    runs = plan.outcome.verdict is Verdict.RUN and spec.parallelism > 0
    return Look(
        has_news=said is Said.NEWS or _does_more_than_add(plan),
        moves=runs or any(worker.state is WorkerState.ACTIVE for worker in snapshot.workers),
        enough_waiting=math.ceil(budget.buffer(snapshot) / 2),
        heeds_each=spec.stop_when is not None,
        counts_at=counts_at,
        deadline=min(filter(None, (*_deadlines(snapshot, plan), held_back)), default=None),
        hurries_until=_end_of_hurry(snapshot) if runs else None,
    )


def look_of_refusal(*, said: Said, now: datetime) -> Look:
    """What a pass over a wrong spec leaves: only another one makes it better, or an earlier study that comes to be there.

    Args:
        said: What became of the status.
        now: The time.
    """
    return Look(has_news=said is not Said.NOTHING, moves=False, deadline=now + LONGEST)


def _patience(look: Look | None, *, before: timedelta, tick: timedelta, has_failed: bool) -> timedelta:
    if look is None:
        # What holds it up, such as rows that are locked, holds a thread up, too: each time twice as long.
        return min(LONGEST_PUT_OFF, max(tick, 2 * before)) if has_failed else tick
    if look.has_news:
        return tick
    return min(LONGEST, max(tick, 2 * before)) if look.moves else AT_REST


def _does_more_than_add(plan: Plan) -> bool:
    """Trials that were added are claimed and end, and pulses tell of that; why a pod cannot start, only a pass finds out."""
    return plan.workers != WorkersPlan() or replace(plan.trials, enqueue=(), add=0) != TrialsPlan()


def _end_of_hurry(snapshot: Snapshot) -> datetime | None:
    """While the first trials run, and before: workers are about to claim."""
    trials = snapshot.record.trials
    if budget.lengths(trials) or not any(worker.running for worker in snapshot.workers):
        return None
    return min((trial.started + HURRY for trial in trials if trial.started), default=snapshot.now + LONGEST)


def _is_pressing(look: Look, *, before: Pulse | None, pulse: Pulse) -> bool:
    """Whether more than counts follows from a change: trials to add, workers to stop, a study to end."""
    if before is None or look.heeds_each or pulse.failed != before.failed or not pulse.running:
        return True
    return pulse.waiting < look.enough_waiting


def _deadlines(snapshot: Snapshot, plan: Plan) -> tuple[datetime | None, ...]:
    if plan.outcome.verdict is not Verdict.RUN:
        return ()
    return _end_of_time(snapshot), _end_of_compute(snapshot)


def _end_of_time(snapshot: Snapshot) -> datetime | None:
    timeout = snapshot.spec.timeout
    if timeout is None:
        return None
    return _after(snapshot.now, seconds(timeout) - snapshot.record.clock.elapsed_at(snapshot.now))


def _end_of_compute(snapshot: Snapshot) -> datetime | None:
    limit, trials = snapshot.spec.max_compute_seconds, snapshot.record.trials
    running = sum(trial.state is TrialState.RUNNING for trial in trials)
    if limit is None or not running:
        return None
    return _after(snapshot.now, (limit - compute_seconds(trials, now=snapshot.now)) / running)


def _after(now: datetime, left: float) -> datetime:
    """When so many seconds are over; or, since a pass comes by then anyway, the latest of that: a spec may name millennia."""
    return now + timedelta(seconds=min(max(0.0, left), LONGEST.total_seconds()))
