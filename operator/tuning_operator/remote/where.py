"""Which cluster, and where in it: what a person says on the command line."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Where:
    """What a person said about the place; what is left out, the kubeconfig says."""

    namespace: str | None = None
    context: str | None = None
    kubeconfig: Path | None = None

    @property
    def is_given(self) -> bool:
        """Whether anything was said: then a study of a cluster is meant."""
        return any((self.namespace, self.context, self.kubeconfig))
