"""PURE: what is wrong after a storm, from what is outside of our own bookkeeping; and the figures of one that went well.

Three witnesses have to agree: the rows of the database, what the trials wrote down themselves, and the status document.
"""

import statistics
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from optuna.trial import FrozenTrial, TrialState
from tests.storm.trials import EPOCHS, value

from tuning_api.contract import (
    CANCELLED_ATTRIBUTE,
    FAILURE_ATTRIBUTE,
    OWNER_ATTRIBUTE,
    REQUEUED_ATTRIBUTE,
    RETRY_OF_ATTRIBUTE,
)
from tuning_operator.decide.budget import CRASHES_PER_TRIAL
from tuning_operator.model import Ending

Document = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Fact:
    """A line that a trial wrote: it begins or ends an epoch."""

    what: str
    x: float
    trial: int
    epoch: int
    pod: str
    process: int
    at: float = 0.0


@dataclass
class Attempt:
    """What one process did for a trial."""

    trial: int
    pod: str
    process: int
    begun: list[int] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)

    @property
    def has_finished(self) -> bool:
        """It trained the last epoch to its end."""
        return EPOCHS - 1 in self.ended

    @property
    def may_go_on_at(self) -> set[int]:
        """Where whoever continues it may begin: a state is saved before an epoch begins, and may be there right after one."""
        last = self.begun[-1]
        return {last, last + 1} if last in self.ended and last + 1 < EPOCHS else {last}


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A look at everything, in the middle of the storm; times as in :class:`Fault`."""

    at: float
    ended: int | None
    """Trials that count; None when the database does not answer."""
    left: int
    """Trials of the budget that had not ended when the database answered last."""
    workers: int
    wanted: int
    """Workers that there should be."""
    epochs: int
    """Epochs that were begun so far."""
    last_pass: float
    """When the operator ended its last pass."""


def attempts(facts: Iterable[Fact]) -> dict[float, list[Attempt]]:
    """What was tried for each trial, by its parameter, in the order of time; an attempt that comes back is there twice."""
    found: defaultdict[float, list[Attempt]] = defaultdict(list)
    for fact in facts:
        tried = found[fact.x]
        if not tried or (tried[-1].pod, tried[-1].process) != (fact.pod, fact.process):
            tried.append(Attempt(trial=fact.trial, pod=fact.pod, process=fact.process))
        (tried[-1].begun if fact.what == "begins" else tried[-1].ended).append(fact.epoch)
    return dict(found)


def counting(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Rows that ended and that nobody continues."""
    return [
        trial
        for trial in trials
        if trial.state.is_finished()
        and not (
            trial.state is TrialState.FAIL
            and (REQUEUED_ATTRIBUTE in trial.user_attrs or CANCELLED_ATTRIBUTE in trial.user_attrs)
        )
    ]


def lost(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Rows that lost their worker, and that another one continues."""
    return [trial for trial in trials if trial.state is TrialState.FAIL and REQUEUED_ATTRIBUTE in trial.user_attrs]


def violations(
    trials: Sequence[FrozenTrial], facts: Sequence[Fact], status: Document, *, budget: int, killed: Collection[str]
) -> list[str]:
    """What is wrong with a study after the storm; nothing if all is well.

    Args:
        trials: All rows of the study.
        facts: What its trials wrote down, in the order in which they did.
        status: The document that a person reads.
        budget: spec.maxTrials.
        killed: Pods that the storm has killed: a trial fails for nothing but having lost so many of them in a row.
    """
    return [
        *_wrong_with_the_budget(trials, budget=budget),
        *_wrong_with_rows(trials, attempts(facts), killed=killed),
        *_wrong_with_attempts(attempts(facts)),
        *_wrong_with_the_status(status, trials, budget=budget),
    ]


def _wrong_with_the_budget(trials: Sequence[FrozenTrial], *, budget: int) -> Iterator[str]:
    ended = len(counting(trials))
    if ended != budget:
        yield f"{ended} trials have ended, and the budget is {budget}"
    for trial in trials:
        if not trial.state.is_finished():
            yield f"trial {trial.number} is still {trial.state.name}"
    counted: defaultdict[int, list[int]] = defaultdict(list)
    by_number = {trial.number: trial for trial in trials}
    for trial in counting(trials):
        counted[_first(trial, by_number)].append(trial.number)
    for first, numbers in counted.items():
        if len(numbers) > 1:
            yield f"trial {first} counts {len(numbers)} times, as {numbers}"
    successors = [trial.user_attrs.get(RETRY_OF_ATTRIBUTE) for trial in trials]
    for trial in lost(trials):
        if (times := successors.count(trial.number)) != 1:
            yield f"trial {trial.number} lost its worker and is continued {times} times"


def _first(trial: FrozenTrial, by_number: dict[int, FrozenTrial]) -> int:
    while (before := trial.user_attrs.get(RETRY_OF_ATTRIBUTE)) is not None:
        trial = by_number[before]
    return trial.number


def _wrong_with_rows(
    trials: Sequence[FrozenTrial], tried: dict[float, list[Attempt]], *, killed: Collection[str]
) -> Iterator[str]:
    by_number = {trial.number: trial for trial in trials}
    for trial in trials:
        before = trial.user_attrs.get(RETRY_OF_ATTRIBUTE)
        earlier = by_number[before].params if before is not None else {}
        if earlier and trial.params and earlier != trial.params:
            yield f"trial {trial.number} continues {before} with other parameters"
    for trial in counting(trials):
        if trial.state is TrialState.FAIL:
            if len(_owners_that_crashed(trial, by_number).intersection(killed)) < CRASHES_PER_TRIAL:
                yield f"trial {trial.number} failed: {trial.user_attrs.get(FAILURE_ATTRIBUTE)}"
        else:
            yield from _wrong_with_row(trial, tried.get(trial.params["x"], []))


def _owners_that_crashed(trial: FrozenTrial, by_number: dict[int, FrozenTrial]) -> set[str]:
    owners = {trial.user_attrs[OWNER_ATTRIBUTE]["id"]}
    while (before := trial.user_attrs.get(RETRY_OF_ATTRIBUTE)) is not None:
        trial = by_number[before]
        if trial.user_attrs.get(REQUEUED_ATTRIBUTE) == Ending.CRASHED:
            owners.add(trial.user_attrs[OWNER_ATTRIBUTE]["id"])
    return owners


def _wrong_with_row(trial: FrozenTrial, own: list[Attempt]) -> Iterator[str]:
    name = f"trial {trial.number}"
    if not own:
        yield f"{name} is {trial.state.name}, and nobody saw it train"
        return
    x, curve = trial.params["x"], trial.intermediate_values
    expected = {epoch: value(x, epoch) for epoch in range(EPOCHS)}
    if trial.state is TrialState.PRUNED:
        expected = {epoch: expected[epoch] for epoch in range(len(curve))}
    if curve != expected:
        yield f"{name} is {trial.state.name} with the curve {curve}, and should have {expected}"
    last = own[-1]
    if last.trial != trial.number:
        yield f"{name} counts, and trial {last.trial} was the last that trained"
    if (trial.state is TrialState.COMPLETE) is not last.has_finished:
        yield f"{name} is {trial.state.name}, and its last epochs were {last.ended}"
    if trial.state is TrialState.COMPLETE and trial.value != value(x, EPOCHS - 1):
        yield f"{name} has the value {trial.value}, and should have {value(x, EPOCHS - 1)}"


def _wrong_with_attempts(tried: dict[float, list[Attempt]]) -> Iterator[str]:
    for own in tried.values():
        numbers = [attempt.trial for attempt in own]
        processes = {(attempt.pod, attempt.process) for attempt in own}
        if len(processes) < len(own):
            yield f"trials {numbers} ran at the same time, and are one"
            continue
        if own[0].begun[0] != 0:
            yield f"trial {numbers[0]} began at epoch {own[0].begun[0]}"
        for attempt in own:
            if attempt.begun != list(range(attempt.begun[0], attempt.begun[-1] + 1)):
                yield f"trial {attempt.trial} trained the epochs {attempt.begun}"
        for before, after in pairwise(own):
            if after.begun[0] not in before.may_go_on_at:
                yield (
                    f"trial {after.trial} went on at epoch {after.begun[0]}, and trial {before.trial} before it came to"
                    f" {before.begun[-1]}"
                )
            if before.trial == after.trial:
                yield f"trial {after.trial} was begun by two workers"


def _wrong_with_the_status(status: Document, trials: Sequence[FrozenTrial], *, budget: int) -> Iterator[str]:
    counted = counting(trials)
    states = [trial.state for trial in counted]
    complete = [trial for trial in counted if trial.state is TrialState.COMPLETE]
    best = max(complete, key=lambda trial: (trial.value or 0, -trial.number), default=None)
    counts = status.get("trials", {})
    shown = status.get("best") or {}
    for name, said, expected in (
        ("phase", status.get("phase"), "Complete"),
        ("progress", status.get("progress"), f"{len(counted)}/{budget}"),
        ("workers", status.get("workers"), 0),
        ("trials.total", counts.get("total"), budget),
        ("trials.finished", counts.get("finished"), len(counted)),
        ("trials.complete", counts.get("complete"), states.count(TrialState.COMPLETE)),
        ("trials.pruned", counts.get("pruned"), states.count(TrialState.PRUNED)),
        ("trials.failed", counts.get("failed"), states.count(TrialState.FAIL)),
        ("trials.running", counts.get("running"), sum(trial.state is TrialState.RUNNING for trial in trials)),
        ("trials.waiting", counts.get("waiting"), sum(trial.state is TrialState.WAITING for trial in trials)),
        ("trials.retried", counts.get("retried"), len(lost(trials))),
        ("best.trial", shown.get("trial"), best.number if best else None),
        ("best.value", shown.get("value"), best.value if best else None),
        ("best.params", shown.get("params"), best.params if best else None),
    ):
        if said != expected:
            yield f"status.{name} is {said}, and the database says {expected}"


def lost_epochs(tried: dict[float, list[Attempt]]) -> list[int]:
    """For each time that a trial lost its process: how many epochs were begun again, or had been begun in vain."""
    return [before.begun[-1] + 1 - after.begun[0] for own in tried.values() for before, after in pairwise(own)]


def finished_in_vain(tried: dict[float, list[Attempt]]) -> int:
    """Trainings that came to their end and lost their worker before it could tell."""
    return sum(attempt.has_finished for own in tried.values() for attempt in own[:-1])


def recovery(*, over: float, samples: Sequence[Sample]) -> float | None:
    """Seconds from the end of a fault until all is well again; None if that never was.

    All is well when the database answers, all workers run, a trial has begun an epoch since and the operator has made a
    pass; or when no trial is left. Other faults come in between, and what they delay counts here too.

    Args:
        over: When the end of the fault was done.
        samples: All of the storm, in the order of time.
    """
    after = [sample for sample in samples if sample.at >= over]
    if not after:
        return None
    before = max((sample.epochs for sample in samples if sample.at < over), default=0)
    for sample in after:
        is_well = (
            sample.ended is not None
            and sample.workers >= sample.wanted
            and sample.wanted > 0
            and sample.epochs > before
            and sample.last_pass >= over
        )
        if is_well or sample.left == 0:
            return sample.at - over
    return None


def middle_and_most(figures: Sequence[float]) -> tuple[float, float] | None:
    """Median and maximum, if there is anything."""
    return (statistics.median(figures), max(figures)) if figures else None
