"""The whole product on this machine's node, and what was written down about it: for benchmarks of a real cluster."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cluster.kubectl import Kubectl
from cluster.prerequisites import PrerequisiteError
from tests.support import audit
from tests.support.audit import Request
from tests.support.installed import installation, namespace_of_its_own, reason_against_installing


@dataclass(frozen=True)
class OnNode:
    """The chart, installed, and a namespace that no study had."""

    kubectl: Kubectl
    namespace: str
    audit_log: Path
    containerd_log: Path

    def requests(self, *, since: datetime) -> list[Request]:
        """What the API server was asked about the namespace."""
        return list(audit.requests(self.audit_log, namespace=self.namespace, since=since))


@contextmanager
def on_node() -> Iterator[OnNode]:
    """Install the chart on the node, which is started if it does not run.

    Raises:
        PrerequisiteError: it cannot run here, or a cluster is named whose audit log nobody can read.
    """
    if reason := reason_against_installing():
        raise PrerequisiteError(f"this needs a node that runs containers: {reason}")
    with installation() as installed, namespace_of_its_own(installed.kubectl) as namespace:
        if installed.node is None:
            raise PrerequisiteError("the audit log of a cluster of yours is out of reach: unset TUNING_TEST_CONTEXT")
        yield OnNode(installed.kubectl, namespace, installed.node.plane.audit_log, installed.node.log("containerd"))
