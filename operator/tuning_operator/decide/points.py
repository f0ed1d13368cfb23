"""The points that trials are given: known good ones, and those of a plan. Which are still to be tried, and which no more.

A function of the spec and the rows alone, like the budget: what was added says so itself, in the transaction that adds it.
So a crash between two of them, a new operator or a resource that is made anew tries nothing twice.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from tuning_api import space
from tuning_api.contract import Given
from tuning_api.search import EXHAUSTIVE
from tuning_api.spec import StudySpec
from tuning_operator.model import Snapshot, Trial, TrialState


def held(trials: tuple[Trial, ...]) -> tuple[Trial, ...]:
    """Trials that have a place in the budget: ended, running or waiting, and each lost one or its successor."""
    continued = {trial.retry_of for trial in trials}
    return tuple(trial for trial in trials if not trial.cancelled and not (trial.is_lost and trial.number in continued))


def given(trials: Iterable[Trial]) -> list[Given]:
    """Where the parameters come from of those trials that were given some."""
    return [trial.given for trial in trials if trial.given is not None]


def missing_entries(snapshot: Snapshot) -> tuple[dict[str, Any], ...]:
    """Entries of spec.enqueue that no trial has tried or will try; what is listed twice is tried twice."""
    tried = [item.entry for item in given(held(snapshot.record.trials)) if item.entry is not None]
    known = Counter(map(space.identity, tried))
    missing = []
    for entry in snapshot.spec.enqueue or []:
        if known[space.identity(entry)] > 0:
            known[space.identity(entry)] -= 1
        else:
            missing.append(entry)
    return tuple(missing)


def outdated(spec: StudySpec, trials: Iterable[Trial], *, study: str) -> tuple[Trial, ...]:
    """Waiting trials that the spec no longer asks for: of another plan, or of an entry that was removed.

    A trial that continues another one keeps its parameters, whatever the bounds are now.
    """
    plan = space.plan_id(spec.search_space, spec.resolved_sampler, study=study)
    entries = {space.identity(entry) for entry in spec.enqueue or []}
    waiting = (trial for trial in trials if trial.state is TrialState.WAITING)
    return tuple(trial for trial in waiting if trial.retry_of is None and _is_outdated(trial, plan, entries))


def up_to_date(spec: StudySpec, trials: tuple[Trial, ...], *, study: str) -> tuple[Trial, ...]:
    """Trials that have a place in the budget and are asked for."""
    no_more = {trial.number for trial in outdated(spec, trials, study=study)}
    return tuple(trial for trial in held(trials) if trial.number not in no_more)


def _is_outdated(trial: Trial, plan: str | None, entries: set[str]) -> bool:
    source = trial.given
    if source is not None and source.entry is not None:
        return space.identity(source.entry) not in entries or source.plan not in {None, plan}
    return (source.plan if source else None) != plan


def budget(snapshot: Snapshot) -> int:
    """Trials that the study ends with: maxTrials, or fewer when its search space has no more points."""
    spec = snapshot.spec
    if spec.resolved_sampler.type not in EXHAUSTIVE:
        return spec.max_trials
    study = snapshot.study.key.name
    trials = up_to_date(spec, snapshot.record.trials, study=study)
    points, missing = space.size(spec.search_space) or 0, missing_entries(snapshot)
    plan = space.plan_id(spec.search_space, spec.resolved_sampler, study=study)
    numbers = {item.number for item in given(trials) if item.plan == plan}
    if len(numbers) == len(trials) and not missing:
        return min(spec.max_trials, points)  # as nearly always, and a pass over 1,000 studies has no time to lose
    taken = taken_points(spec, trials)
    left = points - len(taken)
    wanted = [space.typed(spec.search_space, entry) for entry in missing]
    besides = sum(_is_besides(spec, point, taken=taken, left=left) for point in wanted)
    return min(spec.max_trials, len(trials) + left + besides)


def _is_besides(spec: StudySpec, point: space.Point, *, taken: set[str], left: int) -> bool:
    """Whether trying a point leaves as many points of the space as before: what leaves something open takes one."""
    return left == 0 or (space.is_point(spec.search_space, point) and space.identity(point) in taken)


def taken_points(spec: StudySpec, trials: tuple[Trial, ...]) -> set[str]:
    """The points of the search space that trials have, by their identity."""
    names = {parameter.name for parameter in spec.search_space}
    points = [
        {name: value for name, value in (trial.fixed | trial.params).items() if name in names} for trial in trials
    ]
    return {space.identity(point) for point in points if space.is_point(spec.search_space, point)}
