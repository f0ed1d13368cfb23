"""Whether a study goes on: an ordered chain of reasons to stop, the first that holds wins."""

from collections.abc import Callable

from tuning_api.schema import seconds
from tuning_api.status import Reason
from tuning_operator.decide.budget import ended
from tuning_operator.model import Outcome, Snapshot, Trial, TrialState, Verdict

Check = Callable[[Snapshot], Outcome | None]


def outcome(snapshot: Snapshot) -> Outcome:
    """The verdict over a study."""
    for check in CHAIN:
        if verdict := check(snapshot):
            return verdict
    return Outcome(Verdict.RUN, Reason.TRIALS_RUNNING, "the study runs")


def _too_many_trials_failed(snapshot: Snapshot) -> Outcome | None:
    failed = failed_trials(snapshot.record.trials)
    limit = snapshot.spec.max_failed_trials
    if len(failed) < limit:
        return None
    message = f"{len(failed)} trials have failed and maxFailedTrials is {limit}; the last: {last_failure(failed)}"
    return Outcome(Verdict.FAIL, Reason.TOO_MANY_FAILED_TRIALS, message)


def _budget_is_spent(snapshot: Snapshot) -> Outcome | None:
    spent, budget = ended(snapshot.record.trials), snapshot.spec.max_trials
    if spent < budget:
        return None
    failed = failed_trials(snapshot.record.trials)
    if len(failed) == spent:
        message = f"all {budget} trials have failed; the last: {last_failure(failed)}"
        return Outcome(Verdict.FAIL, Reason.TOO_MANY_FAILED_TRIALS, message)
    return Outcome(Verdict.COMPLETE, Reason.BUDGET_SPENT, f"all {budget} trials have ended")


def _time_is_over(snapshot: Snapshot) -> Outcome | None:
    timeout = snapshot.spec.timeout
    if timeout is None or snapshot.record.clock.elapsed_at(snapshot.now) < seconds(timeout):
        return None
    spent, budget = ended(snapshot.record.trials), snapshot.spec.max_trials
    message = f"the study's timeout of {timeout} is over, {spent} of {budget} trials have ended; raise it to go on"
    return Outcome(Verdict.COMPLETE, Reason.TIMED_OUT, message)


def _suspended(snapshot: Snapshot) -> Outcome | None:
    if not snapshot.spec.suspend:
        return None
    return Outcome(Verdict.SUSPEND, Reason.SUSPENDED, "spec.suspend is true; set it to false to go on")


CHAIN: tuple[Check, ...] = (
    _budget_is_spent,  # a study that ran to its end is complete, also when its last trial was one failure too many
    _too_many_trials_failed,
    _time_is_over,
    _suspended,
)


def failed_trials(trials: tuple[Trial, ...]) -> tuple[Trial, ...]:
    """Trials that count as failed, in the order in which they ended."""
    failed = [trial for trial in trials if trial.state is TrialState.FAIL and trial.is_ended]
    return tuple(sorted(failed, key=lambda trial: (trial.ended is not None, trial.ended, trial.number)))


def last_failure(failed: tuple[Trial, ...]) -> str:
    """The last failure in words."""
    trial = failed[-1]
    if trial.failure is None:
        return f"trial {trial.number} failed and left no reason"
    return f"trial {trial.number}: {trial.failure.reason}: {trial.failure.message}"
