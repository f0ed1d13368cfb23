"""values.yaml, its schema and the README: the same values, each used, each explained, each mistake named."""

import json
import re
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from tests.chart.release import CHART, ROOT, over, refusal, rendered_text, run_helm
from tests.chart.scenarios import OWN_DATABASE, SCENARIOS, each_scenario

Document = dict[str, Any]
Path = tuple[str, ...]

DEFAULTS: Document = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA: Document = json.loads((CHART / "values.schema.json").read_text())
OTHER: Document = {
    "digest": "sha256:" + "0" * 64,
    "cidrs": ["10.9.0.0/16"],
    "ports": [9],
    "tmpSize": "9Gi",
    "extraEnv": [{"name": "A", "value": "b"}],
    "database.sslMode": "disable",
    "networkPolicy.metricsFrom": [{"podSelector": {}}],
    "networkPolicy.egress.workers.to": [{"cidr": "10.9.0.0/16", "ports": [9]}],
    "pullPolicy": "Always",
    "resources": {"limits": {"memory": "9Gi"}},
    "tolerations": [{"key": "a"}],
    "database.format": "uri",
    "postgresql.storage.size": "9Gi",
    "operator.logFormat": "text",
    "podTemplates": "restricted",
    "charts.externalUrl": "https://tuning.example.com",
    "charts.service.type": "NodePort",
    "monitoring.serviceMonitor.interval": "1m",
}
"""Another value, by path or last name, where adding to the default gives none that the schema takes."""
BY_URI = over(OWN_DATABASE, {"database": {"format": "uri", "host": "db", "name": "app"}})
BESIDE: dict[str, Document] = {
    "database.format": {"database": {"host": "db", "name": "app"}},
    "postgresql.enabled": {"database": {"existingSecret": "db"}},
    "charts.ingress.enabled": {"charts": {"ingress": {"host": "tuning.example.com"}}},
    "networkPolicy.egress.workers.enabled": {"watchNamespaces": ["research"]},
}
"""What another value cannot be without."""
GROUNDS: dict[str, Document] = {
    "database.host": BY_URI,
    "database.port": BY_URI,
    "database.name": BY_URI,
    "database.caSecret.key": over(OWN_DATABASE, {"database": {"caSecret": {"name": "ca"}}}),
    "database.": OWN_DATABASE,
    "networkPolicy.egress.apiServer.": {"networkPolicy": {"egress": {"enabled": True}}},
    "networkPolicy.egress.database.": over(
        OWN_DATABASE, {"networkPolicy": {"egress": {"enabled": True, "database": {"cidrs": ["10.0.0.0/8"]}}}}
    ),
    "networkPolicy.egress.workers.": {
        "watchNamespaces": ["research"],
        "networkPolicy": {"egress": {"workers": {"enabled": True}}},
    },
    "charts.service.nodePort": {"charts": {"service": {"type": "NodePort"}}},
    "charts.ingress.": {"charts": {"ingress": {"enabled": True, "host": "tuning.example.com"}}},
    "monitoring.serviceMonitor.": {"monitoring": {"serviceMonitor": {"enabled": True}}},
    "podTemplateSecrets": {"podTemplates": "restricted"},
    "monitoring.prometheusRule.": {"monitoring": {"prometheusRule": {"enabled": True}}},
}
"""What must be on for a value to matter, by the start of its path."""


def leaves(schema: Document, path: Path = ()) -> Iterator[Path]:
    """The path of every value that is set as one."""
    for name, child in schema["properties"].items():
        if name == "global":
            continue
        resolved = resolve(child)
        if "properties" in resolved and name != "resources":
            yield from leaves(resolved, (*path, name))
        else:
            yield (*path, name)


def resolve(schema: Document) -> Document:
    reference = schema.get("$ref", "").removeprefix("#/definitions/")
    found: Document = SCHEMA["definitions"][reference] if reference else schema
    return found


def objects_of(schema: Document, path: Path = ()) -> Iterator[tuple[Path, Document]]:
    """Every part of the schema that lists properties."""
    if "properties" in resolve(schema):
        yield path, resolve(schema)
        for name, child in resolve(schema)["properties"].items():
            yield from objects_of(child, (*path, name))


def default_of(path: Path) -> Any:
    value: Any = DEFAULTS
    for name in path:
        value = value[name]
    return value


def nested(path: Path, value: Any) -> Document:
    for name in reversed(path):
        value = {name: value}
    return dict(value)


def another(path: Path) -> Any:
    """A value that the schema takes and that is not the default."""
    name, default = ".".join(path), default_of(path)
    if name in OTHER or path[-1] in OTHER:
        return OTHER.get(name, OTHER.get(path[-1]))
    match default:
        case bool():
            return not default
        case int():
            return default + 1
        case str():
            return f"a{default}"
        case list():
            return ["a"]
        case _:
            return {"a": "b"}


LEAVES = [".".join(path) for path in leaves(SCHEMA)]
PARTS = {".".join(path): schema for path, schema in objects_of(SCHEMA)}


@pytest.mark.parametrize("name", LEAVES)
def test_every_value_changes_what_is_rendered(name: str) -> None:
    """A value that no template uses is a lie."""
    path = tuple(name.split("."))
    ground = next((ground for start, ground in GROUNDS.items() if name.startswith(start)), {})
    if name.endswith(".enabled") and name != "postgresql.enabled":
        ground = {}
    # Generated secrets differ each time.
    ground = over({"secrets": {"existingSecret": "mine"}}, ground)
    changed = over(over(ground, nested(path, another(path))), BESIDE.get(name, {}))
    assert rendered_text(changed) != rendered_text(ground)


@pytest.mark.parametrize("name", LEAVES)
def test_every_value_is_explained(name: str) -> None:
    """One paragraph for each value, right above it."""
    assert name in dict(explanations())


def test_no_explanation_is_about_nothing() -> None:
    """values.yaml and the schema know the same values."""
    assert [name for name, _ in explanations()] == LEAVES


def test_the_schema_knows_exactly_the_defaults() -> None:
    """A value in one of the two only is a mistake in the other."""
    for path, schema in objects_of(SCHEMA):
        if path[-1:] != ("resources",):
            assert set(default_of(path)) == set(schema["properties"]) - {"global"}, path


@pytest.mark.parametrize(("path", "schema"), PARTS.items(), ids=[f"values.{path}".rstrip(".") for path in PARTS])
def test_the_schema_is_strict_and_explains_itself(path: str, schema: Document) -> None:
    """Editors show descriptions; a key that is unknown, or set to null, is refused."""
    assert schema["additionalProperties"] is False
    assert all(child.get("description") for child in schema["properties"].values())
    if not path.endswith("resources"):
        assert set(schema["required"]) == set(schema["properties"]) - {"global"}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"operater": {}}, "additional properties 'operater' not allowed"),
        ({"operator": {"replicas": 2}}, "at '/operator': additional properties 'replicas' not allowed"),
        ({"charts": {"ingress": {"hosts": []}}}, "at '/charts/ingress': additional properties 'hosts' not allowed"),
        ({"image": {"tag": 1.0}}, "at '/image/tag': got number, want string"),
        ({"image": {"digest": "4f5e"}}, "at '/image/digest'"),
        ({"image": {"repository": None}}, "at '/image': missing property 'repository'"),
        ({"image": {"repository": "https://registry.example/operator"}}, "at '/image/repository'"),
        ({"trial": {"image": {"pullPolicy": "Sometimes"}}}, "at '/trial/image/pullPolicy': value must be one of"),
        ({"imagePullSecrets": "registry"}, "at '/imagePullSecrets': got string, want array"),
        ({"imagePullSecrets": [{"name": "registry"}]}, "at '/imagePullSecrets/0': got object, want string"),
        ({"watchNamespaces": ["Research"]}, "at '/watchNamespaces/0': 'Research' does not match pattern"),
        ({"watchNamespaces": ["a", "a"]}, "at '/watchNamespaces': items at 0 and 1 are equal"),
        ({"watchNamespaces": "research"}, "at '/watchNamespaces': got string, want array"),
        ({"database": {"format": "dsn"}}, "at '/database/format': value must be one of 'uri', 'parts'"),
        ({"database": {"workerPort": 70000}}, "at '/database/workerPort': maximum"),
        ({"database": {"sslMode": "on"}}, "at '/database/sslMode': value must be one of"),
        ({"database": {"caSecret": {"key": "a/b"}}}, "at '/database/caSecret/key'"),
        ({"trial": {"tmpSize": 20}}, "at '/trial/tmpSize': got number, want string"),
        ({"charts": {"tmpSize": ""}}, "at '/charts/tmpSize'"),
        ({"charts": {"extraEnv": [{"name": "TUNING_SIGNING_KEY"}]}}, "at '/charts/extraEnv/0/name'"),
        (
            {"networkPolicy": {"egress": {"database": {"cidrs": ["db.example"]}}}},
            "at '/networkPolicy/egress/database/cidrs/0'",
        ),
        ({"postgresql": {"reservedConnections": 0}}, "at '/postgresql/reservedConnections': minimum"),
        ({"postgresql": {"enabled": "yes"}}, "at '/postgresql/enabled': got string, want boolean"),
        ({"postgresql": {"maxConnections": 5}}, "at '/postgresql/maxConnections': minimum"),
        ({"postgresql": {"storage": {"size": "8 GB"}}}, "at '/postgresql/storage/size'"),
        ({"operator": {"resyncSeconds": 0}}, "at '/operator/resyncSeconds': exclusiveMinimum"),
        ({"operator": {"resyncSeconds": "5s"}}, "at '/operator/resyncSeconds': got string, want number"),
        ({"operator": {"logFormat": "xml"}}, "at '/operator/logFormat': value must be one of 'json', 'text'"),
        ({"operator": {"extraEnv": {"A": "b"}}}, "at '/operator/extraEnv': got object, want array"),
        ({"operator": {"extraEnv": [{"value": "b"}]}}, "at '/operator/extraEnv/0': missing property 'name'"),
        ({"operator": {"extraEnv": [{"name": "TUNING_NAMESPACES"}]}}, "at '/operator/extraEnv/0/name'"),
        ({"operator": {"resources": {"request": {}}}}, "at '/operator/resources': additional properties 'request'"),
        ({"charts": {"resources": {"limits": {"memory": "1 GB"}}}}, "at '/charts/resources/limits/memory'"),
        ({"charts": {"nodeSelector": {"gpu": True}}}, "at '/charts/nodeSelector/gpu': got boolean, want string"),
        ({"charts": {"externalUrl": "tuning.example.com"}}, "at '/charts/externalUrl'"),
        ({"charts": {"ingress": {"host": "https://tuning.example.com"}}}, "at '/charts/ingress/host'"),
        ({"charts": {"linkDays": 0}}, "at '/charts/linkDays': minimum"),
        ({"charts": {"linkDays": 0.5}}, "at '/charts/linkDays': got number, want integer"),
        ({"charts": {"replicas": -1}}, "at '/charts/replicas': minimum"),
        ({"charts": {"service": {"port": 0}}}, "at '/charts/service/port': minimum"),
        ({"crds": False}, "at '/crds': got boolean, want object"),
        ({"monitoring": {"serviceMonitor": {"interval": "often"}}}, "at '/monitoring/serviceMonitor/interval'"),
        ({"monitoring": {"prometheusRule": {"labels": {"app.kubernetes.io/name": "x"}}}}, "app.kubernetes.io/name"),
    ],
    ids=str,
)
def test_a_mistake_is_refused_by_its_name(values: Document, words: str) -> None:
    """Whoever mistypes a value reads which one, and nothing is installed."""
    assert words in refusal(values)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            {"database": {"existingSecret": "db"}},
            "database.existingSecret needs postgresql.enabled=false: there is one database",
        ),
        (
            {"postgresql": {"enabled": False}},
            "no database: set database.existingSecret, or postgresql.enabled=true",
        ),
        (
            {"database": {"workerHost": "pooler"}},
            "database.workerHost and database.workerPort need postgresql.enabled=false",
        ),
        (
            {"charts": {"ingress": {"enabled": True}}},
            "charts.ingress.enabled needs charts.ingress.host: links are made of it",
        ),
        (
            {"charts": {"ingress": {"host": "tuning.example.com"}}},
            "charts.ingress.host needs charts.ingress.enabled=true",
        ),
        (
            {"charts": {"service": {"nodePort": 30080}}},
            "charts.service.nodePort needs charts.service.type=NodePort or LoadBalancer",
        ),
        (
            {"operator": {"extraEnv": [{"name": "A", "value": "b", "valueFrom": {}}]}},
            "operator.extraEnv: A has both value and valueFrom: leave one",
        ),
        (
            {"charts": {"extraEnv": [{"name": "A", "value": "b", "valueFrom": {}}]}},
            "charts.extraEnv: A has both value and valueFrom: leave one",
        ),
        ({"database": {"host": "db"}}, "database.host and database.name need database.format=uri"),
        (
            over(OWN_DATABASE, {"database": {"name": "app"}}),
            "database.host and database.name need database.format=uri: with parts they stand in the Secret",
        ),
        (
            over(OWN_DATABASE, {"database": {"format": "uri"}}),
            "database.format=uri needs database.host and database.name: the charts server connects with a role of its own",
        ),
        ({"database": {"caSecret": {"name": "ca"}}}, "database.caSecret needs postgresql.enabled=false"),
        (
            over(OWN_DATABASE, {"database": {"caSecret": {"name": "ca"}, "sslMode": "disable"}}),
            "database.caSecret needs another database.sslMode than disable",
        ),
        (
            over(OWN_DATABASE, {"database": {"sslMode": "verify-full"}}),
            "database.sslMode=verify-full needs database.caSecret.name",
        ),
        (
            {"postgresql": {"maxConnections": 20}},
            "postgresql.reservedConnections must be less than postgresql.maxConnections",
        ),
        (
            {"networkPolicy": {"egress": {"database": {"cidrs": ["10.0.0.0/8"]}}}},
            "networkPolicy.egress.database.cidrs needs postgresql.enabled=false",
        ),
        (
            over(OWN_DATABASE, {"networkPolicy": {"egress": {"enabled": True}}}),
            "networkPolicy.egress needs networkPolicy.egress.database.cidrs: nobody could reach the database",
        ),
        (
            {"networkPolicy": {"egress": {"workers": {"enabled": True}}}},
            "networkPolicy.egress.workers.enabled needs watchNamespaces",
        ),
        (
            {"networkPolicy": {"egress": {"workers": {"to": [{"cidr": "10.0.0.0/8", "ports": [1]}]}}}},
            "networkPolicy.egress.workers.to needs networkPolicy.egress.workers.enabled=true",
        ),
        (
            {"networkPolicy": {"enabled": False, "egress": {"enabled": True}}},
            "networkPolicy.metricsFrom and networkPolicy.egress need networkPolicy.enabled=true",
        ),
        ({"fullnameOverride": "1st"}, "begins with a digit, and a Service's may not: set fullnameOverride"),
    ],
)
def test_a_contradiction_is_refused_in_a_sentence(values: Document, sentence: str) -> None:
    """Values that are right one by one and wrong together."""
    assert sentence in refusal(values)


@each_scenario
def test_helm_finds_nothing_to_complain_about(values: Document) -> None:
    """`helm lint --strict`, for every way to install."""
    done = run_helm("lint", "--strict", "--quiet", CHART, values=values)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_the_chart_is_of_the_projects_version() -> None:
    """The images' default tag is the appVersion."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert chart["appVersion"] == project["version"]


def test_the_readme_lists_every_group_of_values() -> None:
    """The table of the README is complete, and names nothing that does not exist."""
    cells = re.findall(r"^\| `([\w.]+)`", (CHART / "README.md").read_text(), flags=re.MULTILINE)
    assert {cell.split(".")[0] for cell in cells} == set(DEFAULTS)
    for cell in cells:
        default_of(tuple(cell.split(".")))


def test_the_readme_tells_only_of_values_that_exist() -> None:
    """Its commands are copied and run."""
    for path in re.findall(r"--set '?([\w.]+)=", (CHART / "README.md").read_text()):
        assert path in LEAVES


def test_every_scenario_changes_something() -> None:
    """A scenario with a forgotten value would test the defaults again."""
    texts = {rendered_text(over(values, {"secrets": {"existingSecret": "x"}})) for values in SCENARIOS.values()}
    # "own secrets" is the defaults with secrets of one's own.
    assert len(texts) == len(SCENARIOS) - 1


def explanations() -> Iterator[tuple[str, str]]:
    """The values that have a paragraph above them, `# -- ...`, with its first line."""
    path: list[str] = []
    paragraph = ""
    for line in (CHART / "values.yaml").read_text().splitlines():
        if match := re.match(r" *# -- (.+)", line):
            paragraph = match[1]
        elif match := re.match(r"( *)([\w]+):", line):
            path = [*path[: len(match[1]) // 2], match[2]]
            if paragraph:
                yield ".".join(path), paragraph
            paragraph = ""
