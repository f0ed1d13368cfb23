"""Hundreds of workers of one study: how fast they get their trials, and whether there are ever too many."""

import math
import multiprocessing
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from multiprocessing.synchronize import Event
from typing import TYPE_CHECKING, Any

from optuna.trial import TrialState
from sqlalchemy.engine import URL
from tests.support.builders import a_spec, a_study
from tests.support.postgres import running_server
from tests.support.tenancy import a_tenancy

from bench.aim import Aim
from bench.gauges import cpu_seconds, quantile
from tuning_api.contract import Owner
from tuning_api.spec import StudySpec
from tuning_operator import decide
from tuning_operator.model import Snapshot, StudyKey, TrialsPlan, Worker, WorkerState
from tuning_operator.model import TrialState as RowState
from tuning_operator.studies import OptunaStudies
from tuning_trial import database, transactions
from tuning_trial.outcomes import Record

if TYPE_CHECKING:
    from multiprocessing.queues import Queue

TITLE = "Hundreds of workers"
ABOUT = """\
Claimers on one study, each with a connection of its own and the rights of a worker: they claim with the worker's own code,
train for no time at all and end the trial. A quarter of them share a process. Beside them the controller's own code reads the
rows, decides and adds trials, pass after pass, so that no claim waits for the operator's next look. A claim's time is
that of its transaction. Overshoot is how many trials there were beyond `maxTrials`.
"""
CLAIMERS = (64, 256)
TRIALS = 5_000
TRIALS_OF_LONGER = 20_000
PROCESSES = 4
CLAIMS_PER_SECOND = 100
KEY = StudyKey("bench", "many-workers")
_PAUSE_SECONDS = 0.05
_ON_THEIR_WAY = frozenset({RowState.WAITING, RowState.RUNNING})

Figures = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """What a process of claimers has to do."""

    url: str
    names: tuple[str, ...]
    now: Event
    over: Event
    said: "Queue[tuple[list[int], list[float], list[float]]]"
    """Numbers of the trials that were claimed; seconds of the claims that got one, and of those that did not."""


def measure(*, longer: bool, say: Callable[[str], None]) -> Figures:
    """See `catalogue.Bench`."""
    trials = TRIALS_OF_LONGER if longer else TRIALS
    runs = []
    for claimers in CLAIMERS:
        with running_server() as postgres:
            say(f"{claimers} claimers, {trials} trials")
            runs.append(_run(postgres.create_database(), postgres.pid, claimers=claimers, trials=trials))
            say(f"{runs[-1]['rate']:.0f} claims a second")
    return {"trials": trials, "runs": runs}


def _run(url: URL, postgres: int, *, claimers: int, trials: int) -> Figures:
    spec = a_spec(maxTrials=trials, parallelism=claimers, sampler={"type": "random"})
    tenancy = a_tenancy(url, charts_password=None)
    studies = OptunaStudies(tenancy)
    studies.open(KEY, spec)
    context = multiprocessing.get_context("fork")  # they have imported all that they need
    now, over, said = context.Event(), context.Event(), context.Queue()
    workers_url = tenancy.worker_url(KEY.namespace, base=url)
    names = [f"claimer-{place}" for place in range(claimers)]
    jobs = [Job(workers_url, tuple(names[place::PROCESSES]), now, over, said) for place in range(PROCESSES)]
    processes = [context.Process(target=_claim_in_threads, args=(job,), daemon=True) for job in jobs]
    for process in processes:
        process.start()
    ready = [said.get(timeout=300) for _ in processes]
    assert not any(any(part) for part in ready)  # noqa: S101 - a sign that they are connected
    cpu, begun = cpu_seconds(postgres), time.monotonic()
    now.set()
    passes = _control(studies, names)
    took, cpu = time.monotonic() - begun, cpu_seconds(postgres) - cpu
    over.set()
    parts = [said.get(timeout=300) for _ in processes]
    for process in processes:
        process.join(60)
    numbers = Counter(number for part, _, _ in parts for number in part)
    record = studies.read(KEY)
    assert record is not None  # noqa: S101 - it was opened above
    claims = [seconds for _, hits, _ in parts for seconds in hits]
    return {
        "claimers": claimers,
        "seconds": took,
        "rate": len(claims) / took,
        "p50": quantile(claims, 0.5),
        "p99": quantile(claims, 0.99),
        "misses": sum(len(misses) for _, _, misses in parts),
        "overshoot": len(record.trials) - trials,
        "twice": sum(count > 1 for count in numbers.values()),
        "passes": passes,
        "cpu": cpu / took,
    }


def _control(studies: OptunaStudies, owners: list[str]) -> int:
    """Passes of the controller over the rows until the study is over; how many there were. All workers live."""
    workers = tuple(
        Worker(name=name, index=place, state=WorkerState.ACTIVE, running=True, live_owners=frozenset({name}))
        for place, name in enumerate(owners)
    )
    passes = 0
    while True:
        record = studies.read(KEY)
        assert record is not None  # noqa: S101 - nobody deletes it
        spec = StudySpec.model_validate(record.stored_spec)
        study = replace(a_study(spec=spec), key=KEY)
        plan = decide.plan(Snapshot(now=datetime.now(UTC), study=study, spec=spec, record=record, workers=workers))
        studies.carry_out(KEY, plan.trials, spec=spec, trials=record.trials)
        passes += 1
        is_idle = plan.trials == TrialsPlan() and not any(trial.state in _ON_THEIR_WAY for trial in record.trials)
        if is_idle:
            return passes


def _claim_in_threads(job: Job) -> None:
    """A process of claimers."""
    numbers: list[int] = []
    hits: list[float] = []
    misses: list[float] = []
    ready = threading.Barrier(len(job.names) + 1)
    claimers = [
        threading.Thread(target=_claim_all, args=(job, name, ready, numbers, hits, misses)) for name in job.names
    ]
    for claimer in claimers:
        claimer.start()
    ready.wait()
    job.said.put(([], [], []))
    for claimer in claimers:
        claimer.join()
    job.said.put((numbers, hits, misses))


def _claim_all(  # noqa: PLR0917 - a thread's
    job: Job, name: str, ready: threading.Barrier, numbers: list[int], hits: list[float], misses: list[float]
) -> None:
    """Claim and end trials until all is over."""
    study = database.open_study(job.url, KEY.name)
    storage, owner = database.storage_of(study), Owner(id=name, name=name)
    study_id = study._study_id  # noqa: SLF001
    ready.wait()
    job.now.wait()
    while not job.over.is_set():
        begun = time.monotonic()
        claimed = storage.patiently(transactions.claim, storage.engine, study_id=study_id, owner=owner, now=_utc)
        (hits if claimed else misses).append(time.monotonic() - begun)
        if claimed is None:
            job.over.wait(_PAUSE_SECONDS)
            continue
        numbers.append(claimed.number)
        record = Record(state=TrialState.COMPLETE, values=(math.sin(claimed.number),), attributes={})
        storage.patiently(transactions.end, storage.engine, claimed.trial_id, record, now=_utc)


def _utc() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


def tell(figures: Figures) -> Iterator[str]:
    """See `catalogue.Bench`."""
    yield f"{figures['trials']:,} trials; `LONGER=1` takes {TRIALS_OF_LONGER:,}."
    yield ""
    yield "| claimers | claims a second | a claim: median, 99th percentile | in vain | overshoot | twice | Postgres: cores |"
    yield "|---|---|---|---|---|---|---|"
    for run in figures["runs"]:
        yield (
            f"| {run['claimers']} | {run['rate']:.0f} | {run['p50'] * 1000:.0f} ms, {run['p99'] * 1000:.0f} ms"
            f" | {run['misses']:,} | {run['overshoot']} | {run['twice']} | {run['cpu']:.2f} |"
        )


def aims(figures: Figures) -> list[Aim]:
    """See `catalogue.Bench`."""
    return [aim for run in figures["runs"] for aim in _aims(run)]


def _aims(run: Figures) -> Iterator[Aim]:
    name = f"{run['claimers']} claimers of one study"
    yield Aim(
        f"{name}: claims a second",
        f"at least {CLAIMS_PER_SECOND} on two cores",
        f"{run['rate']:.0f}",
        run["rate"] >= CLAIMS_PER_SECOND,
    )
    yield Aim(
        f"{name}: overshoot, and trials that were claimed twice",
        "0",
        f"{run['overshoot']}, {run['twice']}",
        run["overshoot"] == run["twice"] == 0,
    )
