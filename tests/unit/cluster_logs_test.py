"""`tuningstudy logs`: whose lines are printed, and what is said when they are gone."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from tuning_operator.cli import logs
from tuning_operator.errors import Missing

Document = dict[str, Any]

FIRST = (
    "2026-01-01T12:00:00Z worker a joins study digits",
    "2026-01-01T12:00:01Z trial 0: lr=0.1 (seed 1)",
    "2026-01-01T12:00:02Z trial 0 complete: val_acc=0.5 (1.0 s)",
)
SECOND = (
    "2026-01-01T12:00:01Z trial 1: lr=0.2 (seed 2)",
    "printed by the model",
    "2026-01-01T12:00:03Z trial 1 pruned (1.0 s)",
    "2026-01-01T12:00:13Z no trial is waiting: leaving after 1 trials",
)


@dataclass
class FakeGateway:
    """Pods that have said what they said."""

    said: Mapping[str, Sequence[str]]
    waiting: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    """Deleted between two requests."""
    phases: list[str] = field(default_factory=lambda: ["Complete"])
    """Of the study, one look after the other."""

    def study(self, name: str) -> Document:
        """A study without a link to its charts."""
        phase = self.phases.pop(0) if len(self.phases) > 1 else self.phases[0]
        return {"metadata": {"name": name, "uid": "1"}, "status": {"phase": phase, "message": "2 of 2 trials done"}}

    def workers(self, *, uid: str) -> list[Document]:
        """Its pods."""
        assert uid == "1"
        states: Document = {name: {"running": {}} for name in self.said}
        states |= {name: {"waiting": {}} for name in self.waiting}
        return [
            {"metadata": {"name": name}, "status": {"containerStatuses": [{"state": state}]}}
            for name, state in states.items()
        ]

    def log(self, pod: str, *, follow: bool) -> Iterator[str]:  # noqa: ARG002
        """What a pod has said."""
        if pod in self.waiting:
            pytest.fail("the API server refuses the log of a pod that has not started")
        if pod in self.gone:
            raise Missing(f'pods "{pod}" not found')
        yield from self.said[pod]


def show(gateway: Any, *, trial: int | None = None, follow: bool = False) -> int:
    return logs.logs(gateway, "digits", trial=trial, follow=follow)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything has been said already: there is nothing to wait for."""
    monkeypatch.setattr(logs, "POLL_SECONDS", 0.01)


def two(**options: Any) -> FakeGateway:
    return FakeGateway({"a": FIRST, "b": SECOND}, **options)


@pytest.mark.parametrize("follow", [False, True])
def test_a_trials_lines_are_found_in_the_pod_that_ran_it(capsys: pytest.CaptureFixture[str], follow: bool) -> None:  # noqa: FBT001
    """As they were said, from its claim to its end."""
    assert show(two(waiting=("c",)), trial=1, follow=follow) == 0
    assert capsys.readouterr().out.splitlines() == list(SECOND[:3])


@pytest.mark.parametrize("follow", [False, True])
def test_without_a_trial_all_workers_speak_with_their_names(capsys: pytest.CaptureFixture[str], follow: bool) -> None:  # noqa: FBT001
    """Each pod's lines in their order."""
    assert show(two(gone=("b",) if not follow else ()), follow=follow) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("[a]")] == [f"[a] {line}" for line in FIRST]
    assert any(line.startswith("[b]") for line in lines) is follow


@pytest.mark.parametrize("follow", [False, True])
def test_a_trial_whose_pod_is_gone_is_said_to_be(capsys: pytest.CaptureFixture[str], follow: bool) -> None:  # noqa: FBT001
    """With the exit code 1, so that a script knows."""
    assert show(FakeGateway({"a": FIRST}), trial=7, follow=follow) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "trial 7 is in the log of no pod that still exists (1 pod of study digits)" in said.err


def test_a_study_without_pods_says_what_it_waits_for(capsys: pytest.CaptureFixture[str]) -> None:
    """Its own message."""
    assert show(FakeGateway({})) == 1
    assert capsys.readouterr().err == "study digits has no pod with a log: 2 of 2 trials done\n"


def test_following_waits_for_the_end_of_the_study(capsys: pytest.CaptureFixture[str]) -> None:
    """Pods may come and go until then."""
    gateway = two(phases=["Running", "Running", "Running", "Complete"])
    assert show(gateway, follow=True) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(FIRST) + len(SECOND)
    assert gateway.phases == ["Complete"]
