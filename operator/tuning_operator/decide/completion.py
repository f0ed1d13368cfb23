"""Whether a study goes on: an ordered chain of reasons to stop, the first that holds wins."""

import math
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from tuning_api.schema import seconds
from tuning_api.search import Direction
from tuning_api.status import Reason
from tuning_operator.decide.budget import ended, failures
from tuning_operator.decide.front import front
from tuning_operator.decide.points import budget
from tuning_operator.model import Outcome, Snapshot, Trial, TrialState, Verdict

Check = Callable[[Snapshot], Outcome | None]


def outcome(snapshot: Snapshot) -> Outcome:
    """The verdict over a study."""
    for check in CHAIN:
        if verdict := check(snapshot):
            return verdict
    return Outcome(Verdict.RUN, Reason.TRIALS_RUNNING, "the study runs")


def _too_many_trials_failed(snapshot: Snapshot) -> Outcome | None:
    failed = by_end(failures(snapshot))
    limit = snapshot.spec.max_failed_trials
    if len(failed) < limit:
        return None
    message = f"{len(failed)} trials have failed and maxFailedTrials is {limit}; the last: {last_failure(failed)}"
    return Outcome(Verdict.FAIL, Reason.TOO_MANY_FAILED_TRIALS, message)


def _budget_is_spent(snapshot: Snapshot) -> Outcome | None:
    spent, total = ended(snapshot.record.trials), budget(snapshot)
    if spent < total:
        return None
    failed = failed_trials(snapshot.record.trials)
    if len(failed) == spent:
        message = f"all {total} trials have failed; the last: {last_failure(failed)}"
        return Outcome(Verdict.FAIL, Reason.TOO_MANY_FAILED_TRIALS, message)
    if total < snapshot.spec.max_trials:
        message = (
            f"all points of the search space have been tried, in {spent} trials of which {len(failed)} failed; maxTrials is"
            f" {snapshot.spec.max_trials}: widen the space to go on"
        )
        return Outcome(Verdict.COMPLETE, Reason.SEARCH_SPACE_EXHAUSTED, message)
    return Outcome(Verdict.COMPLETE, Reason.BUDGET_SPENT, f"all {total} trials have ended")


def _time_is_over(snapshot: Snapshot) -> Outcome | None:
    timeout = snapshot.spec.timeout
    if timeout is None or snapshot.record.clock.elapsed_at(snapshot.now) < seconds(timeout):
        return None
    spent, total = ended(snapshot.record.trials), budget(snapshot)
    message = f"the study's timeout of {timeout} is over, {spent} of {total} trials have ended; raise it to go on"
    return Outcome(Verdict.COMPLETE, Reason.TIMED_OUT, message)


def _target_is_reached(snapshot: Snapshot) -> Outcome | None:
    rule, objective = snapshot.spec.stop_when, snapshot.spec.objectives[0]
    if rule is None or rule.target is None:
        return None
    best = best_trials(snapshot.record.trials, [objective.direction])
    if not best:
        return None
    value = best[0].values[0]
    if value < rule.target if objective.direction is Direction.MAXIMIZE else value > rule.target:
        return None
    message = (
        f"trial {best[0].number} has reached the target: {objective.metric} is {value:.6g}, stopWhen.target {rule.target:g};"
        " move or remove it to go on"
    )
    return Outcome(Verdict.COMPLETE, Reason.TARGET_REACHED, message)


def _nothing_gets_better(snapshot: Snapshot) -> Outcome | None:
    """Whether there ever was such a row of trials.

    NB: not whether the last ones are such a row: a better value of a trial that still ran when the verdict fell would take
    the study's end back.
    """
    rule = snapshot.spec.stop_when
    if rule is None or rule.no_improvement_trials is None:
        return None
    best, row = None, 0
    for trial in by_end(snapshot.record.trials):
        better = best_trials([best, trial] if best else [trial], [snapshot.spec.objectives[0].direction])
        if better and better[0] is trial:
            best, row = trial, 0
        elif best:
            row += 1
        if best and row == rule.no_improvement_trials:
            message = (
                f"{row} trials in a row have ended without a better value than {best.values[0]:.6g} of trial {best.number};"
                " raise or remove stopWhen.noImprovementTrials to go on"
            )
            return Outcome(Verdict.COMPLETE, Reason.NO_IMPROVEMENT, message)
    return None


def _compute_is_spent(snapshot: Snapshot) -> Outcome | None:
    limit = snapshot.spec.max_compute_seconds
    if limit is None:
        return None
    spent = compute_seconds(snapshot.record.trials, now=snapshot.now)
    if spent < limit:
        return None
    message = (
        f"the trials have run for {spent:.0f} s together and maxComputeSeconds is {limit},"
        f" {ended(snapshot.record.trials)} of {budget(snapshot)} trials have ended; raise it to go on"
    )
    return Outcome(Verdict.COMPLETE, Reason.COMPUTE_SPENT, message)


def _suspended(snapshot: Snapshot) -> Outcome | None:
    if not snapshot.spec.suspend:
        return None
    return Outcome(Verdict.SUSPEND, Reason.SUSPENDED, "spec.suspend is true; set it to false to go on")


CHAIN: tuple[Check, ...] = (
    _target_is_reached,  # first: whatever the trials do that still ran then, the study has what it was to find
    _budget_is_spent,  # a study that ran to its end is complete, also when its last trial was one failure too many
    _too_many_trials_failed,
    _nothing_gets_better,
    _time_is_over,
    _compute_is_spent,
    _suspended,
)


def best_trials(trials: Iterable[Trial], directions: list[Direction]) -> list[Trial]:
    """The complete trials that break no constraint and that no other such trial dominates.

    Of one objective it is one at most: the best, and of equals the first.
    """
    results = [trial for trial in trials if trial.state is TrialState.COMPLETE and trial.is_feasible]
    found = [results[place] for place in front([trial.values for trial in results], directions)]
    return found if len(directions) > 1 else found[:1]


def compute_seconds(trials: Iterable[Trial], *, now: datetime) -> float:
    """Seconds of all trials together; those that still run count until now, and lost ones until their loss was noticed."""
    spans = (((trial.ended or now) - trial.started).total_seconds() for trial in trials if trial.started)
    return math.fsum(max(0.0, span) for span in spans)


def by_end(trials: Iterable[Trial]) -> list[Trial]:
    """Trials that count, in the order in which they ended."""
    counting = [trial for trial in trials if trial.is_ended]
    return sorted(counting, key=lambda trial: (trial.ended is not None, trial.ended, trial.number))


def failed_trials(trials: tuple[Trial, ...]) -> tuple[Trial, ...]:
    """Trials that count as failed, in the order in which they ended."""
    return tuple(by_end(trial for trial in trials if trial.state is TrialState.FAIL))


def last_failure(failed: Sequence[Trial]) -> str:
    """The last failure in words."""
    trial = failed[-1]
    if trial.failure is None:
        return f"trial {trial.number} failed and left no reason"
    return f"trial {trial.number}: {trial.failure.reason}: {trial.failure.message}"
