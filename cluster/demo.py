"""The main job, shown: from nothing to the best parameters and the charts of a study, on a cluster of this machine."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cluster import folders, images, release
from cluster.binaries import say
from cluster.kubectl import Kubectl
from cluster.node import Node

SAMPLE = folders.REPOSITORY / "manifests" / "samples" / "digits.yaml"
NAMESPACE = "research"
POLL_SECONDS = 0.5
PATIENCE_SECONDS = 1200.0
TERMINAL = frozenset({"Complete", "Failed"})

Status = dict[str, Any]


class StudyFailedError(RuntimeError):
    """The study did not come to a good end; the message is its own."""


def run(node: Node, *, manifest: Path = SAMPLE) -> None:
    """Build the images, install the chart, apply a manifest, and show the study until its end.

    Raises:
        StudyFailedError: the study failed, or took longer than twenty minutes.
        CommandError: kubectl or helm failed.
    """
    name = yaml.safe_load(manifest.read_text())["metadata"]["name"]
    kubectl = Kubectl(node.kubeconfig)
    _say_command("make images")
    ids = images.bring_all(node.machine)
    _say_command(f"helm upgrade --install {release.NAME} {release.CHART.relative_to(folders.REPOSITORY)}")
    release.install(kubectl, values=release.values_for_node(ids) | {"operator.statusSeconds": "2"})
    release.ensure_namespace(kubectl, NAMESPACE)
    _say_command(f"kubectl apply -f {manifest.relative_to(folders.REPOSITORY)}")
    say(kubectl("apply", f"--namespace={NAMESPACE}", f"--filename={manifest}").strip())
    _follow(kubectl, name)
    _show_results(kubectl, name)


def _follow(kubectl: Kubectl, name: str) -> None:
    """Show progress until the study has ended."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    with _display() as display:
        while time.monotonic() < deadline:
            status = kubectl.get("tuningstudy", name, f"--namespace={NAMESPACE}").get("status", {})
            display.show(status)
            if status.get("phase") in TERMINAL:
                break
            time.sleep(POLL_SECONDS)
    if status.get("phase") != "Complete":
        raise StudyFailedError(f"study {name} is {status.get('phase')}: {status.get('message')}")


class _Display(Protocol):
    def show(self, status: Status) -> None: ...


@contextmanager
def _display() -> Iterator[_Display]:
    """A progress bar on a terminal, else a line for each change."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    columns = (
        TextColumn("{task.fields[phase]}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[summary]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield _Bar(progress)


class _Bar:
    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=None, phase="Pending", summary="")

    def show(self, status: Status) -> None:
        trials = status.get("trials", {})
        self._progress.update(
            self._task,
            total=trials.get("total"),
            completed=trials.get("finished", 0),
            phase=status.get("phase", "Pending"),
            summary=summary(status),
        )


class _Lines:
    def __init__(self) -> None:
        self._last = ""

    def show(self, status: Status) -> None:
        line = f"{status.get('phase', 'Pending'):9} {status.get('progress', ''):7} {summary(status)}"
        if line != self._last:
            say(line)
        self._last = line


def summary(status: Status) -> str:
    """How a study stands, in one line."""
    trials = status.get("trials")
    if not trials:
        return str(status.get("message", ""))
    parts = [f"best {best['display']}"] if (best := status.get("best")) else []
    parts += [f"{trials[state]} {state}" for state in ("running", "pruned", "failed")]
    progressing: Status = next((item for item in status.get("conditions", []) if item["type"] == "Progressing"), {})
    if progressing.get("status") == "False" and status.get("phase") not in TERMINAL:
        parts.append(progressing["message"])
    return ", ".join(parts)


def _show_results(kubectl: Kubectl, name: str) -> None:
    for arguments in (("get", "tuningstudies"), ("get", "tuningstudies", "--output=wide")):
        _say_command(f"kubectl {' '.join(arguments)} --namespace={NAMESPACE}")
        print(kubectl(*arguments, f"--namespace={NAMESPACE}"), end="")
    status = kubectl.get("tuningstudy", name, f"--namespace={NAMESPACE}")["status"]
    say("\nstatus.best:")
    print(yaml.safe_dump(status["best"], sort_keys=False), end="")
    say("\nstatus.charts, for a browser on this machine:")
    print(yaml.safe_dump(status["charts"], sort_keys=False, width=1000), end="")
    say('\nThe cluster still runs. A shell for it: eval "$(make -s cluster-env)"; its end: make cluster-down')


def _say_command(command: str) -> None:
    say(f"\n$ {command}")
