"""From laptop to cluster: a folder is submitted, trained, looked at and read with a real API server.

The operator has the chart's rights, workers are local processes, and the charts server is reached as in a cluster: by a
Service, through the API server's proxy.
"""

import base64
import json
import socket
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import urllib3
import yaml
from cluster.control_plane import ControlPlane
from cluster.kubectl import Kubectl
from sqlalchemy.engine import URL
from tests.support import packaged_model
from tests.support.builders import a_manifest
from tests.support.operator_process import (
    CHARTS_PASSWORD,
    OperatorProcess,
    service_account_kubeconfig,
)
from tests.support.ports import free_port
from tests.support.process_kubelet import ProcessKubelet
from tests.support.tenancy import SIGNING_KEY, UID
from tests.support.wait import wait_until

from tuning_operator.charts.figures import CHARTS as FIGURES
from tuning_operator.charts.links import study_path
from tuning_operator.cli import plugin
from tuning_operator.cli.__main__ import main
from tuning_operator.remote.charts import link_of, service_of
from tuning_operator.remote.gateway import Gateway, connect
from tuning_operator.remote.links import Service, page_path
from tuning_operator.remote.relay import Relay
from tuning_operator.remote.where import Where

Document = dict[str, Any]

SYSTEM = "tuningstudy-system"
CHARTS = Service(SYSTEM, "tuningstudy-operator-charts")


class Laptop:
    """A folder with a manifest and a model of its own, and the commands in this process."""

    def __init__(self, home: Path, kubeconfig: Path, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home, self.kubeconfig, self.namespace = home, kubeconfig, namespace
        self._monkeypatch = monkeypatch
        monkeypatch.chdir(home)
        packaged_model.write(home)
        (home / "data.csv").write_text("1,2\n")
        self.write()

    def write(self, *, suspend: bool = True, **changes: Any) -> None:
        """Write the manifest, without a namespace, as a person does who runs it here first."""
        document = a_manifest(name="slope") | {"spec": packaged_model.SPEC | {"suspend": suspend} | changes}
        del document["metadata"]["namespace"]
        (self.home / "slope.yaml").write_text(yaml.safe_dump(document))

    def say(self, *arguments: str, program: Callable[[], None] = plugin.main, kubeconfig: Path | None = None) -> int:
        """Run a command; its exit code."""
        place = [f"--namespace={self.namespace}", f"--kubeconfig={kubeconfig or self.kubeconfig}"]
        self._monkeypatch.setattr(sys, "argv", ["tuningstudy", *arguments, *place])
        with pytest.raises(SystemExit) as ended:
            program()
        return int(ended.value.code or 0)


@pytest.fixture(scope="module")
def operator(
    control_plane: ControlPlane, database: URL, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OperatorProcess]:
    """The operator, whose links name the charts server's Service."""
    kubeconfig = service_account_kubeconfig(control_plane, Kubectl(control_plane.kubeconfig))
    settings = {"TUNING_CHARTS_URL": f"http://{CHARTS.name}.{CHARTS.namespace}.svc"}
    with OperatorProcess(kubeconfig, database, tmp_path_factory.mktemp("operator"), settings) as operator:
        yield operator


@pytest.fixture(scope="module")
def charts(operator: OperatorProcess, kubelet: ProcessKubelet, kubectl: Kubectl, database: URL) -> Iterator[None]:
    """The charts server as a pod, and the Service that leads there."""
    assert operator.metrics()
    assert kubelet.gpus > 0
    port = free_port()
    kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(_charts_server(database, port)))
    # NB: the API server proxies only to addresses of pods, and to none of loopback.
    address = [{"ip": _own_address()}]
    patch = json.dumps({"status": {"podIP": address[0]["ip"], "podIPs": address}})
    kubectl("patch", "pod", CHARTS.name, "-n", SYSTEM, "--subresource=status", "--type=merge", "-p", patch)
    ready = f"{CHARTS.proxy_path}/readyz"
    wait_until(lambda: kubectl.run("get", "--raw", ready), lambda done: done.returncode == 0, seconds=60, what=ready)
    yield
    kubectl("delete", "pod", CHARTS.name, "-n", SYSTEM)


@pytest.fixture
def laptop(tmp_path: Path, control_plane: ControlPlane, namespace: str, monkeypatch: pytest.MonkeyPatch) -> Laptop:
    """A person's folder and kubeconfig."""
    return Laptop(tmp_path, control_plane.kubeconfig, namespace, monkeypatch)


@pytest.fixture
def gateway(laptop: Laptop) -> Gateway:
    """That person's way to the cluster."""
    return connect(Where(laptop.namespace, None, laptop.kubeconfig))


def config_maps(kubectl: Kubectl, namespace: str) -> dict[str, Document]:
    """ConfigMaps of code by name."""
    found = kubectl.items("configmaps", "-n", namespace, "-l", "tuningstudy.io/study")
    return {item["metadata"]["name"]: item for item in found}


# The whole way


@pytest.mark.usefixtures("kubelet", "charts")
def test_the_folder_that_runs_here_runs_there(
    laptop: Laptop, gateway: Gateway, kubectl: Kubectl, capsys: pytest.CaptureFixture[str]
) -> None:
    """Submitted with its package, watched to its end, and read: best, trials, report, a page, and a forged link."""
    laptop.write(suspend=False)
    assert laptop.say("submit", "slope.yaml", "--watch") == 0
    said = capsys.readouterr()
    assert "packed 2 modules" in said.err
    assert "2 other files left behind" in said.err
    assert "Complete: 3 of 3 trials done" in said.out

    assert laptop.say("best", "slope", "--json") == 0
    best = json.loads(capsys.readouterr().out)
    assert laptop.say("best", "slope.yaml", "--config", program=main) == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["model"]["init_args"]["lr"] == pytest.approx(best["params"]["lr"])

    assert laptop.say("trials", "slope", "--csv") == 0
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 4
    assert rows[1 + best["trial"]].split(",")[2] == str(best["val_loss"])

    assert laptop.say("report", "slope", "-o", "report.html") == 0
    report = (laptop.home / "report.html").read_text()
    assert all(f'data-chart="{chart}"' in report for chart in FIGURES)
    assert report.rstrip().endswith("</html>")

    study = kubectl.get("tuningstudy", "slope", "-n", laptop.namespace)
    _the_page_opens(gateway, study)


def _the_page_opens(gateway: Gateway, study: Document) -> None:
    """As `open` has it: the relay passes on the page and what it asks for, and nothing else."""
    link = link_of(study)
    assert service_of(gateway, link, operator_namespace=None) == CHARTS
    assert service_of(gateway, link, operator_namespace=SYSTEM) == CHARTS
    with Relay(gateway, CHARTS) as relay:
        threading.Thread(target=relay.serve_forever, daemon=True).start()
        page = relay.url + page_path(link)
        opened = urllib3.request("GET", page)
        assert "slope" in opened.data.decode()
        assert opened.headers["Content-Security-Policy"].startswith("default-src 'none'")
        asked = urllib3.request("GET", page + "data")
        assert asked.json()["terminal"] is True
        again = urllib3.request("GET", page + "data", headers={"If-None-Match": asked.headers["ETag"]})
        forged = urllib3.request("GET", page.replace("/slope/", "/other/"))
        elsewhere = urllib3.request("GET", f"{relay.url}/readyz")
        namespace = study["metadata"]["namespace"]
        ended = urllib3.request(
            "GET", relay.url + study_path(key=SIGNING_KEY, namespace=namespace, study="slope", uid=UID, end=1)
        )
        assert (again.status, forged.status, elsewhere.status, ended.status) == (304, 404, 404, 410)
        relay.shutdown()


# What submit leaves in the cluster


def test_code_belongs_to_its_study_and_goes_with_it(laptop: Laptop, kubectl: Kubectl) -> None:
    """Again and again the same; other code beside it; and nothing when the study is gone."""
    assert laptop.say("submit", "slope.yaml", program=main) == 0
    first = config_maps(kubectl, laptop.namespace)
    study = kubectl.get("tuningstudy", "slope", "-n", laptop.namespace)
    assert [study["spec"]["trial"]["code"]["configMapName"]] == list(first)
    (stored,) = first.values()
    assert [owner["uid"] for owner in stored["metadata"]["ownerReferences"]] == [study["metadata"]["uid"]]
    with zipfile.ZipFile(BytesIO(base64.b64decode(stored["binaryData"]["code.zip"]))) as archive:
        assert archive.read("settings.py") == b"SAMPLES = 8\n"

    assert laptop.say("submit", "slope.yaml") == 0
    assert config_maps(kubectl, laptop.namespace) == first, "the same code is the same ConfigMap, untouched"

    (laptop.home / "settings.py").write_text("SAMPLES = 16\n")
    assert laptop.say("submit", "slope.yaml") == 0
    both = config_maps(kubectl, laptop.namespace)
    assert len(both) == 2
    assert first.items() <= both.items()

    kubectl("delete", "tuningstudy", "slope", "-n", laptop.namespace, "--timeout=60s")
    wait_until(
        lambda: config_maps(kubectl, laptop.namespace), lambda left: not left, seconds=60, what="no code is left"
    )


def test_a_crash_before_the_study_had_its_code_is_mended_by_the_same_command(laptop: Laptop, kubectl: Kubectl) -> None:
    """The ConfigMap was made, and then the laptop was closed."""
    assert laptop.say("submit", "slope.yaml") == 0
    (name,) = config_maps(kubectl, laptop.namespace)
    patch = json.dumps({"metadata": {"ownerReferences": None}})
    kubectl("patch", "configmap", name, "-n", laptop.namespace, "--type=merge", "-p", patch)
    kubectl("delete", "tuningstudy", "slope", "-n", laptop.namespace, "--timeout=60s")
    assert laptop.say("submit", "slope.yaml") == 0
    study = kubectl.get("tuningstudy", "slope", "-n", laptop.namespace)
    (stored,) = config_maps(kubectl, laptop.namespace).values()
    assert [owner["uid"] for owner in stored["metadata"]["ownerReferences"]] == [study["metadata"]["uid"]]


def test_what_the_api_server_refuses_leaves_nothing_behind(
    laptop: Laptop, kubectl: Kubectl, capsys: pytest.CaptureFixture[str]
) -> None:
    """In its own words, which a rule of the CRD has; no code is made for it."""
    assert laptop.say("submit", "slope.yaml") == 0
    before = config_maps(kubectl, laptop.namespace)
    (laptop.home / "settings.py").write_text("SAMPLES = 32\n")
    laptop.write(objectives=[{"metric": "val_loss", "direction": "maximize"}])
    assert laptop.say("submit", "slope.yaml") == 2
    assert "objectives is immutable" in capsys.readouterr().err
    assert config_maps(kubectl, laptop.namespace) == before


def test_a_field_that_somebody_else_has_set_is_not_taken_over_in_silence(
    laptop: Laptop, kubectl: Kubectl, capsys: pytest.CaptureFixture[str]
) -> None:
    """`kubectl scale` between two submits: said, and --force-conflicts means it."""
    assert laptop.say("submit", "slope.yaml") == 0
    kubectl("scale", "tuningstudy/slope", "--replicas=2", "-n", laptop.namespace)
    assert laptop.say("submit", "slope.yaml") == 2
    assert "take it over by --force-conflicts" in capsys.readouterr().err
    assert laptop.say("submit", "slope.yaml", "--force-conflicts") == 0
    assert kubectl.get("tuningstudy", "slope", "-n", laptop.namespace)["spec"]["parallelism"] == 1


def test_a_dry_run_prints_what_kubectl_can_apply(
    laptop: Laptop, kubectl: Kubectl, capsys: pytest.CaptureFixture[str]
) -> None:
    """The ConfigMap and the study, for whoever keeps manifests in a repository; the cluster sees nothing."""
    assert laptop.say("submit", "slope.yaml", "--dry-run") == 0
    text = capsys.readouterr().out
    assert [document["kind"] for document in yaml.safe_load_all(text)] == ["ConfigMap", "TuningStudy"]
    assert config_maps(kubectl, laptop.namespace) == {}
    kubectl("apply", "--server-side", "-f", "-", stdin=text)
    assert len(config_maps(kubectl, laptop.namespace)) == 1


# What is said when something is missing


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("best", "nobody"), 'tuningstudies.tuningstudy.io "nobody" not found'),
        (("best", "slope", "--context=nowhere"), "no cluster: "),
        (("best", "none.yaml"), "none.yaml: there is no such file"),
        (("submit", "none.yaml"), "none.yaml: there is no such file"),
    ],
)
def test_what_is_not_there_is_named(
    laptop: Laptop, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str
) -> None:
    """One sentence, and never a traceback."""
    assert laptop.say(*arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert words in said


@pytest.mark.usefixtures("charts")
def test_the_right_that_is_missing_is_named_and_is_enough(
    laptop: Laptop, control_plane: ControlPlane, kubectl: Kubectl, capsys: pytest.CaptureFixture[str]
) -> None:
    """A person with `view` in their namespace: to read charts takes one right on one Service."""
    assert laptop.say("submit", "slope.yaml") == 0
    wait_until(
        lambda: kubectl.get("tuningstudy", "slope", "-n", laptop.namespace).get("status", {}),
        lambda status: "charts" in status,
        seconds=60,
        what="the study has a link",
    )
    person = _a_person(control_plane, kubectl, laptop.namespace)
    assert laptop.say("trials", "slope", kubeconfig=person) == 2
    assert f"get services/proxy {CHARTS.resource} in namespace {SYSTEM}" in capsys.readouterr().err
    _allow_charts(kubectl, laptop.namespace)
    assert laptop.say("trials", "slope", kubeconfig=person) == 0


def _a_person(plane: ControlPlane, kubectl: Kubectl, namespace: str) -> Path:
    kubectl("create", "serviceaccount", "person", "-n", namespace)
    account = f"{namespace}:person"
    rights = ("--verb=get,list", "--resource=tuningstudies.tuningstudy.io,pods,pods/log")
    kubectl("create", "role", "studies", *rights, "-n", namespace)
    kubectl("create", "rolebinding", "studies", "--role=studies", f"--serviceaccount={account}", "-n", namespace)
    token = kubectl("create", "token", "person", "-n", namespace).strip()
    return plane.write_kubeconfig(f"person-{namespace}", token=token)


def _allow_charts(kubectl: Kubectl, namespace: str) -> None:
    role = f"charts-{namespace}"
    rights = ("--verb=get", "--resource=services/proxy", f"--resource-name={CHARTS.resource}")
    kubectl("create", "role", role, *rights, "-n", SYSTEM)
    kubectl("create", "rolebinding", role, f"--role={role}", f"--serviceaccount={namespace}:person", "-n", SYSTEM)


def _charts_server(database: URL, port: int) -> list[Document]:
    labels = {"app.kubernetes.io/part-of": "tuningstudy", "app.kubernetes.io/component": "charts"}
    metadata = {"name": CHARTS.name, "namespace": CHARTS.namespace, "labels": labels}
    settings = {
        "TUNING_DATABASE_URL": database.render_as_string(hide_password=False),
        "TUNING_SIGNING_KEY": SIGNING_KEY,
        "TUNING_CHARTS_DATABASE_PASSWORD": CHARTS_PASSWORD,
        "TUNING_CHARTS_PORT": str(port),
    }
    container = {
        "name": "charts",
        "image": "tuningstudy-operator:test",
        "command": ["python", "-m", "tuning_operator", "charts"],
        "env": [{"name": name, "value": value} for name, value in settings.items()],
        "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
    }
    pod = {
        "automountServiceAccountToken": False,
        "containers": [container],
        "volumes": [{"name": "scratch", "emptyDir": {}}],
    }
    ports = [{"name": "http", "port": 80, "targetPort": port}]
    return [
        {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod},
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"selector": labels, "ports": ports}},
    ]


def _own_address() -> str:
    """This machine's address other than loopback, to which the API server does not proxy. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("the API server's proxy needs an address other than loopback")
        address: str = probe.getsockname()[0]
        return address
