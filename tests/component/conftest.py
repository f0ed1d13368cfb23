"""A whole system for a file of tests: Postgres, a kubelet and the operator, on the real API server of all tests.

A file that needs one of them to be otherwise has a fixture of the same name.
"""

from collections.abc import Iterator

import pytest
from cluster.control_plane import ControlPlane
from cluster.kubectl import Kubectl
from sqlalchemy.engine import URL
from tests.support.operator_process import OperatorProcess, service_account_kubeconfig
from tests.support.postgres import PostgresServer
from tests.support.process_kubelet import ProcessKubelet


@pytest.fixture(scope="module")
def database(postgres_server: PostgresServer) -> URL:
    """One database for all tests of a file; each has a namespace, and so a schema, of its own."""
    return postgres_server.create_database()


@pytest.fixture(scope="module")
def kubelet(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessKubelet]:
    """Runs pods as processes."""
    with ProcessKubelet(control_plane.kubeconfig, tmp_path_factory.mktemp("pods")) as kubelet:
        yield kubelet


@pytest.fixture(scope="module")
def operator(
    control_plane: ControlPlane, database: URL, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OperatorProcess]:
    """The operator, with the rights that the chart gives it."""
    kubeconfig = service_account_kubeconfig(control_plane, Kubectl(control_plane.kubeconfig))
    with OperatorProcess(kubeconfig, database, tmp_path_factory.mktemp("operator")) as operator:
        yield operator
