"""The pod that another system runs a trial in, and what of it belongs into a study's pod template."""

import copy
import re
from collections.abc import Iterator
from typing import Any

from tuning_api.naming import CONTAINER
from tuning_api.schema import Document

_POD_FIELDS = ("nodeSelector", "tolerations", "affinity", "volumes", "imagePullSecrets", "priorityClassName")
_METADATA = ("labels", "annotations")
_CONTAINER_FIELDS = ("env", "envFrom", "volumeMounts", "resources", "imagePullPolicy")
_GPU = re.compile(r"(nvidia\.com/(gpu|mig-.+)|amd\.com/gpu)$")
_SECRET = re.compile(r"(TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|(^|_)KEY($|_))", re.IGNORECASE)
_SHOWN = ("name", "image", "command", "args", "ports")
POD = "_pod"
"""Where `find` puts the pod's spec."""
METADATA = "_metadata"
"""Where `find` puts the pod's labels and annotations."""


def find(node: object, *, container: object) -> Document | None:
    """The first container of that name, or the first at all, with its pod's spec under `_pod`; None if there is no pod.

    Whatever the kind of the trial's object, a pod's spec is what has `containers`. A TrainJob has no pod, only the
    fields of one container under `trainer`.
    """
    found = [(pod, item) for pod in _pods(node) for item in pod["spec"]["containers"] if isinstance(item, dict)]
    if not found:
        trainer = node.get("spec", {}).get("trainer") if isinstance(node, dict) else None
        return trainer | {POD: {}, METADATA: {}} if isinstance(trainer, dict) else None
    pod, chosen = next(((pod, item) for pod, item in found if item.get("name") == container), found[0])
    metadata = pod.get("metadata")
    return chosen | {POD: pod["spec"], METADATA: metadata if isinstance(metadata, dict) else {}}


def has_pod(node: object) -> bool:
    """Whether there is a pod's spec in it, at any depth."""
    return any(True for _ in _pods({"spec": node}))


def _pods(node: object) -> Iterator[Document]:
    """Pods and their templates: what has a `spec` with `containers`."""
    if isinstance(node, dict):
        if isinstance(node.get("spec"), dict) and isinstance(node["spec"].get("containers"), list):
            yield node
        for child in node.values():
            yield from _pods(child)
    elif isinstance(node, list):
        for child in node:
            yield from _pods(child)


def trial_of(container: Document) -> Document:
    """The fields of spec.trial that a container speaks of."""
    trial: Document = {}
    if container.get("image"):
        trial["image"] = str(container["image"])
    trial |= {"gpus": 0} | _gpus(container)
    ours = {key: copy.deepcopy(container[key]) for key in _CONTAINER_FIELDS if container.get(key)}
    if environment := [item for item in ours.pop("env", []) if not _is_left_out(item)]:
        ours["env"] = environment
    ours["resources"] = _without_gpus(ours.pop("resources", {}))
    pod = {key: copy.deepcopy(container[POD][key]) for key in _POD_FIELDS if container[POD].get(key)}
    if ours["resources"] == {}:
        del ours["resources"]
    if ours:
        pod["containers"] = [{"name": CONTAINER} | ours]
    metadata = {key: copy.deepcopy(container[METADATA][key]) for key in _METADATA if container[METADATA].get(key)}
    template = ({"metadata": metadata} if metadata else {}) | ({"spec": pod} if pod else {})
    return trial | ({"podTemplate": template} if template else {})


def left_out(container: Document) -> Iterator[str]:
    """What of a container and its pod is not taken over, in words."""
    for item in container.get("env") or []:
        if _is_left_out(item):
            yield f"environment variable {item['name']}: {_why(item)}"
    known = {*_CONTAINER_FIELDS, *_SHOWN, POD, METADATA}
    if others := sorted(set(container) - known):
        yield f"{', '.join(others)} of the container: add them to trial.podTemplate if they matter"
    if others := sorted(set(container[METADATA]) - {*_METADATA}):
        yield f"{', '.join(others)} of the pod's metadata: the operator names the pods of workers"
    known = {*_POD_FIELDS, "containers", "restartPolicy"}
    if others := sorted(set(container[POD]) - known):
        yield f"{', '.join(others)} of the pod: add them to trial.podTemplate if they matter"


def _is_left_out(item: Document) -> bool:
    return bool(_why(item))


def _why(item: Document) -> str:
    value = item.get("value")
    if isinstance(value, str) and "${" in value:
        return f"it is {value}, which nothing replaces here"
    if value and _SECRET.search(str(item.get("name"))):
        return "it looks like a secret: put it into a Secret, and name that by valueFrom.secretKeyRef"
    return ""


def _gpus(container: Document) -> Document:
    resources = container.get("resources") or {}
    for amounts in (resources.get("limits") or {}, resources.get("requests") or {}):
        for name, amount in amounts.items():
            if _GPU.match(name) and str(amount).isdigit():
                return {"gpus": int(amount)} | ({} if name == "nvidia.com/gpu" else {"gpuResource": name})
    return {}


def _without_gpus(resources: dict[str, Any]) -> Document:
    kept = {
        kind: {name: amount for name, amount in (amounts or {}).items() if not _GPU.match(name)}
        for kind, amounts in resources.items()
        if isinstance(amounts, dict)
    }
    return {kind: amounts for kind, amounts in kept.items() if amounts}
