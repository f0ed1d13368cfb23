"""Everything that is rendered, shipped or shown as a sample, before a real API server."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from cluster.kubectl import Kubectl
from tests.chart.release import LOADER, ROOT, Document, component_of, find, pods, render
from tests.chart.scenarios import each_scenario
from tests.support.wait import wait_until

SAMPLES = sorted((ROOT / "manifests" / "samples").glob("*.yaml"))
SYSTEM = "tuningstudy-system"
SERVED = ("research", "team-vision", "2026")


@pytest.fixture(scope="module", autouse=True)
def namespaces(kubectl: Kubectl) -> Iterator[None]:
    """The namespaces that values and manifests speak of; the system's enforces the restricted standard."""
    names = (SYSTEM, *SERVED)
    for name in names:
        kubectl.run("create", "namespace", name)
    wait_until(
        lambda: [kubectl.run("get", "serviceaccount", "default", "-n", name).returncode for name in names],
        lambda codes: not any(codes),
        seconds=20,
        what="each namespace has its default service account, without which no pod is admitted",
    )
    kubectl("label", "namespace", SYSTEM, "pod-security.kubernetes.io/enforce=restricted", "--overwrite")
    yield
    kubectl("label", "namespace", SYSTEM, "pod-security.kubernetes.io/enforce-")
    # Other tests use the system namespace, too.
    kubectl("delete", "namespace", *SERVED, "--wait=false")


def dry_run(kubectl: Kubectl, documents: list[Document]) -> list[str]:
    """The API server's complaints: errors, and warnings such as those of deprecated or unknown fields."""
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": documents})
    flags = ("--dry-run=server", "--validate=strict", "--server-side", "--force-conflicts")
    done = kubectl.run("apply", *flags, "-f", "-", stdin=text)
    assert done.stderr or done.returncode == 0
    return done.stderr.splitlines()


@each_scenario
@pytest.mark.usefixtures("prometheus_operator")
def test_the_api_server_takes_every_object(values: Document, kubectl: Kubectl) -> None:
    """Names, types and fields as the API server checks them, not as we believe them to be."""
    assert dry_run(kubectl, render(values)) == []


@each_scenario
def test_a_restricted_namespace_admits_every_pod(values: Document, kubectl: Kubectl) -> None:
    """The API server's own judgement about Pod Security `restricted`."""
    objects = render(values)
    account = find(objects, "ServiceAccount")
    kubectl("apply", "-f", "-", stdin=json.dumps(account))
    made = [as_the_controllers_make_it(item) for item in pods(objects)]
    assert dry_run(kubectl, made) == []


def test_the_api_server_really_enforces_the_standard(kubectl: Kubectl) -> None:
    """A check that refuses nothing proves nothing."""
    item = as_the_controllers_make_it(next(pods(render())))
    del item["spec"]["securityContext"]
    assert "violates PodSecurity" in " ".join(dry_run(kubectl, [item]))


def test_the_manifests_are_accepted(kubectl: Kubectl) -> None:
    """The way without Helm: manifests/crd.yaml and manifests/install.yaml."""
    for name in ("crd.yaml", "install.yaml"):
        documents = yaml.load_all((ROOT / "manifests" / name).read_text(), Loader=LOADER)
        assert dry_run(kubectl, [item for item in documents if item]) == []


def test_the_manifests_are_a_kustomization(kubectl: Kubectl) -> None:
    """`kubectl apply -k manifests`, as the header of install.yaml says."""
    done = kubectl.run("apply", "--server-side", "--force-conflicts", "--dry-run=server", "-k", str(ROOT / "manifests"))
    assert done.returncode == 0, done.stderr
    assert "customresourcedefinition.apiextensions.k8s.io/tuningstudies.tuningstudy.io" in done.stdout


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_samples_are_accepted(sample: Path, kubectl: Kubectl) -> None:
    """Whoever starts here must not start with an error."""
    documents = [item for item in yaml.load_all(sample.read_text(), Loader=LOADER) if item]
    assert documents
    assert dry_run(kubectl, documents) == []


def as_the_controllers_make_it(pod: Document) -> Document:
    """A pod of a workload, with what its controller adds."""
    made = copy.deepcopy(pod)
    name = f"{component_of(pod)}-0"
    made["metadata"] = {**made["metadata"], "name": name, "namespace": SYSTEM}
    if component_of(pod) == "postgresql":
        made["spec"]["volumes"].append({"name": "data", "persistentVolumeClaim": {"claimName": "data"}})
    return made
