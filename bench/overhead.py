"""What a trial costs beside its training: bare Optuna, our two executors, and a Job for each trial."""

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import plotly.graph_objects as go
from tests.support.postgres import PostgresServer

from bench import in_cluster, systems
from bench.aim import Aim, spread
from bench.processor import Meter
from bench.systems import CODE, Document, Ran
from tuning_operator.charts.drawing import dressed

TITLE = "Time lost between trials"
ABOUT = """\
A study of six parameters (TPE as Optuna has it) whose trials do nothing, and one whose trials train the digits for an
epoch with Lightning; on one Postgres, with one worker and with four. Compared are bare Optuna (`study.optimize` in as
many processes, which evaluate in themselves, or fork for each trial as a worker of ours does), `tuningstudy run`, the
same study on Kubernetes (the operator with its default settings, workers as pods on a real kubelet), and a Job for each
trial, the shape of Katib: asked and told in one lean process that watches the pods, with images present. A worker's
seconds per trial are the time from the start of its first trial to the end of its last, divided by its trials, so
imports before the first trial do not count; where trials do nothing, all of it is lost. CPU is that of the whole
machine in that time: workers, Postgres and Kubernetes. The systems take turns, round by round. The studies have no
limit on failed trials: by default no more trials wait for a worker than may fail.
"""
KATIB = """\
For comparison, Katib after v0.19.0, measured apart on such a machine (Kubernetes 1.34.4, a trivial trial, 20 trials, 4
in parallel, images present): 3.9 s a trial and slot in its cheapest form, 6.5 s by default, the first trial running
after 13.5 s, and 18 to 25 writes to the API server a trial; a plain Job took 3.3 s.
"""
SYSTEMS = {
    "bare": "Optuna",
    "forked": "Optuna, a fork for each trial",
    "local": "`tuningstudy run`",
    "kubernetes": "on Kubernetes",
    "job": "a Job for each trial",
}
TASKS = {"nothing": "Trials that do nothing", "digits": "Trials of one epoch of the digits, with Lightning"}
WORKERS = (1, 4)
FEW, MANY = WORKERS
ALLOWED = 1.2
"""What one worker of ours may lose, in what bare Optuna with forks loses."""
WANTED_OF_JOBS = 20

CAUSES = {
    "local": "The runner looks at its study beside the workers, and draws their progress.",
    "kubernetes": (
        "A new study has two waiting trials for each worker. Where trials take no time its workers are out of them until the"
        " operator's next look, up to half a second later; then up to 256 wait."
    ),
    "job": (
        "Four pods start beside each other, and four workers of ours share two cores: what each loses for a trial is more"
        " than a twentieth of what a pod takes."
    ),
}
"""Why an aim was missed, if it was: what the profiles of these systems show."""

_SPACES: dict[str, list[Document]] = {
    "nothing": [{"name": name, "type": "float", "low": -1.0, "high": 1.0} for name in "abcdef"],
    "digits": [
        {"name": "learning_rate", "type": "float", "low": 1e-4, "high": 1e-1, "log": True},
        {"name": "hidden_dim", "type": "categorical", "choices": [16, 32, 64, 128]},
        {"name": "num_layers", "type": "int", "low": 1, "high": 3},
        {"name": "dropout", "type": "float", "low": 0.0, "high": 0.5},
        {"name": "batch_size", "type": "categorical", "choices": [32, 64, 128]},
    ],
}
_MODEL = {name: f"${{{name}}}" for name in ("hidden_dim", "num_layers", "dropout")}
_TRIALS: dict[str, Document] = {
    "nothing": {"objective": f"{CODE.stem}:nothing"},
    "digits": {
        "lightning": {
            "model": {"class_path": "tuning_trial.examples.digits.DigitsClassifier", "init_args": _MODEL},
            "data": {
                "class_path": "tuning_trial.examples.digits.DigitsData",
                "init_args": {"batch_size": "${batch_size}"},
            },
            "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": "${learning_rate}"}},
            "trainer": {"max_epochs": 1, "accelerator": "cpu", "enable_checkpointing": False},
        }
    },
}


@dataclass(frozen=True)
class Task:
    """A study to be run by one of the systems."""

    task: str
    system: str
    workers: int
    trials: int


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one study cost."""

    task: str
    system: str
    workers: int
    trials: int
    seconds: float
    """Of a worker, for a trial."""
    throughput: float
    """Trials a second of all workers together, from the first start to the last end."""
    processor: float
    """Seconds of the machine's processors, for a trial."""
    first: float
    """Seconds from the command to the start of the first trial."""


def plan(*, longer: bool, with_node: bool) -> list[Task]:
    """The studies in the order in which they run; a Job for each trial is slow, and runs few of them once."""
    trials = {"nothing": 1000, "digits": 100} if longer else {"nothing": 100, "digits": 12}
    rounds = {"nothing": 3, "digits": 3 if longer else 1}
    ours = ("bare", "forked", "local", *(("kubernetes",) if with_node else ()))
    tasks = [
        Task(task, system, workers, trials[task])
        for task in TASKS
        for _ in range(rounds[task])
        for workers in WORKERS
        for system in ours
    ]
    jobs = {("nothing", FEW): 10, ("nothing", MANY): 12, ("digits", FEW): 3, ("digits", MANY): 8}
    return tasks + [Task(task, "job", workers, count) for (task, workers), count in jobs.items() if with_node]


def measure(*, longer: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """See `catalogue.Bench`."""
    runs = []
    with in_cluster.places(CODE) as (server, cluster):
        for task in plan(longer=longer, with_node=cluster is not None):
            with Meter() as meter:
                ran = _run(task, server, cluster)
            runs.append(summary(task, ran, meter.busy))
            say(f"{task}: {runs[-1].seconds * 1000:.0f} ms of a worker for each trial")
    return {"runs": [asdict(run) for run in runs], "without_cluster": in_cluster.reason_against_node()}


def _run(task: Task, server: PostgresServer, cluster: in_cluster.Cluster | None) -> Ran:
    trial, space = _TRIALS[task.task], _SPACES[task.task]
    document = systems.manifest(task.task, trial, space, workers=task.workers, trials=task.trials)
    match task.system:
        case "bare" | "forked":
            forked = task.system == "forked"
            return systems.bare(
                server.create_database(), task.task, workers=task.workers, trials=task.trials, forked=forked
            )
        case "local":
            return systems.local(server.create_database(), document)
        case "kubernetes" if cluster:
            return in_cluster.kubernetes(cluster, document)
        case "job" if cluster:
            return in_cluster.job_for_each_trial(
                cluster, server, CODE, task.task, workers=task.workers, trials=task.trials
            )
        case _:
            raise ValueError(f"{task} needs a cluster")


def summary(task: Task, ran: Ran, busy: Callable[[float, float], float]) -> Run:
    """What a study cost, from its rows.

    Args:
        task: The study.
        ran: Its rows.
        busy: Seconds of all processors between two times.
    """
    by_worker: defaultdict[str, list[systems.Row]] = defaultdict(list)
    for row in ran.rows:
        by_worker[row.worker].append(row)
    active = sum(max(row.end for row in rows) - min(row.start for row in rows) for rows in by_worker.values())
    start, end = min(row.start for row in ran.rows), max(row.end for row in ran.rows)
    count = len(ran.rows)
    return Run(
        task=task.task,
        system=task.system,
        workers=task.workers,
        trials=count,
        seconds=active / count,
        throughput=count / (end - start),
        processor=busy(start, end) / count,
        first=start - ran.launched,
    )


def tell(figures: dict[str, Any]) -> Iterator[str]:
    """See `catalogue.Bench`."""
    runs = _runs(figures)
    for task, title in TASKS.items():
        of_task = [run for run in runs if run.task == task]
        if not of_task:
            continue
        yield f"### {title}"
        yield ""
        yield (
            "| | workers | trials | a worker's ms per trial | times Optuna with forks | trials a second "
            "| CPU ms per trial | first trial after, s |"
        )
        yield "|---|---|---|---|---|---|---|---|"
        for workers in WORKERS:
            for system in SYSTEMS:
                found = _of(of_task, system, workers)
                if found:
                    yield _line(found, ratio(of_task, system, "forked", workers))
        yield ""
    if reason := figures["without_cluster"]:
        yield f"Without a cluster, since on this machine {reason}."
        yield ""
    yield from KATIB.splitlines()


def _line(runs: list[Run], ratio: float | None) -> str:
    first = runs[0]
    shown = "" if ratio is None else f"{ratio:.2f}" if ratio < 10 else f"{ratio:.0f}"  # noqa: PLR2004
    cells = (
        SYSTEMS[first.system],
        first.workers,
        first.trials,
        spread([run.seconds * 1000 for run in runs], ".0f"),
        shown,
        spread([run.throughput for run in runs], ".1f"),
        spread([run.processor * 1000 for run in runs], ".0f"),
        spread([run.first for run in runs], ".1f"),
    )
    return f"| {' | '.join(map(str, cells))} |"


def aims(figures: dict[str, Any]) -> list[Aim]:
    """See `catalogue.Bench`."""
    runs = [run for run in _runs(figures) if run.task == "nothing"]
    ours = [
        _aim(
            f"{SYSTEMS[system]}, {_counted(workers)}: time lost between trials",
            f"at most {allowed:.1f} x Optuna with forks",
            ratio(runs, system, "forked", workers),
            most=allowed,
            cause=CAUSES[system],
        )
        for system in ("local", "kubernetes")
        for workers, allowed in ((FEW, ALLOWED), (MANY, 1.0))
    ]
    jobs = [
        _aim(
            f"{SYSTEMS['job']}, {workers} at a time",
            f"at least {WANTED_OF_JOBS} x `tuningstudy run`",
            ratio(runs, "job", "local", workers),
            least=WANTED_OF_JOBS,
            cause=CAUSES["job"],
        )
        for workers in WORKERS
    ]
    return ours + jobs


def _aim(what: str, wanted: str, times: float | None, *, cause: str, least: float = 0, most: float = math.inf) -> Aim:
    if times is None:
        return Aim(what, wanted, "not measured", reached=False, cause="There was no cluster.")
    is_reached = least <= times <= most
    return Aim(what, wanted, f"{times:.2f} x", reached=is_reached, cause="" if is_reached else cause)


def _counted(workers: int) -> str:
    return "1 worker" if workers == 1 else f"{workers} workers"


def ratio(runs: Sequence[Run], system: str, other: str, workers: int) -> float | None:
    """The median seconds per trial of a system, in those of another one; None where one of them was not measured."""
    ours, theirs = _of(runs, system, workers), _of(runs, other, workers)
    if not ours or not theirs:
        return None
    return statistics.median(run.seconds for run in ours) / statistics.median(run.seconds for run in theirs)


def _of(runs: Sequence[Run], system: str, workers: int) -> list[Run]:
    return [run for run in runs if run.system == system and run.workers == workers]


def _runs(figures: dict[str, Any]) -> list[Run]:
    return [Run(**run) for run in figures["runs"]]


def draw(figures: dict[str, Any]) -> dict[str, go.Figure]:
    """A worker's time for a trial by system, for trials that do nothing."""
    runs = [run for run in _runs(figures) if run.task == "nothing"]
    bars = []
    for workers in WORKERS:
        shown = [(system, found) for system in SYSTEMS if (found := _of(runs, system, workers))]
        medians = [statistics.median(run.seconds for run in found) * 1000 for _, found in shown]
        names = [SYSTEMS[system].replace("`", "") for system, _ in shown]
        bars.append(go.Bar(x=medians, y=names, orientation="h", name=_counted(workers)))
    axis = {"type": "log", "title": {"text": "a worker's ms per trial that does nothing"}}
    return {"lost": dressed(*bars, xaxis=axis, yaxis={"autorange": "reversed"}, barmode="group")}
