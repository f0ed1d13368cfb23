"""Fixtures of the chart's tests."""

import json
from collections.abc import Iterator

import pytest
from cluster.kubectl import Kubectl
from tests.support.wait import wait_until

GROUP = "monitoring.coreos.com"
KINDS = {"servicemonitors": "ServiceMonitor", "prometheusrules": "PrometheusRule"}


@pytest.fixture(scope="session")
def prometheus_operator(kubectl: Kubectl) -> Iterator[None]:
    """The kinds of the Prometheus Operator, without their schemas: enough for Helm to know them."""
    for plural, kind in KINDS.items():
        kubectl("apply", "-f", "-", stdin=json.dumps(_definition(plural, kind)))
        wait_until(
            lambda plural=plural: kubectl.run("get", f"{plural}.{GROUP}").returncode,
            lambda code: code == 0,
            seconds=60,
            what=f"{plural} are served",
        )
    yield
    kubectl("delete", "crd", *(f"{plural}.{GROUP}" for plural in KINDS))


def _definition(plural: str, kind: str) -> dict[str, object]:
    free = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": free}}],
        },
    }
