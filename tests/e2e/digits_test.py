"""The first study of every user, as the README has it: Helm, kubectl, a real kubelet, real images."""

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from cluster import release
from playwright.sync_api import Browser
from tests.support import audit
from tests.support.installed import Installed, namespace_of_its_own

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

SAMPLES = Path(__file__).resolve().parent.parent.parent / "manifests" / "samples"
OPERATOR = f"system:serviceaccount:{release.NAMESPACE}:tuningstudy-operator"
STATUS_SECONDS = 20
TIMES_AND_NAMES = {
    *("startTime", "completionTime", "elapsedSeconds", "computeSeconds", "lastTransitionTime"),
    *("selector", "schema"),
}
DECIDED_BY_CHANCE = {"best", "bestDisplay", "importances", "complete", "pruned", "epochsRun", "epochsSavedByPruning"}
"""With two workers, the order in which trials end."""
VERDICTS = 5
"""Accepted, running, complete, and each of its two workers gone."""
ONCE_FOR_A_STUDY = 8
"""A Secret, three events, and Kopf's finalizer and marks."""
PLOTS = ("optimization-history", "param-importances", "parallel-coordinate", "slice")

Document = dict[str, Any]


@dataclass(frozen=True)
class Finished:
    """The digits study after its last trial."""

    began: datetime
    study: Document

    @property
    def namespace(self) -> str:
        """The flag that names its namespace."""
        return f"--namespace={self.study['metadata']['namespace']}"

    @property
    def status(self) -> Document:
        """The study's status."""
        status: Document = self.study["status"]
        return status


@pytest.fixture(scope="module")
def digits(installed: Installed) -> Iterator[Finished]:
    """`kubectl apply -f manifests/samples/digits.yaml`, and `kubectl wait`."""
    kubectl, began = installed.kubectl, datetime.now(UTC)
    with namespace_of_its_own(kubectl) as namespace:
        kubectl("apply", f"--filename={SAMPLES / 'digits.yaml'}", f"--namespace={namespace}")
        kubectl("wait", "--for=condition=Complete", "tuningstudy/digits", f"--namespace={namespace}", "--timeout=600s")
        yield Finished(began, kubectl.get("tuningstudy", "digits", f"--namespace={namespace}"))


def test_helm_test_is_content(installed: Installed) -> None:
    """`helm test` asks the operator and the charts server."""
    assert "Phase:          Succeeded" in installed.kubectl.helm(
        "test", release.NAME, f"--namespace={release.NAMESPACE}"
    )


def test_the_budget_is_exact_and_pruning_is_at_work(digits: Finished) -> None:
    """30 is 30; the median pruner finds something to stop; and the search finds a good model."""
    trials = digits.status["trials"]
    assert (trials["total"], trials["finished"], trials["running"], trials["waiting"]) == (30, 30, 0, 0)
    assert trials["complete"] + trials["pruned"] + trials["failed"] == 30
    assert trials["pruned"] >= 1
    assert trials["failed"] == 0
    assert digits.status["epochsSavedByPruning"] > 0
    assert digits.status["best"]["value"] >= 0.95


def test_the_best_parameters_lie_in_the_search_space(digits: Finished) -> None:
    """With their types: whole numbers stay whole."""
    params = digits.status["best"]["params"]
    assert 1e-4 <= params["learning_rate"] <= 1e-1
    assert (params["hidden_dim"], params["batch_size"]) in {(h, b) for h in (16, 32, 64, 128) for b in (32, 64, 128)}
    assert isinstance(params["num_layers"], int)


def test_the_tables_are_readable(digits: Finished, installed: Installed) -> None:
    """What a person sees while waiting; wide adds workers and the message."""
    assert digits.status["phase"] == "Complete"
    narrow = installed.kubectl("get", "tuningstudies", digits.namespace).splitlines()
    wide = installed.kubectl("get", "tuningstudies", "--output=wide", digits.namespace).splitlines()
    assert narrow[0].split() == ["NAME", "PHASE", "TRIALS", "RUNNING", "PRUNED", "FAILED", "BEST", "AGE"]
    assert narrow[1].split()[:3] == ["digits", "Complete", "30/30"]
    assert wide[0].split()[-2:] == ["WORKERS", "MESSAGE"]
    assert "30 of 30 trials done" in wide[1]


def test_pods_ask_for_a_gpu_and_no_more_than_the_study_wanted(digits: Finished, installed: Installed) -> None:
    """Two workers, each with one GPU, ended by themselves with exit code 0."""
    ended = "--for=jsonpath={.status.phase}=Succeeded"
    installed.kubectl("wait", ended, "pods", "--all", digits.namespace, "--timeout=60s")
    pods = installed.kubectl.items("pods", digits.namespace)
    assert {pod["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] for pod in pods} == {"1"}
    assert digits.study["spec"]["parallelism"] == len(pods)


def test_links_of_the_status_open_the_study_and_nothing_else(digits: Finished, installed: Installed) -> None:
    """Through the API server's proxy, so on any cluster; a forged signature is answered like a study that is not there."""
    path = urlsplit(digits.status["charts"]["report"]).path
    assert "digits" in _page(installed, path)
    forged = installed.kubectl.run("get", "--raw", _proxied(path.replace("/digits/", "/other/")))
    assert forged.returncode != 0


def test_the_report_draws_four_plots_in_a_browser(digits: Finished, installed: Installed, chromium: Browser) -> None:
    """Live numbers, four plots first, and no request leaves the server."""
    if installed.node is None:
        pytest.skip("the links of a cluster of yours need its own way in (charts.externalUrl)")
    page = chromium.new_page()
    asked: set[str] = set()
    page.on("request", lambda request: asked.add(urlsplit(request.url).netloc))
    page.goto(digits.status["charts"]["report"])
    for plot in PLOTS:
        page.wait_for_selector(f"[data-chart='{plot}'] .main-svg", timeout=30_000)
    assert page.get_by_text("30", exact=False).count() > 0
    assert asked == {urlsplit(release.CHARTS_URL).netloc}
    page.close()


def test_the_operators_writes_grow_with_time_and_not_with_trials(digits: Finished, installed: Installed) -> None:
    """A status in 20 s and one for each verdict, from the API server's own audit log; the rest once for a study."""
    if installed.node is None:
        pytest.skip("the audit log of a cluster of yours is out of reach")
    counted = audit.writes(
        installed.node.plane.audit_log,
        user=OPERATOR,
        namespace=digits.study["metadata"]["namespace"],
        since=digits.began,
    )
    statuses = counted.pop("update tuningstudies/status")
    beside_jobs = sum(number for what, number in counted.items() if not what.endswith(" jobs"))
    assert 0 < statuses <= VERDICTS + digits.status["elapsedSeconds"] / STATUS_SECONDS
    assert beside_jobs <= ONCE_FOR_A_STUDY, dict(counted)


def test_the_same_file_ends_in_the_same_status_without_a_cluster(
    digits: Finished, installed: Installed, tmp_path: Path
) -> None:
    """Field by field, but for times and names; what chance decides is of the same kind."""
    command = [sys.executable, "-m", "tuning_operator.cli", "run", str(SAMPLES / "digits.yaml"), "--no-report"]
    subprocess.run([*command, f"--folder={tmp_path}"], check=True, timeout=600)
    local = yaml.safe_load((tmp_path / "status.json").read_text())
    installed.kubectl("wait", "--for=jsonpath={.status.workers}=0", "tuningstudy/digits", digits.namespace)
    status = installed.kubectl.get("tuningstudy", "digits", digits.namespace)["status"]
    del status["charts"]
    assert comparable(local) == comparable(status)


def comparable(value: Any, field: str = "") -> Any:
    """A status in which times, names, and what the order of trials decides, are replaced by their kinds."""
    if field in TIMES_AND_NAMES | DECIDED_BY_CHANCE:
        return _kind(value)
    if field == "message":
        return re.sub(r"\d+", "N", value)
    if isinstance(value, dict):
        return {key: comparable(item, key) for key, item in value.items()}
    return [comparable(item) for item in value] if isinstance(value, list) else value


def _kind(value: Any) -> Any:
    """NB: the API server writes 0.0 as 0."""
    if isinstance(value, dict):
        return {key: _kind(item) for key, item in value.items()}
    return "number" if isinstance(value, int | float) else type(value).__name__


def test_every_sample_is_accepted(installed: Installed, research: str) -> None:
    """Word for word, by the API server."""
    for sample in sorted(SAMPLES.glob("*.yaml")):
        said = installed.kubectl("create", "--dry-run=server", f"--filename={sample}", f"--namespace={research}")
        assert yaml.safe_load(sample.read_text())["metadata"]["name"] in said


def _proxied(path: str) -> str:
    return f"/api/v1/namespaces/{release.NAMESPACE}/services/http:tuningstudy-operator-charts:http/proxy{path}"


def _page(installed: Installed, path: str) -> str:
    return installed.kubectl("get", "--raw", _proxied(path))
