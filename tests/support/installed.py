"""The whole product in a cluster that runs containers: our node, started for the tests, or a cluster of the user's."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from cluster import doctor, engines, images, release
from cluster.kubectl import Kubectl
from cluster.node import Node

from tuning_api.crd import crd


@dataclass(frozen=True)
class Installed:
    """The chart, installed with Helm as a user installs it."""

    kubectl: Kubectl
    node: Node | None
    """None on a cluster of the user's."""
    values: dict[str, str]
    """The chart's, as `release.install` takes them."""


def reason_against_installing() -> str | None:
    """Why the chart can be installed nowhere, or None."""
    if os.environ.get(doctor.CONTEXT_VARIABLE):
        return None
    return doctor.reason_against_cluster() or engines.reason_against_building()


@contextmanager
def installation() -> Iterator[Installed]:
    """The chart, for as long as the block runs. A node that runs already is used and left running."""
    if context := os.environ.get(doctor.CONTEXT_VARIABLE):
        kubectl = Kubectl(context=context)
        values = release.values_for_context()
        release.install(kubectl, values=values)
        yield Installed(kubectl, node=None, values=values)
        return
    node = Node()
    was_running = node.is_whole()
    if not was_running:
        node.start()
    kubectl = Kubectl(node.kubeconfig)
    values = release.values_for_node(images.bring_all(node.machine))
    release.install(kubectl, values=values)
    try:
        yield Installed(kubectl, node, values)
    finally:
        if not was_running:
            node.stop()


@pytest.fixture(scope="session")
def installed() -> Iterator[Installed]:
    """Skips with the reason where nothing runs containers."""
    if reason := reason_against_installing():
        pytest.skip(f"end-to-end tests need a node that runs containers: {reason}")
    with installation() as found:
        yield found


@pytest.fixture
def research(installed: Installed) -> Iterator[str]:
    """A namespace of the test's own, in which pods must meet the restricted standard."""
    with namespace_of_its_own(installed.kubectl) as name:
        yield name


@contextmanager
def namespace_of_its_own(kubectl: Kubectl, prefix: str = "research") -> Iterator[str]:
    """A namespace that no earlier test had: rows of a deleted study stay in the database, and a namesake resumes them."""
    name = f"{prefix}-{secrets.token_hex(3)}"
    release.ensure_namespace(kubectl, name)
    try:
        yield name
    finally:
        kubectl("delete", crd()["spec"]["names"]["plural"], "--all", f"--namespace={name}", "--timeout=90s")
        # Longer than the grace of a pod that ends just now.
        kubectl("delete", "namespace", name, "--timeout=240s")
