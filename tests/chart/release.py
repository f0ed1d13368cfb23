"""The chart, rendered by the real Helm: values in, documents out."""

import json
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from cluster import binaries
from cluster.kubectl import Kubectl

Document = dict[str, Any]
Values = Mapping[str, Any]

ROOT = Path(__file__).resolve().parent.parent.parent
CHART = ROOT / "charts" / "tuningstudy-operator"
RELEASE = "tuning"
NAMESPACE = "tuningstudy-system"
# The one in pure Python takes seconds for the CRD.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def run_helm(*arguments: str | Path, values: Values | None = None) -> subprocess.CompletedProcess[str]:
    """Run Helm, whatever comes of it; `values` go over its input."""
    command: list[str | Path] = [binaries.HELM.ensure() / "helm", *arguments, "--values", "-"]
    return subprocess.run(command, input=json.dumps(values or {}), capture_output=True, text=True, check=False)


def rendered_text(values: Values | None = None, *, release: str = RELEASE, namespace: str = NAMESPACE) -> str:
    """What `helm template` prints.

    Raises:
        AssertionError: it refused; with what it said.
    """
    return _rendered_text(json.dumps(values or {}, sort_keys=True), release, namespace)


def render(values: Values | None = None, *, release: str = RELEASE, namespace: str = NAMESPACE) -> list[Document]:
    """The objects of a release."""
    return _parsed(rendered_text(values, release=release, namespace=namespace))


def refusal(values: Values) -> str:
    """Why Helm refuses values.

    Raises:
        AssertionError: it did not.
    """
    done = run_helm("template", RELEASE, CHART, "--namespace", NAMESPACE, values=values)
    assert done.returncode != 0, "Helm accepts the values"
    return done.stderr


def find(objects: list[Document], kind: str, *, component: str | None = None) -> Document:
    """The only object of a kind, and of a component if there are several."""
    (found,) = find_all(objects, kind, component=component)
    return found


def find_all(objects: list[Document], kind: str, *, component: str | None = None) -> list[Document]:
    """All objects of a kind."""
    return [item for item in objects if item["kind"] == kind and component in (None, component_of(item))]


def component_of(document: Document) -> str | None:
    """Which part of the system an object belongs to."""
    component: str | None = document["metadata"].get("labels", {}).get("app.kubernetes.io/component")
    return component


def pods(objects: list[Document]) -> Iterator[Document]:
    """Every pod of a release, as the workload controllers would make it."""
    for item in objects:
        if item["kind"] == "Pod":
            yield item
        elif item["kind"] in {"Deployment", "StatefulSet"}:
            template = item["spec"]["template"]
            yield {"apiVersion": "v1", "kind": "Pod", "metadata": template["metadata"], "spec": template["spec"]}


def pod(objects: list[Document], component: str) -> Document:
    """The pod of a component."""
    (found,) = (item for item in pods(objects) if component_of(item) == component)
    return found


def main_container(item: Document) -> Document:
    """The only container of a pod."""
    (container,) = item["spec"]["containers"]
    found: Document = container
    return found


def environment(objects: list[Document], component: str) -> dict[str, Document]:
    """The environment variables of a component, by name."""
    return {item["name"]: item for item in main_container(pod(objects, component))["env"]}


RIGHTS = ("ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")
POLICIES = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")


def install_rights(
    kubectl: Kubectl, *, release: str, namespace: str, values: Values | None = None, kinds: tuple[str, ...] = RIGHTS
) -> str:
    """Apply a release's ServiceAccount and roles, or what else of the operator; returns the operator's user name."""
    objects = render(values, release=release, namespace=namespace)
    for item in (item for kind in kinds for item in find_all(objects, kind, component="operator")):
        applied = kubectl.apply(item)
        assert applied.returncode == 0, applied.stderr
    return f"system:serviceaccount:{namespace}:{find(objects, 'ServiceAccount')['metadata']['name']}"


def over(values: Values, changes: Values) -> Document:
    """Values with others merged over them, as Helm merges them."""
    merged = dict(values)
    for key, value in changes.items():
        before = merged.get(key)
        merged[key] = over(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
    return merged


@cache
def _rendered_text(values: str, release: str, namespace: str) -> str:
    done = run_helm("template", release, CHART, "--namespace", namespace, values=json.loads(values))
    assert done.returncode == 0, done.stderr
    return done.stdout


@cache
def _parsed(text: str) -> list[Document]:
    return [item for item in yaml.load_all(text, Loader=LOADER) if item]
