"""What the API server refuses to the operator's account, and that it refuses nothing that the operator does.

Requests are made as that account, with the chart's rights, at a real API server.
"""

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from cluster.kubectl import Kubectl
from tests.chart.release import POLICIES, RIGHTS, Document, find_all, install_rights, render
from tests.support.builders import DIGITS_TRIAL, a_manifest, a_spec, a_study
from tests.support.documents import commands
from tests.support.pod_templates import ALLOWED, IMAGE, REFUSED, RESTRICTION
from tests.support.wait import wait_until

from tuning_api.spec import GROUP, PLURAL
from tuning_operator.model import StudyKey
from tuning_operator.render.job import WorkerDefaults, merge, worker_job
from tuning_operator.render.secret import worker_secret

NAMESPACE = "policies"
VALUES: dict[str, Document] = {
    "any": {},
    "restricted": {
        "podTemplates": "restricted",
        "podTemplateSecrets": sorted(RESTRICTION.secrets),
        "imagePullSecrets": sorted(RESTRICTION.pull_secrets),
    },
}
DEFAULTS = WorkerDefaults(IMAGE, image_pull_policy="IfNotPresent", image_pull_secrets=tuple(RESTRICTION.pull_secrets))
TOKENS_TYPE = "kubernetes.io/service-account-token"


class Account:
    """The operator's account of a release."""

    def __init__(self, kubectl: Kubectl, release: str) -> None:
        self._kubectl = kubectl
        kinds = RIGHTS + POLICIES
        self.user = install_rights(kubectl, release=release, namespace=NAMESPACE, values=VALUES[release], kinds=kinds)

    def __call__(self, *arguments: str, stdin: Document | None = None) -> str:
        """Run kubectl as this account; why the API server refuses, or nothing."""
        text = json.dumps(stdin) if stdin else None
        done = self._kubectl.run(*arguments, f"--as={self.user}", stdin=text)
        assert done.returncode == 0 or done.stderr
        return done.stderr if done.returncode else ""

    def create(self, document: Document) -> str:
        """Ask the API server to create an object, as a dry run."""
        return self("create", "--dry-run=server", "-f", "-", stdin=document)


@pytest.fixture(scope="module")
def accounts(kubectl: Kubectl) -> Iterator[dict[str, Account]]:
    """One account for each way to judge pod templates, as soon as its policies are in force."""
    kubectl.run("create", "namespace", NAMESPACE)
    found = {release: Account(kubectl, release) for release in VALUES}
    probes = {"any": ["secrets", "jobs", "studies"], "restricted": ["secrets", "jobs", "studies", "pods"]}
    for release, account in found.items():
        for policy in probes[release]:
            wait_until(
                lambda account=account, policy=policy: _probe(kubectl, account, policy),
                lambda words: "ValidatingAdmissionPolicy" in words,
                seconds=30,
                what=f"policy {policy} of {release} is in force",
            )
    yield found
    kubectl(
        "delete", ",".join(f"{kind.lower()}" for kind in POLICIES), "--selector=app.kubernetes.io/part-of=tuningstudy"
    )
    kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def _probe(kubectl: Kubectl, account: Account, policy: str) -> str:
    match policy:
        case "secrets":
            return account.create(a_secret(type="example.com/probe"))
        case "jobs":
            return account.create(a_job() | {"metadata": {"name": "probe", "namespace": NAMESPACE}})
        case "pods":
            return account.create(with_pod(hostPID=True))
        case _:
            kubectl.apply(a_manifest(name="probe", namespace=NAMESPACE))
            return account("patch", PLURAL, "probe", "-n", NAMESPACE, "--type=merge", "-p", '{"spec":{"maxTrials":99}}')


def a_secret(**changes: Any) -> Document:
    """The Secret that the operator makes."""
    return worker_secret(namespace=NAMESPACE, url="postgresql://", certificate=None) | changes


def a_job(template: Document | None = None) -> Document:
    """A worker's Job as the operator makes it."""
    trial = DIGITS_TRIAL | ({"podTemplate": template} if template else {})
    return worker_job(a_study(spec=a_spec(trial=trial)), index=0, defaults=DEFAULTS) | {}


def in_namespace(job: Document, namespace: str = NAMESPACE) -> Document:
    """The Job elsewhere."""
    return job | {"metadata": job["metadata"] | {"namespace": namespace}}


def a_job_of(kubectl: Kubectl, name: str) -> Document:
    """A suspended Job of a study that there is: the garbage collector deletes those of others."""
    kubectl.apply(a_manifest(name=name, namespace=NAMESPACE))
    uid = kubectl.get(PLURAL, name, "-n", NAMESPACE)["metadata"]["uid"]
    study = replace(a_study(), key=StudyKey(NAMESPACE, name), uid=uid)
    job = worker_job(study, index=0, defaults=DEFAULTS)
    job["spec"]["suspend"] = True
    return job


def with_pod(**changes: Any) -> Document:
    """A worker's Job with other fields of its pod."""
    job = in_namespace(a_job())
    job["spec"]["template"]["spec"] |= changes
    return job


def with_metadata(**changes: Any) -> Document:
    """A worker's Job with other metadata."""
    job = in_namespace(a_job())
    return job | {"metadata": job["metadata"] | changes}


def an_owner(**changes: Any) -> Document:
    """The owner of a worker's Job."""
    owner: Document = a_job()["metadata"]["ownerReferences"][0]
    return owner | changes


def as_asked(template: Document) -> Document:
    """A worker's Job in which a pod template lies over the operator's, as who got into its pod could make it."""
    job = in_namespace(a_job())
    job["spec"]["template"] = merge(job["spec"]["template"], template)
    return job


SECRETS: dict[str, tuple[Document, str]] = {
    "another Secret": (
        {**a_secret(), "metadata": {"name": "other", "namespace": NAMESPACE}},
        "and no other",
    ),
    "a Secret whose name is made up": (
        {**a_secret(), "metadata": {"generateName": "tuningstudy-worke", "namespace": NAMESPACE}},
        "and no other",
    ),
    "a service account's token": (
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": "tuningstudy-worker",
                "namespace": NAMESPACE,
                "annotations": {"kubernetes.io/service-account.name": "default"},
            },
            "type": TOKENS_TYPE,
        },
        "of type Opaque only",
    ),
    "one that is bound to an account": (
        {
            **a_secret(),
            "metadata": {**a_secret()["metadata"], "annotations": {"kubernetes.io/service-account.name": "default"}},
        },
        "binds no Secret",
    ),
    "a type that other programs read": (a_secret(type="helm.sh/release.v1"), "of type Opaque only"),
    "other keys": (a_secret(stringData={"url": "a", "token": "b"}), "the keys url and ca.crt only"),
    "one for ever": (a_secret(immutable=True), "no Secret immutable"),
    "one that stays": (
        {**a_secret(), "metadata": {**a_secret()["metadata"], "finalizers": ["example.com/never"]}},
        "no owner and no finalizer",
    ),
    "one of Kubernetes' own": (
        {**a_secret(), "metadata": {**a_secret()["metadata"], "namespace": "kube-system"}},
        "no study runs there",
    ),
}
JOBS: dict[str, tuple[Document, str]] = {
    "no owner": (with_metadata(ownerReferences=[]), "only owner"),
    "an owner of another kind": (with_metadata(ownerReferences=[an_owner(kind="Other")]), "only owner"),
    "an owner of another group": (
        with_metadata(ownerReferences=[an_owner(apiVersion="example.com/v1alpha1")]),
        "only owner",
    ),
    "two owners": (
        with_metadata(ownerReferences=[an_owner(), an_owner(uid="other", controller=False)]),
        "only owner",
    ),
    "an owner that is no controller": (with_metadata(ownerReferences=[an_owner(controller=False)]), "only owner"),
    "an owner that does not wait": (
        with_metadata(ownerReferences=[an_owner(blockOwnerDeletion=False)]),
        "block the deletion",
    ),
    "no labels": (with_metadata(labels={"team": "vision"}), "its own label"),
    "labels of another study": (with_metadata(ownerReferences=[an_owner(name="other")]), "name the owner"),
    "labels of another uid": (with_metadata(ownerReferences=[an_owner(uid="other")]), "name the owner"),
    "a token": (with_pod(automountServiceAccountToken=True), "automountServiceAccountToken false"),
    "a namespace of Kubernetes": (in_namespace(a_job(), "kube-system"), "no study runs there"),
}
STUDIES: dict[str, tuple[Document, str]] = {
    "the spec": ({"spec": {"trial": {"image": "evil"}}}, "does not change the spec"),
    "the budget": ({"spec": {"maxTrials": 99}}, "does not change the spec"),
    "an annotation": (
        {"metadata": {"annotations": {"argocd.argoproj.io/sync-options": "Prune=false"}}},
        "below tuning",
    ),
    "an annotation that goes": ({"metadata": {"annotations": {"team": None}}}, "below tuningstudy.io/ only"),
    "a label": ({"metadata": {"labels": {"team": "other"}}}, "labels and owners"),
    "a finalizer of another": ({"metadata": {"finalizers": ["example.com/never"]}}, "of a study's finalizers"),
    "an owner": (
        {"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "a", "uid": "b"}]}},
        "labels and owners",
    ),
}
REFUSED_ANYWAY = {
    # For each Job of the operator's.
    "a token of the account",
    "a label of the operator",
    # For each Job, by the API server's own rules.
    "a file of the node in a variable",
    "an ephemeral container",
    "privileges",  # its flag --allow-privileged is off here
    "all of /proc",
    "a process of the Windows host",
    "another restart policy",
}
each_release = pytest.mark.parametrize("release", VALUES)


@each_release
@pytest.mark.parametrize(("document", "words"), (SECRETS | JOBS).values(), ids=SECRETS | JOBS)
def test_the_account_cannot_make_what_the_operator_does_not(
    document: Document, words: str, release: str, accounts: dict[str, Account]
) -> None:
    """RBAC lets it create Secrets and Jobs, of any kind and in any namespace; this is what is left of it."""
    complaint = accounts[release].create(document)
    assert "ValidatingAdmissionPolicy" in complaint
    # Of several policies, any may be the first to refuse.
    assert words in complaint or f"{release}-tuningstudy-operator.pods" in complaint


def test_the_account_gets_no_token_of_a_service_account(kubectl: Kubectl, accounts: dict[str, Account]) -> None:
    """The Secret is not made, so that there is nothing to read."""
    document, words = SECRETS["a service account's token"]
    assert words in accounts["any"]("create", "-f", "-", stdin=document)
    assert kubectl.run("get", "secret", "tuningstudy-worker", "-n", NAMESPACE).returncode != 0


def test_the_account_cannot_bend_the_secret_that_it_may_update(kubectl: Kubectl, accounts: dict[str, Account]) -> None:
    """An update is held to the same rules as a creation."""
    account = accounts["any"]
    assert account("create", "-f", "-", stdin=a_secret()) == ""
    try:
        assert account("replace", "-f", "-", stdin=a_secret(stringData={"url": "postgresql://other"})) == ""
        assert "the keys url" in account("replace", "-f", "-", stdin=a_secret(stringData={"other": "a"}))
        assert "no Secret immutable" in account("replace", "-f", "-", stdin=a_secret(immutable=True))
    finally:
        kubectl("delete", "secret", "tuningstudy-worker", "-n", NAMESPACE)


def test_the_account_deletes_no_job_of_others(kubectl: Kubectl, accounts: dict[str, Account]) -> None:
    """RBAC lets it delete every Job of the cluster."""
    foreign = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "foreign", "namespace": NAMESPACE},
        "spec": {
            "suspend": True,
            "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "a"}]}},
        },
    }
    kubectl("create", "-f", "-", stdin=json.dumps(foreign))
    own = a_job_of(kubectl, "owner")
    assert accounts["any"]("create", "-f", "-", stdin=own) == ""
    assert "only owner" in accounts["any"]("delete", "job", "foreign", "-n", NAMESPACE)
    assert accounts["any"]("delete", "job", own["metadata"]["name"], "-n", NAMESPACE, "--wait=false") == ""
    kubectl("delete", "job", "foreign", "-n", NAMESPACE)


@pytest.mark.parametrize(("patch", "words"), STUDIES.values(), ids=STUDIES)
def test_the_account_changes_of_a_study_its_finalizer_only(
    patch: Document, words: str, kubectl: Kubectl, accounts: dict[str, Account]
) -> None:
    """A spec that it could change would be as good as pods of any kind, with an owner that is real."""
    manifest = a_manifest(name="patched", namespace=NAMESPACE)
    manifest["metadata"] |= {"annotations": {"team": "vision"}, "labels": {"team": "vision"}}
    assert kubectl.apply(manifest).returncode == 0
    arguments = ("patch", PLURAL, "patched", "-n", NAMESPACE, "--type=merge", "-p")
    complaint = accounts["any"](*arguments, json.dumps(patch))
    assert "ValidatingAdmissionPolicy" in complaint
    assert words in complaint


def test_the_account_does_to_a_study_what_kopf_does(kubectl: Kubectl, accounts: dict[str, Account]) -> None:
    """Its finalizer comes and goes, and the progress of a deletion stands in annotations, beside those of others."""
    manifest = a_manifest(name="patched", namespace=NAMESPACE)
    manifest["metadata"] |= {"annotations": {"team": "vision"}, "labels": {"team": "vision"}}
    kubectl.apply(manifest)
    arguments = ("patch", PLURAL, "patched", "-n", NAMESPACE, "--type=merge", "-p")
    for metadata in (
        {"finalizers": ["tuningstudy.io/finalizer"]},
        {"annotations": {"tuningstudy.io/study_deleted": '{"retries":1}'}},
        {"annotations": {"tuningstudy.io/study_deleted": None}},
        {"finalizers": []},
    ):
        assert accounts["any"](*arguments, json.dumps({"metadata": metadata})) == ""


def test_a_large_study_can_be_finalized(kubectl: Kubectl, accounts: dict[str, Account]) -> None:
    """The API server counts what an expression costs, and refuses what it cannot pay for."""
    filler = {str(number): "x" * 1000 for number in range(1000)}
    manifest = a_manifest(name="large", namespace=NAMESPACE)
    manifest["spec"]["trial"] = copy.deepcopy(manifest["spec"]["trial"])
    manifest["spec"]["trial"]["lightning"]["model"]["init_args"]["filler"] = filler
    kubectl("create", "-f", "-", stdin=json.dumps(manifest))
    arguments = ("patch", PLURAL, "large", "-n", NAMESPACE, "--type=merge", "-p")
    for finalizers in (["tuningstudy.io/finalizer"], []):
        assert accounts["any"](*arguments, json.dumps({"metadata": {"finalizers": finalizers}})) == ""


def test_everybody_else_is_left_alone(kubectl: Kubectl, accounts: dict[str, Account]) -> None:
    """The policies are about one account, and not about who applies a Secret or a Job by the same name."""
    assert accounts
    for document, _ in (SECRETS | JOBS).values():
        done = kubectl.run("create", "--dry-run=server", "-f", "-", stdin=json.dumps(document))
        assert "ValidatingAdmissionPolicy" not in done.stderr


@each_release
@pytest.mark.parametrize("template", ALLOWED.values(), ids=ALLOWED)
def test_the_account_makes_the_jobs_that_studies_need(
    template: Document, release: str, accounts: dict[str, Account]
) -> None:
    """What the operator's own decision lets pass is not refused afterwards."""
    assert accounts[release].create(in_namespace(a_job(template))) == ""


@pytest.mark.parametrize("template", [template for template, _ in REFUSED.values()], ids=REFUSED)
def test_the_account_cannot_make_jobs_that_studies_may_not_ask_for(
    template: Document, accounts: dict[str, Account]
) -> None:
    """The same as the decision about podTemplates, for who would go round it."""
    assert accounts["restricted"].create(as_asked(template)) != ""


def test_it_is_the_policy_that_refuses_them(accounts: dict[str, Account]) -> None:
    """Without it the API server takes nearly all of them."""
    assert {
        name for name, (template, _) in REFUSED.items() if accounts["any"].create(as_asked(template))
    } == REFUSED_ANYWAY


@each_release
def test_the_api_server_understands_the_policies(release: str, kubectl: Kubectl, accounts: dict[str, Account]) -> None:
    """It checks the types of expressions, and warns about fields that there are none of."""
    assert accounts
    for policy in find_all(render(VALUES[release], release=release, namespace=NAMESPACE), POLICIES[0]):
        status = wait_until(
            lambda policy=policy: kubectl.get(POLICIES[0], policy["metadata"]["name"]).get("status", {}),
            lambda status: "observedGeneration" in status,
            seconds=30,
            what="the types of the policy's expressions are checked",
        )
        assert status.get("typeChecking", {}).get("expressionWarnings", []) == []


def test_the_quota_of_the_documents_counts_studies(kubectl: Kubectl, namespace: str) -> None:
    """The lever that docs/operations.md names, by its command.

    NB: it is not waited for: the quota controller looks for new kinds of resources every 30 s, and at them every 5 minutes.
    """
    (command,) = [line for line in commands("operations.md", "What studies may ask for") if "create quota" in line]
    kubectl(*command.replace("--namespace research", f"--namespace {namespace}").split()[1:])
    assert f"count/{PLURAL}.{GROUP}" in kubectl.get("quota", "studies", "-n", namespace)["spec"]["hard"]
