"""What the benchmark of the first trial makes of logs, and of its figures."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from bench import first_trial
from bench.first_trial import STEPS
from tests.support import audit

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
CONTAINER = "c0ffee"
CONTAINERD = f"""\
time="2026-01-01T12:00:01.250000000Z" level=info msg="StartContainer for \\"{CONTAINER}\\""
time="2026-01-01T12:00:01.5123Z" level=info msg="StartContainer for \\"{CONTAINER}\\" returns successfully"
time="2026-01-01T12:00:02Z" level=info msg="StartContainer for \\"another\\" returns successfully"
"""
LOG = """\
2026-01-01T12:00:03.123456789Z 2026-01-01T12:00:03Z worker w opens study digits-0
2026-01-01T12:00:03.5Z 2026-01-01T12:00:03Z worker w joins study digits-0
2026-01-01T12:00:09Z 2026-01-01T12:00:09Z imported torch 2.8 and the model in 5.5 s
2026-01-01T12:00:09.1Z 2026-01-01T12:00:09Z trial 0: learning_rate=0.01 (seed 1)
2026-01-01T12:00:10Z 2026-01-01T12:00:10Z trial 0: epoch 1/1, val_acc=0.9
2026-01-01T12:00:10.1Z 2026-01-01T12:00:10Z trial 0 complete: val_acc=0.9 (1 of 1 epochs, 1.0 s)
"""


def an_event(seconds: float, what: str, name: str = "", **fields: Any) -> dict[str, Any]:
    """A line of an audit log: a create in the namespace research that took a tenth of a second."""
    resource, _, subresource = what.partition("/")
    reference = {"resource": resource, "namespace": "research", "name": name}
    received = NOON + timedelta(seconds=seconds)
    return {
        "stage": "ResponseComplete",
        "verb": "create",
        "user": {"username": "admin"},
        "userAgent": "kubectl/v1.34.4 (linux/amd64)",
        "objectRef": reference | ({"subresource": subresource} if subresource else {}),
        "responseStatus": {"code": 201},
        "requestReceivedTimestamp": received.isoformat(),
        "stageTimestamp": (received + timedelta(seconds=0.1)).isoformat(),
    } | fields


def requests_of(folder: Path, *events: dict[str, Any]) -> list[audit.Request]:
    (folder / "audit.log").write_text("\n".join(map(json.dumps, events)) + '\n{"half of a li')
    return list(audit.requests(folder / "audit.log", namespace="research", since=NOON))


def test_the_steps_of_the_cluster_are_found_in_the_audit_log(tmp_path: Path) -> None:
    """When each object was there: others' objects, refusals and earlier pods are passed over."""
    requests = requests_of(
        tmp_path,
        an_event(0.2, "tuningstudies", "digits-1"),
        an_event(0.3, "pods"),
        an_event(0.4, "jobs", "digits-1-abc-0", responseStatus={"code": 403}),
        an_event(0.5, "jobs", "digits-1-abc-0"),
        an_event(0.55, "pods"),  # before the Job's creator has its answer
        an_event(0.7, "pods/binding", "another"),
        an_event(0.8, "pods/binding", "digits-1-abc-0-xyz"),
    )
    found = first_trial.marks_of_requests(requests, study="digits-1", pod="digits-1-abc-0-xyz")
    seconds = {mark: round((time - NOON).total_seconds(), 6) for mark, time in found.items()}
    assert seconds == {"applied": 0.3, "job": 0.6, "pod": 0.65, "bound": 0.9}


def test_what_was_not_written_down_is_named(tmp_path: Path) -> None:
    """Rather than counted as something else."""
    with pytest.raises(RuntimeError, match=r"no create jobs digits-1"):
        first_trial.marks_of_requests(
            requests_of(tmp_path, an_event(0, "tuningstudies", "digits-1")), study="digits-1", pod=""
        )
    with pytest.raises(RuntimeError, match="container absent"):
        first_trial.started(CONTAINERD, container="absent")
    with pytest.raises(RuntimeError, match="trial 0: epoch 1"):
        first_trial.marks_of_log(LOG.partition("trial 0: epoch")[0])


def test_a_container_has_started_when_containerd_says_so() -> None:
    """To the microsecond, however many digits it wrote."""
    assert first_trial.started(CONTAINERD, container=CONTAINER) == NOON + timedelta(seconds=1.5123)


def test_a_workers_lines_are_timed_by_the_container_runtime() -> None:
    """The worker's own times are whole seconds."""
    seconds = [(time - NOON).total_seconds() for time in first_trial.marks_of_log(LOG).values()]
    assert seconds == [3.123456, 3.5, 9, 9.1, 10]


def test_a_study_is_the_sample_with_one_trial_of_one_epoch() -> None:
    """And is accepted: by kubectl it would be read the same."""
    document = first_trial.a_study("digits-0", "research")
    assert document["spec"]["trial"]["lightning"]["trainer"]["max_epochs"] == 1
    assert (document["spec"]["maxTrials"], document["spec"]["parallelism"]) == (1, 1)


def figures(*, operator: float = 0.3, packages: tuple[str, ...] = ("optuna",)) -> dict[str, Any]:
    """Every step takes a second, but for the operator's."""
    marks, at = {}, 0.0
    for step in STEPS:
        marks[step] = at = at if step == "began" else at + (operator if step == "job" else 1.0)
    slower = {step: 2 * at for step, at in marks.items()}
    imports = {
        "worker": {"seconds": [9.0], "packages": ["torch", *packages]},
        "alone": {"seconds": [8.0], "packages": ["torch"]},
    }
    return {"first": slower, "runs": [marks, marks, slower], "imports": imports}


def test_each_step_has_its_median_and_range() -> None:
    """And the first study is told apart."""
    text = "\n".join(first_trial.tell(figures()))
    assert "the median of 3 studies" in text
    assert "| operator | 0.30 (0.30 to 0.60) | 0.60 |" in text
    assert "| **in all, to the first report** | 9.3 (9.3 to 18.6) | 18.6 |" in text
    assert "only the worker imports: optuna." in text


def test_the_operators_share_is_half_a_second_at_most() -> None:
    """By the median."""
    assert first_trial.aims(figures(operator=0.5))[0].reached
    assert not first_trial.aims(figures(operator=0.51))[0].reached


def test_a_package_that_no_trial_uses_is_named() -> None:
    """What a worker needs for its study is not meant."""
    aim = first_trial.aims(figures(packages=("optuna", "plotly")))[1]
    assert (aim.reached, aim.measured) == (False, "plotly")
    assert first_trial.aims(figures())[1].reached
