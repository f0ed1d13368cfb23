"""A storm over two studies: a training of Lightning's and an objective of one's own, at the same time.

A real API server and Job controller, a real Postgres, the operator with the chart's rights, and workers as processes. What
a Deployment or a kubelet would do is done here too: an operator that ended by itself is started again.
"""

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from cluster.control_plane import ControlPlane
from cluster.kubectl import Kubectl
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool
from tests.storm import plan, trials, verdict
from tests.storm.plan import Fault, Kind, Step
from tests.storm.verdict import Fact, Sample
from tests.support.operator_process import OperatorProcess, service_account_kubeconfig
from tests.support.postgres import PostgresServer
from tests.support.process_kubelet import ProcessKubelet
from tests.support.study_on_cluster import StudyOnCluster
from tests.support.tenancy import worker_url

from tuning_api import naming

Document = dict[str, Any]
TASKS: dict[str, Document] = {
    "training": {
        "lightning": {
            "model": {"class_path": "tests.storm.trials.Model", "init_args": {"x": "${x}", "trial": "${trial.number}"}},
            "trainer": {"max_epochs": trials.EPOCHS, "accelerator": "cpu"},
        }
    },
    "loop": {"objective": "tests.storm.trials:objective"},
}
_LOOK_SECONDS = 0.4
_COUNT = """
SELECT studies.study_name, count(*) AS ended FROM trials JOIN studies USING (study_id)
WHERE state IN ('COMPLETE', 'PRUNED', 'FAIL') AND NOT EXISTS (
  SELECT 1 FROM trial_user_attributes WHERE trial_user_attributes.trial_id = trials.trial_id
  AND key IN ('tuningstudy:requeued', 'tuningstudy:cancelled') AND trials.state = 'FAIL'
) GROUP BY 1
"""


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large a storm is."""

    seed: int
    seconds: float
    """So long faults come."""
    calm_seconds: float
    """A study in which no trial ends for so long, after the last fault, stands still."""
    trials: int
    """Of both studies together."""
    workers: int
    """Of both studies together, when nothing is changed."""
    gap: float
    """Seconds between two faults, on average."""
    epoch_seconds: float
    apart: bool = False
    """A fault waits until all is well after the one before, so that its recovery is its own."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a storm was, and what came of it."""

    size: Size
    took: float
    faults: dict[str, int]
    killed: dict[str, int]
    """Workers that were killed and pods that were deleted."""
    operator_restarts: int
    """Times that the operator ended by itself."""
    ended: int
    states: dict[str, int]
    retried: int
    stuck: int
    lost_epochs: list[int]
    finished_in_vain: int
    recoveries: dict[str, list[float | None]]
    """Seconds for each fault, by kind; None where it never was well again."""
    violations: list[str]


class Storm:
    """Two studies, and what is done to them; the processes are the caller's to end."""

    def __init__(
        self,
        size: Size,
        *,
        plane: ControlPlane,
        postgres: PostgresServer,
        folder: Path,
        namespace: str,
        say: Callable[[str], None],
    ) -> None:
        self.size = size
        self._plane = plane
        self._postgres = postgres
        self._folder = folder
        self._say = say
        self._kubectl = Kubectl(plane.kubeconfig)
        self._database = postgres.create_database()
        self._witness = folder / "witness"
        self._witness.touch()
        self._studies = [StudyOnCluster(self._kubectl, namespace, name) for name in TASKS]
        self._wanted: list[Document] = [{"parallelism": self._workers, "suspend": False} for _ in self._studies]
        self._asked: list[Document] = [{} for _ in self._studies]
        self._errands: list[Callable[[], bool]] = []
        self._counts: dict[str, int] = {}
        self._samples: list[Sample] = []
        self._over: dict[Fault, float] = {}
        self._killed: dict[Kind, set[str]] = {kind: set() for kind in Kind}
        self._is_away: set[Kind] = set()
        self._restarts = 0
        self._last_pass = 0.0

    @property
    def _budget(self) -> int:
        return self.size.trials // len(TASKS)

    @property
    def _workers(self) -> int:
        return max(1, self.size.workers // len(TASKS))

    @property
    def progress(self) -> str:
        """How far it is, in words."""
        workers = self._samples[-1].workers if self._samples else 0
        return f"{self.size.trials - self._left} of {self.size.trials} trials, {workers} workers"

    def run(self) -> Report:
        """Apply the studies, let the storm go over them, and look at what is left."""
        kubeconfig = service_account_kubeconfig(self._plane, self._kubectl)
        overrides = {trials.WITNESS: str(self._witness), trials.EPOCH_SECONDS: str(self.size.epoch_seconds)}
        with (
            ProcessKubelet(self._plane.kubeconfig, self._folder / "pods", overrides=overrides) as self._kubelet,
            OperatorProcess(kubeconfig, self._database, self._folder / "operator") as self._operator,
        ):
            for place, (study, task) in enumerate(zip(self._studies, TASKS.values(), strict=True)):
                study.apply(**self._spec(place, task))
            self._began = time.monotonic()
            try:
                self._blow()
                self._calm_down()
            finally:
                self._end_all()
            return self._report()

    def _spec(self, place: int, task: Document) -> Document:
        return {
            "objectives": [{"metric": "quality", "direction": "maximize"}],
            "searchSpace": [{"name": "x", "type": "float", "low": 0.0, "high": 1.0}],
            "sampler": {"type": "random", "seed": len(TASKS) * self.size.seed + place},
            "pruner": {"type": "median", "nStartupTrials": 5, "nWarmupSteps": 1},
            "maxTrials": self._budget,
            "maxFailedTrials": self._budget,
            "parallelism": self._workers,
            "trial": task | {"gpus": 0, "checkpoints": {"persistentVolumeClaim": "checkpoints"}},
        }

    def _now(self) -> float:
        return time.monotonic() - self._began

    def _blow(self) -> None:
        faults = plan.draw(
            self.size.seed,
            seconds=self.size.seconds,
            gap=self.size.gap,
            studies=len(TASKS),
            workers=self._workers,
        )
        if self.size.apart:
            self._one_by_one(faults)
            return
        steps = list(plan.steps(faults))
        while steps and self._left:
            while steps and steps[0].at <= self._now():
                self._take(steps.pop(0))
            self._look()

    def _one_by_one(self, faults: tuple[Fault, ...]) -> None:
        """Of a fault's times, only how long it lasts is kept."""
        self._look_while(lambda: not self._is_well_since(0.0))
        for fault in faults:
            if not self._left or self._now() >= self.size.seconds:
                return
            ends = self._now() + fault.ends - fault.begins
            self._take(Step(self._now(), fault, is_end=False))
            if fault.ends > fault.begins:
                self._look_while(lambda ends=ends: self._now() < ends)
                self._take(Step(ends, fault, is_end=True))
            self._look_while(lambda fault=fault: fault not in self._over or not self._is_well_since(self._over[fault]))

    def _look_while(self, is_so: Callable[[], bool]) -> None:
        while is_so() and self._now() < self.size.seconds:
            self._look()

    def _is_well_since(self, over: float) -> bool:
        return verdict.recovery(over=over, samples=self._samples) is not None

    def _calm_down(self) -> None:
        """All is mended; the studies have their time to end, however slow the machine: only a standstill ends it."""
        self._end_all()
        self._wanted = [{"parallelism": max(1, item["parallelism"]), "suspend": False} for item in self._wanted]
        left, since = self._left, self._now()
        while self._now() < since + self.size.calm_seconds and not (self._left == 0 and self._is_settled()):
            self._look()
            if self._left < left:
                left, since = self._left, self._now()
        self._look()

    def _end_all(self) -> None:
        for kind in list(self._is_away):
            self._come_back(kind)

    @property
    def _left(self) -> int:
        return sum(self._budget - self._counts.get(name, 0) for name in TASKS)

    def _is_settled(self) -> bool:
        if self._is_away or self._errands:
            return False
        return all(not verdict.violations(*self._facts_of(study), **self._rules) for study in self._studies)

    # What is done.

    def _take(self, step: Step) -> None:
        fault = step.fault
        self._say(f"{self._now():.0f} s: {fault.kind}{' is over' if step.is_end else ''}")
        if step.is_end:
            self._come_back(fault.kind)
        else:
            self._strike(fault)
        if step.is_end or (fault.ends == fault.begins and fault.kind is not Kind.POD_DELETED):
            self._over[fault] = self._now()

    def _strike(self, fault: Fault) -> None:
        rng = random.Random(f"{self.size.seed} {fault.number}")
        match fault.kind:
            case Kind.WORKERS_KILLED | Kind.ALL_WORKERS_KILLED:
                pods = list(self._kubelet.running)
                rng.shuffle(pods)
                for uid in pods if fault.kind is Kind.ALL_WORKERS_KILLED else pods[: fault.amount]:
                    with suppress(KeyError):  # it has just ended by itself
                        self._kubelet.kill(uid)
                        self._killed[fault.kind].add(uid)
            case Kind.POD_DELETED:
                self._errands.append(lambda: self._delete_pods(rng, fault))
            case Kind.OPERATOR_KILLED:
                self._operator.kill()
            case Kind.POSTGRES_AWAY:
                self._postgres.stop()
            case Kind.API_SERVER_AWAY:
                self._plane.stop_apiserver()
            case Kind.PARALLELISM_CHANGED:
                self._wanted[fault.study]["parallelism"] = fault.amount
            case Kind.SUSPENDED:
                self._wanted[fault.study]["suspend"] = True
        if fault.ends > fault.begins:
            self._is_away.add(fault.kind)

    def _come_back(self, kind: Kind) -> None:
        self._is_away.discard(kind)
        if kind is Kind.POSTGRES_AWAY:
            self._postgres.start()
        elif kind is Kind.API_SERVER_AWAY:
            self._plane.start_apiserver()
        elif kind is Kind.OPERATOR_KILLED:
            self._operator.launch()
        elif kind is Kind.SUSPENDED:
            for wanted in self._wanted:
                wanted["suspend"] = False

    def _delete_pods(self, rng: random.Random, fault: Fault) -> bool:
        """Delete pods as a drain does; what the API server does not take is tried again."""
        study = self._studies[fault.study]
        pods = sorted(study.pods(), key=lambda pod: str(pod["metadata"]["name"]))
        rng.shuffle(pods)
        for pod in pods[: fault.amount]:
            study.kubectl("delete", "pod", pod["metadata"]["name"], "-n", study.namespace, "--wait=false")
            self._killed[fault.kind].add(pod["metadata"]["uid"])
        self._over[fault] = self._now()
        return True

    # What would be done by a Deployment, or by a person who tries again.

    def _look(self) -> None:
        if Kind.OPERATOR_KILLED not in self._is_away and not self._operator.is_running:
            self._restarts += 1
            self._operator.launch()
        if Kind.API_SERVER_AWAY not in self._is_away:
            self._ask()
            self._errands = [errand for errand in self._errands if not _succeeds(errand)]
        self._sample()
        threading.Event().wait(_LOOK_SECONDS)

    def _ask(self) -> None:
        for study, wanted, asked in zip(self._studies, self._wanted, self._asked, strict=True):
            if wanted != asked and "patched" in study.patch(**wanted):
                asked.update(wanted)

    def _sample(self) -> None:
        counts = self._count()
        self._counts = counts if counts is not None else self._counts
        with suppress(OSError):
            self._last_pass = _last_pass(self._operator.metrics()) - time.time() + time.monotonic() - self._began
        wanted = sum(
            min(item["parallelism"], self._budget - self._counts.get(study.name, 0))
            for item, study in zip(self._wanted, self._studies, strict=True)
            if not item["suspend"]
        )
        self._samples.append(
            Sample(
                at=self._now(),
                ended=sum(counts.values()) if counts is not None else None,
                left=self._left,
                # NB: one that was just struck is still there for as long as it takes to end.
                workers=len(set(self._kubelet.running).difference(*self._killed.values())),
                wanted=wanted,
                epochs=self._witness.read_text().count('"begins"'),
                last_pass=self._last_pass,
            )
        )

    def _count(self) -> dict[str, int] | None:
        """Trials of each study that count, or None while the database does not answer."""
        schema = naming.database_schema(self._studies[0].namespace)
        url = self._postgres.url(str(self._database.database))
        engine = create_engine(
            url, poolclass=NullPool, connect_args={"connect_timeout": 2, "options": f"-csearch_path={schema}"}
        )
        try:
            with engine.connect() as connection:
                if not connection.execute(text("SELECT to_regclass('trials')")).scalar():
                    return {}
                return {str(row.study_name): int(row.ended) for row in connection.execute(text(_COUNT))}
        except OperationalError:
            return None

    # What is left.

    @property
    def _rules(self) -> Document:
        killed = self._killed[Kind.WORKERS_KILLED] | self._killed[Kind.ALL_WORKERS_KILLED]
        return {"budget": self._budget, "killed": killed}

    def _facts_of(self, study: StudyOnCluster) -> tuple[list[FrozenTrial], list[Fact], Document]:
        rows = _rows(study, self._database)
        own = {trial.params.get("x") for trial in rows}
        facts = [Fact(**json.loads(line)) for line in self._witness.read_text().splitlines()]
        return rows, [fact for fact in facts if fact.x in own], study.status()

    def _report(self) -> Report:
        found = [self._facts_of(study) for study in self._studies]
        wrong = [
            f"{study.name}: {words}"
            for study, facts in zip(self._studies, found, strict=True)
            for words in verdict.violations(*facts, **self._rules)
        ]
        tried = [verdict.attempts(facts) for _, facts, _ in found]
        counted = [trial for rows, _, _ in found for trial in verdict.counting(rows)]
        recoveries: dict[str, list[float | None]] = {}
        for fault, over in self._over.items():
            recoveries.setdefault(fault.kind, []).append(verdict.recovery(over=over, samples=self._samples))
        return Report(
            size=self.size,
            took=self._now(),
            faults=dict(Counter(str(fault.kind) for fault in self._over)),
            killed={str(kind): len(pods) for kind, pods in self._killed.items() if pods},
            operator_restarts=self._restarts,
            ended=len(counted),
            states=dict(Counter(trial.state.name for trial in counted)),
            retried=sum(len(verdict.lost(rows)) for rows, _, _ in found),
            stuck=self.size.trials - len(counted),
            lost_epochs=[epochs for item in tried for epochs in verdict.lost_epochs(item)],
            finished_in_vain=sum(verdict.finished_in_vain(item) for item in tried),
            recoveries=recoveries,
            violations=wrong,
        )


def _succeeds(errand: Callable[[], bool]) -> bool:
    try:
        return errand()
    except RuntimeError:  # kubectl's
        return False


def _last_pass(metrics: str) -> float:
    """When the operator ended a pass, in seconds since 1970; 0 if it has made none."""
    name = "tuningstudy_last_pass_timestamp_seconds "
    return next((float(line.removeprefix(name)) for line in metrics.splitlines() if line.startswith(name)), 0.0)


def _rows(study: StudyOnCluster, database: URL) -> list[FrozenTrial]:
    """All trials of a study, read with the worker's role."""
    url = worker_url(database, study.namespace, uid=study.namespace_uid)
    storage = RDBStorage(url.render_as_string(hide_password=False), skip_table_creation=True)
    try:
        return optuna.load_study(study_name=study.name, storage=storage).get_trials(deepcopy=False)
    finally:
        storage.engine.dispose()
