"""The operator over many studies: what it costs, and how old its statuses are."""

import math
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from cluster.control_plane import ControlPlane
from cluster.kubectl import Kubectl
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool
from tests.support import audit
from tests.support.cluster import install_crd
from tests.support.operator_process import SYSTEM_NAMESPACE, OperatorProcess, service_account_kubeconfig
from tests.support.postgres import OPERATOR, PostgresServer, running_server
from tests.support.wait import wait_until

from bench.aim import Aim
from bench.crowd import EPOCHS, LIVE_SHARE, NAMESPACES, TRIAL_SECONDS, TRIALS_OF_OTHERS, WORKERS, Crowd
from bench.gauges import cpu_seconds, memory_mib, quantile
from tuning_operator.charts.drawing import dressed
from tuning_operator.settings import OperatorSettings

TITLE = "Thousands of studies"
ABOUT = f"""\
One operator with its settings as the chart has them, over 10, 100 and 1,000 studies in {NAMESPACES} namespaces, which are as
many schemas: etcd, API server and Postgres are real, and so is the operator's process. One study of {LIVE_SHARE} is live:
{WORKERS} workers of each claim, suggest six parameters, report {EPOCHS} epochs and end trials of {TRIAL_SECONDS:g} s. They
write what workers write, and only pretend to train. Of the others half have ended and half are suspended, with
{TRIALS_OF_OTHERS} trials each. The age of a status is how long it has not counted a trial that ended; it is looked at once a
second, for each live study. A tick is the time after which the operator looks at live studies again.
"""
SIZES = (10, 100, 1000)
USER = f"system:serviceaccount:{SYSTEM_NAMESPACE}:tuningstudy-operator"
MOST_CPU = 0.10
MOST_MEMORY = 250.0
OLDEST = 30.0
CAUSE = (
    "A live study gets a pass every eighteen seconds: workers need trials, and counts are written every twenty. With all that"
    " follows from it, it takes 27 ms of cores that 200 simulated workers, Postgres, etcd and the API server share. On an idle"
    " machine one that finds nothing to do takes 13 ms: 5 for the study, its Jobs and its pods, which it asks the API server"
    " for each time, since what a watch has told may be old and a trial whose pod is unknown is given to another; 2.5 to read"
    " rows. One that writes a status takes 6 more, and Kopf hears of it by an event."
)
"""Why the aim for processor time was missed, if it was."""
_STATEMENT = "LOG:  statement: "

Figures = dict[str, Any]


def measure(*, longer: bool, say: Callable[[str], None]) -> Figures:
    """See `catalogue.Bench`."""
    seconds = 300.0 if longer else 45.0
    with (
        tempfile.TemporaryDirectory(prefix="tuningstudy-bench-") as folder,
        running_server() as postgres,
        ControlPlane(Path(folder) / "plane") as plane,
    ):
        say("etcd, API server and Postgres run")
        kubectl = Kubectl(plane.kubeconfig)
        install_crd(kubectl)
        database = postgres.create_database()
        _log_statements(postgres)
        kubeconfig = service_account_kubeconfig(plane, kubectl)
        settings = _settings()
        with (
            OperatorProcess(kubeconfig, database, Path(folder) / "operator", settings) as operator,
            Crowd(plane.kubeconfig, database) as crowd,
        ):
            sizes = []
            for size in SIZES:
                crowd.grow(size)
                say(f"{size} studies are there")
                wait_until(crowd.has_settled, bool, seconds=300, what=f"{size} studies have settled")
                say(f"{size} studies have settled")
                sizes.append(_watch(crowd, operator, postgres, plane.audit_log, seconds=seconds))
    return {"seconds": seconds, "tick": float(settings["TUNING_RESYNC_SECONDS"]), "sizes": sizes}


def _settings() -> dict[str, str]:
    """The operator's own, in place of those that make tests faster."""
    fields = OperatorSettings.model_fields
    return {f"TUNING_{name.upper()}": str(fields[name].default) for name in ("resync_seconds", "status_seconds")}


def _log_statements(postgres: PostgresServer) -> None:
    """Let Postgres write down what the operator's role asks: the wheel has no pg_stat_statements."""
    engine = create_engine(postgres.url(), isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        connection.execute(text(f"ALTER ROLE {OPERATOR} SET log_statement = 'all'"))


def _watch(
    crowd: Crowd, operator: OperatorProcess, postgres: PostgresServer, audit_log: Path, *, seconds: float
) -> Figures:
    """What the operator does for some time."""
    since, begun = datetime.now(UTC), time.monotonic()
    cpu, database_cpu, written = cpu_seconds(operator.pid), cpu_seconds(postgres.pid), postgres.log.stat().st_size
    ended, passes = crowd.ended(), _passes(operator)
    ages: list[float] = []
    over = threading.Event()
    while not over.wait(1.0) and time.monotonic() - begun < seconds:
        ages += crowd.ages()
    took = time.monotonic() - begun
    cpu, database_cpu = cpu_seconds(operator.pid) - cpu, cpu_seconds(postgres.pid) - database_cpu
    asked = [request for request in audit.requests(audit_log, since=since) if request.user == USER]
    with postgres.log.open("rb") as log:
        log.seek(written)
        statements = sum(_STATEMENT in line.decode(errors="replace") for line in log)
    return {
        "studies": crowd.size,
        "live": crowd.live,
        "cpu": cpu / took,
        "databaseCpu": database_cpu / took,
        "memory": memory_mib(operator.pid),
        "ageP50": quantile(ages, 0.5),
        "ageP99": quantile(ages, 0.99),
        "statements": statements / took,
        "passes": (_passes(operator) - passes) / took,
        "trials": (crowd.ended() - ended) / took,
        "reads": sum(not request.is_write for request in asked) / took,
        "writes": sum(request.is_write for request in asked) / took,
        "requests": Counter(f"{request.verb} {request.what}" for request in asked),
    }


def _passes(operator: OperatorProcess) -> float:
    name = "tuningstudy_pass_seconds_count "
    lines = (line for line in operator.metrics().splitlines() if line.startswith(name))
    return math.fsum(float(line.removeprefix(name)) for line in lines)


def tell(figures: Figures) -> Iterator[str]:
    """See `catalogue.Bench`."""
    yield f"Watched for {figures['seconds']:.0f} s at each size; a tick is {figures['tick']:g} s."
    yield ""
    yield "| | " + " | ".join(f"{size['studies']:,} studies" for size in figures["sizes"]) + " |"
    yield "|---|" + "---|" * len(figures["sizes"])
    for what, words in _ROWS:
        yield f"| {what} | " + " | ".join(words(size, figures["tick"]) for size in figures["sizes"]) + " |"


_ROWS: tuple[tuple[str, Callable[[Figures, float], str]], ...] = (
    ("live, and their trials that ended", lambda size, _: f"{size['live']}, {size['trials']:.1f} a second"),
    ("operator: share of a core", lambda size, _: f"{size['cpu']:.1%}"),
    ("operator: memory", lambda size, _: f"{size['memory']:.0f} MiB"),
    ("passes", lambda size, _: f"{size['passes']:.1f} a second"),
    ("age of a status: median, 99th percentile", lambda size, _: f"{size['ageP50']:.1f} s, {size['ageP99']:.1f} s"),
    ("SQL statements", lambda size, tick: f"{size['statements'] * tick:.0f} a tick"),
    (
        "requests to the API server: reads, writes",
        lambda size, _: f"{size['reads']:.1f}, {size['writes']:.1f} a second",
    ),
    ("Postgres, with the workers' share: of a core", lambda size, _: f"{size['databaseCpu']:.0%}"),
)


def aims(figures: Figures) -> list[Aim]:
    """See `catalogue.Bench`."""
    most = figures["sizes"][-1]
    name = f"{most['studies']:,} studies, {most['live']} of them live"
    return [
        Aim(
            f"{name}: operator's processor time",
            f"at most {MOST_CPU:.0%} of a core",
            f"{most['cpu']:.1%}",
            most["cpu"] <= MOST_CPU,
            CAUSE,
        ),
        Aim(
            f"{name}: operator's memory",
            f"at most {MOST_MEMORY:.0f} MB",
            f"{most['memory'] * 1.048576:.0f} MB",
            most["memory"] * 1.048576 <= MOST_MEMORY,
        ),
        Aim(
            f"{name}: age of a status, 99th percentile",
            f"at most {OLDEST:.0f} s",
            f"{most['ageP99']:.1f} s",
            most["ageP99"] <= OLDEST,
        ),
    ]


def draw(figures: Figures) -> dict[str, go.Figure]:
    """See `catalogue.drawings`."""
    sizes = figures["sizes"]
    studies = [size["studies"] for size in sizes]
    curve = dressed(
        go.Scatter(
            x=studies, y=[size["cpu"] for size in sizes], name="operator: share of a core", mode="lines+markers"
        ),
        xaxis={
            "type": "log",
            "title": {"text": "Studies"},
            "tickvals": studies,
            "ticktext": [f"{n:,}" for n in studies],
        },
        yaxis={"title": {"text": "Share of a core"}, "tickformat": ".0%", "rangemode": "tozero"},
    )
    return {"growth": curve}
