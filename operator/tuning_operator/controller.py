"""One pass over one study: observe, decide, act, report.

The pass is level-triggered: it reads everything anew, so nothing is lost with an event, a crash or a restart. It runs in
one thread; whoever calls it takes care that no two passes of the same study overlap (`handlers.SingleFlight`).
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from tuning_api.spec import DeletionPolicy, StudySpec
from tuning_api.status import Charts, Condition, ConditionStatus, ConditionType, Reason, StudyStatus
from tuning_operator import decide
from tuning_operator.decide import attention, report, validity
from tuning_operator.errors import Conflict, DatabaseUnavailable, Refused, RowsUnreadable, TuningError
from tuning_operator.executor import Executor
from tuning_operator.metrics import Metrics
from tuning_operator.model import Look, Plan, Record, Said, Snapshot, Study, StudyKey, Trouble
from tuning_operator.studies import Studies

logger = logging.getLogger(__name__)

LinkMaker = Callable[[Study, datetime], Charts | None]

_WARNINGS = frozenset(
    {
        Reason.INVALID_SPEC,
        Reason.DATABASE_UNAVAILABLE,
        Reason.POD_UNSCHEDULABLE,
        Reason.IMAGE_PULL,
        Reason.QUOTA_EXCEEDED,
        Reason.WORKERS_FAILING,
        Reason.TRIALS_FAILING,
        Reason.TOO_MANY_FAILED_TRIALS,
        Reason.OPERATOR_ERROR,
    }
)


@dataclass(frozen=True)
class Pace:
    """How often counts may be written to the status, in seconds; what a person waits for is written at once."""

    status_seconds: float = 20


class Controller:
    """Brings studies from what is to what is asked for, a step at a time."""

    def __init__(
        self, *, executor: Executor, studies: Studies, links: LinkMaker, metrics: Metrics, pace: Pace | None = None
    ) -> None:
        self._executor = executor
        self._studies = studies
        self._links = links
        self._metrics = metrics
        self._pace = pace or Pace()
        self._written: dict[StudyKey, float] = {}
        self._prepared: set[str] = set()
        """Namespaces whose workers this process has shown the way into the database."""

    def reconcile(self, key: StudyKey) -> Look | None:
        """Make one pass over a study.

        Returns:
            What it leaves for whoever decides when the next one comes; None if it could not do what it should.

        Raises:
            TuningError: the cluster is unavailable; the next pass tries again.
            Exception: a mistake of ours, after the study's owner was told.
        """
        study = self._executor.study(key)
        if study is None:
            self._forget(key)
            return None
        with self._metrics.timed_pass():
            try:
                return self._pass(study)
            except RowsUnreadable as error:
                self._metrics.count_error(error)
                message = f"{error}: restore them from a backup, or create a study of another name"
                self._report_fault(study, Trouble(Reason.DATABASE_UNAVAILABLE, message))
            except DatabaseUnavailable as error:
                self._metrics.count_error(error)
                message = (
                    f"the database is unavailable: {error}; running trials go on, and the study recovers by itself"
                )
                self._report_fault(study, Trouble(Reason.DATABASE_UNAVAILABLE, message))
            except Conflict:
                logger.debug("the study changed during the pass", extra={"study": str(key)})
            except TuningError:
                raise
            except Exception as error:
                message = f"the operator made a mistake ({type(error).__name__}: {error}) and tries again; see its log"
                self._report_fault(study, Trouble(Reason.OPERATOR_ERROR, message))
                raise
        return None

    def tell_overdue(self, key: StudyKey, *, seconds: float) -> None:
        """Say of a study that its pass, which goes on, does not come to its end. Asks the API server alone.

        Raises:
            TuningError: it cannot be said now.
        """
        study = self._executor.glance(key)
        if study is None:
            return
        message = (
            f"the operator has looked at this study for more than {seconds:.0f} s and is not done, which is a mistake of its"
            " own or the database's; if it stays so, tell its maintainers of this study's spec, and change or delete it"
        )
        trouble = Trouble(Reason.OPERATOR_ERROR, message)
        status = report.status_of_fault(study, trouble, charts=study.status.charts, now=datetime.now(UTC))
        self._executor.write_status(study, status)

    def release(self, key: StudyKey, policy: DeletionPolicy) -> None:
        """Let go of a study that is being deleted; its Jobs go with it, by their owner references.

        Raises:
            DatabaseUnavailable: the rows cannot be deleted now.
        """
        self._forget(key)
        if policy is DeletionPolicy.DELETE:
            self._studies.delete(key)

    def _forget(self, key: StudyKey) -> None:
        self._metrics.forget(key)
        self._studies.forget(key)
        self._written.pop(key, None)

    def _pass(self, study: Study) -> Look:
        spec = study.spec
        if spec is None:
            return self._refuse(study, study.fault or "the spec cannot be read")
        record = self._studies.read(study.key)
        fault = validity.fault(spec, record.stored_spec if record and record.has_trials else None)
        if fault := fault or (validity.foreign(spec, record) if record else None):
            return self._refuse(study, fault)
        if record is None or record.stored_spec != spec.to_document():
            self._studies.open(study.key, spec)
            record = self._studies.read(study.key)
        if record is None:
            raise DatabaseUnavailable(f"study {study.key.name} vanished while it was being opened")
        if fault := self._warm_start(study, spec, record):
            return self._refuse(study, fault)
        snapshot = Snapshot(
            now=datetime.now(UTC), study=study, spec=spec, record=record, workers=self._executor.workers(study)
        )
        plan = decide.plan(snapshot)
        refusal = self._act(snapshot, plan)
        status = report.status(snapshot, plan, charts=self._links(study, snapshot.now), refusal=refusal)
        self._metrics.observe(study.key, status, record.trials)
        said = self._write(study, status)
        look = attention.look_of(snapshot, plan, said=said, counts_at=self._counts_at(study, now=snapshot.now))
        if not look.moves:
            # Optuna keeps what it has read, and studies at rest may be thousands: the next pass reads it anew.
            self._studies.forget(study.key)
        return look

    def _warm_start(self, study: Study, spec: StudySpec, record: Record) -> str | None:
        """Take over the trials of earlier studies that are named for the first time; or why one cannot be found."""
        for earlier in spec.warm_start or []:
            if earlier.name in record.warm_started:
                continue
            if earlier.name == study.key.name:
                return "spec.warmStart names the study itself: remove it, for it knows its own trials"
            taken = self._studies.take_over(study.key, spec, earlier.name)
            if taken is None:
                return (
                    f"spec.warmStart names study {earlier.name}, and none of that name has run in namespace"
                    f" {study.key.namespace}: run it first, or remove the entry"
                )
            message = report.taken_over(taken)
            logger.info(message, extra={"study": str(study.key)})
            self._executor.tell(study, reason=Reason.WARM_STARTED, message=message, is_warning=not taken.taken)
        return None

    def _act(self, snapshot: Snapshot, plan: Plan) -> Trouble | None:
        """Carry out a plan: rows first, so that a worker that starts finds something to claim."""
        study = snapshot.study
        if plan.clock != snapshot.record.clock:
            self._studies.save(study.key, clock=plan.clock)
        self._studies.carry_out(study.key, plan.trials, spec=snapshot.spec, trials=snapshot.record.trials)
        for name in plan.workers.stop:
            self._executor.stop_worker(study, name)
        # NB: a namespace, and the Secret in it, can be deleted and made again under one name; and an operator that has just
        # started may have other keys, so that a pod that is replaced would come with a password of before.
        is_new_here = snapshot.workers and study.key.namespace not in self._prepared
        if not plan.workers.start and not is_new_here and not any(worker.trouble for worker in snapshot.workers):
            return None
        try:
            self._executor.prepare(study)
            self._prepared.add(study.key.namespace)
            for index in plan.workers.start:
                self._executor.start_worker(study, index)
        except Refused as error:
            reason = Reason.QUOTA_EXCEEDED if "exceeded quota" in str(error) else Reason.WORKERS_FAILING
            return Trouble(reason, f"a worker cannot be created: {error}")
        return None

    def _refuse(self, study: Study, fault: str) -> Look:
        """Say what is wrong with a spec."""
        said = self._report_fault(study, Trouble(Reason.INVALID_SPEC, fault))
        return attention.look_of_refusal(said=said, now=datetime.now(UTC))

    def _report_fault(self, study: Study, trouble: Trouble) -> Said:
        now = datetime.now(UTC)
        charts = self._links(study, now) if study.status.charts else None
        status = report.status_of_fault(study, trouble, charts=charts, now=now)
        self._metrics.observe(study.key, status)
        return self._write(study, status)

    def _write(self, study: Study, status: StudyStatus) -> Said:
        """Write the status once, if it is worth a write, and tell of transitions."""
        old = study.status
        if not report.differs(status, old):
            return Said.NOTHING
        is_urgent = report.is_urgent(status, old)
        if not is_urgent and self._pause(study) > 0:
            return Said.COUNTS_LATER
        self._executor.write_status(study, status)
        self._written[study.key] = time.monotonic()
        self._keep_for_charts(study, status)
        self._tell(study, status)
        return Said.NEWS if is_urgent else Said.COUNTS

    def _pause(self, study: Study) -> float:
        """Seconds until counts may be written again."""
        return self._written.get(study.key, float("-inf")) + self._pace.status_seconds - time.monotonic()

    def _counts_at(self, study: Study, *, now: datetime) -> datetime:
        return now + timedelta(seconds=max(0.0, self._pause(study)))

    def _keep_for_charts(self, study: Study, status: StudyStatus) -> None:
        """The charts server reads only the database; it may miss a status, it may not stop one."""
        try:
            self._studies.save(study.key, status=status)
        except (DatabaseUnavailable, LookupError):
            logger.debug("the status could not be kept for the charts server", extra={"study": str(study.key)})

    def _tell(self, study: Study, status: StudyStatus) -> None:
        """Events for conditions that became true, and for the cause when nothing moves; each sentence once."""
        told: set[str] = set()
        for type_ in ConditionType:
            new, old = status.condition(type_), study.status.condition(type_)
            if new is None or (old and (old.status, old.reason) == (new.status, new.reason)):
                continue
            if not _is_news(new) or new.message in told:
                continue
            told.add(new.message)
            logger.info(new.message, extra={"study": str(study.key), "condition": type_, "reason": new.reason})
            is_warning = new.reason in _WARNINGS
            self._executor.tell(study, reason=new.reason, message=new.message, is_warning=is_warning)


def _is_news(condition: Condition) -> bool:
    if condition.type is ConditionType.READY:
        return False  # Progressing says the same, or why not
    if condition.status is ConditionStatus.TRUE:
        return True
    return condition.type is ConditionType.PROGRESSING and condition.reason in _WARNINGS
