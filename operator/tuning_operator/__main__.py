"""The operator image's two commands: `run` watches and controls, `charts` serves pages."""

import argparse
import asyncio
import logging
import socket
import sys
import threading
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Literal

import kopf
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from tuning_api.printable import printable
from tuning_api.spec import GROUP, KIND
from tuning_api.status import Charts
from tuning_operator import cluster, database, framework, handlers, probes
from tuning_operator.charts.links import study_links
from tuning_operator.cluster import Cluster
from tuning_operator.controller import Controller, Pace
from tuning_operator.executors.kubernetes import KubernetesExecutor
from tuning_operator.metrics import Metrics
from tuning_operator.model import Study
from tuning_operator.rounds import Rounds
from tuning_operator.settings import ChartsSettings, OperatorSettings
from tuning_operator.studies import OptunaStudies
from tuning_operator.tenancy import Tenancy
from tuning_operator.turns import Turns

MISCONFIGURED = 78


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m tuning_operator", description=__doc__)
    parser.add_argument(
        "command", choices=["run", "charts"], help=f"run: control every {KIND}; charts: serve the pages"
    )
    command = parser.parse_args(arguments).command
    try:
        start = partial(run, OperatorSettings()) if command == "run" else partial(serve_charts, ChartsSettings())
    except ValidationError as error:
        for item in error.errors(include_url=False, include_input=False):
            print(f"error: {_mistake(item)}", file=sys.stderr)  # noqa: T201 - logging is not set up yet
        return MISCONFIGURED
    start()
    return 0


def _mistake(error: ErrorDetails) -> str:
    """In words, with the variable's name where it is one variable's."""
    words = error["msg"].removeprefix("Value error, ")
    if not error["loc"]:
        return words
    return "TUNING_" + "_".join(map(str, error["loc"])).upper().removeprefix("TUNING_") + f": {words}"


def run(settings: OperatorSettings) -> None:
    """Run the operator until it is asked to stop."""
    configure_logs(settings.log_format)
    database.import_all()
    metrics = Metrics()
    registry = kopf.OperatorRegistry()
    turns = Turns()
    controller, studies, gateway = wire(settings, metrics)
    handlers.register(
        registry,
        controller=controller,
        metrics=metrics,
        turns=turns,
        rounds=Rounds(
            pulses=studies.pulses,
            turns=turns,
            seconds=settings.resync_seconds,
            went=metrics.last_round.set_to_current_time,
        ),
    )
    kopf_settings = kopf.OperatorSettings()
    framework.configure(kopf_settings)
    framework.register_login(registry, watches=2 * max(1, len(settings.namespaces)))
    framework.register_discovery(registry, unserved=gateway.unserved)
    ready = threading.Event()
    _register_probes(registry, settings=settings, metrics=metrics, ready=ready, turns=turns)
    kopf.run(
        registry=registry,
        # NB: Kopf's default asks for the name of the user, and the user id of a container may have none.
        identity=socket.gethostname(),  # type: ignore[arg-type]
        ready_flag=ready,
        settings=kopf_settings,
        standalone=True,
        clusterwide=not settings.namespaces,
        namespaces=settings.namespaces,
    )


def wire(settings: OperatorSettings, metrics: Metrics) -> tuple[Controller, OptunaStudies, Cluster]:
    """Put the controller together: the one place that knows which gateways are real."""
    gateway = cluster.connect()
    password = settings.charts_database_password
    tenancy = Tenancy(
        settings.url,
        password_key=settings.password_key.get_secret_value(),
        charts_password=password.get_secret_value() if password else None,
        uid_of=gateway.namespace_uid,
        connections=settings.namespace_connections,
    )
    executor = KubernetesExecutor(
        gateway,
        tenancy=tenancy,
        worker_url=settings.worker_url,
        defaults=settings.worker_defaults,
        restriction=settings.restriction,
    )
    studies = OptunaStudies(tenancy)
    controller = Controller(
        executor=executor,
        studies=studies,
        links=partial(_links, settings=settings, tenancy=tenancy),
        metrics=metrics,
        pace=Pace(settings.status_seconds),
    )
    return controller, studies, gateway


def _links(study: Study, now: datetime, *, settings: OperatorSettings, tenancy: Tenancy) -> Charts | None:
    uid = tenancy.uid(study.key.namespace)
    if uid is None:
        return study.status.charts  # the database has not been reached yet
    return study_links(
        study.status.charts,
        external_url=settings.charts_url_external,
        key=settings.signing_key.get_secret_value(),
        namespace=study.key.namespace,
        study=study.key.name,
        uid=uid,
        lifetime=timedelta(days=settings.charts_link_days),
        now=now,
    )


def _register_probes(
    registry: kopf.OperatorRegistry,
    *,
    settings: OperatorSettings,
    metrics: Metrics,
    ready: threading.Event,
    turns: Turns,
) -> None:
    runners: list[Any] = []

    @kopf.on.startup(registry=registry)
    async def start(**_: Any) -> None:
        app = probes.probe_app(metrics.registry, ready, is_stuck=turns.is_stuck)
        runners.append(await probes.serve(app, settings.probe_port, settings.metrics_port))

    @kopf.on.cleanup(registry=registry)
    async def stop(**_: Any) -> None:
        ready.clear()
        await asyncio.gather(*(runner.cleanup() for runner in runners))


def configure_logs(log_format: Literal["json", "text"]) -> None:
    """Let Kopf's formatter own the root handler: its records carry extras that break naive JSON formatters."""
    chosen = kopf.LogFormat.JSON if log_format == "json" else kopf.LogFormat.FULL
    kopf.configure(log_format=chosen, log_refkey=GROUP if log_format == "json" else None)
    if log_format == "text":  # JSON has escapes of its own
        for handler in logging.getLogger().handlers:
            handler.addFilter(_escape)
    # Two lines for each event that calls a handler, and a line for each study that is created: neither is news.
    for chatty in ("kopf.objects", "kopf.activities", "optuna", "aiohttp.access"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def _escape(record: logging.LogRecord) -> bool:
    """NB: messages quote what people wrote, and are read in a terminal; see `printable`."""
    record.msg, record.args = printable(record.getMessage()), None
    return True


def serve_charts(settings: ChartsSettings) -> None:
    """Serve the charts until asked to stop."""
    from tuning_operator.charts.server import serve  # noqa: PLC0415 - plotly is not the operator's to import

    configure_logs(settings.log_format)
    serve(
        database_url=settings.charts_url,
        signing_key=settings.signing_key.get_secret_value(),
        port=settings.charts_port,
    )


if __name__ == "__main__":
    sys.exit(main())
