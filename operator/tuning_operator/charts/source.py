"""Where pages get their studies from: Postgres, through a role that may only read.

Optuna's cached storage keeps the trials that have ended, so a poll reads only the rows that still change. The caches are
bounded: who opens many studies one after the other pays in time, not in the server's memory.
"""

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from optuna.storages import RDBStorage
from optuna.storages._cached_storage import _CachedStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from psycopg2 import errors as postgres_errors
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from tuning_api import contract, naming
from tuning_api.rows import RESULTS
from tuning_api.spec import StudySpec
from tuning_api.status import StudyStatus, read_status
from tuning_operator.charts.links import namespace_mark
from tuning_operator.database import database_errors, open_storage
from tuning_operator.errors import DatabaseUnavailable
from tuning_operator.model import Clock
from tuning_operator.tenancy import owner_of

SCHEMAS_KEPT = 32
STUDIES_KEPT = 32
WANTED = replace(RESULTS, most_reports=200, most_reports_of_all=300_000)
"""Of a curve more steps are not drawn. A thousand reports take 130 kB."""
REPORTS_KEPT = 1_000_000
"""Of all studies that are kept."""


@dataclass(frozen=True)
class StudyData:
    """A study as the database has it at one moment."""

    namespace: str
    name: str
    directions: tuple[StudyDirection, ...]
    trials: tuple[FrozenTrial, ...]
    """Those that count: neither lost (a successor stands for them), nor withdrawn before they ran, nor another study's."""
    retried: int = 0
    """Trials that lost their worker and were queued again."""
    warm_started: Mapping[str, int] = field(default_factory=dict)
    """Earlier studies whose trials were taken over, and how many."""
    spec: StudySpec | None = None
    """None where this version cannot read what another one has written."""
    status: StudyStatus = field(default_factory=StudyStatus)
    clock: Clock = field(default_factory=Clock)
    mark: str | None = None
    """Of the namespace (`links.namespace_mark`); None without a cluster."""


class StudySource(Protocol):
    """What the server asks of the database; the call blocks, and may raise DatabaseUnavailable."""

    def load(self, namespace: str, study: str) -> StudyData | None:
        """The study, or None if there is none of that name."""


class PostgresSource:
    """Studies in Postgres; may be called from several threads."""

    def __init__(self, url: URL) -> None:
        self._url = url
        self._schemas: OrderedDict[str, RDBStorage] = OrderedDict()
        self._studies: OrderedDict[tuple[str, str], _CachedStorage] = OrderedDict()
        self._reports: dict[tuple[str, str], int] = {}
        self._lock = threading.Lock()

    def load(self, namespace: str, study: str) -> StudyData | None:
        """See `StudySource`."""
        try:
            with database_errors():
                return self._load(namespace, study)
        except KeyError:
            self._forget(namespace, study)
            return None
        except DatabaseUnavailable as error:
            if _is_absent(error):
                return None
            raise

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            for storage in self._schemas.values():
                storage.engine.dispose()
            self._schemas.clear()
            self._studies.clear()

    def _load(self, namespace: str, study: str) -> StudyData:
        schema = naming.database_schema(namespace)
        with self._schema(schema).engine.connect() as connection:
            owner = owner_of(connection, schema)
        found = read_study(self._storage(namespace, study), namespace=namespace, study=study)
        self._bound(namespace, study, sum(len(trial.intermediate_values) for trial in found.trials))
        return replace(found, mark=namespace_mark(owner.uid) if owner else None)

    def _bound(self, namespace: str, study: str, reports: int) -> None:
        """Forget what has grown too large. What was read a little at a time is then read at once, and fewer of each curve."""
        with self._lock:
            self._reports[namespace, study] = reports
            if reports > 2 * WANTED.most_reports_of_all:
                self._studies.pop((namespace, study), None)
            while len(self._studies) > 1 and sum(self._reports.get(key, 0) for key in self._studies) > REPORTS_KEPT:
                self._studies.popitem(last=False)
            self._reports = {key: self._reports.get(key, 0) for key in self._studies}

    def _storage(self, namespace: str, study: str) -> _CachedStorage:
        schema = self._schema(naming.database_schema(namespace))
        with self._lock:
            known = self._studies.setdefault((namespace, study), _CachedStorage(schema))
            self._studies.move_to_end((namespace, study))
            if len(self._studies) > STUDIES_KEPT:
                self._studies.popitem(last=False)
            return known

    def _schema(self, schema: str) -> RDBStorage:
        with self._lock:
            if schema not in self._schemas:
                self._schemas[schema] = open_storage(self._url, schema, wanted=WANTED)
            self._schemas.move_to_end(schema)
            if len(self._schemas) > SCHEMAS_KEPT:
                _, oldest = self._schemas.popitem(last=False)
                # Connections that are in use close when they are given back.
                oldest.engine.dispose()
            return self._schemas[schema]

    def _forget(self, namespace: str, study: str) -> None:
        with self._lock:
            self._studies.pop((namespace, study), None)


def read_study(storage: _CachedStorage, *, namespace: str, study: str) -> StudyData:
    """A study in any storage of Optuna's.

    Raises:
        KeyError: there is none of that name.
    """
    study_id = storage.get_study_id_from_name(study)
    attributes = storage.get_study_user_attrs(study_id)
    trials = storage.get_all_trials(study_id, deepcopy=False)
    return StudyData(
        namespace=namespace,
        name=study,
        directions=tuple(storage.get_study_directions(study_id)),
        trials=tuple(trial for trial in trials if counts(trial)),
        retried=sum(_is_lost(trial) for trial in trials),
        warm_started=taken if isinstance(taken := attributes.get(contract.WARM_START_ATTRIBUTE), dict) else {},
        spec=_spec(attributes.get(contract.SPEC_ATTRIBUTE)),
        status=read_status(attributes.get(contract.STATUS_ATTRIBUTE)),
        clock=Clock.from_document(attributes.get(contract.CLOCK_ATTRIBUTE)),
    )


def counts(trial: FrozenTrial) -> bool:
    """Whether a trial belongs into figures and tables."""
    is_cancelled = trial.state is TrialState.FAIL and bool(trial.user_attrs.get(contract.CANCELLED_ATTRIBUTE))
    return not is_cancelled and not _is_lost(trial) and contract.COPIED_ATTRIBUTE not in trial.user_attrs


def _is_lost(trial: FrozenTrial) -> bool:
    return trial.state is TrialState.FAIL and trial.user_attrs.get(contract.REQUEUED_ATTRIBUTE) is not None


def _is_absent(error: BaseException | None) -> bool:
    """Whether the namespace has no tables, or none that this role was ever granted: then there is no study either."""
    if error is None:
        return False
    absent = (postgres_errors.UndefinedTable, postgres_errors.InsufficientPrivilege)
    return (isinstance(error, DBAPIError) and isinstance(error.orig, absent)) or _is_absent(error.__cause__)


def _spec(document: Any) -> StudySpec | None:
    try:
        return StudySpec.model_validate(document)
    except ValueError:
        return None
