"""What a study's podTemplate may set where the platform says `podTemplates: restricted`.

A list of what is allowed: a field that Kubernetes adds tomorrow is refused until somebody has thought about it. It lets a
study say where its pods run, what they use and what they mount, under the restricted Pod Security standard. It has no
other containers, no service account or token, nothing of the node, and of Secrets those that the platform names.

The same rules are written as an admission policy for the operator's own account (manifests/pod_policy.py), so that they
hold for who gets into the operator's pod, too.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from tuning_api import naming

_PATH = "spec.trial.podTemplate"
_SHOWN = 60
"""Characters of a name that a study has written, in a message."""


class Leaf(Enum):
    """A rule about a value that is told as a whole."""

    ANYTHING = auto()
    """Nothing else's rights depend on it; what it may be, the API server knows."""
    OWN_KEYS = auto()
    """Labels or annotations without a prefix: those are a person's own, and one with a prefix speaks to a program
    (kubernetes.io/docs/concepts/overview/working-with-objects/labels: syntax), such as one that injects tokens."""
    NOT_ROOT = auto()
    """A user or group that is not root."""
    SECRET = auto()
    """The name of a Secret that the platform lets studies read."""
    PULL_SECRET = auto()
    """The name of a Secret that the platform lets studies pull images with."""


@dataclass(frozen=True)
class Only:
    """One of a few values."""

    values: tuple[Any, ...]


@dataclass(frozen=True)
class Fields:
    """A mapping with these fields and no others; those of `needs` must be there."""

    by_name: Mapping[str, "Rule"]
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Each:
    """A list, and the rule for each item."""

    rule: "Rule"


Rule = Leaf | Only | Fields | Each


@dataclass(frozen=True)
class Restriction:
    """What the platform's settings add to the rules."""

    secrets: frozenset[str] = frozenset()
    """Names of Secrets that studies may read, in any namespace."""
    pull_secrets: frozenset[str] = frozenset()
    """Names of Secrets that studies may only pull images with."""

    def allows(self, name: object, rule: Leaf) -> bool:
        """Whether a Secret may be named; that of the workers is in each pod anyway."""
        readable = self.secrets | {naming.WORKER_SECRET}
        return name in (readable | self.pull_secrets if rule is Leaf.PULL_SECRET else readable)


def _free(*names: str) -> dict[str, Rule]:
    return dict.fromkeys(names, Leaf.ANYTHING)


_OWN_KEYS: dict[str, Rule] = {"labels": Leaf.OWN_KEYS, "annotations": Leaf.OWN_KEYS}
# kubectl writes creationTimestamp: null into what it makes.
METADATA: Mapping[str, Rule] = _OWN_KEYS | _free("creationTimestamp")
_SECCOMP = Fields({"type": Only(("RuntimeDefault",))}, needs=("type",))
POD_SECURITY: Mapping[str, Rule] = {
    "runAsNonRoot": Only((True,)),
    "runAsUser": Leaf.NOT_ROOT,
    "runAsGroup": Leaf.NOT_ROOT,
    "fsGroup": Leaf.NOT_ROOT,
    "seccompProfile": _SECCOMP,
    **_free("fsGroupChangePolicy", "supplementalGroups"),
}
CONTAINER_SECURITY: Mapping[str, Rule] = {
    "allowPrivilegeEscalation": Only((False,)),
    "privileged": Only((False,)),
    "readOnlyRootFilesystem": Only((True,)),
    "capabilities": Fields({"drop": Only((["ALL"],))}, needs=("drop",)),
    "runAsNonRoot": Only((True,)),
    "runAsUser": Leaf.NOT_ROOT,
    "runAsGroup": Leaf.NOT_ROOT,
    "seccompProfile": _SECCOMP,
}
_SECRET_KEY = Fields({"name": Leaf.SECRET, **_free("key", "optional")}, needs=("name",))
_ENVIRONMENT = Fields(
    {
        **_free("name", "value"),
        "valueFrom": Fields({**_free("configMapKeyRef", "fieldRef", "resourceFieldRef"), "secretKeyRef": _SECRET_KEY}),
    }
)
_WHOLE_SECRET = Fields({"name": Leaf.SECRET, **_free("optional")}, needs=("name",))
CONTAINER: Mapping[str, Rule] = {
    "name": Only((naming.CONTAINER,)),
    "resources": Fields(_free("limits", "requests")),
    "env": Each(_ENVIRONMENT),
    "envFrom": Each(Fields({**_free("prefix", "configMapRef"), "secretRef": _WHOLE_SECRET})),
    "volumeMounts": Each(Fields(_free("name", "mountPath", "readOnly", "subPath"))),
    "securityContext": Fields(CONTAINER_SECURITY),
    **_free("imagePullPolicy"),
}
_CLAIM = Fields(
    {"metadata": Fields(METADATA), "spec": Fields(_free("accessModes", "resources", "storageClassName", "volumeMode"))}
)
_VOLUME = Fields(
    {
        **_free("name", "configMap", "downwardAPI", "emptyDir", "persistentVolumeClaim"),
        "ephemeral": Fields({"volumeClaimTemplate": _CLAIM}),
        "secret": Fields(
            {"secretName": Leaf.SECRET, **_free("defaultMode", "items", "optional")}, needs=("secretName",)
        ),
    }
)
POD: Mapping[str, Rule] = {
    "containers": Each(Fields(CONTAINER)),
    "volumes": Each(_VOLUME),
    "securityContext": Fields(POD_SECURITY),
    "imagePullSecrets": Each(Fields({"name": Leaf.PULL_SECRET}, needs=("name",))),
    **_free("nodeSelector", "tolerations", "affinity", "topologySpreadConstraints"),
    **_free("priorityClassName", "runtimeClassName", "schedulerName"),
}
TEMPLATE = Fields({"metadata": Fields(METADATA), "spec": Fields(POD)})
_INSTEAD = {
    "image": "spec.trial.image names the image",
    "serviceAccountName": "workers have no service account's token",
    "serviceAccount": "workers have no service account's token",
}
"""What to do instead, for fields that people look for."""


def faults(template: Mapping[str, Any], restriction: Restriction) -> Iterator[str]:
    """What a podTemplate sets and may not, each with the field's path and what to do."""
    return found(template, TEMPLATE, restriction, path=_PATH)


def found(value: Any, rule: Rule, restriction: Restriction, *, path: str) -> Iterator[str]:
    """What a value has that its rule does not allow; `path` is where it stands. Null counts as absent, as in Kubernetes."""
    if value is None:
        return
    match rule:
        case Only():
            if not any(type(value) is type(each) and value == each for each in rule.values):
                yield f"{path} must be {' or '.join(map(_written, rule.values))}, or absent, where podTemplates are restricted"
        case Fields():
            yield from _fields(value, rule, restriction, path=path)
        case Each():
            yield from _items(value, rule, restriction, path=path)
        case Leaf():
            yield from _leaf(value, rule, restriction, path=path)


def _fields(value: Any, rule: Fields, restriction: Restriction, *, path: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{path} must be a mapping"
        return
    for name, inner in value.items():
        if name in rule.by_name:
            yield from found(inner, rule.by_name[name], restriction, path=f"{path}.{name}")
        else:
            advice = _INSTEAD.get(
                name, f"of {path.rpartition('.')[2]} a study may set {', '.join(sorted(rule.by_name))}"
            )
            yield f"{path}.{_shown(name)} may not be set where podTemplates are restricted: remove it ({advice})"
    for name in rule.needs:
        if value.get(name) is None:
            yield f"{path} needs {name}"


def _items(value: Any, rule: Each, restriction: Restriction, *, path: str) -> Iterator[str]:
    if not isinstance(value, list):
        yield f"{path} must be a list"
        return
    for index, item in enumerate(value):
        yield from found(item, rule.rule, restriction, path=f"{path}[{index}]")


def _leaf(value: Any, rule: Leaf, restriction: Restriction, *, path: str) -> Iterator[str]:
    match rule:
        case Leaf.ANYTHING:
            return
        case Leaf.OWN_KEYS if not isinstance(value, dict):
            yield f"{path} must be a mapping"
        case Leaf.OWN_KEYS:
            for key in value:
                if "/" in key:
                    yield f"{path} has {_shown(key)}: where podTemplates are restricted, keys have no prefix; remove it"
        case Leaf.NOT_ROOT:
            if not (type(value) is int and value > 0):
                yield f"{path} must be a number above 0, where podTemplates are restricted"
        case Leaf.SECRET | Leaf.PULL_SECRET:
            if not (isinstance(value, str) and restriction.allows(value, rule)):
                yield (
                    f"{path} names the Secret {_shown(value)}, and podTemplates are restricted to Secrets that the platform"
                    " allows (the chart's podTemplateSecrets): remove it, or ask for it to be added there"
                )


def _written(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _shown(name: object) -> str:
    text = str(name)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
