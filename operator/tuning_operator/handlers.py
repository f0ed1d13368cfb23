"""What Kopf calls. Each handler only says which study wants a pass, and returns; the pass reads everything anew.

Events are hints: a study that was created or changed, a Job that began or ended. The rounds look after all studies, since
trials end in the database and no event tells of it. Nothing is written through Kopf: the status has one writer.

NB: no timers of Kopf's: each turn of each costs more than most passes have to do.
"""

import asyncio
import logging
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any

import kopf

from tuning_api import naming
from tuning_api.spec import GROUP, KIND, PLURAL, VERSION, DeletionPolicy
from tuning_api.status import Phase, Reason
from tuning_operator.controller import Controller
from tuning_operator.errors import DatabaseUnavailable, TuningError
from tuning_operator.metrics import Metrics
from tuning_operator.model import Look, StudyKey
from tuning_operator.rounds import BEAT, Rounds
from tuning_operator.turns import OVERDUE_SECONDS, Turns

logger = logging.getLogger(__name__)

STUDIES = (GROUP, VERSION, PLURAL)
JOBS = ("batch", "v1", "jobs")  # NB: never 'jobs' alone: ambiguous as soon as a CRD has that plural
TERMINAL = frozenset({Phase.COMPLETE, Phase.FAILED})
EXIT_SECONDS = 20
"""How long passes may take to their end when the operator is asked to stop; below the pod's grace period of 45 s."""
RELEASE_SECONDS = 300
"""How long a deletion waits for a database that is away; then it lets go and says what was left behind."""


class SingleFlight:
    """Runs at most one pass a study at a time; a request during a pass causes one more after it."""

    def __init__(
        self,
        work: Callable[[StudyKey], Look | None],
        *,
        turns: Turns,
        passed: Callable[[StudyKey, Look | None], None] = lambda _key, _look: None,
    ) -> None:
        self._work = work
        self._turns = turns
        self._passed = passed
        self._running: set[StudyKey] = set()
        self._again: set[StudyKey] = set()
        self._suspected: set[StudyKey] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def ask(self, key: StudyKey) -> None:
        """Have a pass made soon; waits for nothing."""
        if key in self._running:
            self._again.add(key)
            return
        task = asyncio.create_task(self.run(key))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def suspect(self, key: StudyKey) -> None:
        """A pass over this study may never end, as one before the last start did: such are made one at a time."""
        self._suspected.add(key)

    async def run(self, key: StudyKey) -> None:
        """Make a pass now, or right after the one that is under way."""
        if key in self._running:
            self._again.add(key)
            return
        self._running.add(key)
        try:
            while True:
                self._again.discard(key)
                look = await asyncio.wrap_future(self._turn(key))
                self._suspected.discard(key)
                self._passed(key, look)
                if key not in self._again:
                    return
        finally:
            self._running.discard(key)

    def _turn(self, key: StudyKey) -> Future[Look | None]:
        work = partial(self._work, key)
        return self._turns.submit(key.namespace, work, name=key, alone=key in self._suspected)


def register(
    registry: kopf.OperatorRegistry,
    *,
    controller: Controller,
    metrics: Metrics,
    turns: Turns,
    rounds: Rounds,
) -> None:
    """Register all handlers; the registry is explicit, so that two operators can live in one process."""
    flight = SingleFlight(_safely(controller.reconcile, metrics), turns=turns, passed=rounds.passed)
    _register_rounds(registry, rounds=rounds, flight=flight, turns=turns, watch=_Watch(turns, controller, metrics))

    @kopf.on.event(*STUDIES, registry=registry)
    async def study_changed(body: kopf.Body, type: str | None, **_: Any) -> None:  # noqa: A002 - Kopf's name
        if type == "DELETED" or body.metadata.get("deletionTimestamp"):
            rounds.drop(_key(body))
        else:
            rounds.add(_key(body), has_ended=_has_ended(body))
        if type is None and _has_failed_us(body):
            flight.suspect(_key(body))
        if _wants_a_pass(body):
            flight.ask(_key(body))

    @kopf.on.event(*JOBS, registry=registry, labels={naming.LABEL_MANAGED_BY: naming.MANAGED_BY})
    async def job_changed(body: kopf.Body, **_: Any) -> None:
        if owner := _owning_study(body):
            flight.ask(owner)

    @kopf.on.delete(*STUDIES, registry=registry)
    async def study_deleted(body: kopf.Body, runtime: Any, **_: Any) -> None:
        key = _key(body)
        is_to_go = body.spec.get("deletionPolicy") == DeletionPolicy.DELETE
        release = partial(controller.release, key, DeletionPolicy.DELETE if is_to_go else DeletionPolicy.RETAIN)
        try:
            await asyncio.wrap_future(turns.submit(key.namespace, release, first=True))
        except DatabaseUnavailable as error:
            if runtime.total_seconds() < RELEASE_SECONDS:
                raise kopf.TemporaryError(f"the database is unavailable: {error}", delay=15) from error
            left = f"the database was unavailable for {RELEASE_SECONDS} s; the study's trials were left in it: {error}"
            kopf.warn(body, reason="LeftBehind", message=left)


class _Watch:
    """Says of which studies the pass does not come to its end."""

    def __init__(self, turns: Turns, controller: Controller, metrics: Metrics) -> None:
        self._turns = turns
        self._controller = controller
        self._metrics = metrics
        self._told: set[Hashable] = set()

    async def run(self) -> None:
        """Go on for ever."""
        while True:
            await asyncio.sleep(BEAT.total_seconds())
            self.look()

    def look(self) -> None:
        """Tell of each pass once that has become overdue."""
        overdue = {key for key in self._turns.overdue() if isinstance(key, StudyKey)}
        self._metrics.overdue_passes.set(len(overdue))
        for key in overdue - self._told:
            logger.error("the pass takes longer than %d s", OVERDUE_SECONDS, extra={"study": str(key)})
            # Not a turn of the study's namespace, whose threads may all be where this one is.
            self._turns.submit("", partial(self._tell, key))
        self._told = set(overdue)

    def _tell(self, key: StudyKey) -> None:
        try:
            self._controller.tell_overdue(key, seconds=OVERDUE_SECONDS)
        except TuningError as error:
            logger.warning("it could not be said that the pass takes long: %s", error, extra={"study": str(key)})


def _register_rounds(
    registry: kopf.OperatorRegistry, *, rounds: Rounds, flight: SingleFlight, turns: Turns, watch: _Watch
) -> None:
    tasks: list[asyncio.Task[None]] = []

    @kopf.on.startup(registry=registry)
    async def start_rounds(**_: Any) -> None:
        tasks.extend((asyncio.create_task(rounds.run(flight.run)), asyncio.create_task(watch.run())))

    @kopf.on.cleanup(registry=registry)
    async def stop_rounds(**_: Any) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.to_thread(turns.close, EXIT_SECONDS)


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


def _has_failed_us(body: kopf.Body) -> bool:
    """Whether the last pass over this very spec did not end, or ended by a mistake of ours; see `_Watch`."""
    reasons = [condition.get("reason") for condition in body.status.get("conditions", [])]
    return Reason.OPERATOR_ERROR in reasons and not _wants_a_pass(body)


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
