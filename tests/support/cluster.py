"""A real API server for tests, with the CRD installed: our own control plane, started once for the session.

`TUNING_TEST_CONTEXT` names a context of your kubeconfig instead; then that cluster is used.
"""

import itertools
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cluster import binaries
from cluster.control_plane import ControlPlane
from tests.support.wait import wait_until

from tuning_api.crd import crd
from tuning_api.spec import PLURAL

Document = dict[str, Any]
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Kubectl:
    """The real kubectl, as an administrator of a cluster."""

    kubeconfig: Path

    def __call__(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        """Run kubectl and return what it prints.

        Raises:
            AssertionError: it failed; with what it said.
        """
        done = self.run(*arguments, stdin=stdin)
        assert not check or done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr or done.stdout}"
        return done.stdout

    def run(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run kubectl, whatever comes of it."""
        command = [str(binaries.KUBERNETES.ensure() / "kubectl"), "--kubeconfig", str(self.kubeconfig), *arguments]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)

    def apply(self, document: Document) -> subprocess.CompletedProcess[str]:
        """`kubectl apply`, as a user does it."""
        return self.run("apply", "-f", "-", stdin=json.dumps(document))

    def get(self, *arguments: str) -> Document:
        """`kubectl get ... -o json`."""
        found: Document = json.loads(self("get", *arguments, "-o", "json"))
        return found

    def items(self, *arguments: str) -> list[Document]:
        """The objects of a list."""
        items: list[Document] = self.get(*arguments)["items"]
        return items


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """etcd, kube-apiserver and kube-controller-manager, with the CRD."""
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
        kubectl("patch", PLURAL, study["metadata"]["name"], "-n", name, "--type=merge", "-p", patch, check=False)
    kubectl("delete", "namespace", name, "--wait=false")


def install_crd(kubectl: Kubectl) -> None:
    """Install the CRD as the models say it now, and wait until it is served."""
    kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(crd()))
    kubectl("wait", "--for=condition=Established", f"crd/{crd()['metadata']['name']}", "--timeout=30s")
    wait_until(
        lambda: kubectl.run("get", PLURAL).returncode, lambda code: code == 0, seconds=20, what="the CRD is served"
    )
