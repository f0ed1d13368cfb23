"""What can run on this machine and what not, each with its reason: for people, and for tests that must be skipped."""

import os
from dataclasses import dataclass

from cluster import engines, prerequisites

CONTEXT_VARIABLE = "TUNING_TEST_CONTEXT"
"""Names a context of the user's kubeconfig: the tests then use that cluster, and no node has to run here."""


@dataclass(frozen=True)
class Ability:
    """Something that may or may not be possible here."""

    name: str
    purpose: str
    reason_against: str | None
    """None where it is possible."""

    def __str__(self) -> str:
        if self.reason_against is None:
            return f"yes  {self.name}: {self.purpose}"
        return f"no   {self.name}: {self.purpose}; not here, for {self.reason_against}"


def examine() -> list[Ability]:
    """All abilities, in the order in which they build on each other. Changes nothing and takes about a second."""
    control_plane = prerequisites.reason_against_control_plane()
    return [
        Ability("control plane", "API server and controllers for component tests", control_plane),
        Ability("node", "pods that run, for end-to-end tests", reason_against_cluster()),
        Ability("images", "build the project's images", engines.reason_against_building()),
        Ability("browser", "look at the studies' pages", prerequisites.reason_against_browser()),
        Ability("pooler", "workers that reach Postgres through PgBouncer", prerequisites.reason_against_pooler()),
    ]


def reason_against_cluster() -> str | None:
    """Why end-to-end tests cannot run, neither on the user's own cluster nor on a node here, or None."""
    return None if os.environ.get(CONTEXT_VARIABLE) else prerequisites.reason_against_node()
