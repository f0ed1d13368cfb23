"""`tuningstudy submit --watch`, and what the commands say of themselves."""

import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tuning_operator.cli import plugin, submit
from tuning_operator.cli.__main__ import main
from tuning_operator.errors import ClusterUnavailable, Refused
from tuning_operator.local.errors import BadInputError

Document = dict[str, Any]
ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass
class FakeGateway:
    """A study as it is at one look after the other; an exception is raised."""

    looks: list[Any]

    def study(self, name: str) -> Document:
        """The next look."""
        look = self.looks.pop(0)
        if isinstance(look, BaseException):
            raise look
        return {"metadata": {"name": name, "generation": 2}, "status": look}


def seen(phase: str, message: str, *, generation: int = 2) -> Document:
    return {"phase": phase, "message": message, "observedGeneration": generation}


def watch(*looks: Any) -> int:
    gateway: Any = FakeGateway(list(looks))
    return submit.watch(gateway, "digits", program="tuningstudy", chosen=" -n research")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing to wait for between two looks."""
    monkeypatch.setattr(submit, "POLL_SECONDS", 0.0)


def test_each_change_is_said_once_until_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    """What was true of the manifest before is not said, and an API server that is away is waited for."""
    code = watch(
        seen("Complete", "5 of 5 trials done", generation=1),
        {},
        seen("Running", "1 of 9 trials done"),
        ClusterUnavailable("away"),
        seen("Running", "1 of 9 trials done"),
        seen("Complete", "9 of 9 trials done"),
    )
    assert code == 0
    assert capsys.readouterr().out.splitlines() == [
        "Running: 1 of 9 trials done",
        "Complete: 9 of 9 trials done",
        "  its charts:  tuningstudy open digits -n research",
    ]


@pytest.mark.parametrize(("phase", "code"), [("Complete", 0), ("Failed", 1), ("Suspended", 3)])
def test_the_exit_code_is_that_of_a_run_without_a_cluster(phase: str, code: int) -> None:
    """A script reads both the same way."""
    assert watch(seen(phase, "it ended")) == code


def test_whoever_stops_watching_does_not_stop_the_study(capsys: pytest.CaptureFixture[str]) -> None:
    """And is told what would."""
    assert watch(seen("Running", "1 of 9 trials done"), KeyboardInterrupt()) == 130
    assert "the study goes on; to stop it: kubectl delete tuningstudy digits -n research" in capsys.readouterr().err


def test_a_study_that_is_deleted_meanwhile_ends_the_watch() -> None:
    """With the API server's own sentence."""
    with pytest.raises(Refused, match="not found"):
        watch(seen("Running", "1 of 9 trials done"), Refused('"digits" not found'))


def test_a_manifest_of_another_namespace_is_not_moved_in_silence() -> None:
    """As kubectl has it."""
    manifest = {"metadata": {"name": "digits", "namespace": "research"}}
    with pytest.raises(BadInputError, match=r"metadata\.namespace is research, and --namespace other"):
        submit._in_namespace(manifest, "other")
    assert submit._in_namespace({"metadata": {"name": "digits"}}, "other")["metadata"]["namespace"] == "other"


@pytest.mark.parametrize(
    ("program", "name", "command"),
    [
        *((main, "tuningstudy", command) for command in ("submit", "open", "logs")),
        *((plugin.main, "kubectl tuningstudy", command) for command in ("submit", "open", "logs")),
        *((plugin.main, "kubectl tuningstudy", command) for command in ("best", "trials", "report")),
    ],
)
def test_help_teaches_by_example(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    program: Callable[[], None],
    name: str,
    command: str,
) -> None:
    """In the name of the program that was asked."""
    monkeypatch.setattr(sys, "argv", [name, command, "--help"])
    with pytest.raises(SystemExit) as ended:
        program()
    assert (ended.value.code, f"  {name} {command} digits" in capsys.readouterr().out) == (0, True)


def test_kubectl_finds_the_plugin_by_its_files_name() -> None:
    """`kubectl tuningstudy` runs a program `kubectl-tuningstudy` of the PATH."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    module, _, function = scripts["kubectl-tuningstudy"].partition(":")
    assert getattr(import_module(module), function) is plugin.main
