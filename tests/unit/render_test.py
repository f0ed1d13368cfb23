"""The Job of a worker: safe by default, and the user's pod template underneath."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.builders import DIGITS_TRIAL, a_spec, a_study

from tuning_api import naming
from tuning_operator.render.job import CERTIFICATE_PATH, WorkerDefaults, merge, worker_job
from tuning_operator.render.secret import worker_secret

TEMPORARY, SHARED_MEMORY = "/tmp", "/dev/shm"  # noqa: S108 - paths in a pod
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
        {"spec": {"containers": [{"name": "trial", "env": [{"name": ["A"]}]}]}},
        {"spec": {"containers": [{"name": "trial", "volumeMounts": [{"name": "data"}]}]}},
        {"spec": {"containers": [{"name": {}}]}},
        {"metadata": []},
    ],
    ids=[
        "no mapping",
        "no list",
        "no name",
        "environment as a mapping",
        "a list as a name",
        "no path",
        "a mapping as a name",
        "metadata as a list",
    ],
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


def test_a_volume_may_be_mounted_in_several_places() -> None:
    """The place tells mounts apart, and not the volume; where the worker has its own, that one stays."""
    theirs = [
        {"name": "data", "mountPath": "/data", "subPath": "a"},
        {"name": "data", "mountPath": "/more", "subPath": "b"},
        {"name": "tmp", "mountPath": "/cache"},
        {"name": "data", "mountPath": SHARED_MEMORY},
    ]
    template = {"spec": {"containers": [{"name": "trial", "volumeMounts": theirs}]}}
    mounts = {item["mountPath"]: item for item in container(podTemplate=template)["volumeMounts"]}
    assert [mounts[item["mountPath"]] for item in theirs[:3]] == theirs[:3]
    assert mounts[SHARED_MEMORY]["name"] == "shared-memory"
    assert mounts[TEMPORARY] == {"name": "tmp", "mountPath": TEMPORARY}


@pytest.mark.parametrize(
    "credentials", [[{"name": "mine"}], [{"name": ["mine"]}], [{}], ["mine"], {"name": "mine"}, None]
)
def test_registry_credentials_are_added_to_those_of_the_platform(credentials: Any) -> None:
    """What cannot be merged by its name gives way."""
    spec = a_spec(trial=DIGITS_TRIAL | {"podTemplate": {"spec": {"imagePullSecrets": credentials}}})
    defaults = WorkerDefaults("trial:1", image_pull_secrets=("platform",))
    names = worker_job(a_study(spec=spec), index=0, defaults=defaults)["spec"]["template"]["spec"]["imagePullSecrets"]
    assert names == ([{"name": "mine"}] if credentials == [{"name": "mine"}] else []) + [{"name": "platform"}]


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
    [("research", "tuning_research"), ("team-a", "tuning_team_a"), ("n" * 63, f"tuningx_{'n' * 22}_")],
)
def test_schemas_fit_postgres(namespace: str, schema: str) -> None:
    """63 bytes, and different namespaces stay different."""
    assert naming.database_schema(namespace).startswith(schema)
    assert len(naming.database_schema(namespace)) <= 63
    assert naming.database_schema("n" * 63) != naming.database_schema("n" * 62 + "m")


LONG = "customer-acme-production-machine-learning-research-platform-eu"
NAMESPACES = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", fullmatch=True)


@given(
    st.lists(NAMESPACES | st.sampled_from([LONG, f"{'n' * 62}x", f"{'n' * 62}y"]), unique=True, max_size=20), st.data()
)
def test_no_namespace_can_be_given_the_name_of_another_ones_schema(namespaces: list[str], data: st.DataObject) -> None:
    """Not by cutting, and not by calling a namespace as the schema of another one is called."""
    schemas = [naming.database_schema(namespace) for namespace in namespaces]
    assert len(set(schemas)) == len(schemas)
    if schemas:
        mimic = data.draw(st.sampled_from(schemas)).replace("_", "-")
        for name in (mimic, mimic.partition("-")[2]):
            assert name in namespaces or naming.database_schema(name) not in schemas


def test_what_an_earlier_version_may_have_cut_is_known_by_its_shape() -> None:
    """A namespace of 56 letters may be called as one of 62 was cut to."""
    earlier = naming.earlier_database_schema(LONG)
    assert earlier == "tuning_customer_acme_production_machine_learning_resea_561b7b26"
    assert naming.database_schema("customer-acme-production-machine-learning-resea-561b7b26") == earlier
    assert naming.may_be_a_cut_schema(earlier)
    assert not naming.may_be_a_cut_schema(naming.database_schema(LONG))
    assert not naming.may_be_a_cut_schema("tuning_research_561b7b26")


def test_the_secret_holds_the_url_under_one_key() -> None:
    """The Job and the Secret agree on names."""
    secret = worker_secret(namespace="research", url="postgresql://x", certificate=None)
    assert (secret["metadata"]["name"], secret["stringData"]) == (naming.WORKER_SECRET, {"url": "postgresql://x"})


def test_a_certificate_is_in_the_secret_and_where_the_url_says() -> None:
    """Workers verify the database by the operator's own authority."""
    secret = worker_secret(namespace="research", url="postgresql://x", certificate="PEM")
    assert secret["stringData"]["ca.crt"] == "PEM"
    defaults = replace(DEFAULTS, certificate="PEM")
    template = worker_job(a_study(spec=a_spec()), index=0, defaults=defaults)["spec"]["template"]["spec"]
    volume = next(item for item in template["volumes"] if item["name"] == "database-certificate")
    mount = next(item for item in template["containers"][0]["volumeMounts"] if item["name"] == "database-certificate")
    assert volume["secret"] == {"secretName": naming.WORKER_SECRET, "items": [{"key": "ca.crt", "path": "ca.crt"}]}
    assert (f"{mount['mountPath']}/ca.crt", mount["readOnly"]) == (CERTIFICATE_PATH, True)
    assert "database-certificate" not in {item["name"] for item in pod()["volumes"]}


def test_the_platform_says_how_much_a_worker_may_write() -> None:
    """Else one trial fills the node's disk, and the pods of others are evicted."""
    defaults = replace(DEFAULTS, tmp_size="20Gi")
    volumes = worker_job(a_study(spec=a_spec()), index=0, defaults=defaults)["spec"]["template"]["spec"]["volumes"]
    assert next(item for item in volumes if item["name"] == "tmp") == {"name": "tmp", "emptyDir": {"sizeLimit": "20Gi"}}
