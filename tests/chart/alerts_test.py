"""The chart's alerts, evaluated by Prometheus' own promtool: each fires when it should, and only then."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cluster import binaries
from prometheus_client import generate_latest
from tests.chart.release import NAMESPACE, Document, find, render
from tests.chart.scenarios import SCENARIOS
from tests.support import documents

from tuning_api.status import StudyStatus
from tuning_operator.metrics import Metrics
from tuning_operator.model import StudyKey

Series = dict[str, str]
ROUNDS = "tuningstudy_last_round_timestamp_seconds{}"
ERRORS = 'tuningstudy_pass_errors_total{{error="{}"}}'
STALLED = 'tuningstudy_stalled_studies{{reason="{}"}}'
STUDIES = 'tuningstudy_studies{{phase="{}"}}'
HEALTHY: Series = {
    ROUNDS: "0+60x300",
    STUDIES.format("Running"): "2x300",
    STUDIES.format("Complete"): "9x300",
    **{STALLED.format(reason): "0x300" for reason in ("DatabaseUnavailable", "PodUnschedulable", "InvalidSpec")},
}
"""A value each minute, for five hours. In such a test time begins at zero, and a round ends with each minute."""

CASES: dict[str, tuple[Series, int, set[str]]] = {
    "all is well": ({}, 200, set()),
    "the operator is away for eight minutes": ({ROUNDS: "0+60x30 _x8 2400+60x60"}, 38, set()),
    "the operator has been away for a quarter of an hour": (
        {ROUNDS: "0+60x30", STUDIES.format("Running"): "2x30"},
        50,
        {"OperatorAbsent"},
    ),
    "no round ends any more": ({ROUNDS: "0+60x30 1800x60"}, 45, {"PassesStopped"}),
    "a round takes four minutes": ({ROUNDS: "0x4 240x4 480x4 720x4 960x4 1200x4 1440x4"}, 24, set()),
    "no study is left to look at": ({STUDIES.format("Running"): "0x300"}, 200, set()),
    "the API server was away for five minutes": (
        {ERRORS.format("ClusterUnavailable"): "0x10 0+12x5 60x200"},
        25,
        set(),
    ),
    "a study meets a mistake of the operator's at each pass": (
        {ERRORS.format("Bug"): "0+12x300"},
        30,
        {"PassesFail error=Bug"},
    ),
    "the API server answers nothing, and each try takes half a minute": (
        {ERRORS.format("ClusterUnavailable"): "0+2x300"},
        30,
        {"PassesFail error=ClusterUnavailable"},
    ),
    "the database is away for four minutes": (
        {STALLED.format("DatabaseUnavailable"): "0x10 2x3 0x200", ERRORS.format("DatabaseUnavailable"): "0x10 0+24x3"},
        14,
        set(),
    ),
    "the database is away": (
        {STALLED.format("DatabaseUnavailable"): "0x10 2x200", ERRORS.format("DatabaseUnavailable"): "0x10 0+24x200"},
        20,
        {"DatabaseUnavailable"},
    ),
    "a study waits for a GPU for fifty minutes": ({STALLED.format("PodUnschedulable"): "0x10 1x50 0x200"}, 61, set()),
    "a study has waited for a GPU for more than an hour": (
        {STALLED.format("PodUnschedulable"): "0x10 1x200"},
        90,
        {"StudiesStalled reason=PodUnschedulable"},
    ),
    "a study's owner has to act": (
        {
            STALLED.format(reason): "1x300"
            for reason in ("InvalidSpec", "TrialsFailing", "NoWorkersWanted", "QueuedByKueue")
        },
        200,
        set(),
    ),
}
"""By what happens: the series that are not as in HEALTHY, the minute at which Prometheus looks, and the alerts that fire then.

What passes in time is looked at in its last minute."""


@pytest.fixture(scope="module")
def rules() -> Document:
    """The spec of the PrometheusRule, which is a rule file of Prometheus'."""
    spec: Document = find(render(SCENARIOS["alerts alone"]), "PrometheusRule")["spec"]
    return spec


def alerts(rules: Document) -> list[Document]:
    """All alerts."""
    return [rule for group in rules["groups"] for rule in group["rules"]]


def promtool(folder: Path, *arguments: str, **files: Any) -> str:
    """What promtool says of files, which are written to a folder first.

    Raises:
        AssertionError: it found something; with what it said.
    """
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))  # JSON is YAML
    command = [binaries.PROMTOOL.ensure() / "promtool", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_prometheus_accepts_the_rules(rules: Document, tmp_path: Path) -> None:
    """Expressions, durations and the templates in summaries."""
    said = promtool(tmp_path, "check", "rules", "--lint=all", "--lint-fatal", "rules.json", rules=rules)
    assert f"SUCCESS: {len(alerts(rules))} rules found" in said


@pytest.mark.parametrize("case", CASES)
def test_an_alert_fires_when_it_should_and_only_then(case: str, rules: Document, tmp_path: Path) -> None:
    """All alerts are looked at in each case."""
    changes, minutes, firing = CASES[case]
    series = HEALTHY | changes
    test = {
        "interval": "1m",
        "input_series": [{"series": _ours(name), "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": 'count by (alertname, error, reason) (ALERTS{alertstate="firing"})',
                "eval_time": f"{minutes}m",
                "exp_samples": [{"labels": _labels(alert), "value": 1} for alert in sorted(firing)],
            }
        ],
    }
    promtool(tmp_path, "test", "rules", "test.json", rules=rules, test={"rule_files": ["rules.json"], "tests": [test]})


def test_every_alert_has_fired_in_some_case(rules: Document) -> None:
    """An alert that is not in the table above has not been tried."""
    tried = {f"TuningStudy{alert.split()[0]}" for _, _, firing in CASES.values() for alert in firing}
    assert {rule["alert"] for rule in alerts(rules)} == tried


def test_an_operator_elsewhere_is_not_ours(rules: Document, tmp_path: Path) -> None:
    """Two releases, each for some namespaces, may have one Prometheus."""
    elsewhere = {"series": ROUNDS.replace("{", '{namespace="elsewhere"'), "values": "0+60x60"}
    absent = {"labels": _labels("OperatorAbsent"), "value": 1}
    looked = {"expr": 'count by (alertname) (ALERTS{alertstate="firing"})', "eval_time": "30m", "exp_samples": [absent]}
    test = {"interval": "1m", "input_series": [elsewhere], "promql_expr_test": [looked]}
    promtool(tmp_path, "test", "rules", "test.json", rules=rules, test={"rule_files": ["rules.json"], "tests": [test]})


def test_alerts_ask_for_series_that_exist(rules: Document) -> None:
    """An alert over a renamed series stays silent for ever."""
    metrics = Metrics()
    metrics.count_error(ValueError())
    metrics.observe(StudyKey("research", "digits"), StudyStatus())
    series = generate_latest(metrics.registry).decode()
    asked = {name for rule in alerts(rules) for name in re.findall(r"tuningstudy_\w+", rule["expr"])}
    assert asked
    assert [name for name in asked if not re.search(rf"^{name}\b", series, flags=re.MULTILINE)] == []


def test_every_alert_says_where_to_read_on(rules: Document) -> None:
    """A section of the operations document that has the alert's name."""
    for rule in alerts(rules):
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{rule['alert'].lower()}"
        assert documents.section("operations.md", rule["alert"]).strip()


def _ours(series: str) -> str:
    return series.replace("{", f'{{namespace="{NAMESPACE}",')


def _labels(alert: str) -> str:
    name, _, label = alert.partition(" ")
    more = re.sub(r"(\w+)=(\w+)", r', \1="\2"', label)
    return f'{{alertname="TuningStudy{name}"{more}}}'
