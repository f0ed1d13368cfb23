"""The cluster gateway asks for what it means, and for nothing that a name could make of it."""

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.support.builders import a_study

from tuning_operator.cluster import Cluster
from tuning_operator.errors import Refused
from tuning_operator.executors.kubernetes import KubernetesExecutor
from tuning_operator.model import StudyKey
from tuning_operator.render.job import WorkerDefaults


@dataclass
class Answer:
    """An answer of the API server."""

    document: Any = field(default_factory=dict)
    status: int = 200

    def read(self) -> bytes:
        """The body."""
        return json.dumps(self.document).encode()


class Client:
    """Stands for the client's transport: answers one after the other, and remembers what was asked."""

    def __init__(self, *answers: Answer) -> None:
        self.user_agent = ""
        self.requests: list[tuple[str, str, dict[str, str], Any]] = []
        self._answers = list(answers)

    def param_serialize(self, method: str, path: str, **rest: Any) -> tuple[str, str, dict[str, str], Any]:
        """The request."""
        return method, path, dict(rest["query_params"]), rest["body"]

    def call_api(self, *request: Any, **_: Any) -> Answer:
        """The next answer."""
        self.requests.append(request)
        return self._answers.pop(0)


def a_cluster(*answers: Answer) -> tuple[Cluster, Client]:
    """A gateway and what it talks to."""
    client = Client(*answers)
    return Cluster(client), client  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["../../victim/tuningstudies/v", "a?b", "a#b", "a%2fb", "a;b", "a b"])
def test_a_name_is_a_part_of_the_path_whatever_is_in_it(name: str) -> None:
    """The operator may read all namespaces, and names may come from Jobs that a tenant wrote."""
    cluster, client = a_cluster(Answer(status=404))
    assert cluster.study(StudyKey("mallory", name)) is None
    ((_, path, _, _),) = client.requests
    prefix = "/apis/tuningstudy.io/v1alpha1/namespaces/mallory/tuningstudies/"
    assert path.startswith(prefix)
    assert not set(path.removeprefix(prefix)) & set("/?#; ")


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_a_name_that_goes_up_is_refused(name: str) -> None:
    """Dots cannot be quoted: a path with them means another one."""
    cluster, client = a_cluster()
    with pytest.raises(Refused):
        cluster.study(StudyKey("mallory", name))
    assert not client.requests


def test_an_answer_about_another_object_is_refused() -> None:
    """Whatever made the API server send it."""
    cluster, _ = a_cluster(Answer({"metadata": {"namespace": "victim", "name": "digits"}}))
    with pytest.raises(Refused, match="another object than TuningStudy mallory/digits"):
        cluster.study(StudyKey("mallory", "digits"))


def test_a_list_is_read_by_the_page_and_without_what_runs() -> None:
    """A thousand Jobs may have a large pod template each."""
    template = {"template": {"metadata": {}, "spec": {"containers": []}}, "suspend": True}
    pages = [
        Answer({"metadata": {"continue": "next"}, "items": [{"metadata": {"name": "a"}, "spec": template}]}),
        Answer({"metadata": {}, "items": [{"metadata": {"name": "b"}, "spec": template}]}),
    ]
    cluster, client = a_cluster(*pages)
    found = cluster.jobs("research", selector="a=b")
    assert found == [{"metadata": {"name": name}, "spec": {"suspend": True}} for name in ("a", "b")]
    assert [query.get("continue") for _, _, query, _ in client.requests] == [None, "next"]


def test_a_status_is_sent_alone() -> None:
    """What a tenant wrote is not sent back: it may be large, and too deep for the client."""
    cluster, client = a_cluster(Answer())
    cluster.write_status(StudyKey("research", "digits"), version="7", status={"phase": "Running"})
    ((method, path, _, body),) = client.requests
    assert (method, path.rpartition("/")[2]) == ("PUT", "status")
    assert body["metadata"] == {"namespace": "research", "name": "digits", "resourceVersion": "7"}
    assert set(body) == {"apiVersion", "kind", "metadata", "status"}


def an_executor(*answers: Answer) -> KubernetesExecutor:
    """An executor that starts workers."""
    cluster, _ = a_cluster(*answers)
    nothing: Any = None
    return KubernetesExecutor(cluster, tenancy=nothing, worker_url=nothing, defaults=WorkerDefaults(image="trial:1"))


def test_a_job_that_an_earlier_pass_created_is_a_worker() -> None:
    """It did not live to see it."""
    ours = {"metadata": {"ownerReferences": [{"uid": a_study().uid}]}}
    an_executor(Answer(status=409), Answer({"items": [ours]})).start_worker(a_study(), 0)


@pytest.mark.parametrize("metadata", [{}, {"ownerReferences": [{"uid": "another"}]}], ids=["nobody's", "another's"])
def test_a_job_of_somebody_else_is_said_to_be_in_the_way(metadata: dict[str, Any]) -> None:
    """Else the study would wait for a worker that it does not have, for ever and without a word."""
    with pytest.raises(Refused, match=r"there is a Job digits-[0-9a-f]{12}-0 that does not belong to this study"):
        an_executor(Answer(status=409), Answer({"items": [{"metadata": metadata}]})).start_worker(a_study(), 0)


def test_a_job_that_is_gone_meanwhile_is_created_by_the_next_pass() -> None:
    """Deleted between the two requests."""
    executor = an_executor(Answer(status=409), Answer({"items": []}))
    executor.start_worker(a_study(), 0)
