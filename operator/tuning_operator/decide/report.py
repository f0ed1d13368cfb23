"""The status that a person reads, as a function of what was observed and decided.

The whole status is computed on each pass, so a lost write is repaired by the next one. Conditions follow kstatus:
Ready is True once a study is accepted, so that `helm --wait`, Flux and Argo CD do not wait for its end.
"""

from collections.abc import Iterable
from datetime import datetime

from tuning_api import naming
from tuning_api.spec import Checkpoints
from tuning_api.status import (
    MOST_OF_FRONT,
    BestTrial,
    Charts,
    Condition,
    ConditionStatus,
    ConditionType,
    Phase,
    Reason,
    StudyRecord,
    StudyStatus,
    TrialCounts,
)
from tuning_operator.decide.budget import ended, in_state, is_misfit
from tuning_operator.decide.completion import best_trials, by_end, compute_seconds, failed_trials, last_failure
from tuning_operator.decide.front import even_choice
from tuning_operator.decide.points import budget
from tuning_operator.model import (
    Outcome,
    Plan,
    Snapshot,
    Study,
    TakenOver,
    Trial,
    TrialState,
    Trouble,
    Verdict,
    WorkerState,
)

FAILURES_IN_A_ROW = 3
"""So many failures at the end of the list mean that trials are failing, not that one was unlucky."""

_PHASES = {Verdict.COMPLETE: Phase.COMPLETE, Verdict.FAIL: Phase.FAILED, Verdict.SUSPEND: Phase.SUSPENDED}
_OWN_WORDS = frozenset(
    {
        Reason.TIMED_OUT,
        Reason.TARGET_REACHED,
        Reason.NO_IMPROVEMENT,
        Reason.COMPUTE_SPENT,
        Reason.SEARCH_SPACE_EXHAUSTED,
        Reason.TOO_MANY_FAILED_TRIALS,
    }
)
"""Verdicts whose message says more than the counts do."""
_ENDED = frozenset({Phase.COMPLETE, Phase.FAILED})
_TRUE, _FALSE, _UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN

Verdicts = dict[ConditionType, tuple[ConditionStatus, Reason, str]]


def status(snapshot: Snapshot, plan: Plan, *, charts: Charts | None, refusal: Trouble | None = None) -> StudyStatus:
    """The status of a study that was observed.

    Args:
        snapshot: what was observed.
        plan: what was decided.
        charts: signed links to the study's charts.
        refusal: why the plan could not be carried out, if the API server refused a part of it.
    """
    trials, workers, old = snapshot.record.trials, snapshot.workers, snapshot.study.status
    counts = _counts(snapshot)
    phase = _phase(snapshot, plan.outcome)
    running = sum(worker.running for worker in workers)
    trouble = refusal or plan.workers.postponed or _trouble(snapshot)
    best = best_trials(trials, [objective.direction for objective in snapshot.spec.objectives])
    message = _message(
        counts,
        running=running,
        misfits=sum(is_misfit(snapshot, trial) for trial in trials),
        has_best=bool(best),
        outcome=plan.outcome,
        trouble=trouble,
    )
    is_front = len(snapshot.spec.objectives) > 1
    return StudyStatus(
        observed_generation=snapshot.study.generation,
        phase=phase,
        message=message,
        trials=counts,
        progress=f"{counts.finished}/{counts.total}",
        workers=running,
        selector=naming.worker_selector(uid=snapshot.study.uid),
        best=_describe(best[0], checkpoints=snapshot.spec.trial.checkpoints) if best and not is_front else None,
        best_trials=[_describe(best[place]) for place in even_choice(range(len(best)), most=MOST_OF_FRONT)]
        if best and is_front
        else None,
        best_display=_best_in_short(best, counts, is_front=is_front),
        importances={name: round(share, 4) for name, share in snapshot.record.importances.items()} or None,
        charts=charts,
        start_time=_earliest(trial.started for trial in trials),
        completion_time=_completion_time(snapshot, phase),
        elapsed_seconds=int(snapshot.record.clock.elapsed_at(snapshot.now)),
        compute_seconds=int(compute_seconds(trials, now=snapshot.now)),
        epochs_run=sum(trial.epochs or 0 for trial in trials),
        epochs_saved_by_pruning=_epochs_saved(trials),
        warm_started=snapshot.record.warm_started or None,
        study=StudyRecord(name=snapshot.study.key.name, schema_=naming.database_schema(snapshot.study.key.namespace)),
        conditions=_conditions(
            _verdicts(phase, plan.outcome, message=message, trouble=trouble),
            study=snapshot.study,
            now=snapshot.now,
            old=old,
        ),
    )


def status_of_fault(study: Study, trouble: Trouble, *, charts: Charts | None, now: datetime) -> StudyStatus:
    """The status of a study that could not be observed: its spec is invalid, or its database is away.

    What was known stays as it was; only the conditions, the message, the links (they end) and (before anything ran) the
    phase change. Of a spec that was changed meanwhile, such as a raised maxTrials, nobody knows yet whether the study has
    ended.
    """
    old = study.status
    is_known = study.generation == old.observed_generation
    accepted = trouble.reason is not Reason.INVALID_SPEC and _was_true(old, ConditionType.READY)
    verdicts: Verdicts = {
        ConditionType.READY: (_TRUE, Reason.ACCEPTED, "the study was accepted")
        if accepted
        else (_FALSE, trouble.reason, trouble.message),
        ConditionType.PROGRESSING: (_FALSE, trouble.reason, trouble.message),
    }
    for type_ in (ConditionType.COMPLETE, ConditionType.FAILED, ConditionType.SUSPENDED):
        before = old.condition(type_)
        verdicts[type_] = (
            (before.status, before.reason, before.message)
            if before and is_known
            else (_UNKNOWN, trouble.reason, "not known while the study cannot be observed")
        )
    return StudyStatus.model_validate(
        dict(old)
        | {
            "observed_generation": study.generation,
            "phase": old.phase if old.phase and (is_known or old.phase not in _ENDED) else Phase.PENDING,
            "message": trouble.message,
            "charts": charts,
            "conditions": _conditions(verdicts, study=study, now=now, old=old),
        }
    )


def taken_over(taken: TakenOver) -> str:
    """What an earlier study has given, in one sentence."""
    if not taken.taken and not taken.skipped:
        return f"study {taken.study} has no finished trial to learn from"
    finished = taken.taken + sum(taken.skipped.values())
    words = f"took over {taken.taken} of {finished} finished trials of study {taken.study}"
    if not taken.skipped:
        return words
    reasons = sorted(taken.skipped.items(), key=lambda item: (-item[1], item[0]))
    return f"{words}; of the others " + ", ".join(f"{count} {why}" for why, count in reasons)


def is_urgent(new: StudyStatus, old: StudyStatus) -> bool:
    """Whether a person waits for this change: another phase, another generation, another verdict of a condition.

    After a study's end every change is, for the last of them (its workers are gone) has no later write to wait for.
    """

    def essence(status: StudyStatus) -> object:
        conditions = [(item.type, item.status, item.reason) for item in status.conditions or []]
        return status.phase, status.observed_generation, status.charts, conditions

    return new.phase in _ENDED or essence(new) != essence(old)


def differs(new: StudyStatus, old: StudyStatus) -> bool:
    """Whether anything has changed but what grows by itself while trials run: times and epochs.

    A study of day-long trials is then written when one of them ends, not as often as its pace allows.
    """
    return _without_growth(new) != _without_growth(old)


def _without_growth(status: StudyStatus) -> StudyStatus:
    return status.model_copy(update={"elapsed_seconds": None, "compute_seconds": None, "epochs_run": None})


def _describe(trial: Trial, *, checkpoints: Checkpoints | None = None) -> BestTrial:
    display = ", ".join(f"{value:.4g}" for value in trial.values)
    checkpoint = (
        checkpoints.location(trial.checkpoint) if checkpoints and checkpoints.keep and trial.checkpoint else None
    )
    if len(trial.values) > 1:
        return BestTrial(trial=trial.number, values=list(trial.values), display=display, params=trial.params)
    value = trial.values[0]
    return BestTrial(trial=trial.number, value=value, display=display, params=trial.params, checkpoint=checkpoint)


def _best_in_short(best: list[Trial], counts: TrialCounts, *, is_front: bool) -> str | None:
    if not best:
        return "none feasible" if counts.complete else None
    return f"front of {len(best)}" if is_front else f"{best[0].values[0]:.4g}"


def _counts(snapshot: Snapshot) -> TrialCounts:
    trials = snapshot.record.trials
    return TrialCounts(
        total=budget(snapshot),
        finished=ended(trials),
        complete=len(in_state(trials, TrialState.COMPLETE)),
        pruned=len(in_state(trials, TrialState.PRUNED)),
        failed=len(failed_trials(trials)),
        running=len(in_state(trials, TrialState.RUNNING)),
        waiting=len(in_state(trials, TrialState.WAITING)),
        infeasible=_infeasible(snapshot),
        retried=sum(trial.is_lost for trial in trials),
    )


def _infeasible(snapshot: Snapshot) -> int | None:
    """NB: an objective of a person's own may set constraints that the spec does not name."""
    trials = snapshot.record.trials
    found = sum(
        (trial.state is TrialState.COMPLETE and not trial.is_feasible) or is_misfit(snapshot, trial) for trial in trials
    )
    return found if found or snapshot.spec.constraints else None


def _phase(snapshot: Snapshot, outcome: Outcome) -> Phase:
    if outcome.verdict in _PHASES:
        return _PHASES[outcome.verdict]
    has_begun = any(trial.state is not TrialState.WAITING for trial in snapshot.record.trials)
    return Phase.RUNNING if has_begun or any(worker.running for worker in snapshot.workers) else Phase.PENDING


def _message(
    counts: TrialCounts, *, running: int, misfits: int, has_best: bool, outcome: Outcome, trouble: Trouble | None
) -> str:
    none_feasible = "" if has_best else _without_a_feasible_one(counts)
    if outcome.verdict is Verdict.RUN and trouble:
        return trouble.message
    if outcome.reason in _OWN_WORDS:
        return outcome.message + none_feasible
    done = f"{counts.finished} of {counts.total} trials done"
    if outcome.verdict is Verdict.COMPLETE:
        misfit = f" ({misfits} out of memory)" if misfits else ""
        return (
            f"{done}: {counts.complete} complete, {counts.pruned} pruned, {counts.failed} failed{misfit}{none_feasible}"
        )
    if outcome.verdict is Verdict.SUSPEND:
        return f"{done}, suspended"
    return f"{done}, {running} {'worker' if running == 1 else 'workers'} running" + none_feasible


def _without_a_feasible_one(counts: TrialCounts) -> str:
    if not counts.complete:
        return ""
    return f"; none of the {counts.complete} complete ones is feasible: each breaks a constraint"


def _trouble(snapshot: Snapshot) -> Trouble | None:
    """Why a running study does not advance, most telling cause first."""
    if trouble := _failing_trials(snapshot):
        return trouble
    if snapshot.spec.parallelism == 0:
        return Trouble(Reason.NO_WORKERS_WANTED, "spec.parallelism is 0: raise it to go on")
    active = [worker for worker in snapshot.workers if worker.state is WorkerState.ACTIVE and not worker.stopping]
    if any(worker.running for worker in active):
        return None
    return next((worker.trouble for worker in active if worker.trouble), None)


def _failing_trials(snapshot: Snapshot) -> Trouble | None:
    """NB: that some parameters do not fit is no trouble, once others do."""
    finished = [trial for trial in by_end(snapshot.record.trials) if trial.ended]
    if any(trial.state is not TrialState.FAIL for trial in finished):
        finished = [trial for trial in finished if not is_misfit(snapshot, trial)]
    tail = finished[-FAILURES_IN_A_ROW:]
    if not tail or any(trial.state is not TrialState.FAIL for trial in tail):
        return None
    count = next((i for i, item in enumerate(reversed(finished)) if item.state is not TrialState.FAIL), len(finished))
    trials_in_words = "the only trial that ended" if count == 1 else f"the last {count} trials"
    return Trouble(Reason.TRIALS_FAILING, f"{trials_in_words} failed; the last: {last_failure(tail)}")


def _verdicts(phase: Phase, outcome: Outcome, *, message: str, trouble: Trouble | None) -> Verdicts:
    is_complete, is_failed = outcome.verdict is Verdict.COMPLETE, outcome.verdict is Verdict.FAIL
    is_suspended = outcome.verdict is Verdict.SUSPEND
    return {
        ConditionType.READY: (_TRUE, Reason.ACCEPTED, "the study was accepted"),
        ConditionType.COMPLETE: (_TRUE, outcome.reason, message)
        if is_complete
        else (_FALSE, Reason.NOT_YET, "the study has not ended"),
        ConditionType.FAILED: (_TRUE, outcome.reason, message)
        if is_failed
        else (_FALSE, Reason.NOT_YET, "the study has not failed"),
        ConditionType.SUSPENDED: (_TRUE, Reason.SUSPENDED, outcome.message)
        if is_suspended
        else (_FALSE, Reason.NOT_SUSPENDED, "spec.suspend is false"),
        ConditionType.PROGRESSING: _progressing(phase, outcome, message=message, trouble=trouble),
    }


def _progressing(
    phase: Phase, outcome: Outcome, *, message: str, trouble: Trouble | None
) -> tuple[ConditionStatus, Reason, str]:
    if outcome.verdict is Verdict.FAIL:
        return _FALSE, Reason.TRIALS_FAILING, message
    if outcome.verdict is Verdict.COMPLETE:
        return _FALSE, Reason.ENDED, message
    if outcome.verdict is Verdict.SUSPEND:
        return _FALSE, Reason.SUSPENDED, outcome.message
    if trouble:
        return _FALSE, trouble.reason, trouble.message
    return _TRUE, Reason.STARTING if phase is Phase.PENDING else Reason.TRIALS_RUNNING, message


def _conditions(verdicts: Verdicts, *, study: Study, now: datetime, old: StudyStatus) -> list[Condition]:
    return [
        Condition(
            type=type_,
            status=status,
            reason=reason,
            message=message,
            last_transition_time=_transition(old.condition(type_), status=status, now=now),
            observed_generation=study.generation,
        )
        for type_, (status, reason, message) in verdicts.items()
    ]


def _transition(before: Condition | None, *, status: ConditionStatus, now: datetime) -> datetime:
    """A condition's time moves only when its status does (Kubernetes API conventions)."""
    return before.last_transition_time if before and before.status is status else now.replace(microsecond=0)


def _was_true(status: StudyStatus, type_: ConditionType) -> bool:
    condition = status.condition(type_)
    return condition is not None and condition.status is _TRUE


def _completion_time(snapshot: Snapshot, phase: Phase) -> datetime | None:
    if phase not in _ENDED:
        return None
    if snapshot.study.status.phase is phase and snapshot.study.status.completion_time:
        return snapshot.study.status.completion_time
    return snapshot.now.replace(microsecond=0)


def _earliest(moments: Iterable[datetime | None]) -> datetime | None:
    first = min((moment for moment in moments if moment), default=None)
    return first.replace(microsecond=0) if first else None


def _epochs_saved(trials: tuple[Trial, ...]) -> int:
    pruned = [trial for trial in trials if trial.state is TrialState.PRUNED]
    return sum(max(0, (trial.max_epochs or 0) - (trial.epochs or 0)) for trial in pruned)
