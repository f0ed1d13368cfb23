"""The chart's environment variables against the settings that read them."""

from pathlib import Path
from typing import Any

import pytest
from pydantic_settings import BaseSettings
from sqlalchemy.engine import make_url
from tests.chart.release import environment, main_container, pod, render
from tests.chart.scenarios import SCENARIOS, each_scenario

from tuning_operator.settings import CHARTS_ROLE, ChartsSettings, OperatorSettings

Document = dict[str, Any]
SETTINGS: dict[str, type[BaseSettings]] = {"operator": OperatorSettings, "charts": ChartsSettings}
PORTS = {
    "operator": {"TUNING_PROBE_PORT": "probes", "TUNING_METRICS_PORT": "metrics"},
    "charts": {"TUNING_CHARTS_PORT": "http"},
}
"""Inside a pod there is nothing to choose: containers use the settings' own defaults."""
NOT_FOR_CHARTS = {
    "TUNING_DATABASE_USER",
    "TUNING_DATABASE_PASSWORD",
    "TUNING_DATABASE_URL",
    "TUNING_WORKER_DATABASE_HOST",
    "TUNING_WORKER_DATABASE_PORT",
}
"""The charts server has its own role, and starts no workers."""
SECRETS = {
    "uri": "postgres://app:operators-password@mycluster-rw:5432/app",
    "host": "mycluster-rw",
    "port": "5433",
    "dbname": "app",
    "username": "app",
    "password": "operators-password",
    "postgres-password": "bundled-password",
    "charts-database-password": "charts-password",
    "signing-key": "a-key-that-signs-links-0123456789",
    "password-key": "a-key-that-makes-passwords-012345",
}
each_component = pytest.mark.parametrize("component", SETTINGS)


def variables(settings: type[BaseSettings]) -> dict[str, Any]:
    """The environment variables that settings read, with their fields."""
    prefix = settings.model_config["env_prefix"]
    return {
        str(field.validation_alias or f"{prefix}{name}".upper()): field for name, field in settings.model_fields.items()
    }


def read(component: str, values: Document, monkeypatch: pytest.MonkeyPatch, authority: Path) -> Any:
    """The settings as the component's container would read them, with a file where the authority's is mounted."""
    for name, variable in environment(render(values), component).items():
        value = variable.get("value")
        if "secretKeyRef" in variable.get("valueFrom", {}):
            value = SECRETS[variable["valueFrom"]["secretKeyRef"]["key"]]
        if name == "TUNING_DATABASE_CA_FILE":
            value = str(authority)
        if value is not None:
            monkeypatch.setenv(name, value)
    return SETTINGS[component]()


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    """The certificate of the database's authority."""
    path = tmp_path / "ca.crt"
    path.write_text("a certificate")
    return path


@pytest.fixture(autouse=True)
def no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the shell sets is not the chart's."""
    for settings in SETTINGS.values():
        for name in variables(settings):
            monkeypatch.delenv(name, raising=False)


@each_scenario
@each_component
def test_every_variable_is_a_setting(component: str, values: Document) -> None:
    """A misspelt variable would be ignored in silence."""
    ours = {name for name in environment(render(values), component) if name.startswith("TUNING_")}
    assert ours - set(variables(SETTINGS[component])) == set()


@each_scenario
@each_component
def test_every_required_setting_is_set(component: str, values: Document) -> None:
    """What has no default must come from the chart."""
    required = {name for name, field in variables(SETTINGS[component]).items() if field.is_required()}
    assert required - set(environment(render(values), component)) == set()


@each_component
def test_every_setting_can_be_reached_by_some_value(component: str) -> None:
    """A setting that no value reaches does not exist for who uses the chart."""
    reached = {name for values in SCENARIOS.values() for name in environment(render(values), component)}
    unreachable = PORTS[component].keys() | (NOT_FOR_CHARTS if component == "charts" else set())
    assert set(variables(SETTINGS[component])) - reached == unreachable


@each_component
def test_containers_listen_where_the_settings_say(component: str) -> None:
    """The ports of the pod are the defaults of the settings."""
    ports = {port["name"]: port["containerPort"] for port in main_container(pod(render(), component))["ports"]}
    fields = variables(SETTINGS[component])
    assert ports == {port: fields[name].default for name, port in PORTS[component].items()}


@each_scenario
@each_component
def test_the_settings_accept_what_the_chart_sets(
    component: str, values: Document, monkeypatch: pytest.MonkeyPatch, authority: Path
) -> None:
    """Types, enumerations and lists mean the same on both sides."""
    settings = read(component, values, monkeypatch, authority)
    assert settings.url.get_backend_name() == "postgresql"
    assert settings.charts_url.username == CHARTS_ROLE


@pytest.mark.parametrize(
    ("scenario", "operator", "worker"),
    [
        (
            "defaults",
            "tuningstudy:bundled-password@tuning-tuningstudy-operator-postgresql.tuningstudy-system.svc:5432/tuningstudy",
            "tuning-tuningstudy-operator-postgresql.tuningstudy-system.svc:5432",
        ),
        ("own database in parts", "app:operators-password@mycluster-rw:5433/app", "mycluster-rw:5433"),
        ("own database by URI", "app:operators-password@mycluster-rw:5432/app", "mycluster-rw.databases.svc:6432"),
    ],
)
def test_the_database_is_where_the_values_say(
    scenario: str, operator: str, worker: str, monkeypatch: pytest.MonkeyPatch, authority: Path
) -> None:
    """The operator's way in, and the workers'."""
    settings = read("operator", SCENARIOS[scenario], monkeypatch, authority)
    assert settings.url.set(query={}) == make_url(f"postgresql+psycopg2://{operator}")
    assert f"{settings.worker_url.host}:{settings.worker_url.port}" == worker


@pytest.mark.parametrize(
    ("scenario", "mode", "authority_of"),
    [
        ("defaults", "verify-full", "tuning-tuningstudy-operator-secrets"),
        ("own secrets", "verify-full", "my-secrets"),
        ("no encryption", "disable", None),
        ("own database in parts", "require", None),
        ("own database by URI", "require", None),
        ("own database with a certificate", "verify-full", "mycluster-ca"),
        ("own database without encryption", "disable", None),
    ],
)
@each_component
def test_connections_to_the_database_are_encrypted(
    component: str, scenario: str, mode: str, authority_of: str | None
) -> None:
    """And the server's certificate is verified where its authority is known: that one key is mounted, and no private one."""
    objects = render(SCENARIOS[scenario])
    assert environment(objects, component)["TUNING_DATABASE_SSL_MODE"]["value"] == mode
    volumes = {item["name"]: item["secret"] for item in pod(objects, component)["spec"]["volumes"] if "secret" in item}
    if authority_of is None:
        assert "TUNING_DATABASE_CA_FILE" not in environment(objects, component)
        assert volumes == {}
        return
    item = {"key": "ca.crt", "path": "ca.crt"}
    expected = {"secretName": authority_of, "defaultMode": 0o440, "items": [item]}
    assert volumes == {"database-authority": expected}
    (mount,) = (item for item in main_container(pod(objects, component))["volumeMounts"] if item["name"] in volumes)
    assert environment(objects, component)["TUNING_DATABASE_CA_FILE"]["value"] == f"{mount['mountPath']}/ca.crt"
    assert mount["readOnly"] is True


@each_scenario
def test_the_charts_server_never_gets_what_is_the_operators(values: Document) -> None:
    """It is the most exposed part, and reads with a role of its own (docs/adr/0008).

    Neither the operator's way into the database, nor the key from which all workers' passwords follow.
    """
    charts = pod(render(values), "charts")
    (container,) = charts["spec"]["containers"]
    keys = {
        item["valueFrom"]["secretKeyRef"]["key"]
        for item in container["env"]
        if "secretKeyRef" in item.get("valueFrom", {})
    }
    keys |= {item["key"] for volume in charts["spec"]["volumes"] for item in volume.get("secret", {}).get("items", [])}
    assert "envFrom" not in container
    assert keys <= {"signing-key", "charts-database-password", "host", "port", "dbname", "ca.crt"}


def test_two_keys_are_two() -> None:
    """Links are signed with one, passwords follow from the other."""
    names = ("TUNING_SIGNING_KEY", "TUNING_PASSWORD_KEY")
    keys = [environment(render(), "operator")[name]["valueFrom"]["secretKeyRef"]["key"] for name in names]
    assert keys == ["signing-key", "password-key"]


@pytest.mark.parametrize(
    ("scenario", "url"),
    [
        ("defaults", "http://tuning-tuningstudy-operator-charts.tuningstudy-system.svc"),
        ("another port", "http://tuning-tuningstudy-operator-charts.tuningstudy-system.svc:8080"),
        ("ingress with TLS", "https://tuning.example.com"),
        ("ingress without TLS", "http://tuning.example.com"),
        ("a URL of one's own", "https://tuning.example.com"),
    ],
)
def test_links_start_where_people_reach_the_charts_server(
    scenario: str, url: str, monkeypatch: pytest.MonkeyPatch, authority: Path
) -> None:
    """The URL that is set, else the ingress' host, else the Service."""
    assert read("operator", SCENARIOS[scenario], monkeypatch, authority).charts_url_external == url


def test_links_are_good_for_as_long_as_is_asked(monkeypatch: pytest.MonkeyPatch, authority: Path) -> None:
    """In days; a week where nothing is."""
    assert read("operator", SCENARIOS["defaults"], monkeypatch, authority).charts_link_days == 7
    assert read("operator", {"charts": {"linkDays": 30}}, monkeypatch, authority).charts_link_days == 30


def test_lists_and_images_arrive_whole(monkeypatch: pytest.MonkeyPatch, authority: Path) -> None:
    """Lists travel comma-separated."""
    values = {"watchNamespaces": ["research", "team-vision"], "imagePullSecrets": ["a", "b"]}
    settings = read("operator", values, monkeypatch, authority)
    assert settings.namespaces == ("research", "team-vision")
    assert settings.worker_defaults.image_pull_secrets == ("a", "b")
    assert settings.worker_defaults.image == "localhost/tuningstudy-trial:0.1.0"
    assert settings.worker_defaults.image_pull_policy == "IfNotPresent"


def test_more_variables_go_where_they_are_said() -> None:
    """`operator.extraEnv` is the operator's, `charts.extraEnv` the charts server's."""
    objects = render(SCENARIOS["more environment"])
    assert environment(objects, "operator")["HTTPS_PROXY"]["value"] == "http://proxy.example:3128"
    assert environment(objects, "charts")["TZ"]["value"] == "Europe/Paris"
    assert "HTTPS_PROXY" not in environment(objects, "charts")
    assert "TZ" not in environment(objects, "operator")
