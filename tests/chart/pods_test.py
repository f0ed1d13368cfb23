"""Every pod of the chart: restricted, hardened, probed, and without secrets in plain sight."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
from tests.chart.pod_security import PROBES, containers, faults, loose_ends
from tests.chart.release import component_of, find, find_all, main_container, pod, pods, render
from tests.chart.scenarios import each_scenario

Document = dict[str, Any]


BREACHES: dict[str, Callable[[Document], Any]] = {
    "spec.hostNetwork": lambda item: item["spec"].update(hostNetwork=True),
    "volume tmp": lambda item: item["spec"]["volumes"][0].update(hostPath={"path": "/"}),
    "sysctl net.core.somaxconn": lambda item: item["spec"]["securityContext"].update(
        sysctls=[{"name": "net.core.somaxconn", "value": "1"}]
    ),
    "operator: privileged": lambda item: main_container(item)["securityContext"].update(privileged=True),
    "operator: allowPrivilegeEscalation": lambda item: main_container(item)["securityContext"].pop(
        "allowPrivilegeEscalation"
    ),
    "operator: capabilities": lambda item: main_container(item)["securityContext"].pop("capabilities"),
    "operator: runs as root": lambda item: item["spec"]["securityContext"].update(runAsUser=0),
    "operator: seccompProfile": lambda item: item["spec"]["securityContext"].pop("seccompProfile"),
    "operator: procMount or seLinuxOptions": lambda item: main_container(item)["securityContext"].update(
        procMount="Unmasked"
    ),
    "operator: hostPort": lambda item: main_container(item)["ports"][0].update(hostPort=80),
    "operator: a probe of another host": lambda item: main_container(item)["livenessProbe"]["httpGet"].update(host="x"),
}


@each_scenario
def test_every_pod_is_restricted(values: Document) -> None:
    """Clusters that enforce Pod Security `restricted` admit all of our pods."""
    assert {component_of(item): faults(item) for item in pods(render(values))} == {
        component_of(item): [] for item in pods(render(values))
    }


@each_scenario
def test_every_pod_is_hardened(values: Document) -> None:
    """Beyond the standard: a read-only root, known needs, no foreign variables, a token only where it is asked for."""
    assert [
        (component_of(item), list(loose_ends(item))) for item in pods(render(values)) if list(loose_ends(item))
    ] == []


@pytest.mark.parametrize("fault", BREACHES)
def test_the_check_itself_finds_each_breach(fault: str) -> None:
    """A check that finds nothing proves nothing."""
    broken = copy.deepcopy(pod(render(), "operator"))
    BREACHES[fault](broken)
    assert faults(broken) == [fault]


@each_scenario
def test_only_the_operator_gets_a_token(values: Document) -> None:
    """Whoever breaks into the charts server or Postgres finds no way to the API server."""
    with_token = [component_of(item) for item in pods(render(values)) if item["spec"]["automountServiceAccountToken"]]
    assert with_token == ["operator"]
    assert find(render(values), "ServiceAccount")["automountServiceAccountToken"] is False


@each_scenario
def test_no_secret_stands_in_a_pod(values: Document) -> None:
    """Whoever may read pods must not read passwords: secret settings come by reference."""
    secret_words = ("PASSWORD", "KEY", "TOKEN", "DATABASE_URL")
    literal = [
        variable["name"]
        for item in pods(render(values))
        for container in containers(item)
        for variable in container.get("env", [])
        if "value" in variable and any(word in variable["name"] for word in secret_words)
    ]
    assert literal == []


@each_scenario
def test_no_generated_secret_is_repeated_outside_its_secret(values: Document) -> None:
    """One place for each secret."""
    objects = render(values)
    generated = {value for secret in find_all(objects, "Secret") for value in secret["data"].values()}
    others = repr([item for item in objects if item["kind"] != "Secret"])
    assert [value for value in generated if value in others] == []


@each_scenario
def test_variables_are_named_once(values: Document) -> None:
    """Server-side apply refuses a list with two entries of one name."""
    for item in pods(render(values)):
        for container in containers(item):
            names = [variable["name"] for variable in container.get("env", [])]
            assert len(names) == len(set(names))


@each_scenario
def test_probes_and_services_meet_named_ports(values: Document) -> None:
    """A renamed port must not leave a probe, a Service or a policy behind."""
    objects = render(values)
    ports = {component_of(item): _port_names(item) for item in pods(objects)}
    for item in pods(objects):
        for container in containers(item):
            probed = {container[probe]["httpGet"]["port"] for probe in PROBES if "httpGet" in container.get(probe, {})}
            assert probed <= _port_names(item)
    for service in find_all(objects, "Service"):
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports[component_of(service)]
    for policy in find_all(objects, "NetworkPolicy"):
        named = {port["port"] for rule in policy["spec"].get("ingress", []) for port in rule["ports"]}
        assert named <= ports.get(component_of(policy), set())


@pytest.mark.parametrize(
    ("component", "liveness", "readiness"),
    [("operator", "/healthz", "/readyz"), ("charts", "/healthz", "/readyz"), ("postgresql", None, None)],
)
def test_probes_ask_the_right_question(component: str, liveness: str | None, readiness: str | None) -> None:
    """Liveness asks the process only, since a restart heals nothing else; a slow start is not a failure."""
    container = main_container(pod(render(), component))
    assert container.get("livenessProbe", {}).get("httpGet", {}).get("path") == liveness
    assert container["readinessProbe"].get("httpGet", {}).get("path") == readiness
    assert container["startupProbe"]["periodSeconds"] * container["startupProbe"]["failureThreshold"] >= 120


def test_postgres_keeps_its_data_on_the_volume() -> None:
    """A folder that some version of the official image declares as a volume would be lost with the container."""
    container = main_container(pod(render(), "postgresql"))
    (folder,) = (item["value"] for item in container["env"] if item["name"] == "PGDATA")
    (mount,) = (item["mountPath"] for item in container["volumeMounts"] if item["name"] == "data")
    assert folder.startswith(f"{mount}/")
    assert folder not in {"/var/lib/postgresql", "/var/lib/postgresql/data"}


@each_scenario
def test_every_scratch_volume_has_a_size(values: Document) -> None:
    """A pod that fills its node's disk takes the others with it."""
    for item in pods(render(values)):
        scratch = [volume["emptyDir"] for volume in item["spec"].get("volumes", []) if "emptyDir" in volume]
        assert all(volume.get("sizeLimit") for volume in scratch), component_of(item)


def test_postgres_reads_a_key_that_it_accepts() -> None:
    """Of root, and readable by the group that the pod has; Postgres refuses one that all may read."""
    spec = pod(render(), "postgresql")["spec"]
    (volume,) = (item["secret"] for item in spec["volumes"] if item["name"] == "certificate")
    assert volume["defaultMode"] == 0o440
    assert [item["key"] for item in volume["items"]] == ["tls.crt", "tls.key"]
    assert spec["securityContext"]["fsGroup"] == spec["securityContext"]["runAsUser"]


def test_the_helm_test_asks_both_servers() -> None:
    """`helm test` says whether the operator watches and the charts server serves."""
    objects = render()
    asked = [word for word in main_container(pod(objects, "test"))["command"] if word.startswith("http://")]
    services = {item["metadata"]["name"]: item["spec"]["ports"][0]["port"] for item in find_all(objects, "Service")}
    names = [f"tuning-tuningstudy-operator-{server}" for server in ("metrics", "charts")]
    assert asked == [f"http://{name}:{services[name]}/readyz" for name in names]


def test_the_helm_test_leaves_out_a_charts_server_that_is_off() -> None:
    """charts.replicas=0 is a choice, not a failure."""
    command = main_container(pod(render({"charts": {"replicas": 0}}), "test"))["command"]
    assert len([word for word in command if word.startswith("http://")]) == 1


def _port_names(item: Document) -> set[str]:
    return {port["name"] for container in containers(item) for port in container.get("ports", [])}
