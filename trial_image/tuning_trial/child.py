"""What runs in a trial's own process: train, report, ask the pruner, send the result.

The process is a fork of the worker, with torch and the user's modules imported and Optuna's cache filled, or a fresh
interpreter (`isolation: process`). It never tells Optuna how the trial ended: whoever is killed cannot.
"""

import ctypes
import os
import signal
import sys
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError, TrialPruned, UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from tuning_api.contract import Failure
from tuning_api.search import Direction, Pruner, Sampler
from tuning_api.store import StoreError
from tuning_trial import database, interrupts, keeping, leaving, log, outcomes, search
from tuning_trial.checkpoints import CheckpointFile, ObjectiveFiles
from tuning_trial.errors import WorkerError
from tuning_trial.late_reports import LateTrial
from tuning_trial.outcomes import Completed, DatabaseLost, Failed, Pruned, Replaced, Result
from tuning_trial.pulse import Pulse

_PR_SET_PDEATHSIG = 1
"""prctl(2): the signal that this process gets when its parent ends."""


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """All that a trial's process has to know; travels to a fresh interpreter."""

    database_url: str
    study: str
    trial: FrozenTrial
    """As it began to run, with its parameters."""
    objective: str | None = None
    """trial.objective; None for a trial of Lightning."""
    config: dict[str, Any] = field(default_factory=dict)
    """trial.lightning, with every value in its place."""
    metrics: tuple[str, ...]
    limited: tuple[str, ...] = ()
    """Metrics that a constraint is about."""
    direction: Direction
    """Of the first objective."""
    sampler: Sampler
    conditional: bool
    """Whether the search space has conditions, see `search.build_sampler`."""
    learns_what_fits: bool = False
    """Whether the sampler learns from trials that ran out of memory (trial.outOfMemory)."""
    pruner: Pruner
    seed: int
    folder: Path
    checkpoint: CheckpointFile | None = None
    """Where the trial saves its state, and goes on from; None when nothing durable was given."""
    continues: bool = False
    """Whether there was an earlier trial, which this one goes on from."""
    keep: int = 0
    """trial.checkpoints.keep, if there is such a place."""
    progress_timeout: str | None = None
    """trial.progressTimeout: whether, and how often, the worker wants a sign of life."""

    @property
    def number(self) -> int:
        """The trial's."""
        number: int = self.trial.number
        return number

    @property
    def name(self) -> str:
        """What log lines call the trial."""
        return f"trial {self.number}"


def run(assignment: Assignment, results: Connection, study: optuna.Study | None, *, parent: int) -> None:
    """Run one trial; the target of its process.

    Args:
        assignment: The trial.
        results: Takes :class:`outcomes.Progress` and :class:`outcomes.Beat`, and a :class:`outcomes.Result` last.
        study: The worker's own, in a fork; None in a fresh interpreter, which connects by itself.
        parent: The worker's process.
    """
    interrupts.restore_in_child()
    os.setsid()  # the worker can end whatever this process starts, by its group
    end_with_parent(parent)
    if study is None:
        log.configure()
    else:
        leaving.begin_fork()
    results.send(_result(assignment, results, study))
    if study is not None:
        database.storage_of(study).engine.dispose()
    leaving.leave(assignment.name)


def end_with_parent(parent: int) -> None:
    """On Linux; elsewhere a worker that was killed leaves its trial training, and the next report ends it."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def _result(assignment: Assignment, results: Connection, study: optuna.Study | None) -> Result:
    try:
        own = _study_of_this_process(assignment, study)
        _bring_checkpoint(assignment)
        pulse = Pulse(results.send, progress_timeout=assignment.progress_timeout)
        database.storage_of(own).on_wait = pulse.beat
        if assignment.objective:
            return _run_objective(assignment, own, pulse)
        return _train(assignment, results, own, pulse)
    except UpdateFinishedTrialError:
        return Replaced()
    except TrialPruned:
        return Pruned()
    except BaseException as error:  # noqa: BLE001 - the user's code may raise anything, and sys.exit() too
        return _of_exception(error)


def _of_exception(error: BaseException) -> DatabaseLost | Failed:
    failure = outcomes.failure_of(error, folders=sys.path)
    if isinstance(error, WorkerError):
        return DatabaseLost(database.describe(error))
    if not isinstance(error, StorageInternalError):
        return Failed(failure)
    if database.is_away(error) or database.is_locked_out(error):
        return DatabaseLost(database.describe(error))
    # NB: Optuna's own sentence speaks of invalid data. It may be a name that is too long, or another trial's row: the worker's
    # role may not write those.
    why = ": a trial may read its study, and change only itself" if database.is_refused(error) else ""
    words = f"the database refused it ({database.describe(error)}){why}"
    return Failed(Failure(reason=failure.reason, message=words, details=failure.details))


def _study_of_this_process(assignment: Assignment, study: optuna.Study | None) -> optuna.Study:
    if study is None:
        own = database.open_study(assignment.database_url, assignment.study)
        if assignment.objective:
            # NB: Optuna's cache does not know a trial that was claimed by SQL, and raises KeyError when it is asked to write
            # a parameter of it.
            own.get_trials(deepcopy=False, states=())
        return own
    # Before anything touches the database: the sockets are the worker's, and closing them would close its session.
    database.storage_of(study).engine.dispose(close=False)
    return study


def _bring_checkpoint(assignment: Assignment) -> None:
    """Fetch what the trial goes on from. What else lies there is of a study that had the same name."""
    if assignment.checkpoint is None:
        return
    try:
        if assignment.continues:
            assignment.checkpoint.fetch()
        else:
            assignment.checkpoint.discard()
    except StoreError as error:
        instead = "; it starts from the beginning" if assignment.continues else ""
        log.logger.warning("%s: cannot reach its checkpoint (%s)%s", assignment.name, error, instead)


def _run_objective(assignment: Assignment, study: optuna.Study, pulse: Pulse) -> Result:
    from tuning_trial import objective_runner  # noqa: PLC0415

    # Not the worker's sampler, whose seed has given the parameters of the spec: the next ones would follow them.
    sampler = search.build_sampler(
        assignment.sampler,
        seed=search.trial_seed(assignment.seed, 0),
        conditional=assignment.conditional,
        learns_what_fits=assignment.learns_what_fits,
    )
    trial = objective_runner.trial_of(
        study, assignment.trial, sampler=sampler, pruner=search.build_pruner(assignment.pruner), beat=pulse.beat
    )
    files = ObjectiveFiles(assignment.checkpoint, name=assignment.name) if assignment.checkpoint else None
    if files:
        trial.after_report = files.send
    result = objective_runner.run(
        objective_runner.load(assignment.objective or ""),
        trial,
        metrics=assignment.metrics,
        seed=assignment.seed,
        folder=assignment.folder,
        checkpoints=assignment.checkpoint.folder if assignment.checkpoint else None,
    )
    trial.catch_up()
    if files and assignment.keep and isinstance(result, Completed):
        return replace(result, checkpoint=files.kept())
    return result


def _train(assignment: Assignment, results: Connection, study: optuna.Study, pulse: Pulse) -> Result:
    # Only here: a worker that starts a fresh interpreter for each trial needs no torch of its own.
    from tuning_trial import lightning_keeper, lightning_parser, lightning_runner, pruning, resuming  # noqa: PLC0415

    study.pruner = search.build_pruner(assignment.pruner)
    trial = LateTrial(study, assignment.trial)
    callback = pruning.ReportAndPrune(
        metrics=assignment.metrics,
        judge=pruning.judge_of(trial) if len(assignment.metrics) == 1 else None,
        tell_progress=results.send,
        beat=pulse.beat,
        name=assignment.name,
    )
    saver = keeper = None
    if assignment.checkpoint is not None:
        saver = resuming.SaveAndResume(assignment.checkpoint, report=callback, name=assignment.name, beat=pulse.beat)
    if assignment.checkpoint is not None and assignment.keep:
        keeper = lightning_keeper.KeepWeights(
            assignment.checkpoint,
            number=assignment.number,
            is_wanted=lambda value: _may_be_kept(value, assignment, study),
            name=assignment.name,
        )
    assignment.folder.mkdir(parents=True, exist_ok=True)
    result = lightning_runner.train(
        assignment.config,
        parser=lightning_parser.shared_parser(),
        seed=assignment.seed,
        folder=assignment.folder,
        callback=callback,
        saver=saver,
        keeper=keeper,
        limited=assignment.limited,
    )
    trial.catch_up()
    return result


def _may_be_kept(value: float, assignment: Assignment, study: optuna.Study) -> bool:
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return keeping.may_be_kept(value, complete, keep=assignment.keep, direction=assignment.direction)
