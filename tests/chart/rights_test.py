"""The operator's rights: the calls that it makes, and not one more."""

import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from cluster.kubectl import Kubectl
from tests.chart.release import Document, find_all, install_rights, render
from tests.support.wait import wait_until

from tuning_api import naming
from tuning_api.spec import GROUP, PLURAL
from tuning_operator.cluster import Cluster
from tuning_operator.model import StudyKey
from tuning_operator.render.secret import worker_secret

KEY = StudyKey("research", "digits")
OBJECT = {"metadata": {"namespace": KEY.namespace, "name": KEY.name, "uid": "uid"}}
SECRET = worker_secret(namespace=KEY.namespace, url="postgresql://", certificate=None)
CALLS: dict[str, Callable[[Cluster], Any]] = {
    "study": lambda cluster: cluster.study(KEY),
    "write_status": lambda cluster: cluster.write_status(KEY, version="1", status={}),
    "namespace_uid": lambda cluster: cluster.namespace_uid(KEY.namespace),
    "jobs": lambda cluster: cluster.jobs(KEY.namespace, selector="a=b"),
    "job": lambda cluster: cluster.job(KEY.namespace, "job"),
    "create_job": lambda cluster: cluster.create_job(OBJECT),
    "delete_job": lambda cluster: cluster.delete_job(KEY.namespace, "job"),
    "pods": lambda cluster: cluster.pods(KEY.namespace, selector="a=b"),
    "events": lambda cluster: cluster.events(KEY.namespace, kind="Job", name="job"),
    "create_event": lambda cluster: cluster.create_event(OBJECT),
    "ensure_secret": lambda cluster: cluster.ensure_secret(SECRET),
    "unserved": lambda cluster: cluster.unserved([("batch", "v1", "jobs")]),
    "ping": lambda cluster: cluster.ping(),
}
KOPF = {
    # It watches what handlers are registered for, sets the finalizer, keeps the progress of a deletion in annotations,
    # and tells of failures by events.
    (GROUP, PLURAL, None, "list"),
    (GROUP, PLURAL, None, "watch"),
    (GROUP, PLURAL, None, "patch"),
    ("batch", "jobs", None, "list"),
    ("batch", "jobs", None, "watch"),
    ("", "events", None, "create"),
}
OWNING = {(GROUP, f"{PLURAL}/finalizers", None, "update")}
"""Jobs block their study's deletion, which OwnerReferencesPermissionEnforcement (OpenShift has it on) asks this for."""

Right = tuple[str, str, str | None, str]
"""Group, resource, name (None: any), verb."""


@dataclass
class Answer:
    """What the API server would answer."""

    status: int
    data: bytes = json.dumps(OBJECT).encode()

    def read(self) -> bytes:
        """The body."""
        return self.data


@dataclass
class RecordingClient:
    """Stands for the client's transport, and remembers what was asked."""

    is_empty: bool
    requests: list[tuple[str, str]] = field(default_factory=list)
    user_agent: str = ""

    def param_serialize(self, method: str, path: str, **_: object) -> tuple[str, str]:
        """Only method and path decide about rights."""
        return method, path

    def call_api(self, method: str, path: str, **_: object) -> Answer:
        """Answer that nothing is there, or something."""
        self.requests.append((method, path))
        return Answer(404 if self.is_empty and method == "GET" and path.endswith(naming.WORKER_SECRET) else 200)


def rights_of(call: Callable[[Cluster], Any]) -> set[Right]:
    """The rights that a call takes, whether what it asks for is there or not."""
    found = set()
    for is_empty in (True, False):
        client = RecordingClient(is_empty)
        call(Cluster(client))  # type: ignore[arg-type]
        found |= {right for method, path in client.requests if (right := right_of(method, path))}
    return found


def right_of(method: str, path: str) -> Right | None:
    """The right that a request takes; None for what everybody may."""
    root, *rest = path.strip("/").split("/")
    if root not in {"api", "apis"} or len(rest) <= len(
        ("group", "version")
    ):  # what there is, whoever signs in may list
        return None
    group = "" if root == "api" else rest.pop(0)
    _, *below = rest
    # NB: a namespace stands below itself: a Role in it may give the right to read it.
    resource, *name = below if len(below) == len(("namespaces", "name")) else below[2:]
    verb = {"GET": "get" if name else "list", "POST": "create", "PUT": "update", "DELETE": "delete"}[method]
    # Only this Secret has a name that is known beforehand.
    known = name[0] if resource == "secrets" and name else None
    return group, "/".join([resource, *name[1:]]), known, verb


def granted(rules: list[Document]) -> list[Right]:
    """The rights that rules give, one by one."""
    return [
        (group, resource, name, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames", [None])
        for verb in rule["verbs"]
    ]


def operator_rules() -> list[Document]:
    """The rules of the operator's role."""
    (role,) = find_all(render(), "ClusterRole", component="operator")
    rules: list[Document] = role["rules"]
    return rules


def test_every_call_of_the_gateway_is_known_here() -> None:
    """A new call needs a line in this file, and so a thought about rights."""
    methods = [name for name, _ in inspect.getmembers(Cluster, inspect.isfunction) if not name.startswith("_")]
    assert sorted(CALLS) == sorted(methods)


def test_rights_are_the_calls_that_are_made() -> None:
    """No right that no call needs, no call without its right."""
    needed = set().union(*(rights_of(call) for call in CALLS.values())) | KOPF | OWNING
    assert set(granted(operator_rules())) == needed


def test_no_right_is_given_twice_or_by_asterisk() -> None:
    """Rules are read by auditors."""
    rights = granted(operator_rules())
    assert len(rights) == len(set(rights))
    assert not any("*" in part for right in rights for part in right if part)


Question = tuple[str, str, str]
"""Verb, resource (with `/subresource` or `:name`), namespace (empty: all)."""

MAY: list[tuple[str, str]] = [
    ("get", "namespaces"),
    ("list", f"{PLURAL}.{GROUP}"),
    ("watch", f"{PLURAL}.{GROUP}"),
    ("get", f"{PLURAL}.{GROUP}"),
    ("patch", f"{PLURAL}.{GROUP}"),
    ("update", f"{PLURAL}.{GROUP}/status"),
    ("create", "jobs.batch"),
    ("delete", "jobs.batch"),
    ("watch", "jobs.batch"),
    ("list", "pods"),
    ("create", "events"),
    ("create", "secrets"),
    ("get", f"secrets:{naming.WORKER_SECRET}"),
    ("update", f"secrets:{naming.WORKER_SECRET}"),
]
MAY_NOT: list[tuple[str, str]] = [
    ("list", "secrets"),
    ("watch", "secrets"),
    ("get", "secrets"),
    ("get", "secrets:tuning-tuningstudy-operator-secrets"),
    ("delete", f"secrets:{naming.WORKER_SECRET}"),
    ("patch", f"secrets:{naming.WORKER_SECRET}"),
    ("create", f"{PLURAL}.{GROUP}"),
    ("delete", f"{PLURAL}.{GROUP}"),
    ("update", f"{PLURAL}.{GROUP}"),
    ("deletecollection", "jobs.batch"),
    ("patch", "jobs.batch"),
    ("update", "jobs.batch"),
    ("create", "pods"),
    ("create", "pods/exec"),
    ("get", "pods/log"),
    ("delete", "pods"),
    ("get", "deployments.apps"),
    ("create", "deployments.apps"),
    ("patch", "statefulsets.apps"),
    ("get", "configmaps"),
    ("create", "configmaps"),
    ("create", "serviceaccounts/token"),
    ("create", "rolebindings.rbac.authorization.k8s.io"),
    ("bind", "roles.rbac.authorization.k8s.io"),
    ("get", "leases.coordination.k8s.io"),
]
MAY_NOT_ANYWHERE: list[Question] = [
    ("list", "namespaces", ""),
    ("watch", "namespaces", ""),
    ("list", "nodes", ""),
    ("get", "customresourcedefinitions.apiextensions.k8s.io", ""),
    ("list", "customresourcedefinitions.apiextensions.k8s.io", ""),
    ("escalate", "clusterroles.rbac.authorization.k8s.io", ""),
    ("impersonate", "serviceaccounts", ""),
]


def answers(kubectl: Kubectl, user: str, questions: list[Question], *, groups: tuple[str, ...] = ()) -> list[bool]:
    """What the API server says a user may do; one call for all questions."""
    reviews = [
        {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {"user": user, "groups": list(groups), "resourceAttributes": attributes(*question)},
        }
        for question in questions
    ]
    documents = json.dumps({"apiVersion": "v1", "kind": "List", "items": reviews})
    shown = kubectl("create", "-f", "-", "-o", r'jsonpath={.status.allowed}{"\n"}', stdin=documents)
    return [line == "true" for line in shown.splitlines()]


def attributes(verb: str, resource: str, namespace: str) -> dict[str, str]:
    """A question as the API server takes it."""
    kind, _, name = resource.partition(":")
    kind, _, subresource = kind.partition("/")
    plural, _, group = kind.partition(".")
    found = {"verb": verb, "resource": plural, "group": group, "namespace": namespace}
    return found | {"subresource": subresource, "name": name}


@pytest.mark.parametrize("scope", ["all namespaces", "one namespace"])
def test_the_operator_may_do_its_work_and_no_more(scope: str, kubectl: Kubectl, namespace: str) -> None:
    """As the API server itself sees it, in a namespace that is served, in another one, and cluster-wide."""
    served, is_clusterwide = "default", scope == "all namespaces"
    watched = [] if is_clusterwide else [served]
    user = install_rights(kubectl, release=namespace, namespace=namespace, values={"watchNamespaces": watched})
    expected: dict[Question, bool] = {
        **{(verb, resource, served): True for verb, resource in MAY},
        **{(verb, resource, "kube-system"): is_clusterwide for verb, resource in MAY},
        **{(verb, resource, ""): is_clusterwide for verb, resource in MAY},
        **{(verb, resource, where): False for verb, resource in MAY_NOT for where in (served, "kube-system", "")},
        **dict.fromkeys(MAY_NOT_ANYWHERE, False),
    }
    assert dict(zip(expected, answers(kubectl, user, list(expected)), strict=True)) == expected


def test_who_may_edit_a_namespace_may_edit_its_studies(kubectl: Kubectl, namespace: str) -> None:
    """Without this only cluster administrators could apply a study."""
    for document in find_all(render(release=namespace), "ClusterRole", component="users"):
        assert kubectl.apply(document).returncode == 0
    expected: dict[tuple[str, str, str], bool] = {}
    for role, may_edit in (("view", False), ("edit", True), ("admin", True)):
        kubectl("create", "rolebinding", role, f"--clusterrole={role}", f"--user={role}", "-n", namespace)
        expected |= {(role, "get", PLURAL): True, (role, "list", PLURAL): True, (role, "get", f"{PLURAL}/scale"): True}
        expected |= {(role, verb, PLURAL): may_edit for verb in ("create", "patch", "update", "delete")}
        expected |= {(role, "patch", f"{PLURAL}/scale"): may_edit, (role, "update", f"{PLURAL}/status"): False}

    def seen() -> dict[tuple[str, str, str], bool]:
        found: dict[tuple[str, str, str], bool] = {}
        for role in ("view", "edit", "admin"):
            asked = [key for key in expected if key[0] == role]
            questions = [
                (verb, resource.replace(PLURAL, f"{PLURAL}.{GROUP}"), namespace) for _, verb, resource in asked
            ]
            found |= dict(zip(asked, answers(kubectl, role, questions), strict=True))
        return found

    # A controller adds the rules to Kubernetes' own roles.
    wait_until(seen, lambda found: found == expected, seconds=20, what=f"the API server answers {expected}")
