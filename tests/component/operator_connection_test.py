"""The operator and an API server that starts, or that is behind something which breaks."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.control_plane import ControlPlane
from cluster.kubectl import Kubectl
from sqlalchemy.engine import URL
from tests.support.api_proxy import ApiProxy
from tests.support.cluster import install_crd
from tests.support.operator_process import OperatorProcess, service_account_kubeconfig
from tests.support.study_on_cluster import StudyOnCluster
from tests.support.wait import wait_until


@pytest.fixture
def operator(
    control_plane: ControlPlane, kubectl: Kubectl, database: URL, tmp_path: Path
) -> Iterator[tuple[OperatorProcess, ApiProxy]]:
    """An operator that watches, through a proxy."""
    kubeconfig = service_account_kubeconfig(control_plane, kubectl)
    proxy = ApiProxy(kubeconfig)
    with (
        proxy.running(),
        OperatorProcess(
            proxy.kubeconfig(kubeconfig, tmp_path / "kubeconfig"), database, tmp_path / "operator"
        ) as process,
    ):
        yield process, proxy


def test_an_operator_waits_for_the_resource_that_it_watches(tmp_path: Path, postgres: URL) -> None:
    """Kopf looks once for what there is to watch; it would live on, and look after nothing."""
    with ControlPlane(tmp_path / "plane") as plane:
        kubectl = Kubectl(plane.kubeconfig)
        process = OperatorProcess(service_account_kubeconfig(plane, kubectl), postgres, tmp_path / "operator")
        process.launch()
        words = "the API server does not serve tuningstudies.tuningstudy.io (is the CRD installed?)"
        wait_until(
            lambda: process.log, lambda log: words in log, seconds=60, what="the operator says what it waits for"
        )
        install_crd(kubectl)
        study = StudyOnCluster(kubectl, "default")
        study.apply(suspend=True)
        study.wait_for("Suspended", seconds=60)
        process.stop()


def test_an_operator_outlives_a_moment_in_which_nobody_is_known(
    operator: tuple[OperatorProcess, ApiProxy], kubectl: Kubectl, namespace: str
) -> None:
    """The same token is good again afterwards: Kopf would never try it again, and end."""
    process, proxy = operator
    study = StudyOnCluster(kubectl, namespace)
    study.apply(suspend=True)
    study.wait_for("Suspended", seconds=60)
    proxy.refuse()
    wait_until(
        lambda: process.log.count("Re-authentication has finished"),
        lambda times: times > 1,
        seconds=60,
        what="the operator has tried to sign in again",
    )
    proxy.refuses = False
    study.patch(parallelism=0, suspend=False)
    study.wait_for("Pending", seconds=60)
    assert proxy.refused
    assert process.is_running


def test_a_watch_that_ends_in_the_middle_of_a_line_goes_on(
    operator: tuple[OperatorProcess, ApiProxy], kubectl: Kubectl, namespace: str
) -> None:
    """As one does that is cut between two lines."""
    process, proxy = operator
    proxy.cuts = True
    study = StudyOnCluster(kubectl, namespace)
    study.apply(suspend=True)
    wait_until(lambda: proxy.cut, lambda times: times > 1, seconds=60, what="watches were cut")
    proxy.cuts = False
    study.wait_for("Suspended", seconds=60)
    assert process.is_running


def test_a_watch_that_cannot_go_on_ends_the_operator_as_one_that_may_start_again(
    operator: tuple[OperatorProcess, ApiProxy], kubectl: Kubectl, namespace: str
) -> None:
    """It would be deaf. What is wrong then is not a setting, and its exit code must not say so."""
    process, proxy = operator
    proxy.breaks = True
    StudyOnCluster(kubectl, namespace).apply(suspend=True)
    code = wait_until(process.exit_code, lambda code: code is not None, seconds=60, what="the operator has ended")
    assert code == 1
    assert "WatchingError" in process.log
