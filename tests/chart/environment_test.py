"""The chart's environment variables against the settings that read them."""

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
    "signing-key": "key",
}
each_component = pytest.mark.parametrize("component", SETTINGS)


def variables(settings: type[BaseSettings]) -> dict[str, Any]:
    """The environment variables that settings read, with their fields."""
    prefix = settings.model_config["env_prefix"]
    return {
        str(field.validation_alias or f"{prefix}{name}".upper()): field for name, field in settings.model_fields.items()
    }


def read(component: str, values: Document, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The settings as the component's container would read them."""
    for name, variable in environment(render(values), component).items():
        value = variable.get("value")
        if "secretKeyRef" in variable.get("valueFrom", {}):
            value = SECRETS[variable["valueFrom"]["secretKeyRef"]["key"]]
        if value is not None:
            monkeypatch.setenv(name, value)
    return SETTINGS[component]()


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
    component: str, values: Document, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Types, enumerations and lists mean the same on both sides."""
    settings = read(component, values, monkeypatch)
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
    scenario: str, operator: str, worker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operator's way in, and the workers'."""
    settings = read("operator", SCENARIOS[scenario], monkeypatch)
    assert settings.url == make_url(f"postgresql+psycopg2://{operator}")
    assert f"{settings.worker_url.host}:{settings.worker_url.port}" == worker


@pytest.mark.parametrize("scenario", ["defaults", "own database in parts"])
def test_the_charts_server_never_gets_the_operators_password(scenario: str) -> None:
    """It is the most exposed part, and reads with a role of its own (docs/adr/0008)."""
    keys = {
        item["valueFrom"]["secretKeyRef"]["key"]
        for item in environment(render(SCENARIOS[scenario]), "charts").values()
        if "valueFrom" in item
    }
    assert keys & {"uri", "username", "password", "postgres-password"} == set()


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
    scenario: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The URL that is set, else the ingress' host, else the Service."""
    assert read("operator", SCENARIOS[scenario], monkeypatch).charts_url_external == url


def test_links_are_good_for_as_long_as_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """In days; a week where nothing is."""
    assert read("operator", SCENARIOS["defaults"], monkeypatch).charts_link_days == 7
    assert read("operator", {"charts": {"linkDays": 30}}, monkeypatch).charts_link_days == 30


def test_lists_and_images_arrive_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists travel comma-separated."""
    values = {"watchNamespaces": ["research", "team-vision"], "imagePullSecrets": ["a", "b"]}
    settings = read("operator", values, monkeypatch)
    assert settings.namespaces == ("research", "team-vision")
    assert settings.worker_defaults.image_pull_secrets == ("a", "b")
    assert settings.worker_defaults.image == "localhost/tuningstudy-trial:0.1.0"
    assert settings.worker_defaults.image_pull_policy == "IfNotPresent"


def test_more_variables_go_to_the_operator_alone() -> None:
    """`operator.extraEnv` is the operator's."""
    objects = render(SCENARIOS["more environment"])
    assert environment(objects, "operator")["HTTPS_PROXY"]["value"] == "http://proxy.example:3128"
    assert "HTTPS_PROXY" not in environment(objects, "charts")
