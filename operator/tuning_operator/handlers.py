"""What Kopf calls. Each handler only says which study wants a pass; the pass reads everything anew.

Events are hints: a study that was created or changed, a Job that began or ended. The rounds look after all studies, since
trials end in the database and no event tells of it. Nothing is written through Kopf: the status has one writer.

NB: no timers of Kopf's: each turn of each costs more than most passes have to do.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import kopf

from tuning_api import naming
from tuning_api.spec import GROUP, KIND, PLURAL, VERSION, DeletionPolicy
from tuning_api.status import Phase
from tuning_operator.controller import Controller
from tuning_operator.errors import DatabaseUnavailable, TuningError
from tuning_operator.metrics import Metrics
from tuning_operator.model import Look, StudyKey
from tuning_operator.rounds import Rounds

logger = logging.getLogger(__name__)

STUDIES = (GROUP, VERSION, PLURAL)
JOBS = ("batch", "v1", "jobs")  # NB: never 'jobs' alone: ambiguous as soon as a CRD has that plural
TERMINAL = frozenset({Phase.COMPLETE, Phase.FAILED})
RELEASE_SECONDS = 300
"""How long a deletion waits for a database that is away; then it lets go and says what was left behind."""


class SingleFlight:
    """Runs at most one pass a study at a time; a request during a pass causes one more after it."""

    def __init__(
        self,
        work: Callable[[StudyKey], Look | None],
        *,
        pool: ThreadPoolExecutor,
        passed: Callable[[StudyKey, Look | None], None] = lambda _key, _look: None,
    ) -> None:
        self._work = work
        self._pool = pool
        self._passed = passed
        self._running: set[StudyKey] = set()
        self._again: set[StudyKey] = set()

    async def run(self, key: StudyKey) -> None:
        """Make a pass now, or right after the one that is under way."""
        if key in self._running:
            self._again.add(key)
            return
        self._running.add(key)
        try:
            while True:
                self._again.discard(key)
                look = await asyncio.get_running_loop().run_in_executor(self._pool, self._work, key)
                self._passed(key, look)
                if key not in self._again:
                    return
        finally:
            self._running.discard(key)


def register(
    registry: kopf.OperatorRegistry,
    *,
    controller: Controller,
    metrics: Metrics,
    pool: ThreadPoolExecutor,
    rounds: Rounds,
) -> None:
    """Register all handlers; the registry is explicit, so that two operators can live in one process."""
    flight = SingleFlight(_safely(controller.reconcile, metrics), pool=pool, passed=rounds.passed)
    _register_rounds(registry, rounds=rounds, flight=flight)

    @kopf.on.event(*STUDIES, registry=registry)
    async def study_changed(body: kopf.Body, type: str | None, **_: Any) -> None:  # noqa: A002 - Kopf's name
        if type == "DELETED" or body.metadata.get("deletionTimestamp"):
            rounds.drop(_key(body))
        else:
            rounds.add(_key(body), has_ended=_has_ended(body))
        if _wants_a_pass(body):
            await flight.run(_key(body))

    @kopf.on.event(*JOBS, registry=registry, labels={naming.LABEL_MANAGED_BY: naming.MANAGED_BY})
    async def job_changed(body: kopf.Body, **_: Any) -> None:
        if owner := _owning_study(body):
            await flight.run(owner)

    @kopf.on.delete(*STUDIES, registry=registry)
    async def study_deleted(body: kopf.Body, runtime: Any, **_: Any) -> None:
        is_to_go = body.spec.get("deletionPolicy") == DeletionPolicy.DELETE
        policy = DeletionPolicy.DELETE if is_to_go else DeletionPolicy.RETAIN
        try:
            await asyncio.get_running_loop().run_in_executor(pool, controller.release, _key(body), policy)
        except DatabaseUnavailable as error:
            if runtime.total_seconds() < RELEASE_SECONDS:
                raise kopf.TemporaryError(f"the database is unavailable: {error}", delay=15) from error
            left = f"the database was unavailable for {RELEASE_SECONDS} s; the study's trials were left in it: {error}"
            kopf.warn(body, reason="LeftBehind", message=left)


def _register_rounds(registry: kopf.OperatorRegistry, *, rounds: Rounds, flight: SingleFlight) -> None:
    tasks: list[asyncio.Task[None]] = []

    @kopf.on.startup(registry=registry)
    async def start_rounds(**_: Any) -> None:
        tasks.append(asyncio.create_task(rounds.run(flight.run)))

    @kopf.on.cleanup(registry=registry)
    async def stop_rounds(**_: Any) -> None:
        for task in tasks:
            task.cancel()


def _safely(work: Callable[[StudyKey], Look | None], metrics: Metrics) -> Callable[[StudyKey], Look | None]:
    """A pass that fails is logged once and tried again at the next tick; it never stops the others."""

    def run(key: StudyKey) -> Look | None:
        try:
            return work(key)
        except TuningError as error:
            metrics.count_error(error)
            logger.warning("the pass was put off: %s", error, extra={"study": str(key)})
        except Exception as error:
            metrics.count_error(error)
            logger.exception("the pass failed", extra={"study": str(key)})
        return None

    return run


def _has_ended(body: kopf.Body) -> bool:
    """Whether a study has ended, its last workers too, and does not go on with a changed spec.

    NB: that a Job is gone is not told to a watch that was interrupted meanwhile.
    """
    return body.status.get("phase") in TERMINAL and not body.status.get("workers", 0) and not _wants_a_pass(body)


def _wants_a_pass(body: kopf.Body) -> bool:
    """Our own status writes come back as events; only a new generation asks for something new."""
    if body.metadata.get("deletionTimestamp"):
        return False
    return body.status.get("observedGeneration") != body.metadata.get("generation")


def _key(body: Mapping[str, Any]) -> StudyKey:
    return StudyKey(body["metadata"]["namespace"], body["metadata"]["name"])


def _owning_study(job: Mapping[str, Any]) -> StudyKey | None:
    """The study of a Job of ours. NB: a tenant may write Jobs with our labels, and any owner."""
    metadata = job["metadata"]
    uid = metadata.get("labels", {}).get(naming.LABEL_STUDY_UID)
    for owner in metadata.get("ownerReferences", []):
        group, _, _ = owner.get("apiVersion", "").partition("/")
        is_ours = (group, owner.get("kind")) == (GROUP, KIND) and uid and owner.get("uid") == uid
        if is_ours and naming.is_study_name(owner.get("name", "")):
            return StudyKey(metadata["namespace"], owner["name"])
    return None
