"""The systems that need a cluster: our executor, and a Job for each trial; on this machine's node, whose pods are real."""

import json
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from cluster import doctor, engines, images, release
from cluster.kubectl import Kubectl
from cluster.machine import HOST_ADDRESS
from cluster.node import Node
from kubernetes import client, config, watch
from sqlalchemy.engine import URL
from tests.support.cluster import install_crd
from tests.support.operator_process import OperatorProcess
from tests.support.postgres import PostgresServer, running_server

from bench.overhead_trials import TASKS
from bench.systems import SECONDS_PER_STUDY, Document, Ran, Row, row_of, rows, storage_of
from tuning_api import naming
from tuning_api.crd import crd
from tuning_operator.render.job import USER_ID

THREADS = [{"name": "OMP_NUM_THREADS", "value": "1"}]
_LABEL = "bench.tuningstudy.io/trial"
_PACE = {"TUNING_RESYNC_SECONDS": "5", "TUNING_STATUS_SECONDS": "20"}
"""The operator's own defaults; tests are in more of a hurry."""


def reason_against_node() -> str | None:
    """Why no pod can run here, or None."""
    return doctor.reason_against_cluster() or engines.reason_against_building()


@contextmanager
def node() -> Iterator[Node]:
    """The node, with the images; it is started where it does not run, and left as it was found.

    Raises:
        RuntimeError: the chart is installed on it, and its operator would run our studies too.
    """
    this = Node()
    was_running = this.is_whole()
    if not was_running:
        this.start()
    try:
        if this.kubectl.run("get", "deployments", "-n", release.NAMESPACE, "-o", "name").stdout.strip():
            raise RuntimeError(
                f"an operator is installed on the node: helm uninstall {release.NAME}, and measure again"
            )
        images.bring_all(this.machine)
        yield this
    finally:
        if not was_running:
            this.stop()


@dataclass(frozen=True)
class Cluster:
    """A node on which our operator runs studies, each kept in one Postgres."""

    kubectl: Kubectl
    namespace: str
    database: URL


@contextmanager
def cluster(node: Node, server: PostgresServer, code: Path) -> Iterator[Cluster]:
    """The operator as a process, and a namespace with the code of the trials; pods reach the Postgres of the host."""
    kubectl, name = node.kubectl, f"bench-{secrets.token_hex(3)}"
    had_definition = kubectl.run("get", "crd", crd()["metadata"]["name"]).returncode == 0
    if not had_definition:  # one that a release left is its own
        install_crd(kubectl)
    release.ensure_namespace(kubectl, name)
    kubectl("create", "configmap", "code", "-n", name, f"--from-file={code}")
    database = server.create_database()
    settings = _PACE | {"TUNING_TRIAL_IMAGE": images.TRIAL.name, "TUNING_NAMESPACES": name}
    try:
        with (
            tempfile.TemporaryDirectory(prefix="tuningstudy-bench-") as folder,
            OperatorProcess(node.kubeconfig, database, Path(folder), settings=settings),
        ):
            try:
                yield Cluster(kubectl, name, database)
            finally:  # while the operator is there, which lets go of them
                kubectl.run("delete", "tuningstudies", "--all", "-n", name, "--timeout=90s")
    finally:
        kubectl.run("delete", "namespace", name, "--timeout=120s")
        if not had_definition:
            kubectl.run("delete", "crd", crd()["metadata"]["name"], "--timeout=60s")


@contextmanager
def places(code: Path) -> Iterator[tuple[PostgresServer, Cluster | None]]:
    """A Postgres for all systems; and where pods can run, a cluster that reaches it."""
    if reason_against_node():
        with running_server() as server:
            yield server, None
        return
    with node() as this, running_server(HOST_ADDRESS) as server, cluster(this, server, code) as there:
        yield server, there


def kubernetes(cluster: Cluster, document: Document) -> Ran:
    """A study from apply to its end.

    Raises:
        RuntimeError: it did not complete.
    """
    name = f"{document['metadata']['name']}-{secrets.token_hex(3)}"
    trial = document["spec"]["trial"] | {
        "code": {"configMapName": "code"},
        "podTemplate": {"spec": {"containers": [{"name": naming.CONTAINER, "env": THREADS}]}},
    }
    launched = time.time()
    applied = cluster.kubectl.apply(
        document
        | {
            "metadata": {"name": name, "namespace": cluster.namespace},
            "spec": document["spec"] | {"trial": trial},
        }
    )
    if applied.returncode:
        raise RuntimeError(f"the study was refused: {applied.stderr}")

    # NB: one process that watches. To ask again and again would keep a core busy, one of two.
    there = ("-n", cluster.namespace, f"tuningstudy/{name}")
    waited = cluster.kubectl.run("wait", "--for=condition=Complete", *there, f"--timeout={SECONDS_PER_STUDY}s")
    if waited.returncode:
        raise RuntimeError(f"study {name} did not complete: {cluster.kubectl.get(*there).get('status')}")
    return Ran(launched, rows(storage_of(cluster.database, naming.database_schema(cluster.namespace)), name))


def job_for_each_trial(
    cluster: Cluster, server: PostgresServer, code: Path, task: str, *, workers: int, trials: int
) -> Ran:
    """Suggest, create a Job, wait for its pod's end, tell, delete the Job: as leanly as it can be done.

    Nothing of it is Katib's: no suggestion service, no sidecar, no custom resources. It asks and tells here, in one process
    that watches the pods; the value comes with the pod's status.
    """
    return _Jobs(cluster, storage_of(server.create_database()), code, task, trials=trials).run(workers)


class _Jobs:
    """A study whose trials are Jobs."""

    def __init__(self, cluster: Cluster, storage: Any, code: Path, task: str, *, trials: int) -> None:
        self._namespace = cluster.namespace
        configuration = client.Configuration()
        config.load_kube_config(config_file=str(cluster.kubectl.kubeconfig), client_configuration=configuration)
        api = client.ApiClient(configuration)
        self._batch, self._core = client.BatchV1Api(api), client.CoreV1Api(api)
        self._study = optuna.create_study(study_name=task, storage=storage, direction="maximize")
        self._code, self._task = code, task
        self._left = trials
        self._running: dict[str, tuple[int, optuna.Trial]] = {}
        self._slots: dict[int, int] = {}

    def run(self, workers: int) -> Ran:
        launched = time.time()
        for slot in range(min(workers, self._left)):
            self._begin(slot)
        pods = watch.Watch().stream(
            self._core.list_namespaced_pod, self._namespace, label_selector=_LABEL, timeout_seconds=SECONDS_PER_STUDY
        )
        for event in pods:
            name = event["object"].metadata.labels[_LABEL]
            if event["type"] == "DELETED" or name not in self._running:
                continue
            if event["object"].status.phase == "Failed":
                raise RuntimeError(f"pod {event['object'].metadata.name} failed: {event['object'].status}")
            if event["object"].status.phase == "Succeeded":
                self._end(name, event["object"])
            if not self._running:
                break
        return Ran(launched, self._rows())

    def _begin(self, slot: int) -> None:
        self._left -= 1
        trial = self._study.ask()
        params = TASKS[self._task][0](trial)
        name = f"trial-{secrets.token_hex(4)}"
        self._running[name] = slot, trial
        self._slots[trial.number] = slot
        command = ["python", "-c", self._code.read_text(), self._task, json.dumps(params)]
        job: Any = _job(name, command)  # the client takes documents too, and its types do not say so
        self._batch.create_namespaced_job(self._namespace, job)

    def _end(self, name: str, pod: Any) -> None:
        slot, trial = self._running.pop(name)
        self._study.tell(trial, float(pod.status.container_statuses[0].state.terminated.message))
        self._batch.delete_namespaced_job(name, self._namespace, propagation_policy="Background")
        if self._left:
            self._begin(slot)

    def _rows(self) -> list[Row]:
        return [row_of(trial, str(self._slots[trial.number])) for trial in self._study.get_trials(deepcopy=False)]


def _job(name: str, command: list[str]) -> Document:
    container = {
        "name": "trial",
        "image": images.TRIAL.name,
        "command": command,
        "env": [*THREADS, {"name": "HOME", "value": "/tmp"}],  # noqa: S108
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    pod = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER_ID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"backoffLimit": 0, "template": {"metadata": {"labels": {_LABEL: name}}, "spec": pod}},
    }
