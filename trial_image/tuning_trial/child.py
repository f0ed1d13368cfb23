"""What runs in a trial's own process: train, report, ask the pruner, send the result.

The process is a fork of the worker, with torch and the user's modules imported and Optuna's cache filled, or a fresh
interpreter (`isolation: process`). It never tells Optuna how the trial ended: whoever is killed cannot.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError, TrialPruned, UpdateFinishedTrialError

from tuning_api.search import Pruner
from tuning_trial import database, interrupts, log, outcomes, search
from tuning_trial.checkpoints import CheckpointFile
from tuning_trial.errors import WorkerError
from tuning_trial.outcomes import DatabaseLost, Failed, Pruned, Replaced, Result

_PR_SET_PDEATHSIG = 1
"""prctl(2): the signal that this process gets when its parent ends."""


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """All that a trial's process has to know; travels to a fresh interpreter."""

    database_url: str
    study: str
    trial_id: int
    number: int
    config: dict[str, Any]
    metrics: tuple[str, ...]
    pruner: Pruner
    seed: int
    folder: Path
    checkpoint: CheckpointFile | None = None
    """Where the trial saves its state, and goes on from; None when nothing durable was given."""

    @property
    def name(self) -> str:
        """What log lines call the trial."""
        return f"trial {self.number}"


def run(assignment: Assignment, results: Connection, study: optuna.Study | None, *, parent: int) -> None:
    """Run one trial; the target of its process.

    Args:
        assignment: The trial.
        results: Takes :class:`outcomes.Progress`, and a :class:`outcomes.Result` last.
        study: The worker's own, in a fork; None in a fresh interpreter, which connects by itself.
        parent: The worker's process.
    """
    interrupts.restore_in_child()
    os.setsid()  # the worker can end whatever this process starts, by its group
    _end_with_parent(parent)
    if study is None:
        log.configure()
    results.send(_result(assignment, results, study))
    if study is not None:
        database.storage_of(study).engine.dispose()


def _end_with_parent(parent: int) -> None:
    """On Linux; elsewhere a worker that was killed leaves its trial training, and the next report ends it."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def _result(assignment: Assignment, results: Connection, study: optuna.Study | None) -> Result:
    try:
        return _train(assignment, results, _study_of_this_process(assignment, study))
    except UpdateFinishedTrialError:
        return Replaced()
    except (StorageInternalError, WorkerError) as error:
        return DatabaseLost(database.describe(error))
    except TrialPruned:
        return Pruned()
    except BaseException as error:  # noqa: BLE001 - the user's code may raise anything, and sys.exit() too
        return Failed(outcomes.failure_of(error, folders=sys.path))


def _study_of_this_process(assignment: Assignment, study: optuna.Study | None) -> optuna.Study:
    if study is None:
        return database.open_study(assignment.database_url, assignment.study)
    # Before anything touches the database: the sockets are the worker's, and closing them would close its session.
    database.storage_of(study).engine.dispose(close=False)
    return study


def _train(assignment: Assignment, results: Connection, study: optuna.Study) -> Result:
    # Only here: a worker that starts a fresh interpreter for each trial needs no torch of its own.
    from tuning_trial import lightning_parser, lightning_runner, pruning, resuming  # noqa: PLC0415

    study.pruner = search.build_pruner(assignment.pruner)
    trial = optuna.trial.Trial(study, assignment.trial_id)
    callback = pruning.ReportAndPrune(
        metrics=assignment.metrics,
        judge=_judge(trial) if len(assignment.metrics) == 1 else None,
        tell_progress=results.send,
        name=assignment.name,
    )
    saver = None
    if assignment.checkpoint is not None:
        saver = resuming.SaveAndResume(assignment.checkpoint, report=callback, name=assignment.name)
    assignment.folder.mkdir(parents=True, exist_ok=True)
    return lightning_runner.train(
        assignment.config,
        parser=lightning_parser.shared_parser(),
        seed=assignment.seed,
        folder=assignment.folder,
        callback=callback,
        saver=saver,
    )


def _judge(trial: optuna.trial.Trial) -> Callable[[float, int], bool]:
    def report_and_ask(value: float, step: int) -> bool:
        trial.report(value, step)
        return trial.should_prune()

    return report_and_ask
