"""What the benchmark of the API server's load counts, and what it makes of it."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from bench import api_cost
from tests.support import audit
from tests.support.audit import Request

OPERATOR = "system:serviceaccount:tuningstudy-system:tuningstudy-operator"
JOBS = "system:serviceaccount:kube-system:job-controller"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def a_request(user: str, verb: str, what: str, agent: str = "a-program/v1 (linux/amd64)") -> Request:
    return Request(
        user=user,
        agent=agent,
        verb=verb,
        what=what,
        name="x",
        namespace="research",
        code=200,
        received=NOW,
        answered=NOW,
    )


def figures(*requests: Request, trials: int = 10) -> dict[str, Any]:
    counted = api_cost.count(requests, namespace="research")
    return {"trials": trials, "workers": 4, "seconds": 60, "requests": counted}


def test_an_audit_log_is_read_whatever_it_quotes(tmp_path: Path) -> None:
    """A refused manifest may have characters that end a line in a text and not in a file; and its last line may grow."""
    event = {
        "stage": "ResponseComplete",
        "user": {"username": OPERATOR},
        "verb": "create",
        "objectRef": {"resource": "jobs", "namespace": "research"},
        "responseStatus": {"code": 422, "message": "not \x85 \u2028 \x0b a name"},
        "requestReceivedTimestamp": NOW.isoformat(),
        "stageTimestamp": NOW.isoformat(),
    }
    log = tmp_path / "audit.log"
    log.write_text(json.dumps(event, ensure_ascii=False) + '\n{"stage": {}')
    (request,) = audit.requests(log, since=NOW)
    assert (request.verb, request.what, request.namespace, request.code) == ("create", "jobs", "research", 422)


def test_requests_are_counted_by_who_asks_for_what() -> None:
    """A service account by its name, all else by its program; the rest of a user agent is noise."""
    rows = api_cost.count(
        [
            a_request(OPERATOR, "get", "jobs", agent="tuningstudy-operator"),
            a_request(OPERATOR, "get", "jobs", agent="tuningstudy-operator"),
            a_request("system:node:n", "patch", "pods/status", agent="kubelet/v1.34.4 (linux/amd64)"),
        ],
        namespace="research",
    )
    assert [tuple(row.values()) for row in rows] == [
        ("tuningstudy-operator", "tuningstudy-operator", "get", "jobs", 2),
        ("kubelet", "kubelet/v1.34.4", "patch", "pods/status", 1),
    ]


@pytest.mark.parametrize("user", ["system:serviceaccount:research:default", "system:anonymous"])
def test_a_request_from_a_pod_is_a_workers(user: str) -> None:
    """However it signs in."""
    silence = api_cost.aims(figures(a_request(user, "get", "pods")))[-1]
    assert (silence.measured, silence.reached) == ("1", False)
    assert api_cost.aims(figures(a_request(OPERATOR, "get", "pods")))[-1].reached


def test_writes_are_those_of_kubernetes_too_but_not_the_benchmarks_own() -> None:
    """Reads are told, and are no write."""
    counted = figures(
        a_request("admin", "create", "tuningstudies", agent="kubectl/v1.34.4"),
        a_request(OPERATOR, "create", "jobs"),
        a_request(OPERATOR, "list", "jobs"),
        *[a_request(JOBS, "patch", "pods")] * 3,
    )
    every, operators, _ = api_cost.aims(counted)
    assert (every.measured, every.reached) == ("0.40", False)
    assert "cost 1 writes of Kubernetes' own" in every.cause
    assert (operators.measured, operators.reached) == ("0.10", True)
    text = "\n".join(api_cost.tell(counted))
    assert "| job-controller | a-program/v1 | patch | pods | 3 | 0.30 |" in text
    assert "Writes a trial: 0.40 in all, 0.10 of them the operator's" in text


def test_the_study_is_the_sample_at_four_workers() -> None:
    """Which need not fit beside each other by their requests: the node has as many cores as it has."""
    spec = api_cost.a_study("research", trials=100)["spec"]
    assert (spec["maxTrials"], spec["parallelism"]) == (100, 4)
    assert "podTemplate" not in spec["trial"]
