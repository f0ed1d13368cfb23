"""Deletions that could hang: the operator is away, the database is away, or the whole namespace goes."""

from collections.abc import Iterator

import pytest
from cluster.kubectl import Kubectl
from tests.support import documents
from tests.support.operator_process import OperatorProcess
from tests.support.postgres import PostgresServer
from tests.support.process_kubelet import ProcessKubelet
from tests.support.study_on_cluster import StudyOnCluster, slow
from tests.support.wait import wait_until

from tuning_api.spec import PLURAL


@pytest.fixture
def study(kubectl: Kubectl, namespace: str, kubelet: ProcessKubelet, operator: OperatorProcess) -> StudyOnCluster:
    """A study that is not applied yet, on a running system."""
    assert kubelet.running == ()
    assert operator.is_running
    return StudyOnCluster(kubectl, namespace)


@pytest.fixture
def database_away(postgres_server: PostgresServer) -> Iterator[PostgresServer]:
    """The server, for a test that stops it; it runs again afterwards."""
    yield postgres_server
    postgres_server.stop()
    postgres_server.start()


def is_there(study: StudyOnCluster) -> bool:
    """Whether the API server still has it."""
    return study.kubectl.run("get", PLURAL, study.name, "-n", study.namespace).returncode == 0


def begin_deletion(study: StudyOnCluster) -> None:
    """Ask for it, and do not wait."""
    study.kubectl("delete", PLURAL, study.name, "-n", study.namespace, "--wait=false")


def test_without_an_operator_a_study_is_let_go_by_hand(
    study: StudyOnCluster, operator: OperatorProcess, kubelet: ProcessKubelet
) -> None:
    """By the command of docs/operations.md; Kubernetes then ends its Jobs and pods by itself."""
    study.apply(parallelism=1, **slow())
    study.wait_for_trials("running", 1)
    operator.kill()
    begin_deletion(study)
    assert is_there(study)
    assert kubelet.running
    (command,) = documents.commands("operations.md", "A deletion that hangs")
    words = command.replace("NAMESPACE", study.namespace).replace("NAME", study.name).replace("'", "").split()
    assert words[0] == "kubectl"
    study.kubectl(*words[1:])
    assert not is_there(study)
    wait_until(lambda: kubelet.running, lambda pods: not pods, seconds=60, what="its pods are gone")
    operator.start()


def test_without_a_database_a_study_whose_rows_stay_is_gone_at_once(
    study: StudyOnCluster, database_away: PostgresServer
) -> None:
    """There is nothing to be done in the database."""
    study.apply(parallelism=1, **slow())
    study.wait_for_trials("running", 1)
    database_away.stop()
    study.delete()


def test_without_a_database_a_study_whose_rows_go_waits_for_it(
    study: StudyOnCluster, database_away: PostgresServer, operator: OperatorProcess
) -> None:
    """The deletion is tried again, and done when the database is back."""
    study.apply(parallelism=1, deletionPolicy="Delete", **slow())
    study.wait_for_trials("running", 1)
    database_away.stop()
    begin_deletion(study)
    wait_until(lambda: operator.log, lambda log: "study_deleted" in log, seconds=60, what="the operator has tried")
    assert is_there(study)
    database_away.start()
    wait_until(lambda: is_there(study), lambda there: not there, seconds=90, what="the study is gone")


def test_a_namespace_takes_its_studies_with_it(study: StudyOnCluster, kubelet: ProcessKubelet) -> None:
    """The operator lets go also where nothing may be created any more."""
    namespace = f"{study.namespace}-gone"
    study.kubectl("create", "namespace", namespace)
    doomed = StudyOnCluster(study.kubectl, namespace)
    doomed.apply(parallelism=1, **slow())
    doomed.wait_for_trials("running", 1)
    study.kubectl("delete", "namespace", namespace, "--timeout=90s")
    assert kubelet.running == ()
