"""Helm against a real API server: install, upgrade, uninstall, install again. And what the notes say on the way."""

import json
import re
import secrets
import shlex
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import pytest
from cluster.kubectl import Kubectl
from tests.chart.release import CHART, NAMESPACE, ROOT, Document, Values, environment, find, render, run_helm
from tests.chart.scenarios import OWN_DATABASE, SCENARIOS

from tuning_api.crd import crd
from tuning_operator.charts.links import study_links

CRD = crd()["metadata"]["name"]
SECRET = "release-tuningstudy-operator-secrets"
GENERATED = {
    *("signing-key", "password-key", "charts-database-password", "postgres-password"),
    *("ca.crt", "tls.crt", "tls.key"),
}


class Release:
    """A release in a namespace of its own."""

    def __init__(self, kubectl: Kubectl, namespace: str) -> None:
        self._kubectl, self._namespace = kubectl, namespace

    def install(self, values: Values | None = None) -> None:
        """`helm install`; the CRD of the test's control plane becomes the release's."""
        self._run("install", "release", CHART, "--take-ownership", values=values)

    def upgrade(self, values: Values | None = None) -> None:
        """`helm upgrade`."""
        self._run("upgrade", "release", CHART, values=values)

    def uninstall(self) -> None:
        """`helm uninstall`."""
        self._kubectl.helm("uninstall", "release", f"--namespace={self._namespace}")

    def secrets(self) -> Document:
        """The generated secrets, as they are stored."""
        data: Document = self._kubectl.get("secret", SECRET, "-n", self._namespace)["data"]
        return data

    def _run(self, *arguments: str | Path, values: Values | None) -> None:
        done = run_helm(*arguments, f"--namespace={self._namespace}", *self._kubectl.flags, values=values)
        assert done.returncode == 0, done.stderr


@pytest.fixture
def release(kubectl: Kubectl, namespace: str) -> Release:
    """A release that is not installed yet."""
    return Release(kubectl, namespace)


@pytest.fixture(scope="module")
def notes(kubectl: Kubectl, prometheus_operator: None) -> Callable[[str], str]:  # noqa: ARG001 - Helm asks for its kinds
    """What a person reads after `helm install`, by scenario."""

    @cache
    def read(scenario: str) -> str:
        flags = ("--dry-run=server", "--take-ownership", "--namespace", NAMESPACE, *kubectl.flags)
        done = run_helm("install", "release", CHART, *flags, values=SCENARIOS[scenario])
        assert done.returncode == 0, done.stderr
        return done.stdout.partition("NOTES:\n")[2]

    return read


@pytest.fixture
def installed(release: Release) -> Iterator[Release]:
    """A release with the default values."""
    release.install()
    yield release
    release.uninstall()


def test_an_upgrade_keeps_generated_secrets(installed: Release) -> None:
    """New passwords would lock everyone out of the data that was made with the old ones."""
    before = installed.secrets()
    assert set(before) == GENERATED
    assert len(set(before.values())) == len(GENERATED)
    for values in ({}, {"operator": {"logFormat": "text"}}, OWN_DATABASE, {}):
        installed.upgrade(values)
        assert installed.secrets() == before


def test_an_upgrade_completes_a_secret_that_lacks_a_key(installed: Release, kubectl: Kubectl, namespace: str) -> None:
    """A chart that learns of another secret must not make the others anew."""
    before = installed.secrets()
    missing = {"password-key", "ca.crt", "tls.crt", "tls.key"}  # as in releases of before they were there
    patch = json.dumps([{"op": "remove", "path": f"/data/{name}"} for name in missing])
    kubectl("patch", "secret", SECRET, "-n", namespace, "--type=json", "-p", patch)
    installed.upgrade()
    after = installed.secrets()
    assert set(after) == set(before)
    assert {name for name in before if before[name] != after[name]} == missing


GOOD = {name: secrets.token_hex(24) for name in GENERATED}
BAD: dict[str, tuple[dict[str, str], str]] = {
    "of the version before": (
        {name: value for name, value in GOOD.items() if name != "password-key"},
        "the Secret mine lacks the key password-key; it needs signing-key, password-key, ",
    ),
    "without a certificate": (
        {name: value for name, value in GOOD.items() if name != "tls.key"},
        "the Secret mine lacks the key tls.key",
    ),
    "a weak key": (
        GOOD | {"signing-key": "tuning2024"},
        "signing-key of the Secret mine must have 32 characters at least",
    ),
    "one key twice": (
        GOOD | {"password-key": GOOD["signing-key"]},
        "signing-key and password-key of the Secret mine must differ",
    ),
}


@pytest.mark.parametrize(("stored", "words"), BAD.values(), ids=BAD)
def test_a_secret_of_ones_own_is_looked_at_first(
    stored: dict[str, str], words: str, kubectl: Kubectl, namespace: str
) -> None:
    """Helm says what it lacks, before any pod does."""
    values = {"secrets": {"existingSecret": "mine"}}
    arguments = ("install", "release", CHART, "--dry-run=server", "--take-ownership", f"--namespace={namespace}")
    for data, expected in ((stored, words), (GOOD, "")):
        kubectl.apply(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": "mine", "namespace": namespace},
                "stringData": data,
            }
        )
        done = run_helm(*arguments, *kubectl.flags, values=values)
        assert (done.returncode != 0) == bool(expected), done.stderr
        assert expected in done.stderr


def test_uninstalling_keeps_what_cannot_be_made_again(release: Release, kubectl: Kubectl, namespace: str) -> None:
    """The CRD and with it all studies, and the Secret that opens the data volume; a new release takes both up again."""
    release.install()
    before = release.secrets()
    sample = ROOT / "manifests" / "samples" / "digits.yaml"
    kubectl("apply", "-n", namespace, "-f", str(sample))
    release.uninstall()
    assert kubectl.get("crd", CRD)["metadata"]["name"] == CRD
    assert [item["metadata"]["name"] for item in kubectl.items("tuningstudies", "-n", namespace)] == ["digits"]
    assert kubectl.items("deployments,statefulsets,services,roles", "-n", namespace) == []
    release.install()
    assert release.secrets() == before
    release.uninstall()


@pytest.mark.usefixtures("installed")
def test_a_second_cluster_wide_operator_is_refused(kubectl: Kubectl) -> None:
    """Two releases would fight over one CRD; Helm says so, unless told to take it over."""
    assert kubectl.get("crd", CRD)["metadata"]["annotations"]["meta.helm.sh/release-name"] == "release"
    done = run_helm("install", "other", CHART, *kubectl.flags, "--dry-run=server")
    assert done.returncode != 0
    assert "cannot be imported into the current release" in done.stderr


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_notes_fit_the_values(scenario: str, notes: Callable[[str], str]) -> None:
    """Nothing is promised that these values do not give."""
    values, text = SCENARIOS[scenario], notes(scenario)
    served = values.get("watchNamespaces", [])
    assert text.splitlines()[0].endswith(f"for the namespaces {', '.join(served)}." if served else "all namespaces.")
    assert ("port-forward" in text) == ("http://localhost:8000" in text) == _is_unreachable(values)
    assert ("one volume, no replica and no backup" in text) == values.get("postgresql", {}).get("enabled", True)
    assert ("not encrypted" in text) == (values.get("database", {}).get("sslMode") == "disable")
    kept = re.findall(r"Kept on purpose: (.*)\.$", text, flags=re.MULTILINE)[-1:] or [""]
    assert ("CRD" in kept[0]) == values.get("crds", {}).get("keep", True)
    assert ("Secret" in kept[0]) == ("secrets" not in values)
    assert "<no value>" not in text
    assert "\n\n\n" not in text
    assert f"helm uninstall release --namespace {NAMESPACE}\n" in text


def test_notes_name_commands_that_exist(notes: Callable[[str], str], kubectl: Kubectl) -> None:
    """Commands are copied and run: each program, verb, flag and file must be there."""
    flags: dict[tuple[str, str], set[str]] = {}
    for command in {command for scenario in SCENARIOS for command in _commands(notes(scenario))}:
        program, verb, *words = shlex.split(command)
        files = [word for word in words if word.startswith("manifests/")]
        assert all((ROOT / file).exists() for file in files)
        seen = flags.setdefault((program, verb), set())
        seen |= {word.partition("=")[0] for word in words if word.startswith("--")}
    assert {verb for program, verb in flags if program == "helm"} == {"test", "uninstall"}
    verbs = {"apply", "get", "explain", "port-forward", "delete"}
    assert {verb for program, verb in flags if program == "kubectl"} == verbs
    for (program, verb), used in flags.items():
        text = _help(program, verb, kubectl)
        assert {flag for flag in used if flag not in text} == set(), f"{program} {verb}"


def test_the_explain_command_of_the_notes_explains(kubectl: Kubectl) -> None:
    """The CRD carries its documentation."""
    assert "The parameters and where to look" in kubectl("explain", "tuningstudy.spec.searchSpace")


@pytest.mark.parametrize("scenario", ["defaults", "another port"])
def test_the_port_forward_opens_the_links(scenario: str, notes: Callable[[str], str]) -> None:
    """The command leads to the Service, and the sed turns a link of the status into one that works here."""
    objects = render(SCENARIOS[scenario], release="release")
    service = find(objects, "Service", component="charts")
    (port,) = service["spec"]["ports"]
    assert f"service/{service['metadata']['name']} 8000:{port['port']}\n" in notes(scenario)
    external = environment(objects, "operator")["TUNING_CHARTS_URL"]["value"]
    link = study_links(
        None,
        external_url=external,
        key="key",
        namespace="research",
        study="digits",
        uid="uid",
        lifetime=timedelta(days=7),
        now=datetime.now(UTC),
    ).report
    (script,) = re.findall(r"\| sed '(.*)'", notes(scenario))
    done = subprocess.run(["sed", script], input=str(link), capture_output=True, text=True, check=True)
    assert done.stdout.startswith("http://localhost:8000/studies/research/digits/")


def _is_unreachable(values: Document) -> bool:
    charts = values.get("charts", {})
    return charts.get("replicas", 1) > 0 and not charts.get("externalUrl") and "ingress" not in charts


def _commands(notes: str) -> list[str]:
    lines = (line.strip().removesuffix("\\") for line in notes.splitlines())
    return [line for line in lines if line.startswith(("helm ", "kubectl "))]


def _help(program: str, verb: str, kubectl: Kubectl) -> str:
    """What a program says about a verb, with the flags that all verbs have."""
    return kubectl(verb, "--help") + kubectl("options") if program == "kubectl" else kubectl.helm(verb, "--help")
