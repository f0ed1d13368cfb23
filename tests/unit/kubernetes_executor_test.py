"""How Jobs and pods become workers, and resources become studies."""

from typing import Any

import pytest
from tests.support.builders import a_manifest

from tuning_api.status import Reason
from tuning_operator.executors.kubernetes import read_study, worker_view
from tuning_operator.model import Ending, WorkerState

Document = dict[str, Any]


def a_job(*, status: Document | None = None, labels: Document | None = None, **spec: Any) -> Document:
    return {
        "metadata": {
            "name": "digits-abc-2",
            "namespace": "research",
            "uid": "job-uid",
            "labels": labels or {},
            "annotations": {"tuningstudy.io/worker-index": "2"},
        },
        "spec": spec,
        "status": status or {},
    }


def a_pod(phase: str = "Running", *, uid: str = "pod-uid", **status: Any) -> Document:
    return {
        "metadata": {
            "name": "digits-abc-2-xyz",
            "uid": uid,
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "ownerReferences": [{"uid": "job-uid"}],
        },
        "status": {"phase": phase, **status},
    }


def waiting(reason: str, message: str = "") -> list[Document]:
    return [{"image": "registry.example/trial:1", "state": {"waiting": {"reason": reason, "message": message}}}]


def terminated(code: int, reason: str = "Error", message: str = "") -> list[Document]:
    return [{"state": {"terminated": {"exitCode": code, "reason": reason, "message": message}}}]


UNSCHEDULABLE = [
    {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
    }
]
TROUBLES = {
    "no node has a GPU": (
        a_pod("Pending", conditions=UNSCHEDULABLE),
        Reason.POD_UNSCHEDULABLE,
        "Insufficient nvidia.com/gpu",
    ),
    "the image does not exist": (
        a_pod("Pending", containerStatuses=waiting("ImagePullBackOff", "not found")),
        Reason.IMAGE_PULL,
        "registry.example/trial:1 cannot be pulled: not found",
    ),
    "the Secret is missing": (
        a_pod("Pending", containerStatuses=waiting("CreateContainerConfigError", 'secret "x" not found')),
        Reason.WORKERS_FAILING,
        'CreateContainerConfigError: secret "x" not found',
    ),
}


@pytest.mark.parametrize(("pod", "reason", "words"), TROUBLES.values(), ids=TROUBLES)
def test_a_pod_that_does_not_run_says_why(pod: Document, reason: Reason, words: str) -> None:
    """The scheduler's and the kubelet's own sentences reach the user."""
    trouble = worker_view(a_job(), [pod]).trouble
    assert trouble is not None
    assert reason is trouble.reason
    assert words in trouble.message


def test_a_container_that_is_being_created_is_no_trouble() -> None:
    """Pulling a large image takes minutes; that is not a fault."""
    pod = a_pod("Pending", containerStatuses=waiting("ContainerCreating"))
    assert worker_view(a_job(), [pod]).trouble is None


def test_kueue_is_named_while_it_holds_the_job() -> None:
    """A queued Job has no pod, and nothing is broken."""
    trouble = worker_view(a_job(labels={"kueue.x-k8s.io/queue-name": "team-a"}, suspend=True), []).trouble
    assert trouble is not None
    assert (trouble.reason, "team-a" in trouble.message) == (Reason.QUEUED_BY_KUEUE, True)


ENDINGS = {
    "out of memory": (a_pod("Failed", containerStatuses=terminated(137, "OOMKilled")), Ending.OUT_OF_MEMORY),
    "a crash": (a_pod("Failed", containerStatuses=terminated(139)), Ending.CRASHED),
    "killed after its grace period, which nobody can tell from a crash": (
        a_pod("Failed", containerStatuses=terminated(137)),
        Ending.CRASHED,
    ),
    "asked to stop": (a_pod("Failed", containerStatuses=terminated(75)), Ending.INTERRUPTED),
    "preempted": (
        a_pod(
            "Failed",
            containerStatuses=terminated(137),
            conditions=[{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}],
        ),
        Ending.INTERRUPTED,
    ),
    "its node is gone": (a_pod("Failed"), Ending.INTERRUPTED),
}


@pytest.mark.parametrize(("pod", "ending"), ENDINGS.values(), ids=ENDINGS)
def test_how_a_pod_ended_decides_over_retries(pod: Document, ending: Ending) -> None:
    """Crashes count against a trial, interruptions do not."""
    assert {"pod-uid": ending} == worker_view(a_job(), [pod]).endings


def test_a_running_pod_owns_its_trials() -> None:
    """Its uid is what the worker wrote into the database."""
    worker = worker_view(a_job(), [a_pod(), a_pod("Failed", uid="before")])
    assert (frozenset({"pod-uid"}), True, 2) == (worker.live_owners, worker.running, worker.index)


LAST_WORDS = {
    "the end of a traceback": (
        {"message": "Traceback\nModuleNotFoundError: No module named 'torch'\n"},
        "exit code 1: ModuleNotFoundError: No module named 'torch'",
    ),
    "a kill for memory": (
        {"message": "worker digits-0 joins study digits", "reason": "OOMKilled"},
        "was killed for its memory (OOMKilled): raise the memory limit of container trial in trial.podTemplate",
    ),
}


@pytest.mark.parametrize(("ended", "words"), LAST_WORDS.values(), ids=LAST_WORDS)
def test_a_failed_job_speaks_with_its_pods_last_words(ended: dict[str, str], words: str) -> None:
    """'BackoffLimitExceeded' helps nobody; the last line of the log does, or what the kernel did."""
    condition = {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}
    status = {"conditions": [condition | {"lastTransitionTime": "2026-01-01T00:00:09Z"}]}
    pod = a_pod("Failed", containerStatuses=terminated(1, **ended))
    worker = worker_view(a_job(status=status), [pod])
    assert worker.state is WorkerState.FAILED
    assert worker.trouble is not None
    assert worker.trouble.message.endswith(words)


FAULTS = {
    "a placeholder that no parameter has": (
        {
            "trial": {
                "lightning": {"model": {"class_path": "a.B", "init_args": {"x": "${depth}", "y": "${learning_rate}"}}}
            }
        },
        "trial.lightning uses ${depth}, and searchSpace has no such parameter (it has learning_rate, hidden_dim)",
    ),
    "a parameter that nothing uses": (
        {"trial": {"lightning": {"model": {"class_path": "a.B", "init_args": {"x": "${learning_rate}"}}}}},
        "searchSpace has hidden_dim, and nothing uses it: write ${hidden_dim} in trial.lightning, or remove it",
    ),
    "an unknown field": ({"maxTrails": 3}, 'unknown field "spec.maxTrails": did you mean maxTrials?'),
    "a wrong type": ({"maxTrials": "many"}, "spec.maxTrials: must be a number, and 'many' is none"),
    "bounds the wrong way round": (
        {"searchSpace": [{"name": "x", "type": "float", "low": 2, "high": 1}]},
        "low must not be greater than high, and 2 > 1",
    ),
}


@pytest.mark.parametrize(("changes", "words"), FAULTS.values(), ids=FAULTS)
def test_a_spec_that_cannot_be_read_is_a_fault_in_words(changes: Document, words: str) -> None:
    """One malformed resource never keeps the others from being served."""
    document = a_manifest(**changes)
    document["metadata"] |= {"uid": "u", "generation": 1}
    study = read_study(document)
    assert study.spec is None
    assert words in str(study.fault)


def test_a_resource_without_any_spec_is_a_fault_too() -> None:
    """The schema refuses it today; an object stored under an older schema may still come."""
    study = read_study({"metadata": {"name": "x", "namespace": "y", "uid": "u", "generation": 1}})
    assert study.fault is not None
    assert "spec.objectives: Field required" in study.fault
