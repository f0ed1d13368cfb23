"""Postgres is away for much longer than anything that waits for it: the real worker, the real operator, a real server.

What would take minutes with the chart's settings takes seconds with small ones. The outage is not measured in seconds but
in what must have happened meanwhile, so that it is as long on a busy machine.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import pytest
from cluster.control_plane import ControlPlane
from cluster.kubectl import Kubectl
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import URL
from tests.support.operator_process import OperatorProcess
from tests.support.postgres import PostgresServer
from tests.support.process_kubelet import ProcessKubelet
from tests.support.study_on_cluster import StudyOnCluster
from tests.support.tenancy import worker_url
from tests.support.trial_worker import a_trial, wait_for_file
from tests.support.wait import wait_until

from tuning_api import contract
from tuning_api.contract import Env

PASSES = 4
"""So often the operator looks at the study while the database is away: after 1, 2, 4 and 8 s, ever more slowly."""
TRIES = 4
"""So often the worker tries to tell how its trial ended: after 0.5, 1, 2 and 4 seconds, ever more slowly."""
IDLE_SECONDS = "1"
"""After so long without a trial a worker goes; waiting for the database is not that."""


@pytest.fixture(scope="module")
def kubelet(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessKubelet]:
    """Runs pods as processes, which have little patience when there is nothing to do."""
    with ProcessKubelet(
        control_plane.kubeconfig, tmp_path_factory.mktemp("pods"), overrides={Env.IDLE_SECONDS: IDLE_SECONDS}
    ) as kubelet:
        yield kubelet


@pytest.fixture
def study(kubectl: Kubectl, namespace: str) -> StudyOnCluster:
    """A study that is not applied yet."""
    return StudyOnCluster(kubectl, namespace)


@contextmanager
def away(server: PostgresServer) -> Iterator[None]:
    server.stop()
    try:
        yield
    finally:
        server.start()


def passes(operator: OperatorProcess) -> int:
    found = re.search(r"^tuningstudy_pass_seconds_count (\S+)$", operator.metrics(), re.MULTILINE)
    return int(float(found[1])) if found else 0


def rows(study: StudyOnCluster, database: URL) -> list[FrozenTrial]:
    url = worker_url(database, study.namespace, uid=study.namespace_uid)
    storage = RDBStorage(url.render_as_string(hide_password=False), skip_table_creation=True)
    trials = optuna.load_study(study_name=study.name, storage=storage).get_trials(deepcopy=False)
    storage.engine.dispose()
    return trials


def test_a_database_that_is_away_costs_nothing_but_time(
    *,
    study: StudyOnCluster,
    kubelet: ProcessKubelet,
    operator: OperatorProcess,
    postgres_server: PostgresServer,
    database: URL,
    tmp_path: Path,
) -> None:
    """The training goes on to its end, which waits to be told; its values arrive late and whole; nothing has failed."""
    space = [{"name": "scenario", "type": "categorical", "choices": ["waits"]}]
    trial = a_trial(folder=tmp_path)
    study.apply(searchSpace=space, maxTrials=2, parallelism=1, pruner={"type": "none"}, trial=trial)
    # The first trial is in its second epoch, and goes on when it is told to: while the database is away.
    wait_for_file(tmp_path / "waiting")
    (pod,) = kubelet.running
    with away(postgres_server):
        message = study.wait_for_reason("DatabaseUnavailable")
        before, pods = passes(operator), study.pods()
        (tmp_path / "go").touch()
        log = wait_until(
            lambda: kubelet.logs(pod),
            lambda log: log.count("next try in") >= TRIES,
            seconds=120,
            what="the worker has tried to tell the trial's end",
        )
        wait_until(
            lambda: passes(operator),
            lambda count: count >= before + PASSES,
            seconds=120,
            what="the operator has looked",
        )
        assert "trial 0: epoch 3/3" in log
        assert log.count("the training goes on, its values are reported later") == 1
        assert kubelet.running == (pod,), "the worker waits, and no other one is started in its place"
        assert [item["metadata"]["uid"] for item in study.pods()] == [item["metadata"]["uid"] for item in pods] == [pod]
    status = study.wait_for("Complete", seconds=200)

    assert "the study recovers by itself" in message
    _nothing_has_failed(status, rows(study, database))
    assert "the database is back: 2 values were reported late" in kubelet.logs(pod)
    assert "DatabaseUnavailable" not in str(status["conditions"])


def _nothing_has_failed(status: dict[str, Any], trials: list[FrozenTrial]) -> None:
    """Two trials, each run once to its end, the late one with all of its curve."""
    counts = status["trials"]
    assert (counts["finished"], counts["complete"], counts["failed"], counts["retried"]) == (2, 2, 0, 0)
    assert [trial.state for trial in trials] == [TrialState.COMPLETE, TrialState.COMPLETE]
    assert [trial.intermediate_values for trial in trials] == [{0: 0.5, 1: 0.5, 2: 0.5}] * 2
    assert not [trial for trial in trials if contract.FAILURE_ATTRIBUTE in trial.user_attrs]
