"""The studies gateway: Optuna studies in the database, read and written as the controller's values.

Trials change only in ways that can be repeated: a lost trial is marked, then failed, then continued, and a crash after
any of the three leaves a row from which the next pass goes on.
"""

import copy
import json
import math
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import optuna
from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.study import Study as OptunaStudy
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, create_trial
from optuna.trial import TrialState as OptunaState
from sqlalchemy import TextClause, delete, select, text, update
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from tuning_api import contract, naming
from tuning_api.contract import Failure, Given, Owner, read_attribute
from tuning_api.rows import RowStorage
from tuning_api.search import Direction
from tuning_api.spec import StudySpec
from tuning_api.status import StudyStatus
from tuning_api.tables import STUDY_ATTRIBUTES
from tuning_operator import additions, feasibility, planning, warm_start
from tuning_operator.database import Database, database_errors, tables_are_gone
from tuning_operator.errors import DatabaseUnavailable, RowsUnreadable
from tuning_operator.importances import judged, shares
from tuning_operator.model import (
    Abandon,
    Clock,
    Pulse,
    Record,
    Requeue,
    StudyKey,
    TakenOver,
    Trial,
    TrialsPlan,
    TrialState,
    utc,
)

_FIXED_PARAMS = "fixed_params"
"""Optuna's system attribute of a trial with given parameters."""
_GROWTH = 1.5
"""Of trials that importances are told by, after which they are computed again."""
_PULSES_SECONDS = 3.0
"""A statement for all pulses may take so long."""
_ONE_BY_ONE_SECONDS = 5.0
_FIRST_PAUSE, _LONGEST_PAUSE = 5.0, 300.0
_MOST_EPOCHS = 10**9
_ENDED = frozenset({TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL})

Value = TypeVar("Value", int, str, dict[str, Any])


class Studies(Protocol):
    """What the controller asks of the database; every call may raise DatabaseUnavailable."""

    def read(self, key: StudyKey) -> Record | None:
        """The study as it is, or None if there is none of that name."""

    def open(self, key: StudyKey, spec: StudySpec) -> None:
        """Create the study, or make an existing one follow the spec."""

    def take_over(self, key: StudyKey, spec: StudySpec, source: str) -> TakenOver | None:
        """Copy the finished trials of an earlier study that fit this one, once; None if there is no such study."""

    def carry_out(self, key: StudyKey, plan: TrialsPlan, *, spec: StudySpec, trials: tuple[Trial, ...]) -> None:
        """Change the rows as planned, for a study of this spec that had these trials when it was read."""

    def save(self, key: StudyKey, *, clock: Clock | None = None, status: StudyStatus | None = None) -> None:
        """Keep the clock, or the status for the charts server."""

    def delete(self, key: StudyKey) -> None:
        """Delete the study and all its trials, if there are any."""

    def forget(self, key: StudyKey) -> None:
        """Drop what is remembered of its rows, so that they take no memory; asks the database for nothing."""


class OptunaStudies:
    """Studies in Optuna's tables, wherever a `Database` has those of a namespace."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._storages: dict[str, RDBStorage] = {}
        self._studies: dict[StudyKey, OptunaStudy] = {}
        self._ended: dict[StudyKey, dict[int, Trial]] = {}
        self._importances: dict[StudyKey, tuple[int, dict[str, float]]] = {}
        self._slow: dict[str, _Pause] = {}
        self._lock = threading.Lock()

    def read(self, key: StudyKey) -> Record | None:
        """See `Studies`."""
        try:
            with database_errors():
                return self._read(key)
        except DatabaseUnavailable as error:
            if tables_are_gone(error):
                self._close(key.namespace)  # so that the next pass makes them anew
            raise

    def _read(self, key: StudyKey) -> Record | None:
        study = self._find(key)
        if study is None:
            return None
        try:
            attributes, rows = _rows(study)
        except KeyError:  # it was there, and somebody has deleted it
            self.forget(key)
            return None
        own, trials = self._own(key, rows)
        return Record(
            stored_spec=_of_type(dict, attributes.get(contract.SPEC_ATTRIBUTE)),
            clock=Clock.from_document(attributes.get(contract.CLOCK_ATTRIBUTE)),
            trials=trials,
            importances=self._importances_of(key, own),
            warm_started=_of_type(dict, attributes.get(contract.WARM_START_ATTRIBUTE)) or {},
            directions=tuple(Direction[direction.name] for direction in study.directions),
        )

    def _own(self, key: StudyKey, rows: list[FrozenTrial]) -> tuple[list[FrozenTrial], tuple[Trial, ...]]:
        """The trials that were not taken over, as Optuna's values and as ours; a trial that has ended never changes."""
        own = [trial for trial in rows if not warm_start.origin(trial)]
        ended = self._ended.setdefault(key, {})
        trials = tuple(ended.get(row.number) or _trial(row, study=key.name) for row in own)
        ended.update((trial.number, trial) for trial in trials if trial.number not in ended and trial.state in _ENDED)
        return own, trials

    def pulses(self, keys: Iterable[StudyKey]) -> dict[StudyKey, Pulse]:
        """The pulses of studies in Postgres, in one statement for all; of those that a pass has read before.

        A namespace whose rows cannot be counted in time, or are gone, is left out, and for a while not asked for.

        Raises:
            DatabaseUnavailable: the database does not answer.
        """
        now = time.monotonic()
        known: dict[str, dict[int, StudyKey]] = {}
        for key in keys:
            study = self._studies.get(key)
            if study and not ((pause := self._slow.get(key.namespace)) and now < pause.until):
                known.setdefault(key.namespace, {})[study._study_id] = key  # noqa: SLF001
        if not known:
            return {}
        with database_errors(), self._storage(next(iter(known))).engine.connect() as connection:
            if (pulses := _pulses_of(connection, known, seconds=_PULSES_SECONDS)) is not None:
                for namespace in known:
                    self._slow.pop(namespace, None)
                return pulses
            return self._pulses_one_by_one(connection, known)

    def _pulses_one_by_one(
        self, connection: Connection, known: Mapping[str, Mapping[int, StudyKey]]
    ) -> dict[StudyKey, Pulse]:
        """What one statement for all could not read, for as long as a tick may take; the rest is left out."""
        found: dict[StudyKey, Pulse] = {}
        end = time.monotonic() + _ONE_BY_ONE_SECONDS
        for namespace, studies in known.items():
            if time.monotonic() > end:
                break
            pulses = _pulses_of(connection, {namespace: studies}, seconds=_PULSES_SECONDS / len(known) + 0.1)
            if pulses is None:
                before = self._slow.get(namespace)
                self._slow[namespace] = _Pause.after(before, now=time.monotonic())
            else:
                self._slow.pop(namespace, None)
                found |= pulses
        return found

    def open(self, key: StudyKey, spec: StudySpec) -> None:
        """See `Studies`."""
        document = spec.to_document()
        with database_errors():
            study = self._find(key) or self._create(key, spec)
            if study.user_attrs.get(contract.SPEC_ATTRIBUTE) != document:
                study.set_user_attr(contract.SPEC_ATTRIBUTE, document)

    def take_over(self, key: StudyKey, spec: StudySpec, source: str) -> TakenOver | None:
        """See `Studies`.

        All copies are one transaction, and say where they are from; then the study says so, if need be in the next pass.
        """
        with database_errors():
            study, earlier = self._require(key), self._earlier(key, source)
            if earlier is None:
                return None
            stored = earlier.user_attrs.get(contract.SPEC_ATTRIBUTE)
            candidates = _with_curves(earlier, warm_start.worth_a_look(earlier.get_trials(deepcopy=False)))
            why_none = warm_start.unlike(spec, stored=stored, directions=earlier.directions)
            copies, skipped = list[FrozenTrial](), Counter[str]()
            for trial in candidates:
                copied = why_none or warm_start.copy(trial, spec, source=source)
                if isinstance(copied, str):
                    skipped[copied] += 1
                else:
                    copies.append(copied)
            if not _has_copies(study, source):
                self._insert(key, copies)
            taken = len(copies)
            done = study.user_attrs.get(contract.WARM_START_ATTRIBUTE, {})
            study.set_user_attr(contract.WARM_START_ATTRIBUTE, done | {source: taken})
            return TakenOver(source, taken=taken, skipped=dict(skipped))

    def carry_out(self, key: StudyKey, plan: TrialsPlan, *, spec: StudySpec, trials: tuple[Trial, ...]) -> None:
        """See `Studies`."""
        if plan == TrialsPlan():
            return
        with database_errors():
            study = self._require(key)
            for trial in plan.cancel:
                _cancel(study, trial)
            for abandon in plan.abandon:
                _abandon(study, abandon)
            for requeue in plan.requeue:
                _requeue(study, requeue)
            lost = (*(item.trial for item in plan.requeue), *plan.successors)
            self._insert(key, [_successor(trial) for trial in lost if _is_failed(study, trial)])
            added = planning.additions(spec, study=key.name, trials=trials, enqueue=plan.enqueue, add=plan.add)
            self._insert(key, [_waiting(item.params, item.given) for item in added])

    def _insert(self, key: StudyKey, trials: list[FrozenTrial]) -> None:
        """Add trials, all or none."""
        if not trials:
            return
        study_id = self._require(key)._study_id  # noqa: SLF001
        with self._storage(key.namespace).engine.begin() as connection:
            additions.add(connection, study_id, trials)

    def save(self, key: StudyKey, *, clock: Clock | None = None, status: StudyStatus | None = None) -> None:
        """See `Studies`."""
        with database_errors():
            if clock is not None:
                self._note(key, contract.CLOCK_ATTRIBUTE, clock.to_document())
            if status is not None:
                self._note(key, contract.STATUS_ATTRIBUTE, status.to_document())

    def _note(self, key: StudyKey, name: str, document: dict[str, Any]) -> None:
        """Keep an attribute of a study; one that it has is replaced by one statement, for which Optuna takes three."""
        study = self._require(key)
        replaced = (
            update(STUDY_ATTRIBUTES)
            .where(STUDY_ATTRIBUTES.c.study_id == study._study_id, STUDY_ATTRIBUTES.c.key == name)  # noqa: SLF001
            .values(value_json=json.dumps(document))
        )
        with self._storage(key.namespace).engine.begin() as connection:
            is_replaced = connection.execute(replaced).rowcount > 0
        if not is_replaced:
            study.set_user_attr(name, document)

    def delete(self, key: StudyKey) -> None:
        """See `Studies`.

        NB: Optuna's own delete_study loads every row as an object: 37 s and 449 MB for 5,000 trials.
        """
        models = optuna.storages._rdb.models  # noqa: SLF001
        with database_errors():
            study = self._find(key)
            if study is None:
                return
            study_id = study._study_id  # noqa: SLF001
            trials = select(models.TrialModel.trial_id).where(models.TrialModel.study_id == study_id)
            with Session(self._storage(key.namespace).engine) as session, session.begin():
                for child in (
                    models.TrialUserAttributeModel,
                    models.TrialSystemAttributeModel,
                    models.TrialParamModel,
                    models.TrialValueModel,
                    models.TrialIntermediateValueModel,
                    models.TrialHeartbeatModel,
                ):
                    session.execute(delete(child).where(child.trial_id.in_(trials)))
                for table in (
                    models.TrialModel,
                    models.StudyUserAttributeModel,
                    models.StudySystemAttributeModel,
                    models.StudyDirectionModel,
                    models.StudyModel,
                ):
                    session.execute(delete(table).where(table.study_id == study_id))
        self.forget(key)

    def forget(self, key: StudyKey) -> None:
        """See `Studies`."""
        with self._lock:
            self._drop(key)

    def _drop(self, key: StudyKey) -> None:
        self._studies.pop(key, None)
        self._ended.pop(key, None)
        self._importances.pop(key, None)

    def _close(self, namespace: str) -> None:
        """Forget a namespace's tables, and all studies in them."""
        with self._lock:
            self._storages.pop(namespace, None)
            for key in [key for key in self._studies if key.namespace == namespace]:
                self._drop(key)

    def _storage(self, namespace: str) -> RDBStorage:
        with self._lock:
            if namespace not in self._storages:
                self._storages[namespace] = self._database.open(namespace)
            return self._storages[namespace]

    def _find(self, key: StudyKey) -> OptunaStudy | None:
        storage = self._storage(key.namespace)
        if key not in self._studies:
            try:
                self._studies[key] = optuna.load_study(study_name=key.name, storage=storage)
            except KeyError:
                return None
        return self._studies[key]

    def _earlier(self, key: StudyKey, name: str) -> OptunaStudy | None:
        """Another study of the namespace, in its tables or, where each study has its own, in those."""
        if found := self._find(StudyKey(key.namespace, name)):
            return found
        elsewhere = self._database.elsewhere(key.namespace, name)
        try:
            return optuna.load_study(study_name=name, storage=elsewhere) if elsewhere else None
        except KeyError:
            return None

    def _require(self, key: StudyKey) -> OptunaStudy:
        study = self._find(key)
        if study is None:
            msg = f"study {key.name} is no longer in the database"
            raise LookupError(msg)
        return study

    def _create(self, key: StudyKey, spec: StudySpec) -> OptunaStudy:
        directions = [StudyDirection[objective.direction.name] for objective in spec.objectives]
        storage = self._storage(key.namespace)
        try:
            study = optuna.create_study(study_name=key.name, storage=storage, directions=directions)
        except DuplicatedStudyError:
            study = optuna.load_study(study_name=key.name, storage=storage)
        self._studies[key] = study
        return study

    def _importances_of(self, key: StudyKey, trials: list[FrozenTrial]) -> dict[str, float]:
        """Computed again once half as many more count, and when none is on its way: it takes as long as all else."""
        count = len(judged(trials))
        then, known = self._importances.get(key, (0, {}))
        is_over = all(trial.state.is_finished() for trial in trials)
        if count > _GROWTH * then or (is_over and count != then):
            known = shares(trials)
            self._importances[key] = count, known
        return known


@dataclass(frozen=True)
class _Pause:
    """For how long a namespace is not asked for its pulses: each time twice as long."""

    seconds: float
    until: float

    @classmethod
    def after(cls, before: "_Pause | None", *, now: float) -> "_Pause":
        """The next one."""
        seconds = min(_LONGEST_PAUSE, 2 * before.seconds) if before else _FIRST_PAUSE
        return cls(seconds, now + seconds)


def _pulses_of(
    connection: Connection, known: Mapping[str, Mapping[int, StudyKey]], *, seconds: float
) -> dict[StudyKey, Pulse] | None:
    """The pulses of studies by namespace and identity; None if they cannot be read in time.

    Raises:
        DBAPIError: the connection is lost.
    """
    schemas = {naming.database_schema(namespace): studies for namespace, studies in known.items()}
    pulses = {key: Pulse() for studies in known.values() for key in studies.values()}
    try:
        connection.execute(text(f"SET LOCAL statement_timeout = {math.ceil(1000 * seconds)}"))
        for schema, study_id, *counts in connection.execute(_counts_of(schemas)):
            pulses[schemas[schema][study_id]] = Pulse(*counts)
    except DBAPIError as error:
        connection.rollback()
        if error.connection_invalidated:
            raise
        return None
    connection.rollback()
    return pulses


def _counts_of(schemas: Mapping[str, Iterable[int]]) -> TextClause:
    """How many trials of each study are in each state, over all schemas.

    NB: each schema has a type of its own for the states, so they are compared as texts. Names of schemas come from
    `naming.database_schema` and hold nothing but [a-z0-9_].
    """
    counts = ", ".join(f"count(*) FILTER (WHERE state::text = '{state}')" for state in TrialState)
    parts = (
        f"SELECT '{schema}', study_id, {counts} FROM \"{schema}\".trials"  # noqa: S608
        f" WHERE study_id IN ({', '.join(map(str, identities))}) GROUP BY study_id"
        for schema, identities in schemas.items()
    )
    return text(" UNION ALL ".join(parts))


def _rows(study: OptunaStudy) -> tuple[dict[str, Any], list[FrozenTrial]]:
    """A study's attributes and trials.

    Raises:
        KeyError: it is gone.
        RowsUnreadable: Optuna cannot make sense of them.
    """
    try:
        return study._storage.get_study_user_attrs(study._study_id), study.get_trials(deepcopy=False)  # noqa: SLF001
    except (TypeError, ValueError) as error:
        what = f"rows of study {study.study_name} in the database cannot be read ({type(error).__name__}: {error})"
        raise RowsUnreadable(what) from error


def _trial(frozen: FrozenTrial, *, study: str) -> Trial:
    """NB: user code in a worker may write any attribute: what cannot be read counts as not written."""
    attributes = frozen.user_attrs
    return Trial(
        trial_id=frozen._trial_id,  # noqa: SLF001
        number=frozen.number,
        state=TrialState[frozen.state.name],
        values=tuple(frozen.values or ()),
        is_feasible=not feasibility.broken(frozen),
        params=frozen.params,
        owner=read_attribute(Owner, attributes.get(contract.OWNER_ATTRIBUTE)),
        failure=read_attribute(Failure, attributes.get(contract.FAILURE_ATTRIBUTE)),
        requeued=_of_type(str, attributes.get(contract.REQUEUED_ATTRIBUTE)),
        retry_of=_of_type(int, attributes.get(contract.RETRY_OF_ATTRIBUTE)),
        cancelled=bool(attributes.get(contract.CANCELLED_ATTRIBUTE)),
        given=read_attribute(Given, attributes.get(contract.GIVEN_ATTRIBUTE)),
        fixed=fixed if isinstance(fixed := frozen.system_attrs.get(_FIXED_PARAMS), dict) else {},
        epochs=_count(attributes.get(contract.EPOCHS_ATTRIBUTE)),
        max_epochs=_count(attributes.get(contract.MAX_EPOCHS_ATTRIBUTE)),
        checkpoint=contract.kept_path(attributes.get(contract.CHECKPOINT_ATTRIBUTE), study=study, trial=frozen.number),
        started=utc(frozen.datetime_start),
        ended=utc(frozen.datetime_complete),
    )


def _with_curves(study: OptunaStudy, trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """Trials with what they have reported, which is read of no others."""
    storage = getattr(study._storage, "_backend", study._storage)  # noqa: SLF001 - under Optuna's cache
    curves = storage.reports_of(trials) if isinstance(storage, RowStorage) else {}
    found = []
    for trial in trials:
        with_curve = copy.copy(trial)
        with_curve.intermediate_values = curves.get(trial._trial_id, {})  # noqa: SLF001 - there is no public way
        found.append(with_curve)
    return found


def _has_copies(study: OptunaStudy, source: str) -> bool:
    """Whether the trials of another study were taken over already."""
    origins = map(warm_start.origin, study.get_trials(deepcopy=False))
    return any(origin and origin.study == source for origin in origins)


def _count(value: object) -> int | None:
    """NB: the status has their sum, and the API server takes 64 bits."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MOST_EPOCHS else None


def _of_type(kind: type[Value], value: object) -> Value | None:
    return value if isinstance(value, kind) else None


def _cancel(study: OptunaStudy, trial: Trial) -> None:
    """Withdraw a waiting trial, by claiming it first: a worker that was faster keeps it."""
    storage = study._storage  # noqa: SLF001
    try:
        if not storage.set_trial_state_values(trial.trial_id, state=OptunaState.RUNNING):
            return
    except UpdateFinishedTrialError:
        return
    storage.set_trial_user_attr(trial.trial_id, contract.CANCELLED_ATTRIBUTE, True)  # noqa: FBT003
    storage.set_trial_state_values(trial.trial_id, state=OptunaState.FAIL)


def _abandon(study: OptunaStudy, abandon: Abandon) -> None:
    failure = abandon.failure.to_document()
    _fail(study, abandon.trial, attribute=contract.FAILURE_ATTRIBUTE, value=failure)


def _requeue(study: OptunaStudy, requeue: Requeue) -> None:
    _fail(study, requeue.trial, attribute=contract.REQUEUED_ATTRIBUTE, value=str(requeue.because))


def _fail(study: OptunaStudy, trial: Trial, *, attribute: str, value: Any) -> None:
    """Mark a trial, then fail it; one that ended in the meantime keeps its result."""
    storage = study._storage  # noqa: SLF001
    try:
        storage.set_trial_user_attr(trial.trial_id, attribute, value)
        storage.set_trial_state_values(trial.trial_id, state=OptunaState.FAIL)
    except UpdateFinishedTrialError:
        return


def _is_failed(study: OptunaStudy, lost: Trial) -> bool:
    """Whether a trial is lost indeed: it may have ended after all."""
    return study._storage.get_trial(lost.trial_id).state is OptunaState.FAIL  # noqa: SLF001


def _successor(lost: Trial) -> FrozenTrial:
    return _waiting(lost.fixed | lost.params, lost.given, retry_of=lost.number)


def _waiting(params: Mapping[str, Any], given: Given | None, *, retry_of: int | None = None) -> FrozenTrial:
    attributes: dict[str, Any] = {contract.GIVEN_ATTRIBUTE: given.to_document()} if given else {}
    if retry_of is not None:
        attributes[contract.RETRY_OF_ATTRIBUTE] = retry_of
    fixed = {_FIXED_PARAMS: dict(params)} if params else {}
    return create_trial(state=OptunaState.WAITING, system_attrs=fixed, user_attrs=attributes)
