"""A real API server for tests, with the CRD installed: our own control plane, started once for the session.

Always our own, also where `TUNING_TEST_CONTEXT` names a cluster: these tests stop it, and read its audit log.
"""

import itertools
import json
import os
from collections.abc import Iterator

import pytest
from cluster import prerequisites
from cluster.control_plane import ControlPlane
from cluster.kubectl import Kubectl
from tests.support.wait import wait_until

from tuning_api.crd import crd
from tuning_api.spec import PLURAL

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """etcd, kube-apiserver and kube-controller-manager, with the CRD; skips with the reason where they cannot run."""
    if reason := prerequisites.reason_against_control_plane():
        pytest.skip(f"component tests need a control plane: {reason}")
    with ControlPlane(tmp_path_factory.mktemp("plane")) as plane:
        install_crd(Kubectl(plane.kubeconfig))
        yield plane


@pytest.fixture(scope="session")
def kubectl(control_plane: ControlPlane) -> Kubectl:
    """Kubectl on the session's control plane."""
    return Kubectl(control_plane.kubeconfig)


@pytest.fixture
def namespace(kubectl: Kubectl) -> Iterator[str]:
    """A namespace of the test's own."""
    name = f"test-{os.getpid()}-{next(_numbers)}"
    kubectl("create", "namespace", name)
    yield name
    kubectl("delete", "tuningstudies", "--all", "--namespace", name, "--wait=false")
    # NB: a study that still has its finalizer, its operator being gone, would keep the namespace for ever.
    for study in kubectl.items(PLURAL, "--namespace", name):
        patch = json.dumps({"metadata": {"finalizers": None}})
        kubectl.run("patch", PLURAL, study["metadata"]["name"], "-n", name, "--type=merge", "-p", patch)
    kubectl("delete", "namespace", name, "--wait=false")


def install_crd(kubectl: Kubectl) -> None:
    """Install the CRD as the models say it now, and wait until it is served."""
    kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(crd()))
    # NB: not `kubectl wait`, which fails at once while the CRD has no conditions at all.
    wait_until(
        lambda: kubectl.run("get", PLURAL).returncode, lambda code: code == 0, seconds=60, what="the CRD is served"
    )
