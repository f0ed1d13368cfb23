"""The Job of one worker slot, under the restricted Pod Security standard."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, TypeGuard

from tuning_api import naming
from tuning_api.contract import Env, ExitCode
from tuning_api.spec import GROUP, KIND, VERSION
from tuning_operator.model import Study

CODE_PATH = "/opt/tuningstudy/code"
PYTHON_PATH = f"{CODE_PATH}:{CODE_PATH}/{naming.CODE_ARCHIVE}"
"""The ConfigMap's files, and the archive among them: Python imports from it, and passes over it where there is none."""
CHECKPOINTS_PATH = "/var/lib/tuningstudy/checkpoints"
CERTIFICATE_PATH = f"/etc/tuningstudy/database/{naming.WORKER_SECRET_CA}"
"""Of the authority that signed the database's certificate; the workers' URL names it (libpq's `sslrootcert`)."""
SCRATCH_PATH = "/tmp/trials"  # noqa: S108 - a volume of the pod's own
USER_ID = 10001
GRACE_SECONDS = 120
SHARED_MEMORY = "2Gi"
"""DataLoader workers pass batches through /dev/shm, and a container's default is 64 MB. Counts as memory of the pod."""
KEEP_FINISHED_SECONDS = 86_400
THREADS = "OMP_NUM_THREADS"
"""PyTorch starts a thread for each core of the node, whatever the pod's CPU limit: threads that are throttled spin. So
there are as many as the limit, rounded up; without a limit, as many as the node has cores, which is PyTorch's default."""
_CPU_LIMIT = {"containerName": naming.CONTAINER, "resource": "limits.cpu", "divisor": "1"}

Document = dict[str, Any]


@dataclass(frozen=True)
class WorkerDefaults:
    """What the operator's settings say about all workers."""

    image: str
    image_pull_policy: str | None = None
    image_pull_secrets: tuple[str, ...] = ()
    certificate: str | None = None
    """Of the authority that signed the database's certificate, as PEM."""
    tmp_size: str | None = None
    """How much a worker may write to /tmp, as a quantity; None: as much as the node has."""


def worker_job(study: Study, *, index: int, defaults: WorkerDefaults) -> Document:
    """The Job of a worker slot.

    Raises:
        ValueError: the study has no valid spec.
    """
    if study.spec is None:
        msg = f"{study.key} has no valid spec"
        raise ValueError(msg)
    labels = naming.worker_labels(study=study.key.name, uid=study.uid)
    queue = {naming.LABEL_KUEUE_QUEUE: study.spec.queue_name} if study.spec.queue_name else {}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": naming.worker_job(study=study.key.name, uid=study.uid, index=index),
            "namespace": study.key.namespace,
            "labels": labels | queue,
            "annotations": {naming.ANNOTATION_WORKER_INDEX: str(index)},
            "ownerReferences": [_owner_reference(study)],
        },
        "spec": {
            "completions": 1,
            "parallelism": 1,
            # Whatever may fail a pod is either ignored below or a reason for the controller to think.
            "backoffLimit": 0,
            "podReplacementPolicy": "Failed",
            "ttlSecondsAfterFinished": KEEP_FINISHED_SECONDS,
            "podFailurePolicy": {"rules": _failure_rules()},
            "template": _pod_template(study, labels=labels, defaults=defaults),
        },
    }


def clashes(job: Document) -> Iterator[str]:
    """Names in a Job that have two sources, such as a podTemplate's beside the worker's own, in words."""
    pod = job["spec"]["template"]["spec"]
    for volume in pod["volumes"]:
        yield from _clash(f"volumes: {volume['name']}", volume)
    for container in pod["containers"]:
        for variable in container.get("env", []):
            origin = variable.get("valueFrom")
            sources = {"value": variable.get("value") or None} | (origin if isinstance(origin, dict) else {})
            yield from _clash(f"containers: env: {variable['name']}", sources)


def _clash(name: str, sources: Document) -> Iterator[str]:
    found = sorted(key for key, value in sources.items() if key != "name" and value is not None)
    if len(found) > 1:
        yield (
            f"spec.trial.podTemplate.spec.{name} has {' and '.join(found)}, and what has one name has one source: remove"
            " one, or choose another name where the worker has its own by this one"
        )


def _failure_rules() -> list[Document]:
    """In this order: a drain or a preemption is nobody's fault, a misconfigured worker will not heal (KEP-3329)."""
    return [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "Ignore", "onExitCodes": _exits_with(ExitCode.INTERRUPTED)},
        {"action": "FailJob", "onExitCodes": _exits_with(ExitCode.MISCONFIGURED)},
    ]


def _exits_with(code: ExitCode) -> Document:
    return {"containerName": naming.CONTAINER, "operator": "In", "values": [int(code)]}


def _owner_reference(study: Study) -> Document:
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": KIND,
        "name": study.key.name,
        "uid": study.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def _pod_template(study: Study, *, labels: dict[str, str], defaults: WorkerDefaults) -> Document:
    if study.spec is None:
        return {}
    trial = study.spec.trial
    container: Document = {
        "name": naming.CONTAINER,
        "image": trial.image or defaults.image,
        "command": ["python", "-m", "tuning_trial"],
        "env": _environment(study),
        "resources": {"limits": {trial.gpu_resource: str(trial.gpus)}} if trial.gpus else {},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": _mounts(study, defaults),
    }
    if defaults.image_pull_policy and not trial.image:
        container["imagePullPolicy"] = defaults.image_pull_policy
    ours: Document = {
        "metadata": {"labels": labels},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": GRACE_SECONDS,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": USER_ID,
                "runAsGroup": USER_ID,
                "fsGroup": USER_ID,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": _volumes(study, defaults),
        },
    }
    if defaults.image_pull_secrets:
        ours["spec"]["imagePullSecrets"] = [{"name": name} for name in defaults.image_pull_secrets]
    return merge(trial.pod_template or {}, ours)


def _environment(study: Study) -> list[Document]:
    secret = {"name": naming.WORKER_SECRET, "key": naming.WORKER_SECRET_KEY}
    environment: list[Document] = [
        {"name": Env.DATABASE_URL, "valueFrom": {"secretKeyRef": secret}},
        {"name": Env.STUDY, "value": study.key.name},
        {"name": Env.WORKER_ID, "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
        {"name": Env.WORKER_NAME, "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": Env.SCRATCH, "value": SCRATCH_PATH},
        # NB: Optuna 5 stores naive UTC (optuna/optuna#6708); a container in another zone would shift times in silence.
        {"name": "TZ", "value": "UTC"},
        {"name": "HOME", "value": "/tmp"},  # noqa: S108
        {"name": "PYTHONUNBUFFERED", "value": "1"},
        # Asking the driver instead of the runtime keeps CUDA out of the parent, which would poison its forks.
        {"name": "PYTORCH_NVML_BASED_CUDA_CHECK", "value": "1"},
    ]
    if _code(study):
        environment.append({"name": "PYTHONPATH", "value": PYTHON_PATH})
    if place := _place_of_checkpoints(study):
        environment.append({"name": Env.CHECKPOINTS, "value": place})
    if THREADS not in _names_of_users_environment(study):
        environment.append({"name": THREADS, "valueFrom": {"resourceFieldRef": _CPU_LIMIT}})
    return environment


def _names_of_users_environment(study: Study) -> set[str]:
    template = (study.spec.trial.pod_template or {}) if study.spec else {}
    containers = template.get("spec", {}).get("containers", [])
    return {item.get("name") for container in containers for item in container.get("env", [])}


def _volumes(study: Study, defaults: WorkerDefaults) -> list[Document]:
    volumes: list[Document] = [
        {"name": "tmp", "emptyDir": {"sizeLimit": defaults.tmp_size} if defaults.tmp_size else {}},
        {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": SHARED_MEMORY}},
    ]
    if defaults.certificate:
        item = {"key": naming.WORKER_SECRET_CA, "path": naming.WORKER_SECRET_CA}
        volumes.append(
            {"name": "database-certificate", "secret": {"secretName": naming.WORKER_SECRET, "items": [item]}}
        )
    if name := _code(study):
        volumes.append({"name": "code", "configMap": {"name": name}})
    if claim := _claim(study):
        volumes.append({"name": "checkpoints", "persistentVolumeClaim": {"claimName": claim}})
    return volumes


def _mounts(study: Study, defaults: WorkerDefaults) -> list[Document]:
    mounts: list[Document] = [
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
        {"name": "shared-memory", "mountPath": "/dev/shm"},  # noqa: S108
    ]
    if defaults.certificate:
        mounts.append(
            {"name": "database-certificate", "mountPath": str(PurePosixPath(CERTIFICATE_PATH).parent), "readOnly": True}
        )
    if _code(study):
        mounts.append({"name": "code", "mountPath": CODE_PATH, "readOnly": True})
    if _claim(study):
        mounts.append({"name": "checkpoints", "mountPath": CHECKPOINTS_PATH})
    return mounts


def _code(study: Study) -> str | None:
    return study.spec.trial.code.config_map_name if study.spec and study.spec.trial.code else None


def _place_of_checkpoints(study: Study) -> str | None:
    if _claim(study):
        return CHECKPOINTS_PATH
    return study.spec.trial.checkpoints.place if study.spec and study.spec.trial.checkpoints else None


def _claim(study: Study) -> str | None:
    checkpoints = study.spec.trial.checkpoints if study.spec else None
    return checkpoints.persistent_volume_claim if checkpoints else None


def merge(theirs: Document, ours: Document) -> Document:
    """Our document over the user's: mappings are merged, lists of named things by name, and what we set wins."""
    merged = copy.deepcopy(theirs)
    for key, value in ours.items():
        before = merged.get(key)
        if isinstance(before, dict) and isinstance(value, dict):
            merged[key] = merge(before, value)
        elif _are_named(before, key) and _are_named(value, key):
            merged[key] = _merge_by_name(before, value, _name_in(key))
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def _name_in(key: str) -> str:
    """Which field tells the items of a list apart (the API's patchMergeKey): a volume may be mounted in several places."""
    return "mountPath" if key == "volumeMounts" else "name"


def _are_named(value: object, key: str) -> TypeGuard[list[Document]]:
    name = _name_in(key)
    return isinstance(value, list) and all(isinstance(item, dict) and isinstance(item.get(name), str) for item in value)


def _merge_by_name(theirs: list[Document], ours: list[Document], name: str) -> list[Document]:
    named = {item[name]: item for item in theirs}
    for item in ours:
        named[item[name]] = merge(named.get(item[name], {}), item)
    return list(named.values())
