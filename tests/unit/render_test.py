"""The Job of a worker: safe by default, and the user's pod template underneath."""

from typing import Any

import pytest
from tests.support.builders import DIGITS_TRIAL, a_spec, a_study

from tuning_api import naming
from tuning_operator.render.job import WorkerDefaults, merge, worker_job
from tuning_operator.render.secret import worker_secret

DEFAULTS = WorkerDefaults(image="registry.example/trial:1", image_pull_policy="IfNotPresent")


def job(**trial: Any) -> dict[str, Any]:
    study = a_study(spec=a_spec(trial=DIGITS_TRIAL | trial))
    return worker_job(study, index=3, defaults=DEFAULTS)


def pod(**trial: Any) -> dict[str, Any]:
    spec: dict[str, Any] = job(**trial)["spec"]["template"]["spec"]
    return spec


def container(**trial: Any) -> dict[str, Any]:
    found: dict[str, Any] = next(item for item in pod(**trial)["containers"] if item["name"] == naming.CONTAINER)
    return found


def environment(**trial: Any) -> dict[str, Any]:
    return {item["name"]: item for item in container(**trial)["env"]}


def test_the_pod_meets_the_restricted_standard() -> None:
    """Pod Security 'restricted', a read-only root and no token."""
    security = pod()["securityContext"]
    assert security["runAsNonRoot"]
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container()["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod()["automountServiceAccountToken"] is False


def test_no_secret_stands_in_the_job() -> None:
    """Whoever may read Jobs must not read passwords."""
    reference = environment()["TUNING_DATABASE_URL"]
    assert reference == {
        "name": "TUNING_DATABASE_URL",
        "valueFrom": {"secretKeyRef": {"name": "tuningstudy-worker", "key": "url"}},
    }


@pytest.mark.parametrize(
    ("trial", "limits"),
    [
        ({}, {"nvidia.com/gpu": "1"}),
        ({"gpus": 2, "gpuResource": "nvidia.com/mig-1g.10gb"}, {"nvidia.com/mig-1g.10gb": "2"}),
        ({"gpus": 0}, None),
    ],
    ids=["one GPU by default", "a slice of a GPU", "no GPU"],
)
def test_gpus_are_limits(trial: dict[str, Any], limits: dict[str, str] | None) -> None:
    """Extended resources are asked for by limit."""
    assert limits == container(**trial)["resources"].get("limits")


def test_torch_gets_as_many_threads_as_the_limit_allows() -> None:
    """Without a limit Kubernetes answers with the node's cores, which is what PyTorch would take by itself."""
    field = {"containerName": "trial", "resource": "limits.cpu", "divisor": "1"}
    assert environment()["OMP_NUM_THREADS"] == {"name": "OMP_NUM_THREADS", "valueFrom": {"resourceFieldRef": field}}


def test_threads_that_a_person_chose_are_left_alone() -> None:
    """A value and a reference in one variable would be refused."""
    chosen = {"name": "OMP_NUM_THREADS", "value": "4"}
    template = {"spec": {"containers": [{"name": "trial", "env": [chosen]}]}}
    assert environment(podTemplate=template)["OMP_NUM_THREADS"] == chosen


@pytest.mark.parametrize(
    "template",
    [
        {"spec": "a pod"},
        {"spec": {"containers": {"name": "trial"}}},
        {"spec": {"containers": [{"image": "mine"}]}},
        {"spec": {"containers": [{"name": "trial", "env": {"A": "1"}}]}},
        {"metadata": []},
    ],
    ids=["no mapping", "no list", "no name", "environment as a mapping", "metadata as a list"],
)
def test_a_pod_template_that_cannot_be_merged_is_refused(template: dict[str, Any]) -> None:
    """In words, and before a Job is rendered from it."""
    with pytest.raises(ValueError, match=r"trial\.podTemplate must be a PodTemplateSpec"):
        a_spec(trial=DIGITS_TRIAL | {"podTemplate": template})


def test_an_interrupted_worker_is_not_a_failure() -> None:
    """Rules in order: disruption, interruption, misconfiguration (KEP-3329)."""
    rules = job()["spec"]["podFailurePolicy"]["rules"]
    assert [rule["action"] for rule in rules] == ["Ignore", "Ignore", "FailJob"]
    assert [rule["onExitCodes"]["values"][0] for rule in rules if "onExitCodes" in rule] == [75, 78]


def test_user_code_is_mounted_and_importable() -> None:
    """No image build is needed to try one's own model: modules are keys, a folder with packages is an archive."""
    code = {"code": {"configMapName": "my-code"}}
    assert environment(**code)["PYTHONPATH"]["value"] == "/opt/tuningstudy/code:/opt/tuningstudy/code/code.zip"
    assert {"name": "code", "configMap": {"name": "my-code"}} in pod(**code)["volumes"]


def test_checkpoints_lie_on_the_claim_and_workers_know_where() -> None:
    """Without it an interrupted trial starts from its beginning."""
    trial = {"checkpoints": {"persistentVolumeClaim": "ckpts"}}
    volume = {"name": "checkpoints", "persistentVolumeClaim": {"claimName": "ckpts"}}
    assert volume in pod(**trial)["volumes"]
    path = environment(**trial)["TUNING_CHECKPOINTS"]["value"]
    assert {"name": "checkpoints", "mountPath": path} in container(**trial)["volumeMounts"]
    assert "TUNING_CHECKPOINTS" not in environment()


def test_checkpoints_of_a_folder_lie_where_the_pod_template_mounts_it() -> None:
    """A file:// URI; percent-encoded where the path is not plain."""
    trial = {"checkpoints": {"uri": "file:///data/my%20checkpoints", "keep": 1}}
    assert environment(**trial)["TUNING_CHECKPOINTS"]["value"] == "/data/my checkpoints"
    assert "checkpoints" not in {volume["name"] for volume in pod(**trial)["volumes"]}


def test_checkpoints_in_a_bucket_need_no_volume() -> None:
    """Workers get the URI as it was written, and credentials as environment that the pod template refers to."""
    secret = {"secretRef": {"name": "checkpoints-s3"}}
    template = {"spec": {"containers": [{"name": "trial", "envFrom": [secret]}]}}
    trial = {"checkpoints": {"uri": "s3://bucket/my%20prefix"}, "podTemplate": template}
    assert environment(**trial)["TUNING_CHECKPOINTS"]["value"] == "s3://bucket/my%20prefix"
    assert container(**trial)["envFrom"] == [secret]
    assert "checkpoints" not in {volume["name"] for volume in pod(**trial)["volumes"]}


def test_the_pod_template_lies_under_ours() -> None:
    """Users add resources, volumes, tolerations and environment; they cannot take safety away by accident."""
    template = {
        "metadata": {"annotations": {"team": "vision"}},
        "spec": {
            "nodeSelector": {"gpu": "a100"},
            "automountServiceAccountToken": True,
            "containers": [
                {
                    "name": "trial",
                    "resources": {"requests": {"cpu": "2"}, "limits": {"memory": "8Gi"}},
                    "env": [{"name": "MODE", "value": "fast"}, {"name": "TZ", "value": "Europe/Berlin"}],
                },
                {"name": "sidecar", "image": "logger"},
            ],
        },
    }
    spec = pod(podTemplate=template)
    assert spec["nodeSelector"] == {"gpu": "a100"}
    assert spec["automountServiceAccountToken"] is False
    assert [item["name"] for item in spec["containers"]] == ["trial", "sidecar"]
    merged = environment(podTemplate=template)
    assert (merged["MODE"]["value"], merged["TZ"]["value"]) == ("fast", "UTC")
    assert container(podTemplate=template)["resources"] == {
        "requests": {"cpu": "2"},
        "limits": {"memory": "8Gi", "nvidia.com/gpu": "1"},
    }


def test_merging_changes_neither_side() -> None:
    """Documents are shared between passes."""
    theirs, ours = {"a": {"b": [1]}}, {"a": {"c": [2]}}
    merged = merge(theirs, ours)
    merged["a"]["b"].append(9)
    assert (theirs, ours) == ({"a": {"b": [1]}}, {"a": {"c": [2]}})


def test_a_queue_is_a_label_and_suspend_stays_kueues() -> None:
    """Kueue's webhook sets suspend; whoever sends it too fights Kueue."""
    queued = worker_job(a_study(spec=a_spec(queueName="team-a")), index=0, defaults=DEFAULTS)
    assert queued["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team-a"
    assert "suspend" not in queued["spec"]


def test_names_are_unique_to_the_study_and_short_enough() -> None:
    """A Job's name becomes a label of its pods, and a namesake's Jobs must not be met."""
    long = "a" * 63
    first = naming.worker_job(study=long, uid="uid-1", index=12345)
    other = naming.worker_job(study=long, uid="uid-2", index=12345)
    assert first != other
    assert len(first) <= 57


@pytest.mark.parametrize(
    ("namespace", "schema"),
    [("research", "tuning_research"), ("team-a", "tuning_team_a"), ("n" * 63, f"tuning_{'n' * 47}_")],
)
def test_schemas_fit_postgres(namespace: str, schema: str) -> None:
    """63 bytes, and different namespaces stay different."""
    assert naming.database_schema(namespace).startswith(schema)
    assert len(naming.database_schema(namespace)) <= 63
    assert naming.database_schema("n" * 63) != naming.database_schema("n" * 62 + "m")


def test_the_secret_holds_the_url_under_one_key() -> None:
    """The Job and the Secret agree on names."""
    secret = worker_secret(namespace="research", url="postgresql://x")
    assert (secret["metadata"]["name"], secret["stringData"]) == (naming.WORKER_SECRET, {"url": "postgresql://x"})
