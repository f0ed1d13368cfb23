"""kubectl, as a person at a terminal has it: for the demonstration and for tests that do what a user does."""

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster import binaries

Document = dict[str, Any]


class CommandError(RuntimeError):
    """kubectl or helm failed; the message is what it said."""


@dataclass(frozen=True)
class Kubectl:
    """kubectl on one cluster: a kubeconfig of ours, or a context of the user's own."""

    kubeconfig: Path | None = None
    context: str | None = None

    @property
    def flags(self) -> list[str]:
        """What chooses the cluster; helm's flag for the context has another name."""
        return self._flags("--context")

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl and return what it prints.

        Raises:
            CommandError: it failed.
        """
        return _checked("kubectl", arguments, self.run(*arguments, stdin=stdin))

    def run(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run kubectl, whatever comes of it."""
        return _run(_kubectl(), *self.flags, *arguments, stdin=stdin)

    def helm(self, *arguments: str) -> str:
        """Run helm on the same cluster and return what it prints.

        Raises:
            CommandError: it failed.
        """
        program = shutil.which("helm") or str(binaries.HELM.ensure() / "helm")
        return _checked("helm", arguments, _run(program, *self._flags("--kube-context"), *arguments))

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

    def _flags(self, context_flag: str) -> list[str]:
        chosen = {"--kubeconfig": self.kubeconfig, context_flag: self.context}
        return [f"{flag}={value}" for flag, value in chosen.items() if value]


def _kubectl() -> str:
    """Ours where it was built, since it fits our API server; else the user's own."""
    if binaries.KUBERNETES.is_cached():
        return str(binaries.KUBERNETES.folder / "kubectl")
    return shutil.which("kubectl") or str(binaries.KUBERNETES.ensure() / "kubectl")


def _run(program: str, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, *arguments], input=stdin, capture_output=True, text=True, check=False)


def _checked(name: str, arguments: tuple[str, ...], done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode != 0:
        raise CommandError(f"`{name} {' '.join(arguments)}` failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
