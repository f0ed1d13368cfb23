"""What Kopf calls. Each handler only says which study wants a pass; the pass reads everything anew.

Events are hints: a study that was created or changed, a Job that began or ended. A timer looks at running studies, since
trials end in the database and no event tells of it; another one looks at ended studies now and then, whose links end.
Neither writes through Kopf: the status has one writer.
"""

import asyncio
import logging
import random
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
from tuning_operator.model import StudyKey

logger = logging.getLogger(__name__)

STUDIES = (GROUP, VERSION, PLURAL)
JOBS = ("batch", "v1", "jobs")  # NB: never 'jobs' alone: ambiguous as soon as a CRD has that plural
TERMINAL = frozenset({Phase.COMPLETE, Phase.FAILED})
ENDED_SECONDS = 3600
"""How often a study that has ended is looked at: only its chart links need it, and they are good for days."""
RELEASE_SECONDS = 300
"""How long a deletion waits for a database that is away; then it lets go and says what was left behind."""


class SingleFlight:
    """Runs at most one pass a study at a time; a request during a pass causes one more after it."""

    def __init__(self, work: Callable[[StudyKey], None], *, pool: ThreadPoolExecutor) -> None:
        self._work = work
        self._pool = pool
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
                await asyncio.get_running_loop().run_in_executor(self._pool, self._work, key)
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
    resync_seconds: float,
) -> None:
    """Register all handlers; the registry is explicit, so that two operators can live in one process."""
    flight = SingleFlight(_safely(controller.reconcile, metrics), pool=pool)

    @kopf.on.event(*STUDIES, registry=registry)
    async def study_changed(body: kopf.Body, **_: Any) -> None:
        if _wants_a_pass(body):
            await flight.run(_key(body))

    @kopf.timer(
        *STUDIES,
        registry=registry,
        interval=resync_seconds,
        initial_delay=lambda **_: random.uniform(0, resync_seconds),  # noqa: S311 - spreads the herd after a restart
        when=lambda status, **_: status.get("phase") not in TERMINAL,
    )
    async def study_is_due(body: kopf.Body, **_: Any) -> None:
        await flight.run(_key(body))

    @kopf.timer(
        *STUDIES,
        registry=registry,
        interval=ENDED_SECONDS,
        initial_delay=lambda **_: random.uniform(0, ENDED_SECONDS),  # noqa: S311
        when=lambda status, **_: status.get("phase") in TERMINAL,
    )
    async def ended_study_is_due(body: kopf.Body, **_: Any) -> None:
        await flight.run(_key(body))

    @kopf.on.event(*JOBS, registry=registry, labels={naming.LABEL_MANAGED_BY: naming.MANAGED_BY})
    async def job_changed(body: kopf.Body, **_: Any) -> None:
        if owner := _owning_study(body):
            await flight.run(owner)

    @kopf.on.delete(*STUDIES, registry=registry)
    async def study_deleted(body: kopf.Body, runtime: Any, **_: Any) -> None:
        policy = DeletionPolicy(body.spec.get("deletionPolicy", DeletionPolicy.RETAIN))
        try:
            await asyncio.get_running_loop().run_in_executor(pool, controller.release, _key(body), policy)
        except DatabaseUnavailable as error:
            if runtime.total_seconds() < RELEASE_SECONDS:
                raise kopf.TemporaryError(f"the database is unavailable: {error}", delay=15) from error
            left = f"the database was unavailable for {RELEASE_SECONDS} s; the study's trials were left in it: {error}"
            kopf.warn(body, reason="LeftBehind", message=left)


def _safely(work: Callable[[StudyKey], None], metrics: Metrics) -> Callable[[StudyKey], None]:
    """A pass that fails is logged once and tried again by the timer; it never stops the others."""

    def run(key: StudyKey) -> None:
        try:
            work(key)
        except TuningError as error:
            metrics.count_error(error)
            logger.warning("the pass was put off: %s", error, extra={"study": str(key)})
        except Exception as error:
            metrics.count_error(error)
            logger.exception("the pass failed", extra={"study": str(key)})

    return run


def _wants_a_pass(body: kopf.Body) -> bool:
    """Our own status writes come back as events; only a new generation asks for something new."""
    if body.metadata.get("deletionTimestamp"):
        return False
    return body.status.get("observedGeneration") != body.metadata.get("generation")


def _key(body: Mapping[str, Any]) -> StudyKey:
    return StudyKey(body["metadata"]["namespace"], body["metadata"]["name"])


def _owning_study(job: Mapping[str, Any]) -> StudyKey | None:
    owners = job["metadata"].get("ownerReferences", [])
    name = next((owner["name"] for owner in owners if owner["kind"] == KIND), None)
    return StudyKey(job["metadata"]["namespace"], name) if name else None
