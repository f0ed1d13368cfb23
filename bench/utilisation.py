"""The share of a worker's time that is training."""

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from bench import in_cluster, systems
from bench.aim import Aim, spread
from bench.conditions import ROOT
from bench.systems import Document, Ran

TITLE = "How much of a worker's time is training"
ABOUT = """\
Two workers train with Lightning for a given time, in which they mostly sleep, so that nothing waits for a processor. A
trial's value is the time from Lightning's `on_fit_start` to the end of its validation, as the model itself sees it. The
share is the sum of these times, in the time from a worker's first claim to the end of its last trial: claiming,
suggesting, forking, building the model and the Trainer, reporting and telling are what is lacking. Imports before the
first claim do not count.
"""
CODE = ROOT / "bench" / "utilisation_trials.py"
WORKERS = 2
WANTED = {5: 0.98, 30: 0.995}
"""The share that is aimed at, for trials of so many seconds."""
CAUSE = (
    "However long a trial trains, 200 to 260 ms of it are something else: 50 the fork and its end, 25 the worker's transactions"
    " and its sampler, 100 LightningCLI, which reads the configuration and builds the model and the Trainer, 35 the first"
    " report, over a connection that the fork has to open, and the rest what Lightning does around its epochs."
)
NAMES = {"local": "`tuningstudy run`", "kubernetes": "on Kubernetes"}


@dataclass(frozen=True, kw_only=True)
class Run:
    """One study."""

    system: str
    training: int
    """Seconds that each trial trains."""
    trials: int
    share: float
    """Of the workers' time inside of training."""


def measure(*, longer: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """See `catalogue.Bench`."""
    trials = {5: 60, 30: 20} if longer else {5: 12, 30: 4}
    rounds = {5: 3 if longer else 2, 30: 3 if longer else 1}
    runs = []
    with in_cluster.places(CODE) as (server, cluster):
        for training, count in trials.items():
            for _ in range(rounds[training]):
                document = manifest(training, count)
                ran = {"local": systems.local(server.create_database(), document, code=CODE)}
                if cluster:
                    ran["kubernetes"] = in_cluster.kubernetes(cluster, document)
                for system, found in ran.items():
                    runs.append(Run(system=system, training=training, trials=count, share=share(found)))
                    say(f"trials of {training} s, {NAMES[system]}: {runs[-1].share:.2%}")
    return {"runs": [asdict(run) for run in runs], "without_cluster": in_cluster.reason_against_node()}


def manifest(training: int, trials: int) -> Document:
    """A study whose trials train for so many seconds."""
    model = {"class_path": f"{CODE.stem}.Sleeper", "init_args": {"seconds": float(training), "lr": "${lr}"}}
    trainer = {"max_epochs": 1, "accelerator": "cpu", "num_sanity_val_steps": 0, "enable_checkpointing": False}
    document = systems.manifest(
        "sleeper",
        {"lightning": {"model": model, "trainer": trainer}},
        [{"name": "lr", "type": "float", "low": 1e-4, "high": 1e-1, "log": True}],
        workers=WORKERS,
        trials=trials,
    )
    document["spec"]["objectives"] = [{"metric": "trained", "direction": "maximize"}]
    return document


def share(ran: Ran) -> float:
    """The share of the workers' time that their trials say they trained."""
    by_worker: defaultdict[str, list[systems.Row]] = defaultdict(list)
    for row in ran.rows:
        by_worker[row.worker].append(row)
    there = sum(max(row.end for row in rows) - min(row.start for row in rows) for rows in by_worker.values())
    return sum(row.value for row in ran.rows) / there


def tell(figures: dict[str, Any]) -> Iterator[str]:
    """See `catalogue.Bench`."""
    runs = _runs(figures)
    yield "| | seconds of training | trials | share of a worker's time |"
    yield "|---|---|---|---|"
    for training in WANTED:
        for system, name in NAMES.items():
            found = [run for run in runs if run.system == system and run.training == training]
            if found:
                shares = spread([run.share for run in found], ".2%")
                yield f"| {name} | {training} | {found[0].trials} | {shares} |"
    if reason := figures["without_cluster"]:
        yield ""
        yield f"Without a cluster, since on this machine {reason}."


def aims(figures: dict[str, Any]) -> list[Aim]:
    """See `catalogue.Bench`: the worse of the two executors counts."""
    found = []
    for training, wanted in WANTED.items():
        medians = {
            system: statistics.median(shares)
            for system in NAMES
            if (shares := [r.share for r in _runs(figures) if r.system == system and r.training == training])
        }
        worst = min(medians.values())
        what = f"share of a worker's time inside training, trials of {training} s"
        found.append(Aim(what, f"at least {wanted:.1%}", f"{worst:.2%}", reached=worst >= wanted, cause=CAUSE))
    return found


def _runs(figures: dict[str, Any]) -> list[Run]:
    return [Run(**run) for run in figures["runs"]]
