"""Many studies in a real cluster's API, in several namespaces, and workers of theirs that only pretend to train.

A tenth of the studies is live. Of the others every second one has ended and every second one is suspended, each with some
trials. What the workers write is what real ones write, with their code and with their rights; they have no processes of
their own. The pods are said to run by us, since there is no kubelet.
"""

import copy
import heapq
import itertools
import json
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from kubernetes import config
from kubernetes.client import ApiClient
from optuna.distributions import (
    BaseDistribution,
    CategoricalChoiceType,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial
from sqlalchemy.engine import URL
from tests.support.builders import a_manifest
from tests.support.chart_studies import SMALL, SPACE, a_finished_trial, a_search_spec
from tests.support.operator_process import CHARTS_PASSWORD
from tests.support.tenancy import PASSWORD_KEY

from tuning_api import naming
from tuning_api.contract import Owner
from tuning_api.spec import GROUP, PLURAL, VERSION, StudySpec
from tuning_operator import additions
from tuning_operator.cluster import Cluster, send
from tuning_operator.database import open_storage
from tuning_operator.model import StudyKey
from tuning_operator.studies import OptunaStudies
from tuning_operator.tenancy import Tenancy
from tuning_trial import database, outcomes, transactions
from tuning_trial.outcomes import Completed, Progress

if TYPE_CHECKING:
    from optuna.storages import RDBStorage

Document = dict[str, Any]

NAMESPACES = 10
LIVE_SHARE = 10
"""One study of so many is live."""
WORKERS = 2
EPOCHS = 3
TRIAL_SECONDS = 20.0
TRIALS_OF_OTHERS = 20
LABEL = "bench-live"
_POLL_SECONDS = 1.0
_CALLERS = 8


class Crowd:
    """Studies, and who works on them. It grows when asked to; it ends its threads and leaves all else behind."""

    def __init__(self, kubeconfig: Path, database_url: URL) -> None:
        configuration = ApiClient().configuration
        config.load_kube_config(config_file=str(kubeconfig), client_configuration=configuration)
        self._client = ApiClient(configuration)
        for name in namespaces():
            send(self._client, "POST", "/api/v1/namespaces", body={"kind": "Namespace", "metadata": {"name": name}})
        tenancy = Tenancy(
            database_url,
            password_key=PASSWORD_KEY,
            charts_password=CHARTS_PASSWORD,
            uid_of=Cluster(self._client).namespace_uid,
        )
        self._gateway = OptunaStudies(tenancy)
        self._size = 0
        self._stop = threading.Event()
        self._offices = [_Office(tenancy, database_url, name) for name in namespaces()]
        self._threads = [threading.Thread(target=self._attend, args=(office,)) for office in self._offices]
        self._threads += [threading.Thread(target=self._be_kubelet)]
        self._known: set[str] = set()

    def __enter__(self) -> Self:
        for name in namespaces():
            # NB: tables and roles are made by one process at a time (`Tenancy.open`): now, and later by the operator alone.
            self._gateway.read(StudyKey(name, "none-yet"))
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def grow(self, size: int) -> None:
        """Add studies until there are so many."""
        new = range(self._size, size)
        self._size = size
        with ThreadPoolExecutor(_CALLERS) as pool:
            list(pool.map(self._add, new))

    @property
    def size(self) -> int:
        """How many studies there are."""
        return self._size

    @property
    def live(self) -> int:
        """How many studies are live."""
        return self._size // LIVE_SHARE

    def has_settled(self) -> bool:
        """Whether all studies are what they are meant to be: running with all workers, ended or suspended."""
        phases = [item.get("status", {}).get("phase") for item in self._studies()]
        others = len(phases) - phases.count("Running") - phases.count("Complete") - phases.count("Suspended")
        workers = sum(len(office.workers) for office in self._offices)
        return others == 0 and workers == WORKERS * self.live

    def ages(self) -> list[float]:
        """Of each live study: for how many seconds its status has been untrue; 0 where it counts all trials that ended."""
        seen = time.monotonic()
        return [
            self._offices[_place(item)].age(item["metadata"]["name"], item["status"]["trials"]["finished"], now=seen)
            for item in self._studies(labelSelector=LABEL)
        ]

    def ended(self) -> int:
        """How many trials the workers have ended."""
        return sum(len(ends) for office in self._offices for ends in office.ends.values())

    def _studies(self, **query: str) -> list[Document]:
        items: list[Document] = self._get(f"/apis/{GROUP}/{VERSION}/{PLURAL}", **query)
        return items

    def _get(self, path: str, **query: str) -> list[Document]:
        items: list[Document] = json.loads(send(self._client, "GET", path, query=query))["items"]
        return items

    def _add(self, number: int) -> None:
        office = self._offices[number // LIVE_SHARE % NAMESPACES]
        name, is_live = f"study-{number}", number % LIVE_SHARE == 0
        spec = _spec(is_live=is_live, is_suspended=number % 2 == 0)
        manifest = a_manifest(name=name, namespace=office.namespace, **spec)
        if is_live:
            manifest["metadata"]["labels"] = {LABEL: ""}
        else:
            office.fill(self._gateway, StudyKey(office.namespace, name), StudySpec.model_validate(manifest["spec"]))
        path = f"/apis/{GROUP}/{VERSION}/namespaces/{office.namespace}/{PLURAL}"
        send(self._client, "POST", path, body=manifest)

    def _be_kubelet(self) -> None:
        """Say of each pod that it runs, and let its worker begin."""
        while not self._stop.wait(_POLL_SECONDS):
            for pod in self._get("/api/v1/pods"):
                uid = pod["metadata"]["uid"]
                if uid in self._known:
                    continue
                self._known.add(uid)
                path = f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}/status"
                merge = "application/merge-patch+json"
                send(self._client, "PATCH", path, body={"status": _RUNNING}, content_type=merge)
                study = pod["metadata"]["labels"][naming.LABEL_STUDY]
                self._offices[_place(pod)].begin(study, Owner(id=uid, name=pod["metadata"]["name"]))

    def _attend(self, office: "_Office") -> None:
        while not self._stop.wait(office.wait()):
            office.work()


_RUNNING = {
    "phase": "Running",
    "conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"}],
}


def namespaces() -> list[str]:
    """The namespaces among which the studies are spread."""
    return [f"bench-{place}" for place in range(NAMESPACES)]


def _place(document: Document) -> int:
    return int(document["metadata"]["namespace"].removeprefix("bench-"))


def _spec(*, is_live: bool, is_suspended: bool) -> Document:
    shared = {"parallelism": WORKERS, "searchSpace": a_search_spec().to_document()["searchSpace"]}
    shared["trial"] = a_search_spec().to_document()["trial"]
    if is_live:
        return shared | {"maxTrials": 100_000}
    if is_suspended:
        return shared | {"maxTrials": 2 * TRIALS_OF_OTHERS, "suspend": True}
    return shared | {"maxTrials": TRIALS_OF_OTHERS}


class _Office:
    """The workers of one namespace, in one thread: each is a generator that says after how many seconds it goes on."""

    def __init__(self, tenancy: Tenancy, url: URL, namespace: str) -> None:
        self.namespace = namespace
        self.ends: dict[str, list[float]] = {}
        """When the trials of each live study ended."""
        self.workers: list[str] = []
        self._schema = naming.database_schema(namespace)
        self._operators_url = url
        self._workers_url = tenancy.worker_url(namespace, base=url)
        self._due: list[tuple[float, int, Iterator[float]]] = []
        self._order = itertools.count()
        self._lock = threading.Lock()
        self._storages: list[RDBStorage] = []

    def fill(self, gateway: OptunaStudies, key: StudyKey, spec: StudySpec) -> None:
        """Make a study in the database that has had some trials."""
        gateway.open(key, spec)
        with self._lock:
            if not self._storages:
                self._storages.append(open_storage(self._operators_url, self._schema))
        trials = [a_finished_trial(number, value=number / 100, params=SMALL) for number in range(TRIALS_OF_OTHERS)]
        study_id = self._storages[0].get_study_id_from_name(key.name)
        with self._storages[0].engine.begin() as connection:
            additions.add(connection, study_id, trials)

    def begin(self, study: str, owner: Owner) -> None:
        """Let a worker begin; not all at the same moment."""
        first = time.monotonic() + random.uniform(0, 5)  # noqa: S311 - no secret
        with self._lock:
            self.ends.setdefault(study, [])
            self.workers.append(owner.id)
            heapq.heappush(self._due, (first, next(self._order), self._life(study, owner)))

    def age(self, study: str, known: int, *, now: float) -> float:
        """For how long a status that knows so many ended trials has been untrue."""
        ends = self.ends.get(study, [])
        return max(0.0, now - ends[known]) if known < len(ends) else 0.0

    def wait(self) -> float:
        """Seconds until somebody goes on."""
        with self._lock:
            return max(0.0, self._due[0][0] - time.monotonic()) if self._due else _POLL_SECONDS

    def work(self) -> None:
        """Let those go on who are due."""
        while self._due and self._due[0][0] <= time.monotonic():
            with self._lock:
                _, _, life = heapq.heappop(self._due)
            pause = next(life)
            with self._lock:
                heapq.heappush(self._due, (time.monotonic() + pause, next(self._order), life))

    def _life(self, study: str, owner: Owner) -> Iterator[float]:
        """Claim, suggest, report, tell: what a worker writes, at its pace."""
        known = database.open_study(self._workers_url, study)
        storage, study_id = database.storage_of(known), known._study_id  # noqa: SLF001
        chance = random.Random(owner.id)  # noqa: S311 - no secret
        while True:
            claimed = transactions.claim(storage.engine, study_id=study_id, owner=owner, now=_utc)
            if claimed is None:
                yield _POLL_SECONDS
                continue
            before = storage.get_trial(claimed.trial_id)
            transactions.choose(storage.engine, _chosen(before, chance), before=before)
            for epoch in range(EPOCHS):
                yield TRIAL_SECONDS / EPOCHS * chance.uniform(0.5, 1.5)
                storage.set_trial_intermediate_value(claimed.trial_id, epoch, chance.random())
            record = outcomes.record(Completed((chance.random(),)), Progress(EPOCHS, EPOCHS), curve={})
            assert record is not None  # noqa: S101 - it has ended
            transactions.end(storage.engine, claimed.trial_id, record, now=_utc)
            self.ends[study].append(time.monotonic())


def _chosen(trial: FrozenTrial, chance: random.Random) -> FrozenTrial:
    chosen = copy.copy(trial)
    chosen.params = {name: _drawn(distribution, chance) for name, distribution in SPACE.items()}
    chosen.distributions = SPACE
    return chosen


def _drawn(distribution: BaseDistribution, chance: random.Random) -> CategoricalChoiceType:
    if isinstance(distribution, CategoricalDistribution):
        return chance.choice(distribution.choices)
    if isinstance(distribution, IntDistribution):
        return chance.randint(distribution.low, distribution.high)
    assert isinstance(distribution, FloatDistribution)  # noqa: S101 - there are no others
    return chance.uniform(distribution.low, distribution.high)


def _utc() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)
