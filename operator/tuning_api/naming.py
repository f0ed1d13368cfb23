"""Names of what the operator makes, as functions of the study: a crash between two steps leaves nothing to remember."""

import hashlib

LABEL_STUDY = "tuningstudy.io/study"
LABEL_STUDY_UID = "tuningstudy.io/study-uid"
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
LABEL_KUEUE_QUEUE = "kueue.x-k8s.io/queue-name"
ANNOTATION_WORKER_INDEX = "tuningstudy.io/worker-index"
MANAGED_BY = "tuningstudy-operator"
FINALIZER = "tuningstudy.io/finalizer"
WORKER_SECRET = "tuningstudy-worker"  # noqa: S105 - the name of a Secret, not a secret
WORKER_SECRET_KEY = "url"  # noqa: S105
CONTAINER = "trial"
CODE_ARCHIVE = "code.zip"
"""The key of a ConfigMap (spec.trial.code) under which a folder with packages lies; its other keys are modules."""
CHARTS_ROLE = "tuningstudy_charts"
"""The charts server's role in the database."""

_POSTGRES_LIMIT = 63
_LABEL_LIMIT = 63
_JOB_LIMIT = 57
"""A Job's name becomes a label of its pods (63 characters), and a pod's name adds six."""


def worker_job(*, study: str, uid: str, index: int) -> str:
    """Name of the Job of a worker slot. The uid keeps a study from meeting Jobs of a deleted namesake."""
    suffix = f"-{_digest(uid)}-{index}"
    return study[: _JOB_LIMIT - len(suffix)].rstrip("-.") + suffix


def worker_labels(*, study: str, uid: str) -> dict[str, str]:
    """Labels of a study's Jobs and pods."""
    return {LABEL_MANAGED_BY: MANAGED_BY, LABEL_STUDY: study, LABEL_STUDY_UID: uid}


def worker_selector(*, uid: str) -> str:
    """Label selector that finds a study's Jobs and pods."""
    return f"{LABEL_MANAGED_BY}={MANAGED_BY},{LABEL_STUDY_UID}={uid}"


def code_config_map(*, study: str, archive: bytes) -> str:
    """Name of the ConfigMap of a study's code: other code has another one, so that workers keep what they began with."""
    digest = hashlib.sha256(study.encode() + b"\0" + archive).hexdigest()[:10]
    suffix = f"-code-{digest}"
    return study[: _LABEL_LIMIT - len(suffix)].rstrip("-.") + suffix


def database_schema(namespace: str) -> str:
    """Schema, and name of the worker role, of a namespace.

    Namespaces have no underscores, so the translation keeps different names different; one that is too long for
    Postgres' 63 bytes ends in a digest instead.
    """
    name = "tuning_" + namespace.replace("-", "_")
    if len(name) <= _POSTGRES_LIMIT:
        return name
    return f"{name[: _POSTGRES_LIMIT - 9]}_{_digest(namespace, length=8)}"


def _digest(text: str, *, length: int = 5) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:length]
