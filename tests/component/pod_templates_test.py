"""A platform that restricts podTemplates: the real operator, and the policies that the chart makes for its account.

Then what the operator keeps of a worker's pod whatever a podTemplate says, as a real API server takes it.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from cluster.control_plane import ControlPlane
from cluster.kubectl import Kubectl
from sqlalchemy.engine import URL
from tests.support.builders import DIGITS_TRIAL, a_spec, a_study
from tests.support.operator_process import OperatorProcess, service_account_kubeconfig
from tests.support.pod_templates import IMAGE, TWO_SOURCES, pod, trial
from tests.support.process_kubelet import ProcessKubelet
from tests.support.study_on_cluster import StudyOnCluster

from tuning_operator.render.job import WorkerDefaults, worker_job

Document = dict[str, Any]
EVERYTHING = """
spec:
  serviceAccountName: ci-deployer
  hostPID: true
  volumes:
    - {name: token, projected: {sources: [{serviceAccountToken: {path: token, expirationSeconds: 7200}}]}}
    - {name: host, hostPath: {path: /}}
    - {name: other, secret: {secretName: prod-credentials}}
  initContainers:
    - name: root
      image: busybox
      command: [sh, -c, "chroot /h id"]
      securityContext: {runAsUser: 0, runAsNonRoot: false}
      volumeMounts: [{name: host, mountPath: /h}]
  containers:
    - name: trial
      volumeMounts: [{name: token, mountPath: /var/run/secrets/kubernetes.io/serviceaccount}]
"""


@pytest.fixture(scope="module")
def operator(
    control_plane: ControlPlane, database: URL, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OperatorProcess]:
    """The operator of a chart that was installed with podTemplates=restricted."""
    kubectl = Kubectl(control_plane.kubeconfig)
    kubeconfig = service_account_kubeconfig(control_plane, kubectl, release="restricted", restricted=True)
    settings = {"TUNING_POD_TEMPLATES": "restricted", "TUNING_POD_TEMPLATE_SECRETS": "checkpoints-s3"}
    with OperatorProcess(kubeconfig, database, tmp_path_factory.mktemp("operator"), settings) as operator:
        yield operator


@pytest.fixture
def study(kubectl: Kubectl, namespace: str, kubelet: ProcessKubelet, operator: OperatorProcess) -> StudyOnCluster:
    """A study that is not applied yet, on a running system."""
    assert kubelet.gpus > 0
    assert operator.metrics()
    return StudyOnCluster(kubectl, namespace)


def test_a_study_that_asks_for_what_it_may_runs(study: StudyOnCluster) -> None:
    """To its end: the policies hold the operator from nothing that it does."""
    template = trial(
        resources={"requests": {"cpu": "100m"}},
        env=[{"name": "MODE", "value": "fast"}],
        volumeMounts=[{"name": "cache", "mountPath": "/cache"}],
    )
    template["spec"] |= {"volumes": [{"name": "cache", "emptyDir": {"sizeLimit": "1Gi"}}], "priorityClassName": ""}
    study.apply(maxTrials=2, parallelism=1, trial=DIGITS_TRIAL | {"podTemplate": template})
    assert study.wait_for("Complete")["trials"]["finished"] == 2
    study.delete()


def test_a_study_that_asks_for_more_is_refused_before_anything_runs(study: StudyOnCluster, kubectl: Kubectl) -> None:
    """In words that name the field; no Job, no pod, no Secret is made for it."""
    study.apply(trial=DIGITS_TRIAL | {"podTemplate": yaml.safe_load(EVERYTHING)})
    message = study.wait_for_reason("InvalidSpec")
    assert "spec.trial.podTemplate.spec." in message
    assert "may not be set where podTemplates are restricted: remove it" in message
    for kind in ("jobs", "pods", "secrets"):
        assert kubectl.items(kind, "-n", study.namespace) == []


def test_a_study_runs_once_it_no_longer_asks(study: StudyOnCluster) -> None:
    """The refusal ends with its cause."""
    study.apply(maxTrials=1, parallelism=1, trial=DIGITS_TRIAL | {"podTemplate": pod(hostNetwork=True)})
    study.wait_for_reason("InvalidSpec")
    study.patch(trial={"podTemplate": None})
    study.wait_for("Complete")


def job(template: Document, **trial: Any) -> Document:
    """A worker's Job with a podTemplate under it."""
    spec = a_spec(trial=DIGITS_TRIAL | {"podTemplate": template} | trial)
    made = worker_job(a_study(spec=spec), index=0, defaults=WorkerDefaults(IMAGE))
    return made | {"metadata": made["metadata"] | {"namespace": "default"}}


def stored(kubectl: Kubectl, job: Document) -> Document:
    """A Job's pod template as the API server would store it, but for the Job's uid and the order of variables."""
    shown = kubectl("create", "--dry-run=server", "-o", "json", "-f", "-", stdin=json.dumps(job))
    template: Document = json.loads(shown)["spec"]["template"]
    for name in ("controller-uid", "batch.kubernetes.io/controller-uid"):
        del template["metadata"]["labels"][name]
    for container in template["spec"]["containers"]:
        container["env"].sort(key=lambda item: item["name"])
    return template


OURS: dict[str, Document] = {
    "the token": pod(automountServiceAccountToken=True),
    "the restart policy": pod(restartPolicy="OnFailure"),
    "the grace period": pod(terminationGracePeriodSeconds=0),
    "the links to Services": pod(enableServiceLinks=True),
    "the user": pod(securityContext={"runAsUser": 0, "runAsNonRoot": False, "fsGroup": 0, "runAsGroup": 0}),
    "seccomp": pod(securityContext={"seccompProfile": {"type": "Unconfined"}}),
    "the command and the image": trial(command=["sh"], image="evil"),
    "privileges": trial(securityContext={"allowPrivilegeEscalation": True, "readOnlyRootFilesystem": False}),
    "dropped capabilities": trial(securityContext={"capabilities": {"drop": []}}),
    "a value of the environment": trial(
        env=[{"name": "TUNING_STUDY", "value": "other"}, {"name": "PYTHONUNBUFFERED", "value": "0"}]
    ),
    "the key of the database's Secret": trial(
        env=[
            {
                "name": "TUNING_DATABASE_URL",
                "valueFrom": {"secretKeyRef": {"name": "other", "key": "other"}},
            }
        ]
    ),
    "where a volume is mounted": trial(
        volumeMounts=[{"name": "shared-memory", "mountPath": "/tmp"}]  # noqa: S108
    ),
    "the labels": {"metadata": {"labels": {"tuningstudy.io/study": "o", "tuningstudy.io/study-uid": "o"}}},
    "lists that are none": pod(imagePullSecrets=[], securityContext=None),
}


@pytest.mark.parametrize("template", OURS.values(), ids=OURS)
def test_what_the_operator_sets_wins(template: Document, kubectl: Kubectl) -> None:
    """The Job is the same as without the podTemplate."""
    assert stored(kubectl, job(template)) == stored(kubectl, job({}))


@pytest.mark.parametrize(("template", "words"), TWO_SOURCES.values(), ids=TWO_SOURCES)
def test_two_sources_under_one_name_are_refused(template: Document, words: str, kubectl: Kubectl) -> None:
    """The merge keeps both, so that nothing is replaced in silence, and the API server says which."""
    done = kubectl.run("create", "--dry-run=server", "-f", "-", stdin=json.dumps(job(template)))
    assert done.returncode != 0
    assert words in done.stderr


def test_lists_without_names_cannot_hide_the_workers_environment(kubectl: Kubectl) -> None:
    """A kubelet lets `env` win over `envFrom` (kubernetes.io/docs/concepts/configuration/secret), and ours is in `env`."""
    container = stored(kubectl, job(trial(envFrom=[{"secretRef": {"name": "other"}}])))["spec"]["containers"][0]
    assert container["envFrom"] == [{"secretRef": {"name": "other"}}]
    assert {"TUNING_DATABASE_URL", "TUNING_STUDY"} <= {item["name"] for item in container["env"]}


def test_any_really_is_any(kubectl: Kubectl) -> None:
    """Without the restriction a podTemplate may ask for an account, its token and the node: the documents say so."""
    spec = stored(kubectl, job(yaml.safe_load(EVERYTHING)))["spec"]
    assert (spec["serviceAccountName"], spec["hostPID"]) == ("ci-deployer", True)
    assert {"token", "host", "other"} <= {volume["name"] for volume in spec["volumes"]}
    assert spec["automountServiceAccountToken"] is False
