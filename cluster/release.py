"""The chart, installed with Helm: into this machine's node with the images that were built here, or into your cluster."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from cluster import folders, images
from cluster.engines import Image
from cluster.kubectl import CommandError, Kubectl
from cluster.machine import NODE_ADDRESS

NAME = "tuningstudy-operator"
NAMESPACE = "tuningstudy-system"
CHART = folders.REPOSITORY / "charts" / "tuningstudy-operator"
REGISTRY_VARIABLE = "TUNING_TEST_REGISTRY"
"""Where a cluster of yours finds the images: what `make images REGISTRY=... PUSH=1` was given."""
CHARTS_PORT = 30080
CHARTS_URL = f"http://{NODE_ADDRESS}:{CHARTS_PORT}"
"""Where this machine's browser reaches the charts server of the node."""
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted"}


def install(kubectl: Kubectl, *, values: dict[str, str], chart: Path = CHART) -> None:
    """Install or upgrade the release and return when all of it is ready.

    Args:
        kubectl: The cluster.
        values: The chart's values by their path, as for `helm --set`.
        chart: Its folder.

    Raises:
        CommandError: Helm gave up; the message ends with what is not ready.
    """
    ensure_namespace(kubectl, NAMESPACE)
    chosen = [f"--set-string={path}={value}" for path, value in values.items() if not _is_typed(value)]
    chosen += [f"--set={path}={value}" for path, value in values.items() if _is_typed(value)]
    try:
        kubectl.helm("upgrade", "--install", NAME, str(chart), f"--namespace={NAMESPACE}", "--wait", *chosen)
    except CommandError as error:
        pods = kubectl("get", "pods", f"--namespace={NAMESPACE}")
        raise CommandError(f"{error}\n{pods}") from error


def uninstall(kubectl: Kubectl) -> None:
    """Uninstall the release and return when its pods are gone; data, keys and studies stay."""
    kubectl.helm("uninstall", NAME, f"--namespace={NAMESPACE}", "--wait")
    # NB: Helm waits for what it made itself, and pods are made by others.
    pods = f"--selector=app.kubernetes.io/instance={NAME}"
    kubectl("wait", "pods", pods, "--for=delete", f"--namespace={NAMESPACE}", "--timeout=120s")


def ensure_namespace(kubectl: Kubectl, name: str) -> None:
    """A namespace in which every pod has to meet the restricted Pod Security standard."""
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}}
    kubectl("apply", "--server-side", "--filename=-", stdin=json.dumps(namespace))


def values_for_node(ids: Mapping[Image, str]) -> dict[str, str]:
    """Our own node: images by the names that they were built under, the charts server on a port of the node.

    Args:
        ids: Of the images; pods whose image has a new one under its old name start again.
    """
    image_id = ids[images.OPERATOR]
    return _values_of_images(images.OPERATOR.name, images.TRIAL.name) | {
        **_image("postgresql.image", images.POSTGRES.name),
        "charts.service.type": "NodePort",
        "charts.service.nodePort": str(CHARTS_PORT),
        "charts.externalUrl": CHARTS_URL,
        "operator.podAnnotations.image-id": image_id,
        "charts.podAnnotations.image-id": image_id,
    }


def values_for_context() -> dict[str, str]:
    """A cluster of the user's: its registry's images (or those that were loaded into its nodes), and all else by default."""
    registry = os.environ.get(REGISTRY_VARIABLE)

    def named(image: Image) -> str:
        return images.name_in(registry, image) if registry else image.name

    return _values_of_images(named(images.OPERATOR), named(images.TRIAL))


def _values_of_images(operator: str, trial: str) -> dict[str, str]:
    return _image("image", operator) | _image("trial.image", trial)


def _image(path: str, name: str) -> dict[str, str]:
    repository, _, tag = name.rpartition(":")
    return {f"{path}.repository": repository, f"{path}.tag": tag}


def _is_typed(value: str) -> bool:
    return value.isdigit() or value in {"true", "false"}
