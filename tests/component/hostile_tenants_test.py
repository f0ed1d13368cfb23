"""What a tenant writes into the API server, with rights on studies in a namespace and nothing else: another one's go on."""

import json
import os
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from cluster.kubectl import Kubectl
from sqlalchemy import create_engine
from sqlalchemy.engine import URL
from tests.support.builders import a_manifest
from tests.support.charts_server import most_memory, running_charts_server
from tests.support.operator_process import OperatorProcess
from tests.support.study_on_cluster import StudyOnCluster
from tests.support.wait import wait_until

from tuning_api import naming
from tuning_api.spec import PLURAL

SOON = 10.0
"""Seconds until another namespace's study has its status, beside those that it takes alone, on a machine that may be busy."""
MEMORY = 512 * 2**20
"""The chart's limit of the operator."""
MEMORY_OF_CHARTS = 2**30
"""The chart's limit of the charts server."""
LEVELS = 9_900
"""The API server takes 10,000."""
OBJECTIVE = {"objective": "m:o", "gpus": 0}


@pytest.fixture
def victim(kubectl: Kubectl) -> Iterator[StudyOnCluster]:
    """Another namespace's study, which is not applied yet."""
    name = f"victim-{os.urandom(4).hex()}"
    kubectl("create", "namespace", name)
    yield StudyOnCluster(kubectl, name)
    kubectl("delete", PLURAL, "--all", "-n", name, "--timeout=60s")
    kubectl("delete", "namespace", name, "--wait=false")


def is_served(victim: StudyOnCluster, *, seconds: float) -> float:
    """The victim's study gets its status in time, and is deleted; how long the first took."""
    victim.apply(suspend=True)
    begun = time.monotonic()
    victim.wait_for("Suspended", seconds=seconds)
    took = time.monotonic() - begun
    victim.delete()
    return took


@pytest.fixture
def alone(operator: OperatorProcess, victim: StudyOnCluster) -> float:
    """Seconds that it takes before anybody does any harm."""
    assert operator.is_running
    return is_served(victim, seconds=60)


def lives_on(operator: OperatorProcess, victim: StudyOnCluster, *, alone: float) -> None:
    """Now, and after a restart, which lists what is there."""
    is_served(victim, seconds=alone + SOON)
    assert operator.stop() == 0
    operator.start()
    is_served(victim, seconds=alone + SOON)
    assert operator.is_running
    assert "Traceback" not in operator.log


def nested(levels: int) -> str:
    """JSON of so many levels."""
    return '{"a":' * levels + "1" + "}" * levels


def message(kubectl: Kubectl, namespace: str, name: str) -> str:
    """What a study's status says."""
    return kubectl("get", PLURAL, name, "-n", namespace, "-o", "jsonpath={.status.message}")


def says(kubectl: Kubectl, namespace: str, name: str, words: str) -> None:
    """Wait until it does."""
    look: Callable[[], str] = lambda: message(kubectl, namespace, name)  # noqa: E731
    wait_until(look, lambda said: words in said, seconds=30, what=f"{name} says {words!r}")


@pytest.mark.parametrize("levels", [300, 1_200, LEVELS])
def test_an_object_that_nests_deep_ends_nothing(
    *, operator: OperatorProcess, kubectl: Kubectl, namespace: str, victim: StudyOnCluster, alone: float, levels: int
) -> None:
    """It is refused in words, in its own status."""
    manifest = a_manifest(name="deep", namespace=namespace, trial=OBJECTIVE | {"podTemplate": "DEEP"})
    text = json.dumps(manifest).replace('"DEEP"', nested(levels))
    kubectl("create", "--validate=false", "-f", "-", stdin=text)
    says(kubectl, namespace, "deep", "spec.trial.podTemplate")
    lives_on(operator, victim, alone=alone)
    kubectl("delete", PLURAL, "deep", "-n", namespace, "--timeout=60s")


def test_conditions_in_a_row_hold_no_thread(
    *, operator: OperatorProcess, kubectl: Kubectl, namespace: str, victim: StudyOnCluster, alone: float
) -> None:
    """Each of these eight was once counted for ever."""
    choices = [f"c{number}" for number in range(8)]
    space: list[dict[str, Any]] = [
        {"name": f"p{level}", "type": "categorical", "choices": choices}
        | ({"when": {"parameter": f"p{level - 1}", "in": choices}} if level else {})
        for level in range(12)
    ]
    for number in range(8):
        stuck = StudyOnCluster(kubectl, namespace, f"stuck-{number}")
        stuck.apply(searchSpace=space, trial=OBJECTIVE, sampler={"type": "bruteforce"})
    lives_on(operator, victim, alone=alone)
    for number in range(8):
        says(kubectl, namespace, f"stuck-{number}", "searchSpace has 68,719,476,736")


@pytest.mark.timeout(600)
def test_large_objects_do_not_fill_the_operator(
    *, operator: OperatorProcess, kubectl: Kubectl, namespace: str, victim: StudyOnCluster, alone: float, tmp_path: Path
) -> None:
    """Neither as they come nor all at once, after a restart."""
    variables = [{"name": f"VARIABLE_{number}", "value": "x" * 190} for number in range(5_000)]  # 1.1 MB
    for number in range(60):
        manifest = a_manifest(
            name=f"large-{number}",
            namespace=namespace,
            suspend=True,
            trial=OBJECTIVE | {"podTemplate": {"spec": {"containers": [{"name": "trial", "env": variables}]}}},
        )
        file = tmp_path / "large.json"
        file.write_text(json.dumps(manifest))
        kubectl("create", "--validate=false", "-f", str(file))
    lives_on(operator, victim, alone=alone)
    says(kubectl, namespace, "large-59", "trial.podTemplate may have 262,144 bytes as JSON")
    used = most_memory(operator.pid)
    print(f"the operator took {used / 2**20:.0f} MiB at most")  # noqa: T201 - what is measured is the figure
    assert used < MEMORY


LARGE_ROWS = {
    "ten attributes of 40 MB": (
        "INSERT INTO trial_user_attributes (trial_id, key, value_json) SELECT {trial}, 'mine-' || i,"
        " '\"' || repeat('x', 40000000) || '\"' FROM generate_series(1, 10) AS i"
    ),
    "two million reports": (
        "INSERT INTO trial_intermediate_values (trial_id, step, intermediate_value, intermediate_value_type)"
        " SELECT {trial}, i, 0.5, 'FINITE' FROM generate_series(0, 1999999) AS i"
    ),
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("rows", LARGE_ROWS.values(), ids=LARGE_ROWS)
def test_large_rows_of_before_the_limits_do_not_fill_the_operator_or_the_charts_server(
    *,
    operator: OperatorProcess,
    kubectl: Kubectl,
    namespace: str,
    victim: StudyOnCluster,
    alone: float,
    database: URL,
    tmp_path: Path,
    rows: str,
) -> None:
    """A worker's role is refused them today; who reads them all the same needs no more memory than for any study."""
    study = StudyOnCluster(kubectl, namespace, "rows")
    study.apply()
    study.wait_for_trials("waiting", 1)
    of_first = "(SELECT trial_id FROM trials WHERE number = 0)"
    with create_engine(database).begin() as connection:
        connection.exec_driver_sql(f"SET search_path = {naming.database_schema(namespace)}")
        connection.exec_driver_sql(
            f"UPDATE trials SET state = 'COMPLETE', datetime_start = now(), datetime_complete = now() WHERE number = 0;"
            f" INSERT INTO trial_values (trial_id, objective, value, value_type) VALUES ({of_first}, 0, 0.5, 'FINITE')"
        )
        connection.exec_driver_sql(rows.format(trial=of_first))
    lives_on(operator, victim, alone=alone)
    study.wait_for_trials("complete", 1)
    assert most_memory(operator.pid) < MEMORY
    link = urlsplit(study.status()["charts"]["report"])
    with running_charts_server(tmp_path / "charts.log", database=database) as charts:
        for page in ("", "data", "figures", "report.html", "trials.json"):
            with urllib.request.urlopen(f"http://127.0.0.1:{charts.port}{link.path}{page}", timeout=60) as answer:
                assert answer.status == 200
        assert charts.peak() < MEMORY_OF_CHARTS
