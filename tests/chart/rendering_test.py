"""What the chart makes of values, scenario by scenario."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from tests.chart.release import (
    CHART,
    RELEASE,
    ROOT,
    component_of,
    find,
    find_all,
    main_container,
    over,
    pod,
    render,
    rendered_text,
    run_helm,
)
from tests.chart.scenarios import DIGEST, SCENARIOS, each_scenario

from tuning_api import naming

Document = dict[str, Any]
POLICIES = {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}
CLUSTER_SCOPED = {"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"} | POLICIES
LONGEST = {"StatefulSet": 52, "CustomResourceDefinition": 253} | dict.fromkeys(POLICIES, 253)
"""Characters of a name."""
COMMON_LABELS = {
    "app.kubernetes.io/name": "tuningstudy-operator",
    "app.kubernetes.io/instance": "tuning",
    "app.kubernetes.io/version": "0.1.0",
    "app.kubernetes.io/managed-by": "Helm",
    "app.kubernetes.io/part-of": "tuningstudy",
    "helm.sh/chart": "tuningstudy-operator-0.1.0",
}


@each_scenario
def test_all_objects_carry_the_same_labels(values: Document) -> None:
    """`kubectl get -l app.kubernetes.io/instance=...` finds all of a release, and each object says which part it is."""
    name = {"app.kubernetes.io/name": values["nameOverride"][:41]} if "nameOverride" in values else {}
    for item in render(values):
        labels = item["metadata"]["labels"]
        assert COMMON_LABELS | name | labels == labels | COMMON_LABELS | name
        assert component_of(item) in {"operator", "charts", "postgresql", "workers", "secrets", "users", "crd", "test"}


@each_scenario
def test_selectors_find_their_own_pods_and_no_others(values: Document) -> None:
    """Selectors never hold a version: they cannot be changed, and versions can."""
    objects = render(values)
    for item in objects:
        selector = _selector(item)
        if not selector or component_of(item) == "workers":  # of the operator's own making
            continue
        assert set(selector) == {f"app.kubernetes.io/{label}" for label in ("name", "instance", "component")}
        own = component_of(item)
        assert selector.items() <= pod(objects, str(own))["metadata"]["labels"].items()


@each_scenario
def test_names_are_unique_and_fit(values: Document) -> None:
    """A Service's name is a DNS label, and a StatefulSet's gets ten more characters as a label of its pods."""
    objects = render(values)
    names = [(item["kind"], item["metadata"].get("namespace"), item["metadata"]["name"]) for item in objects]
    assert len(names) == len(set(names))
    for kind, _, name in names:
        assert len(name) <= LONGEST.get(kind, 63)
        assert kind != "Service" or re.fullmatch(r"[a-z][-a-z0-9]*[a-z0-9]", name)
    for label in (label for item in objects for label in item["metadata"]["labels"].values()):
        assert len(label) <= 63
        assert not label.endswith(("-", ".", "_"))


@pytest.mark.parametrize(
    ("release", "values", "name"),
    [
        ("tuning", {}, "tuning-tuningstudy-operator"),
        ("tuningstudy-operator", {}, "tuningstudy-operator"),
        ("tuning", {"nameOverride": "op"}, "tuning-op"),
        ("tuning", {"fullnameOverride": "op"}, "op"),
        ("r" * 53, {}, "r" * 41),
        ("tuning", {"fullnameOverride": "n" * 40 + "-" + "n" * 10}, "n" * 40),
    ],
)
def test_names_come_from_the_release(release: str, values: Document, name: str) -> None:
    """As everyone expects of a chart."""
    assert find(render(values, release=release), "Deployment", component="operator")["metadata"]["name"] == name


def test_names_that_look_like_numbers_stay_text() -> None:
    """YAML reads 2026 as a number, and the API server refuses it as a name."""
    objects = render(SCENARIOS["names that look like numbers"], release="1234", namespace="2026")
    wrong = [(path, value) for item in objects for path, value in _values(item) if _is_misread(path, value)]
    assert wrong == []


@pytest.mark.parametrize(
    ("scenario", "cluster_scoped"),
    [
        ("defaults", CLUSTER_SCOPED),
        ("some namespaces", {"ClusterRole", "CustomResourceDefinition"} | POLICIES),
        ("a namespace admin", set()),
    ],
)
def test_served_namespaces_decide_what_is_cluster_wide(scenario: str, cluster_scoped: set[str]) -> None:
    """With watchNamespaces no ClusterRole is bound; without CRD, user roles and policies, a namespace admin can install."""
    kinds = {item["kind"] for item in render(SCENARIOS[scenario]) if "namespace" not in item["metadata"]}
    assert kinds == cluster_scoped


def test_each_served_namespace_gets_the_same_rights() -> None:
    """A Role and its binding to the one ServiceAccount, in each of them."""
    objects = render(SCENARIOS["some namespaces"])
    roles, bindings = find_all(objects, "Role"), find_all(objects, "RoleBinding")
    assert [item["metadata"]["namespace"] for item in roles] == ["research", "team-vision"]
    assert [item["metadata"]["namespace"] for item in bindings] == ["research", "team-vision"]
    (rules,) = (role["rules"] for role in find_all(render(), "ClusterRole", component="operator"))
    assert [role["rules"] for role in roles] == [rules, rules]
    account = find(objects, "ServiceAccount")["metadata"]
    for binding in bindings:
        assert binding["roleRef"]["name"] == roles[0]["metadata"]["name"]
        (subject,) = binding["subjects"]
        assert (subject["name"], subject["namespace"]) == (account["name"], account["namespace"])


@pytest.mark.parametrize(
    ("scenario", "namespaces"),
    [
        ("defaults", {}),
        (
            "some namespaces",
            {
                "matchExpressions": [
                    {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["research", "team-vision"]}
                ]
            },
        ),
    ],
)
def test_postgres_is_open_to_its_users_only(scenario: str, namespaces: Document) -> None:
    """The operator, the charts server, and workers where studies may be."""
    policy = find(render(SCENARIOS[scenario]), "NetworkPolicy", component="postgresql")
    (rule,) = policy["spec"]["ingress"]
    *ours, workers = rule["from"]
    labels = [peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] for peer in ours]
    assert labels == ["operator", "charts"]
    assert all("namespaceSelector" not in peer for peer in ours)
    assert workers["namespaceSelector"] == namespaces
    assert workers["podSelector"]["matchLabels"].items() <= naming.worker_labels(study="s", uid="u").items()


def test_postgres_connects_to_nobody_and_the_charts_server_to_postgres_alone() -> None:
    """What breaks into either of them finds no way on; where the bundled Postgres is, the chart knows."""
    objects = render()
    assert "egress" not in find(objects, "NetworkPolicy", component="postgresql")["spec"]
    for component in ("postgresql", "charts"):
        assert find(objects, "NetworkPolicy", component=component)["spec"]["policyTypes"] == ["Ingress", "Egress"]
    dns, postgres = find(objects, "NetworkPolicy", component="charts")["spec"]["egress"]
    assert {port["port"] for port in dns["ports"]} == {53, 5353}
    assert [port["port"] for port in postgres["ports"]] == [5432]
    (peer,) = postgres["to"]
    assert peer["podSelector"]["matchLabels"].items() <= pod(objects, "postgresql")["metadata"]["labels"].items()
    assert peer["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "tuningstudy-system"}


@pytest.mark.parametrize(
    ("scenario", "expected"),
    [
        ("bounded connections", [([6443], ["10.0.0.1/32"])]),
        (
            "bounded connections to a database of one's own",
            [([5433], ["10.0.3.0/24"]), ([443, 6443], ["0.0.0.0/0", "::/0"])],
        ),
    ],
)
def test_the_operator_connects_where_it_is_told(scenario: str, expected: list[tuple[list[int], list[str]]]) -> None:
    """The API server, the database, DNS."""
    spec = find(render(SCENARIOS[scenario]), "NetworkPolicy", component="operator")["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert _ranges(spec["egress"]) == expected
    assert find(render(), "NetworkPolicy", component="operator")["spec"]["policyTypes"] == ["Ingress"]


def test_workers_connect_where_they_are_told() -> None:
    """In each served namespace: DNS, Postgres and what is listed."""
    policies = find_all(render(SCENARIOS["bounded connections"]), "NetworkPolicy", component="workers")
    assert [item["metadata"]["namespace"] for item in policies] == ["research", "team-vision"]
    for policy in policies:
        spec = policy["spec"]
        assert spec["podSelector"]["matchLabels"].items() <= naming.worker_labels(study="s", uid="u").items()
        assert spec["policyTypes"] == ["Egress"]
        assert _ranges(spec["egress"]) == [([443, 9000], ["10.0.4.0/24"])]
        assert "postgresql" in str(spec["egress"])


def test_metrics_are_for_those_who_are_named() -> None:
    """And for the chart's own test; probes stay open, since they come from the node."""
    probes, metrics = find(render(SCENARIOS["bounded connections"]), "NetworkPolicy", component="operator")["spec"][
        "ingress"
    ]
    assert probes == {"ports": [{"port": "probes"}]}
    monitoring, test = metrics["from"]
    assert monitoring["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "monitoring"}
    labels = pod(render(SCENARIOS["bounded connections"]), "test")["metadata"]["labels"]
    assert test["podSelector"]["matchLabels"].items() <= labels.items()
    assert "from" not in find(render(), "NetworkPolicy", component="operator")["spec"]["ingress"][1]


def test_network_policies_can_be_left_out() -> None:
    """Some clusters have rules of their own."""
    assert find_all(render(SCENARIOS["no network policies"]), "NetworkPolicy") == []


@pytest.mark.parametrize("scenario", ["own database in parts", "own database by URI"])
def test_with_a_database_of_ones_own_no_postgres_runs(scenario: str) -> None:
    """Nothing of the bundled one stays."""
    assert [item["kind"] for item in render(SCENARIOS[scenario]) if component_of(item) == "postgresql"] == []


def test_an_ingress_leads_to_the_charts_server() -> None:
    """Host, class, annotations and TLS as they are set."""
    objects = render(SCENARIOS["ingress with TLS"])
    ingress = find(objects, "Ingress")
    (rule,) = ingress["spec"]["rules"]
    backend = rule["http"]["paths"][0]["backend"]["service"]
    assert rule["host"] == "tuning.example.com"
    assert backend["name"] == find(objects, "Service", component="charts")["metadata"]["name"]
    assert ingress["spec"]["tls"] == [{"hosts": ["tuning.example.com"], "secretName": "tuning-tls"}]
    assert ingress["spec"]["ingressClassName"] == "nginx"
    assert ingress["metadata"]["annotations"] == {"cert-manager.io/cluster-issuer": "letsencrypt"}


def test_a_digest_wins_over_the_tag() -> None:
    """What was pinned is what runs, and an empty pull policy is Kubernetes' own."""
    objects = render(over(SCENARIOS["pinned images"], {"image": {"tag": "1.2.3"}}))
    container = main_container(pod(objects, "operator"))
    assert container["image"] == f"localhost/tuningstudy-operator@{DIGEST}"
    assert "imagePullPolicy" not in container
    assert main_container(pod(objects, "postgresql"))["image"] == f"docker.io/library/postgres@{DIGEST}"
    for component in ("operator", "charts", "postgresql", "test"):
        names = [item["name"] for item in pod(objects, component)["spec"]["imagePullSecrets"]]
        assert names == ["registry-credentials", "more-credentials"]


@pytest.mark.parametrize("component", ["operator", "charts", "postgresql"])
def test_pods_go_where_they_are_told(component: str) -> None:
    """Node selector, taints, affinity, priority and annotations reach the pod."""
    spec = pod(render(SCENARIOS["placed on nodes"]), component)["spec"]
    wishes = SCENARIOS["placed on nodes"][component]
    for name in ("nodeSelector", "tolerations", "affinity", "priorityClassName"):
        assert spec[name] == wishes[name]
    annotations = pod(render(SCENARIOS["placed on nodes"]), component)["metadata"]["annotations"]
    assert annotations.items() >= {"team": "vision"}.items()


def test_drains_are_never_blocked() -> None:
    """A disruption budget over a single pod would block them, so there is none; over several, one may go."""
    assert find_all(render(), "PodDisruptionBudget") == []
    assert find(render(SCENARIOS["placed on nodes"]), "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1


def test_the_operator_is_alone() -> None:
    """docs/adr/0004: the old one ends before the new one begins."""
    spec = find(render(), "Deployment", component="operator")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


def test_prometheus_finds_the_metrics() -> None:
    """The ServiceMonitor selects the Service with the port that it names."""
    objects = render(SCENARIOS["monitoring"])
    monitor, service = find(objects, "ServiceMonitor"), find(objects, "Service", component="operator")
    assert _selector(monitor).items() <= service["metadata"]["labels"].items()
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint == {"port": "metrics", "interval": "1m"}
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    assert monitor["metadata"]["labels"]["release"] == "prometheus"


@pytest.mark.parametrize(
    ("scenario", "kept"), [("defaults", "keep"), ("a CRD that goes with the release", None)], ids=["kept", "goes"]
)
def test_the_crd_is_kept_unless_told_otherwise(scenario: str, kept: str | None) -> None:
    """Deleting the CRD deletes every study of the cluster."""
    annotations = find(render(SCENARIOS[scenario]), "CustomResourceDefinition")["metadata"]["annotations"]
    assert annotations.get("helm.sh/resource-policy") == kept


def test_the_crd_can_be_ones_own() -> None:
    """GitOps often installs CRDs first."""
    assert find_all(render(SCENARIOS["no CRD"]), "CustomResourceDefinition") == []


def test_own_secrets_replace_the_generated_ones() -> None:
    """Where Helm cannot look into the cluster it would make new ones at each rendering."""
    values = SCENARIOS["own secrets"]
    assert find_all(render(values), "Secret") == []
    assert set(re.findall(r'secretKeyRef: \{name: "([^"]+)"', rendered_text(values))) == {"my-secrets"}


def test_rendering_is_repeatable_with_own_secrets() -> None:
    """What Argo CD renders twice must be the same twice."""
    values = SCENARIOS["own secrets"]
    first, second = (run_helm("template", RELEASE, CHART, values=values).stdout for _ in range(2))
    assert first == second != ""


def test_the_header_of_the_manifests_makes_the_secret_that_they_need() -> None:
    """Without Helm nobody generates it: the command in install.yaml names each key."""
    text = (ROOT / "manifests" / "install.yaml").read_text()
    needed = set(re.findall(r'secretKeyRef: \{name: "tuningstudy-secrets", key: ([\w-]+)\}', text))
    assert set(re.findall(r"--from-literal=([\w-]+)=", text)) == needed != set()
    files = set(re.findall(r"key: ([a-z]+\.(?:crt|key)),", text))
    assert set(re.findall(r"--from-file=([\w.-]+)=", text)) == files != set()


def _selector(item: Document) -> Document:
    spec = item.get("spec", {})
    if item["kind"] == "NetworkPolicy":
        found = spec["podSelector"]["matchLabels"]
    elif item["kind"] == "Service":
        found = spec["selector"]
    else:
        found = spec.get("selector", {}).get("matchLabels", {})
    selector: Document = found
    return selector


def _ranges(rules: list[Document]) -> list[tuple[list[int], list[str]]]:
    """Ports and addresses of the rules that have addresses."""
    return [
        ([port["port"] for port in rule["ports"]], [peer["ipBlock"]["cidr"] for peer in rule["to"]])
        for rule in rules
        if any("ipBlock" in peer for peer in rule.get("to", []))
    ]


def _values(item: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(item, dict):
        for key, value in item.items():
            yield from _values(value, (*path, key))
    elif isinstance(item, list):
        for value in item:
            yield from _values(value, path)
    else:
        yield path, item


def _is_misread(path: tuple[str, ...], value: object) -> bool:
    """Whether what should be text is something else."""
    if path[-1] in {"name", "namespace", "value", "secretName", "values"}:
        return not isinstance(value, str)
    return {"labels", "matchLabels", "annotations", "selector"} & set(path[:-1]) != set() and not isinstance(value, str)
