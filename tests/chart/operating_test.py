"""The operator itself with the chart's rights: it does all its work, asks for nothing that it may not have, nor elsewhere."""

import json
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path

import pytest
from cluster.control_plane import ControlPlane
from cluster.kubectl import Kubectl
from sqlalchemy.engine import URL
from tests.chart.release import POLICIES, RIGHTS, Document, install_rights
from tests.support import audit
from tests.support.builders import a_manifest
from tests.support.operator_process import OperatorProcess
from tests.support.wait import wait_until

from tuning_api import naming


def is_refused(request: audit.Request) -> bool:
    """Whether RBAC or a policy of the chart said no.

    NB: not by the code alone: Kopf's patches test what they found, and a test that fails has the code of a policy, 422.
    """
    return request.code == HTTPStatus.FORBIDDEN or "ValidatingAdmissionPolicy" in request.said


@pytest.mark.parametrize("served", ["all namespaces", "one namespace"])
def test_the_operator_never_meets_a_refusal(
    served: str, control_plane: ControlPlane, namespace: str, postgres: URL, tmp_path: Path
) -> None:
    """A study's whole life: workers come and go, it is suspended and deleted. The audit log tells what was asked."""
    kubectl = Kubectl(control_plane.kubeconfig)
    watched = [namespace] if served == "one namespace" else []
    values = {"watchNamespaces": watched, "podTemplates": "restricted"}
    user = install_rights(kubectl, release=namespace, namespace=namespace, values=values, kinds=RIGHTS + POLICIES)
    token = kubectl("create", "token", user.rpartition(":")[2], "-n", namespace).strip()
    kubeconfig = control_plane.write_kubeconfig(namespace, token=token)
    settings = {"TUNING_NAMESPACES": ",".join(watched)} if watched else {}
    begun = datetime.now(UTC)
    with OperatorProcess(kubeconfig, postgres, tmp_path / "operator", settings):
        live_and_die(kubectl, namespace)
    asked = [request for request in audit.requests(control_plane.audit_log, since=begun) if request.user == user]
    assert asked
    assert [request for request in asked if is_refused(request)] == []
    if watched:
        assert {request.namespace for request in asked if request.what} == {namespace}


def live_and_die(kubectl: Kubectl, namespace: str) -> None:
    """A study from `kubectl apply` to `kubectl delete`."""
    assert kubectl.apply(a_manifest(name="digits", namespace=namespace)).returncode == 0
    wait_until(lambda: jobs(kubectl, namespace), bool, seconds=40, what="the study has a worker")
    assert kubectl.get("secret", naming.WORKER_SECRET, "-n", namespace)["data"]
    suspend = json.dumps({"spec": {"suspend": True}})
    kubectl("patch", "tuningstudy", "digits", "-n", namespace, "--type=merge", "-p", suspend)
    wait_until(lambda: jobs(kubectl, namespace), lambda left: not left, seconds=40, what="the workers are gone")
    assert kubectl.items("events", "-n", namespace, "--field-selector=involvedObject.kind=TuningStudy")
    kubectl("delete", "tuningstudy", "digits", "-n", namespace, "--timeout=40s")


def jobs(kubectl: Kubectl, namespace: str) -> list[Document]:
    """The workers' Jobs."""
    return kubectl.items("jobs", "-n", namespace)
