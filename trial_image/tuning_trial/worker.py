"""The worker's loop: claim, suggest, train in a process of its own, tell, next.

The worker imports torch and the user's modules once and forks for each trial, so that a trial starts in milliseconds;
what goes wrong in a trial's process is that trial's failure and not the worker's. For a fork to be safe, the worker
itself starts no thread, runs no tensor operation and never asks for CUDA.

Between the claim and the telling a trial is RUNNING with this worker as its owner. Once the worker is gone, whatever
ended it, the controller queues the trial again.
"""

import copy
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.trial import FrozenTrial
from pydantic import ValidationError
from sqlalchemy.exc import DataError, SQLAlchemyError

from tuning_api.contract import (
    CHECKPOINT_ATTRIBUTE,
    REQUEUED_ATTRIBUTE,
    SEED_ATTRIBUTE,
    SPEC_ATTRIBUTE,
    ExitCode,
    Failure,
    FailureReason,
)
from tuning_api.schema import Scalar
from tuning_api.spec import Constraint, StudySpec
from tuning_api.store import StoreError, StoreRefusedError
from tuning_trial import (
    checkpoints,
    config,
    database,
    errands,
    keeping,
    lineage,
    outcomes,
    preparation,
    samplers,
    search,
    supervision,
    transactions,
)
from tuning_trial.checkpoints import Bucket, CheckpointFile
from tuning_trial.child import Assignment
from tuning_trial.errors import DatabaseAwayError, InvalidConfigError, MisconfiguredError, WorkerError
from tuning_trial.interrupts import Interrupts
from tuning_trial.lineage import Lineage
from tuning_trial.log import logger
from tuning_trial.outcomes import Completed, DatabaseLost, Failed, Interrupted, Outcome, Progress, Pruned, Replaced
from tuning_trial.settings import Settings
from tuning_trial.supervision import Isolation
from tuning_trial.transactions import Claimed

_POLL_SECONDS = 1.0
_ERRAND_SECONDS = 90.0
"""For what has to be asked of the checkpoints' store between two trials; less than a pod's grace period."""
Answer = TypeVar("Answer")


@dataclass(kw_only=True)
class _Worker:
    """A worker with its study open."""

    settings: Settings
    signals: Interrupts
    study: optuna.Study
    storage: database.PatientStorage
    isolation: Isolation
    """`process` from the moment on at which this process can no longer be forked."""
    grace: float
    cannot_reach_store: bool = False
    """It was said already."""


def work(
    settings: Settings,
    *,
    signals: Interrupts,
    patience: float,
    grace: float,
) -> ExitCode:
    """Run trials until none waits, or until asked to stop.

    Args:
        settings: The worker's environment.
        signals: Asks it to stop.
        patience: Seconds that one call waits for a database that is away.
        grace: Seconds that a trial's process has to end when it is stopped.

    Raises:
        MisconfiguredError: the worker cannot work, however often it is tried.
        DatabaseAwayError: the database stayed away; a trial that was running stays RUNNING.
    """
    _check_store(settings)
    logger.info("worker %s opens study %s", settings.owner.name, settings.study)
    try:
        study = database.open_study(
            settings.database_url, settings.study, stopping=lambda: signals.requested, patience=patience
        )
        logger.info("worker %s joins study %s", settings.owner.name, settings.study)
        isolation = preparation.prepare(_read_spec(study), has_imported=signals.take_back)
        worker = _Worker(
            settings=settings,
            signals=signals,
            study=study,
            storage=database.storage_of(study),
            isolation=isolation,
            grace=grace,
        )
        return _run_trials(worker)
    except (StorageInternalError, SQLAlchemyError) as error:
        if database.is_away(error):
            raise DatabaseAwayError(f"the database stayed away: {database.describe(error)}") from error
        if database.is_locked_out(error):
            # It was let in when it began: the operator has changed the password since, and a new worker has the new one.
            raise DatabaseAwayError(f"the database lets this worker in no more: {database.describe(error)}") from error
        raise


def _check_store(settings: Settings) -> None:
    """Say at once what would be found out when the first trial saves its state; a store that is only away may come back."""
    if not isinstance(settings.checkpoints, Bucket):
        return
    store = settings.checkpoints.store
    try:
        store.load()  # here, so that forks need not
        errands.run(store.check, seconds=_ERRAND_SECONDS)
    except StoreRefusedError as error:
        raise MisconfiguredError(f"trial.checkpoints.uri: {error}") from error
    except StoreError as error:
        logger.warning("checkpoints: %s; trials begin without, and save their state when it is back", error)


def _at_store(worker: _Worker, work: Callable[[], Answer]) -> Answer | None:
    """Do something where the checkpoints are; None when that is away. The next worker, or the next trial's end, does it."""
    if not isinstance(worker.settings.checkpoints, Bucket):
        return work()
    try:
        answer = errands.run(work, seconds=_ERRAND_SECONDS)
    except StoreError as error:
        if not worker.cannot_reach_store:
            logger.warning("checkpoints: %s; what trials have left is removed later", error)
        worker.cannot_reach_store = True
        return None
    worker.cannot_reach_store = False
    return answer


def _tidy_up(worker: _Worker, spec: StudySpec) -> None:
    """Remove the files of trials that have ended, but for those of the study's best.

    They are ours, or of trials that somebody else ended: the controller gave up, or a worker died right after.
    """
    settings = worker.settings
    # NB: the files first: a trial that begins after its study was read has files that this worker knows nothing of.
    place = settings.checkpoints
    if place is None or not (found := _at_store(worker, partial(checkpoints.found, place, study=settings.study))):
        return
    trials = worker.study.get_trials(deepcopy=False)
    best = keeping.best(trials, keep=_keep(spec), direction=spec.objectives[0].direction)
    lasts = lineage.lasts(trials)
    ended: list[tuple[CheckpointFile, str | None]] = []
    for first in found:
        last = lasts[first] if first < len(lasts) else None  # of a study that had the same name
        if last is None or lineage.has_ended(last):
            kept = last.user_attrs.get(CHECKPOINT_ATTRIBUTE) if last and last.number in best else None
            ended.append((checkpoints.of_trial(place, study=settings.study, first=first), kept))
    if ended:
        _at_store(worker, partial(checkpoints.discard_all, ended))


def _keep(spec: StudySpec) -> int:
    return spec.trial.checkpoints.keep if spec.trial.checkpoints else 0


def _read_spec(study: optuna.Study) -> StudySpec:
    return _spec_of(study.user_attrs.get(SPEC_ATTRIBUTE), study=study.study_name)


def _spec_of(document: Any, *, study: str) -> StudySpec:
    if document is None:
        raise MisconfiguredError(f"study {study} has no spec: was it made by the operator?")
    try:
        return StudySpec.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "spec"
        raise MisconfiguredError(
            f"this trial image cannot read the study's spec ({where}: {first['msg']}): is it older than the operator?"
        ) from error


def _run_trials(worker: _Worker) -> ExitCode:
    trials = 0
    _tidy_up(worker, _read_spec(worker.study))
    while not worker.signals.requested:
        claimed = _wait_for_trial(worker)
        if claimed is None:
            break
        outcome = _run_trial(worker, claimed)
        trials += 1
        if isinstance(outcome, DatabaseLost):
            raise DatabaseAwayError(f"the database stayed away: {outcome.message}")
    if worker.signals.requested:
        logger.info("asked to stop: leaving after %d trials", trials)
        return ExitCode.INTERRUPTED
    _tidy_up(worker, _read_spec(worker.study))
    logger.info("no trial is waiting: leaving after %d trials", trials)
    return ExitCode.NOTHING_LEFT


def _wait_for_trial(worker: _Worker) -> Claimed | None:
    deadline = time.monotonic() + worker.settings.idle_seconds
    while not worker.signals.requested:
        if claimed := _claim(worker):
            return claimed
        left = deadline - time.monotonic()
        if left <= 0:
            return None
        worker.signals.pause(min(_POLL_SECONDS, left))
    return None


def _claim(worker: _Worker) -> Claimed | None:
    """Claim a trial. When the connection broke, an attempt may have succeeded without our knowing."""
    engine, owner = worker.storage.engine, worker.settings.owner
    study_id = worker.study._study_id  # noqa: SLF001
    is_again = False

    def attempt() -> Claimed | None:
        nonlocal is_again
        found = transactions.unfinished(engine, study_id=study_id, owner=owner) if is_again else None
        is_again = True
        return found or transactions.claim(engine, study_id=study_id, owner=owner, now=_now)

    return worker.storage.patiently(attempt)


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


def _isolation(worker: _Worker, spec: StudySpec) -> Isolation:
    if samplers.computes_with_torch(spec.resolved_sampler):
        worker.isolation = "process"
    return "process" if spec.trial.isolation == "process" else worker.isolation


def _run_trial(worker: _Worker, claimed: Claimed) -> Outcome:
    started = time.monotonic()
    spec = _spec_of(claimed.spec, study=worker.study.study_name)
    # NB: Optuna's cache does not know a trial that was claimed by SQL until all are read; it raises KeyError before.
    trials = worker.study.get_trials(deepcopy=False)
    own = trials[claimed.number]
    line = lineage.trace(own, trials.__getitem__)
    checkpoint = _checkpoint(worker.settings, claimed, line)
    assignment = _assign(worker, own, spec, trials=trials, line=line, checkpoint=checkpoint)
    if isinstance(assignment, Assignment):
        with supervision.running(
            assignment,
            study=worker.study,
            isolation=_isolation(worker, spec),
            timeout=spec.trial.timeout,
            progress_timeout=spec.trial.progress_timeout,
            signals=worker.signals,
            grace=worker.grace,
        ) as (ended, reached):
            outcome, progress = _end(worker, own, outcomes.outcome(ended), reached, spec=spec)
        shutil.rmtree(assignment.folder, ignore_errors=True)
    else:
        outcome, progress = _end(worker, own, assignment, None, spec=spec)
    if checkpoint and isinstance(outcome, Completed | Pruned | Failed):
        if isinstance(outcome, Completed) and _keep(spec):
            _tidy_up(worker, spec)
        else:
            _at_store(worker, checkpoint.discard)
    _log(outcome, spec=spec, number=claimed.number, progress=progress, took=time.monotonic() - started)
    return outcome


def _folder(settings: Settings, number: int) -> Path:
    return settings.scratch / f"{settings.study}-trial-{number}"


def _checkpoint(settings: Settings, claimed: Claimed, line: Lineage) -> CheckpointFile | None:
    if settings.checkpoints is None:
        return None
    return checkpoints.of_trial(
        settings.checkpoints,
        study=settings.study,
        first=line.first,
        identity=line.identity,
        scratch=_folder(settings, claimed.number) / "checkpoints",
    )


def _assign(
    worker: _Worker,
    own: FrozenTrial,
    spec: StudySpec,
    *,
    trials: Sequence[FrozenTrial],
    line: Lineage,
    checkpoint: CheckpointFile | None,
) -> Assignment | Failed | Replaced:
    """Choose the trial's parameters, and put them into its configuration."""
    seed = search.trial_seed(spec.resolved_sampler.seed, line.first) if line.seed is None else line.seed
    folder = _folder(worker.settings, own.number)
    try:
        chosen = _choose(worker, own, spec, seed=seed, trials=trials)
        shown = ", ".join(f"{name}={_shown(value)}" for name, value in chosen.params.items())
        logger.info("trial %d: %s (seed %d)", own.number, shown or "its code chooses", seed)
        names = {parameter.name for parameter in spec.search_space}
        built_in: dict[str, Scalar] = {
            "trial.number": own.number,
            "trial.dir": str(folder),
            "study.name": worker.settings.study,
        }
        lightning = config.substitute(
            spec.trial.lightning or {}, built_in | chosen.params, absent=names - chosen.params.keys()
        )
    except UpdateFinishedTrialError:
        return Replaced()
    except InvalidConfigError as error:
        return Failed(outcomes.failure_of(error))
    except DataError as error:
        return Failed(_refused(error))
    except (WorkerError, StorageInternalError, SQLAlchemyError):
        raise
    except Exception as error:  # noqa: BLE001 - a sampler may raise anything; it is this trial's failure, and not the worker's
        of = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        message = f"the parameters cannot be chosen: {of}{error}"
        return Failed(Failure(reason=FailureReason.INVALID_CONFIG, message=message))
    return Assignment(
        database_url=worker.settings.database_url,
        study=worker.settings.study,
        trial=chosen,
        objective=spec.trial.objective,
        config=lightning,
        metrics=tuple(objective.metric for objective in spec.objectives),
        limited=tuple(constraint.metric for constraint in spec.constraints or []),
        direction=spec.objectives[0].direction,
        sampler=spec.resolved_sampler,
        conditional=any(parameter.when for parameter in spec.search_space),
        learns_what_fits=spec.trial.learns_what_fits,
        pruner=spec.resolved_pruner,
        seed=seed,
        folder=folder,
        checkpoint=checkpoint,
        continues=line.first != own.number,
        keep=_keep(spec),
        progress_timeout=spec.trial.progress_timeout,
    )


def _choose(
    worker: _Worker, own: FrozenTrial, spec: StudySpec, *, seed: int, trials: Sequence[FrozenTrial]
) -> FrozenTrial:
    study = worker.study
    conditional = any(parameter.when for parameter in spec.search_space)
    study.sampler = search.build_sampler(
        spec.resolved_sampler, seed=seed, conditional=conditional, learns_what_fits=spec.trial.learns_what_fits
    )
    # As in Study.optimize, the sampler sees the pruner; and what this image does not know is better refused here.
    study.pruner = search.build_pruner(spec.resolved_pruner)
    # What Study.ask does before it makes a trial: forget what was read for the last one.
    study._thread_local.cached_all_trials = None  # noqa: SLF001
    chosen = search.suggest_within(study, own, spec.search_space, trials=trials, seed=seed)
    chosen.user_attrs = own.user_attrs | {SEED_ATTRIBUTE: seed}
    worker.storage.patiently(transactions.choose, worker.storage.engine, chosen, before=own)
    return chosen


def _end(
    worker: _Worker, own: FrozenTrial, outcome: Outcome, progress: Progress | None, *, spec: StudySpec
) -> tuple[Outcome, Progress | None]:
    """Write how the trial ended, and how far it came; the controller may have ended it before us."""
    storage, trial_id = worker.storage, own._trial_id  # noqa: SLF001 - there is no public way
    curve: Mapping[int, float] = {}
    if spec.trial.objective or isinstance(outcome, Pruned):
        curve = storage.patiently(transactions.reports, storage.engine, trial_id)
    if spec.trial.objective and curve:
        progress = Progress(epochs=len(curve), max_epochs=None)
    record = outcomes.record(outcome, progress, curve=curve)
    if record is None:
        return outcome, progress
    if isinstance(outcome, Completed):
        record = replace(record, system_attributes=_violations(own, outcome.limited, spec.constraints or []))
    try:
        has_ended = storage.patiently(transactions.end, storage.engine, trial_id, record, now=_now)
    except DataError as error:
        # The trial has written so much about itself that its result does not fit beside it.
        outcome = Failed(_refused(error))
        record = outcomes.failed(outcome)
        has_ended = storage.patiently(transactions.end, storage.engine, trial_id, record, now=_now)
    if has_ended:
        return outcome, progress
    stored = storage.get_trial(trial_id)
    is_ours = stored.state is record.state and not (
        isinstance(outcome, Failed) and REQUEUED_ATTRIBUTE in stored.user_attrs
    )
    return outcome if is_ours else Replaced(), progress


def _refused(error: DataError) -> Failure:
    return Failure(reason=FailureReason.ERROR, message=database.describe(error))


def _violations(own: FrozenTrial, limited: Mapping[str, float], constraints: Sequence[Constraint]) -> dict[str, Any]:
    """Optuna's constraints of a trial, from which the sampler learns what is feasible, as attributes of the trial.

    NB: not by `Trial.set_constraint`, which needs a Trial, and to make one asks the sampler once more.
    """
    judged = copy.copy(own)
    judged.system_attrs = {}
    for constraint in constraints:
        for name, violation in constraint.violations(limited[constraint.metric]).items():
            judged.set_constraint(name, violation)
    return judged.system_attrs


def _log(outcome: Outcome, *, spec: StudySpec, number: int, progress: Progress | None, took: float) -> None:
    after = f"{took:.1f} s"
    if progress:
        after = f"{progress.epochs}{f' of {progress.max_epochs}' if progress.max_epochs else ''} epochs, {after}"
    match outcome:
        case Completed(values):
            metrics = (objective.metric for objective in spec.objectives)
            shown = ", ".join(f"{metric}={value:.6g}" for metric, value in zip(metrics, values, strict=True))
            logger.info("trial %d complete: %s (%s)", number, shown, after)
        case Pruned():
            logger.info("trial %d pruned (%s)", number, after)
        case Failed(failure):
            logger.error("trial %d failed, %s: %s (%s)", number, failure.reason, failure.message, after)
            if failure.details:
                logger.error("trial %d: %s", number, failure.details)
        case Replaced():
            logger.warning("trial %d was given to another worker meanwhile; going on", number)
        case DatabaseLost(message):
            logger.error("trial %d stopped, its reports did not get through: %s", number, message)
        case Interrupted():
            logger.info("trial %d stopped (%s); it will be queued again", number, after)


def _shown(value: Scalar) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
