"""Names of what the operator makes, as functions of the study: a crash between two steps leaves nothing to remember."""

import hashlib
import re

LABEL_STUDY = "tuningstudy.io/study"
LABEL_STUDY_UID = "tuningstudy.io/study-uid"
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
LABEL_KUEUE_QUEUE = "kueue.x-k8s.io/queue-name"
ANNOTATION_WORKER_INDEX = "tuningstudy.io/worker-index"
MANAGED_BY = "tuningstudy-operator"
FINALIZER = "tuningstudy.io/finalizer"
WORKER_SECRET = "tuningstudy-worker"  # noqa: S105 - the name of a Secret, not a secret
WORKER_SECRET_KEY = "url"  # noqa: S105
WORKER_SECRET_CA = "ca.crt"  # noqa: S105
"""The key of the authority's certificate, where the operator was given one."""
CONTAINER = "trial"
CODE_ARCHIVE = "code.zip"
"""The key of a ConfigMap (spec.trial.code) under which a folder with packages lies; its other keys are modules."""
CHARTS_ROLE = "tuningstudy_charts"
"""The charts server's role in the database."""

_STUDY = re.compile(r"(?=.{1,63}\Z)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_POSTGRES_LIMIT = 63
_CUT = "tuningx_"
_LABEL_LIMIT = 63
_UID_DIGITS = 12
"""Of 48 bits: among a million studies of a namespace whose names begin alike, two share a name with a chance of 1 in 500."""
_JOB_LIMIT = 57
"""A Job's name becomes a label of its pods (63 characters), and a pod's name adds six."""


def is_study_name(name: str) -> bool:
    """True if a study may be called so: as the API server has it (RFC 1123, subdomain), and as long as a label may be."""
    return _STUDY.fullmatch(name) is not None


def worker_job(*, study: str, uid: str, index: int) -> str:
    """Name of the Job of a worker slot. The uid keeps a study from meeting Jobs of a namesake, be it deleted or cut here."""
    suffix = f"-{_digest(uid, length=_UID_DIGITS)}-{index}"
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
    """Return the schema, and name of the worker role, of a namespace.

    Namespaces have no underscores, so the translation keeps different names different. One that is too long for Postgres'
    63 bytes is cut, and ends in 128 bits of its digest: under a prefix that the translation gives no namespace, so that
    nobody can choose a name that another one is cut to.
    """
    name = _whole_schema(namespace)
    if len(name) <= _POSTGRES_LIMIT:
        return name
    digest = _digest(namespace, length=32)
    start = namespace.replace("-", "_")[: _POSTGRES_LIMIT - len(_CUT) - len(digest) - 1]
    return f"{_CUT}{start}_{digest}"


def earlier_database_schema(namespace: str) -> str:
    """Return the name that versions up to 0.1 gave the schema: of a long namespace, one that others may have, too."""
    name = _whole_schema(namespace)
    if len(name) <= _POSTGRES_LIMIT:
        return name
    return f"{name[: _POSTGRES_LIMIT - 9]}_{_digest(namespace, length=8)}"


def may_be_a_cut_schema(schema: str) -> bool:
    """True if versions up to 0.1 may have made a schema of this name for a namespace whose name they cut."""
    return len(schema) == _POSTGRES_LIMIT and re.fullmatch(r"tuning_.*_[0-9a-f]{8}", schema) is not None


def _whole_schema(namespace: str) -> str:
    return "tuning_" + namespace.replace("-", "_")


def _digest(text: str, *, length: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:length]
