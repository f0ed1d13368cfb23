"""A study as the operator makes it, and workers on it: forks of the test's process, which has torch imported already."""

import contextlib
import multiprocessing
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.engine import URL
from tests.support.builders import a_study
from tests.support.plans import carry_out
from tests.support.postgres import PostgresServer
from tests.support.tenancy import a_tenancy
from tests.support.wait import wait_until

from tuning_api import contract, naming
from tuning_api.spec import StudySpec
from tuning_operator import decide
from tuning_operator.database import connect_arguments
from tuning_operator.model import Ending, Plan, Requeue, Snapshot, StudyKey, TrialsPlan
from tuning_operator.studies import OptunaStudies
from tuning_trial import __main__ as worker
from tuning_trial import lightning_runner  # noqa: F401 - imported here, it need not be in each fork

DEADLINE_SECONDS = 120
MODULE = "tests.support.trial_models"


def a_spec(**changes: Any) -> StudySpec:
    """A study whose trials do what their parameter `scenario` says."""
    document: dict[str, Any] = {
        "objectives": [{"metric": "val_acc", "direction": "maximize"}],
        "searchSpace": [{"name": "scenario", "type": "categorical", "choices": ["is good"]}],
        "sampler": {"type": "random", "seed": 1},
        "pruner": {"type": "none"},
        "maxTrials": 100,
        "trial": a_trial(),
    }
    return StudySpec.model_validate(document | changes)


def a_trial(*, folder: Path | str = "", trainer: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """The scenario model for three epochs; keywords replace init_args of the model or fields of the trial."""
    fields = {"gpus", "timeout", "progressTimeout", "isolation"}
    init_args = {key: value for key, value in changes.items() if key not in fields}
    lightning = {
        "model": {
            "class_path": f"{MODULE}.Scenario",
            "init_args": {"scenario": "${scenario}", "folder": str(folder)} | init_args,
        },
        "data": {"class_path": f"{MODULE}.Data"},
        "trainer": {"max_epochs": 3, "accelerator": "cpu"} | (trainer or {}),
    }
    return {"gpus": 0, "lightning": lightning} | {key: value for key, value in changes.items() if key in fields}


class TrialStudy:
    """A study in a database of its own; written with the operator's role, run with a worker's."""

    def __init__(self, server: PostgresServer, spec: StudySpec, *, name: str = "digits") -> None:
        self.server = server
        self.name = name
        self._key = StudyKey("team-a", name)
        self._schema = naming.database_schema("team-a")
        database = server.create_database()
        self._gateway = OptunaStudies(tenancy := a_tenancy(database, charts_password=None))
        self._gateway.open(self._key, spec)
        self.url = tenancy.worker_url("team-a", base=database)
        self.optuna = optuna.load_study(study_name=name, storage=_operators_storage(database, self._schema))

    def change(self, spec: StudySpec) -> None:
        """Change the spec, as the operator does when the resource was edited."""
        self._gateway.open(self._key, spec)

    def add(self, count: int = 1, **fixed: Any) -> None:
        """Queue trials, with given parameters if there are any."""
        system = {"fixed_params": fixed} if fixed else {}
        for _ in range(count):
            self.optuna.add_trial(create_trial(state=TrialState.WAITING, system_attrs=system))

    def trials(self) -> list[FrozenTrial]:
        """All trials, as they are now."""
        return self.optuna.get_trials(deepcopy=False)

    def replace(self, number: int) -> None:
        """End a running trial, as the operator does when it believes its worker to be lost."""
        trial_id = self.trials()[number]._trial_id
        storage = self.optuna._storage
        storage.set_trial_user_attr(trial_id, contract.REQUEUED_ATTRIBUTE, "WorkerLost")
        storage.set_trial_state_values(trial_id, state=TrialState.FAIL)

    def control(self, spec: StudySpec) -> Plan:
        """One pass of the controller over the rows: what it decides is carried out, but for workers."""
        self.change(spec)
        record = self._gateway.read(self._key)
        assert record is not None
        study = replace(a_study(spec=spec), key=self._key)
        plan = decide.plan(Snapshot(now=datetime.now(UTC), study=study, spec=spec, record=record, workers=()))
        self._gateway.carry_out(self._key, plan.trials, spec=spec, trials=record.trials)
        return plan

    def requeue(self, number: int) -> int:
        """Let a successor continue a trial whose worker is gone, as the operator does; its number."""
        record = self._gateway.read(self._key)
        assert record is not None
        carry_out(self._gateway, self._key, TrialsPlan(requeue=(Requeue(record.trials[number], Ending.CRASHED),)))
        return len(self.trials()) - 1

    def environment(self, folder: Path, **changes: str) -> dict[str, str]:
        """The environment of a worker of this study."""
        return {
            contract.Env.DATABASE_URL: self.url,
            contract.Env.STUDY: self.name,
            contract.Env.WORKER_ID: f"uid-{time.monotonic_ns()}",
            contract.Env.WORKER_NAME: "worker-1",
            contract.Env.SCRATCH: str(folder / "scratch"),
            contract.Env.IDLE_SECONDS: "0",
        } | changes


def _operators_storage(database: URL, schema: str) -> RDBStorage:
    url = database.render_as_string(hide_password=False)
    return RDBStorage(
        url,
        engine_kwargs={"connect_args": connect_arguments(schema), "pool_pre_ping": True},
        skip_table_creation=True,
    )


class WorkerProcess:
    """A worker in a fork of this process, and its log."""

    def __init__(self, environment: dict[str, str], folder: Path, **options: float) -> None:
        self._log = folder / f"{environment.get(contract.Env.WORKER_ID, 'worker')}.log"
        context = multiprocessing.get_context("fork")
        self._process = context.Process(target=_run, args=(environment, self._log, options))
        self._process.start()

    def log(self) -> str:
        """What it has said so far."""
        return self._log.read_text() if self._log.exists() else ""

    def wait_for(self, what: str) -> None:
        """Wait until the log says something."""
        wait_until(
            self.log,
            lambda log: what in log or not self._process.is_alive(),
            seconds=DEADLINE_SECONDS,
            what=f"{what!r} in the log",
        )
        assert what in self.log(), self.log()

    def terminate(self) -> None:
        """SIGTERM, as the kubelet sends it."""
        os.kill(self._process.pid or 0, signal.SIGTERM)

    def exit_code(self) -> int:
        """Wait for its end."""
        self._process.join(DEADLINE_SECONDS)
        assert self._process.exitcode is not None, f"still running:\n{self.log()}"
        return self._process.exitcode

    def kill(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.join()


def wait_for_file(file: Path, log: Callable[[], str] = str) -> None:
    """Wait until a trial has left a sign; if it never does, its worker's log tells more."""
    wait_until(
        lambda: (file.exists(), log()),
        lambda seen: seen[0],
        seconds=DEADLINE_SECONDS,
        what=f"there is a file {file.name}",
    )


@contextlib.contextmanager
def running(environment: dict[str, str], folder: Path, **options: float) -> Iterator[WorkerProcess]:
    """A worker that does not outlive the test."""
    process = WorkerProcess(environment, folder, **options)
    try:
        yield process
    finally:
        process.kill()


def run(environment: dict[str, str], folder: Path, **options: float) -> tuple[int, str]:
    """Run a worker to its end: its exit code and its log."""
    with running(environment, folder, **options) as process:
        return process.exit_code(), process.log()


def _run(environment: dict[str, str], log: Path, options: dict[str, float]) -> None:
    with log.open("ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    warnings.resetwarnings()
    warnings.simplefilter("ignore", DeprecationWarning)
    sys.exit(worker.main(environment, **options))
