"""A study in a cluster, as its user sees it: through kubectl."""

import json
from typing import Any

from cluster.kubectl import Kubectl
from tests.support.builders import DIGITS_TRIAL, a_manifest
from tests.support.tenancy import namespace_uid
from tests.support.wait import wait_until

Document = dict[str, Any]
TRIAL_SECONDS = 120


class StudyOnCluster:
    """A study, as its user sees it."""

    def __init__(self, kubectl: Kubectl, namespace: str, name: str = "digits") -> None:
        self.kubectl, self.namespace, self.name = kubectl, namespace, name

    @property
    def namespace_uid(self) -> str:
        """The uid of its namespace."""
        return namespace_uid(self.kubectl, self.namespace)

    def apply(self, **spec: Any) -> str:
        """Apply a manifest; what kubectl says."""
        done = self.kubectl.apply(a_manifest(name=self.name, namespace=self.namespace, **spec))
        return done.stdout + done.stderr

    def patch(self, **spec: Any) -> str:
        """Change fields of the spec; what kubectl says."""
        patch = json.dumps({"spec": spec})
        done = self.kubectl.run("patch", "tuningstudy", self.name, "-n", self.namespace, "--type=merge", "-p", patch)
        return done.stdout + done.stderr

    def status(self) -> Document:
        """The status as it is stored."""
        status: Document = self.kubectl.get("tuningstudy", self.name, "-n", self.namespace).get("status", {})
        return status

    def wait_for(self, phase: str, *, seconds: float = TRIAL_SECONDS) -> Document:
        """Wait for a phase; the status then."""
        return wait_until(
            self.status, lambda status: status.get("phase") == phase, seconds=seconds, what=f"{self.name} is {phase}"
        )

    def wait_for_reason(self, reason: str, *, type_: str = "Progressing", seconds: float = 60) -> str:
        """Wait for the reason of a condition; its message then."""

        def look() -> Document:
            conditions: list[Document] = self.status().get("conditions", [])
            return next((item for item in conditions if item["type"] == type_), {})

        found = wait_until(look, lambda item: item.get("reason") == reason, seconds=seconds, what=f"{type_}: {reason}")
        return str(found["message"])

    def wait_for_trials(self, state: str, at_least: int) -> Document:
        """Wait until so many trials are in a state."""
        return wait_until(
            self.status,
            lambda status: status.get("trials", {}).get(state, 0) >= at_least,
            seconds=TRIAL_SECONDS,
            what=f"{at_least} trials {state}",
        )

    def pods(self) -> list[Document]:
        """The workers' pods."""
        found: list[Document] = self.kubectl.items("pods", "-n", self.namespace)
        return [pod for pod in found if pod["status"].get("phase") in {"Pending", "Running"}]

    def delete(self) -> None:
        """Delete it and wait until it is gone."""
        self.kubectl("delete", "tuningstudy", self.name, "-n", self.namespace, "--timeout=60s")


def slow(**trial: Any) -> Document:
    """A trial that lasts until it is interrupted, as far as a test is concerned."""
    lightning = DIGITS_TRIAL["lightning"] | {"trainer": {"max_epochs": 100_000}}
    return {"trial": {"lightning": lightning} | trial, "pruner": {"type": "none"}}
