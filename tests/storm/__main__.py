"""`python -m tests.storm --seed 7 --minutes 5`: faults at random over two studies, and what came of it, in a table."""

import json
import os
import random
import secrets
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

# Before torch is imported, see tests/conftest.py.
os.environ["OMP_NUM_THREADS"] = "1"

import typer
from cluster import prerequisites
from cluster.control_plane import ControlPlane
from cluster.kubectl import Kubectl
from rich.console import Console
from rich.table import Table
from tests.storm.plan import Kind
from tests.storm.storm import Report, Size, Storm
from tests.storm.trials import EPOCHS
from tests.storm.verdict import middle_and_most
from tests.support.cluster import install_crd
from tests.support.postgres import running_server

_SHARE_OF_TRAINING = 0.4
"""Of the time of a storm, what the trials would take if nothing happened; the rest is what the faults cost."""


def size(*, seed: int, minutes: float, trials: int, workers: int, apart: bool) -> Size:
    """A storm in which the trials last about as long as the faults come."""
    seconds = 60 * minutes
    return Size(
        seed=seed,
        seconds=seconds,
        calm_seconds=max(120.0, seconds),
        trials=trials,
        workers=workers,
        gap=max(3.0, min(8.0, seconds / 20)),
        epoch_seconds=_SHARE_OF_TRAINING * seconds * workers / trials / EPOCHS,
        apart=apart,
    )


def tables(report: Report) -> Iterator[Table]:
    """What a person reads: what came of it, and what each kind of fault cost."""
    summary = Table(title=f"The storm with seed {report.size.seed}, {report.took:.0f} s", show_header=False)
    for name, text in _summary(report):
        summary.add_row(name, text)
    yield summary
    faults = Table("fault", "times", "workers", "all is well after, s: median", "most", "never")
    for kind in Kind:
        known = [seconds for seconds in report.recoveries.get(kind, []) if seconds is not None]
        never = len(report.recoveries.get(kind, [])) - len(known)
        hit = str(report.killed.get(kind, ""))
        faults.add_row(kind, str(report.faults.get(kind, 0)), hit, *_middle_and_most(known, digits=1), str(never or ""))
    yield faults


def _summary(report: Report) -> Iterator[tuple[str, str]]:
    states = ", ".join(f"{count} {state.lower()}" for state, count in sorted(report.states.items()))
    yield "trials that ended", f"{report.ended} of {report.size.trials}: {states}"
    yield "stuck trials", str(report.stuck)
    yield "queued again", str(report.retried)
    middle, most = _middle_and_most([float(epochs) for epochs in report.lost_epochs], digits=0)
    yield "epochs lost each time", f"median {middle}, most {most}, of {len(report.lost_epochs)} times"
    yield "ended, but not told", str(report.finished_in_vain)
    yield "operator ended by itself", f"{report.operator_restarts} times"
    yield "violations", "\n".join(report.violations) or "none"


def _middle_and_most(figures: list[float], *, digits: int) -> tuple[str, str]:
    found = middle_and_most(figures)
    return (f"{found[0]:.{digits}f}", f"{found[1]:.{digits}f}") if found else ("-", "-")


def main(  # noqa: PLR0917 - they are options
    seed: Annotated[int | None, typer.Option(help="Decides which faults come when; by chance if not given.")] = None,
    minutes: Annotated[float, typer.Option(min=0.3, help="So long faults come.")] = 5,
    trials: Annotated[int, typer.Option(min=2, help="The budget of both studies together.")] = 200,
    workers: Annotated[int, typer.Option(min=2, help="Workers of both studies together.")] = 8,
    apart: Annotated[bool, typer.Option(help="A fault only when all is well after the last.")] = False,  # noqa: FBT002
    figures: Annotated[Path | None, typer.Option("--json", help="Write the figures to a file.")] = None,
    keep: Annotated[Path | None, typer.Option(help="A new folder for the logs of all processes, which stays.")] = None,
) -> None:
    """Kill, delete, restart, suspend and rescale at random, and see that every trial ends once and goes on where it was."""
    # NB: by default SIGTERM ends Python at once, and leaves servers and workers behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    console = Console(stderr=True)
    if reason := prerequisites.reason_against_control_plane():
        console.print(f"The storm needs a control plane: {reason}.")
        raise typer.Exit(2)
    seed = random.SystemRandom().randrange(10_000) if seed is None else seed
    console.print(f"seed {seed}")
    with (
        _folder(keep) as folder,
        running_server() as postgres,
        console.status("starting a control plane and a database") as status,
        ControlPlane(folder / "plane") as plane,
    ):
        namespace = f"storm-{secrets.token_hex(3)}"
        kubectl = Kubectl(plane.kubeconfig)
        install_crd(kubectl)
        kubectl("create", "namespace", namespace)
        storm = Storm(
            size(seed=seed, minutes=minutes, trials=trials, workers=workers, apart=apart),
            plane=plane,
            postgres=postgres,
            folder=folder,
            namespace=namespace,
            say=lambda words: status.update(f"{storm.progress}, {words}"),
        )
        report = storm.run()
    for table in tables(report):
        console.print(table)
    if figures:
        figures.write_text(json.dumps(asdict(report), indent=2))
    raise typer.Exit(int(bool(report.violations)))


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep:
        keep.mkdir(parents=True)
        yield keep.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="tuningstudy-storm-") as folder:
        yield Path(folder)


if __name__ == "__main__":
    typer.run(main)
