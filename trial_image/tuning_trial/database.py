"""The study's database as a worker sees it: it may be away for minutes, and that must not cost a trial.

Optuna opens a transaction for each call to its storage, and every such call can be repeated: what is written twice is
the same. So the retries sit there, below Optuna's cache, where they cover suggesting, reporting, pruning and telling
alike. What must never be repeated is the refusal to change a finished trial (`UpdateFinishedTrialError`): it means that
the controller gave the trial to somebody else.

A worker neither creates tables nor checks their version: the controller did, and the worker's role may not.
"""

import copy
import functools
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

import optuna
import stamina
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial
from sqlalchemy import LargeBinary, Table, cast, exc, func, make_url, select
from typing_extensions import override

from tuning_api import row_limits
from tuning_api.contract import Env
from tuning_api.row_limits import RowRefusedError
from tuning_api.rows import RowStorage
from tuning_api.tables import PARAMS, REPORTS, SYSTEM_ATTRIBUTES, USER_ATTRIBUTES
from tuning_trial.errors import DatabaseAwayError, MisconfiguredError

PATIENCE_SECONDS = 600.0
"""How long one call waits for the database: a restart or a failover takes a minute or two."""
_LONGEST_PAUSE_SECONDS = 10.0

_CONNECT_ARGS: dict[str, dict[str, Any]] = {
    # Without these a connection that a firewall or a lost node cut off hangs for two hours (tcp_keepalive_time), or
    # for a quarter of an hour while something is being sent (tcp_retries2).
    "postgresql": {
        "connect_timeout": 10,
        "keepalives": 1,
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
        "tcp_user_timeout": 60_000,
    },
    "sqlite": {"timeout": 60},
}

_REFUSED = re.compile(
    r"password authentication failed|no password supplied|(role|user|database) \S+ does not exist|no pg_hba\.conf entry"
    r"|is not permitted to (log in|connect)|permission denied|no such table|unable to open database file|authentication method"
)
"""What Postgres and SQLite say when waiting would not help. A refused connection has no SQLSTATE in psycopg2, only a text."""

_P = ParamSpec("_P")
_T = TypeVar("_T")


_OF_THIS_PROCESS = frozenset({"_patient_caller", "on_wait", "is_patient"})


class PatientStorage(RowStorage):
    """Optuna's storage, with retries for as long as the database is away."""

    def __init__(self, url: str, *, stopping: Callable[[], bool], patience: float = PATIENCE_SECONDS) -> None:
        self._be_patient(stopping=stopping, patience=patience)
        super().__init__(
            _for_optuna(url),
            engine_kwargs={
                "pool_pre_ping": True,
                "pool_size": 1,
                "max_overflow": 1,
                "connect_args": _CONNECT_ARGS.get(make_url(url).get_backend_name(), {}),
            },
            skip_compatibility_check=True,
            skip_table_creation=True,
        )

    @override
    def __getstate__(self) -> dict[Any, Any]:
        """An objective may send its trial to other processes, as joblib does; what belongs to this one stays."""
        return {name: value for name, value in super().__getstate__().items() if name not in _OF_THIS_PROCESS}

    @override
    def __setstate__(self, state: dict[Any, Any]) -> None:
        self._be_patient(stopping=lambda: False, patience=PATIENCE_SECONDS)
        super().__setstate__(state)

    def _be_patient(self, *, stopping: Callable[[], bool], patience: float) -> None:
        caller = stamina.RetryingCaller(
            attempts=None, timeout=patience, wait_initial=0.5, wait_max=_LONGEST_PAUSE_SECONDS, wait_jitter=0.5
        )
        self.on_wait: Callable[[], None] = lambda: None
        """Called before each pause: to wait for the database is not to stand still."""

        def shall_wait(error: Exception) -> bool:
            if not is_away(error) or stopping():
                return False
            self.on_wait()
            return True

        self._patient_caller = caller.on(shall_wait)
        self.is_patient = True

    def patiently(self, call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Call, and again for as long as the database is away; then raise what the last call raised."""
        if not self.is_patient:
            return call(*args, **kwargs)
        return self._patient_caller(call, *args, **kwargs)


TRANSACTIONS = (
    "get_study_id_from_name",
    "get_study_name_from_id",
    "get_study_directions",
    "get_study_user_attrs",
    "get_study_system_attrs",
    "set_study_system_attr",
    "get_trial_user_attrs",
    "get_trial_system_attrs",
    "_set_trial_param",
    "get_trial_param",
    "set_trial_intermediate_value",
    "set_trial_user_attr",
    "set_trial_system_attr",
    "get_trial_id_from_study_id_trial_number",
    "get_trial",
    "_get_trials",
    "_get_best_trial_id",
)
"""Methods of RDBStorage that a worker needs and that are one transaction each; a test compares them with Optuna's source."""


class Knowing:
    """Optuna's storage, to which one trial is known already.

    NB: Optuna's Trial reads it once more, and a fork would have to connect for it.
    """

    def __init__(self, storage: Any, known: FrozenTrial) -> None:
        self._storage = storage
        self._known = known

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """See Optuna; it notes in the trial what it chooses and what is reported."""
        if trial_id == self._known._trial_id:  # noqa: SLF001 - there is no public way
            return copy.deepcopy(self._known)
        trial: FrozenTrial = self._storage.get_trial(trial_id)
        return trial


def _patient(name: str) -> Callable[..., Any]:
    method, check = getattr(RowStorage, name), _CHECKS.get(name)

    @functools.wraps(method)
    def call(self: PatientStorage, *args: Any, **kwargs: Any) -> Any:
        if check:
            check(self, *args, **kwargs)
        try:
            return self.patiently(method, self, *args, **kwargs)
        except StorageInternalError as error:
            if is_beyond_limits(error):
                raise RowRefusedError(describe(error)) from error
            raise

    return call


# What Postgres would refuse is said before it is sent. What has to be counted is counted here where the database has no rules.


def _check_attribute(table: Table, what: str) -> Callable[..., None]:
    def check(storage: PatientStorage, trial_id: int, key: str, value: Any) -> None:
        _check_text(storage, table, trial_id, what=what, name=key, text=json.dumps(value))

    return check


def _check_param(  # noqa: PLR0917 - as Optuna calls it
    storage: PatientStorage,
    trial_id: int,
    param_name: str,
    param_value_internal: float,  # noqa: ARG001
    distribution: BaseDistribution,
    previous_distribution: BaseDistribution | None = None,  # noqa: ARG001
) -> None:
    _check_text(storage, PARAMS, trial_id, what="parameter", name=param_name, text=distribution_to_json(distribution))


def _check_text(storage: PatientStorage, table: Table, trial_id: int, *, what: str, name: str, text: str) -> None:
    """Refuse a row that is longer than a trial may write, or one too many.

    Raises:
        RowRefusedError: it is.
    """
    size = len(text.encode(errors="surrogatepass"))
    if len(name.encode(errors="surrogatepass")) > row_limits.LONGEST_NAME:
        raise RowRefusedError(row_limits.bad_name(what))
    if size > row_limits.LONGEST_TEXT:
        raise RowRefusedError(row_limits.too_long(what, name, size=size))
    if storage.engine.name == "postgresql":
        return
    of_name, of_text = (
        (table.c.param_name, table.c.distribution_json) if table is PARAMS else (table.c.key, table.c.value_json)
    )
    others = select(func.count(), func.coalesce(func.sum(func.length(cast(of_text, LargeBinary))), 0)).where(
        table.c.trial_id == trial_id, of_name != name, of_name.not_in(row_limits.WORKERS_ATTRIBUTES)
    )
    with storage.engine.connect() as connection:
        held, total = connection.execute(others).one()
    if held >= row_limits.MOST_ROWS or total + size > row_limits.MOST_BYTES:
        raise RowRefusedError(row_limits.too_many(what))


def _check_report(storage: PatientStorage, trial_id: int, step: int, intermediate_value: float) -> None:  # noqa: ARG001
    """See the rule for Postgres: steps differ, so that those within the limit need no counting.

    Raises:
        RowRefusedError: the trial has reported as often as it may.
    """
    if storage.engine.name == "postgresql" or 0 <= step < row_limits.MOST_REPORTS:
        return
    others = select(func.count()).where(REPORTS.c.trial_id == trial_id, REPORTS.c.step != step)
    with storage.engine.connect() as connection:
        if connection.execute(others).scalar_one() >= row_limits.MOST_REPORTS:
            raise RowRefusedError(row_limits.TOO_MANY_REPORTS)


_CHECKS: dict[str, Callable[..., None]] = {
    "set_trial_user_attr": _check_attribute(USER_ATTRIBUTES, "trial attribute"),
    "set_trial_system_attr": _check_attribute(SYSTEM_ATTRIBUTES, "trial attribute of Optuna's"),
    "_set_trial_param": _check_param,
    "set_trial_intermediate_value": _check_report,
}
for _name in TRANSACTIONS:
    setattr(PatientStorage, _name, _patient(_name))


def open_study(
    url: str, name: str, *, stopping: Callable[[], bool] = lambda: False, patience: float = PATIENCE_SECONDS
) -> optuna.Study:
    """Load a study, after waiting for its database if that is away.

    Raises:
        MisconfiguredError: the URL is none, the database refuses us, or it has no such study.
        DatabaseAwayError: it was out of reach for all of `patience`, in seconds.
    """
    connecting = stamina.RetryingCaller(
        attempts=None, timeout=patience, wait_initial=0.5, wait_max=_LONGEST_PAUSE_SECONDS, wait_jitter=0.5
    )
    try:
        storage = connecting.on(lambda error: is_away(error) and not stopping())(
            PatientStorage, url, stopping=stopping, patience=patience
        )
        return optuna.load_study(study_name=name, storage=storage)
    except KeyError as error:
        raise MisconfiguredError(
            f"the database has no study {name!r}: is {Env.STUDY} right, or was it deleted?"
        ) from error
    except (exc.ArgumentError, exc.NoSuchModuleError, ImportError) as error:
        raise MisconfiguredError(f"{Env.DATABASE_URL} is no database URL that this image can open: {error}") from error
    except (StorageInternalError, exc.SQLAlchemyError) as error:
        if is_away(error):
            raise DatabaseAwayError(f"the database stayed away: {describe(error)}") from error
        raise MisconfiguredError(f"the database refused the worker: {describe(error)}") from error


def storage_of(study: optuna.Study) -> PatientStorage:
    """The storage under Optuna's cache, of a study from :func:`open_study`."""
    backend = study._storage._backend  # type: ignore[attr-defined]  # noqa: SLF001 - there is no public way
    assert isinstance(backend, PatientStorage)  # noqa: S101
    return backend


@contextmanager
def at_once(storage: BaseStorage) -> Iterator[None]:
    """Within it, a call to a study's storage does not wait for a database that is away: it raises what :func:`is_away`."""
    backend = getattr(storage, "_backend", None)
    if not isinstance(backend, PatientStorage):
        yield
        return
    backend.is_patient = False
    try:
        yield
    finally:
        backend.is_patient = True


def is_away(error: BaseException) -> bool:
    """Whether the database was out of reach, so that the same call may succeed later."""
    match _cause(error):
        case exc.DBAPIError(connection_invalidated=True):
            return True
        case exc.OperationalError() | exc.InterfaceError() as cause:
            return _REFUSED.search(str(cause.orig)) is None
        case _:
            return False


def is_locked_out(error: BaseException) -> bool:
    """True if the database is there and does not take the worker's role or password."""
    cause = _cause(error)
    return isinstance(cause, exc.OperationalError) and _REFUSED.search(str(cause.orig)) is not None


def is_refused(error: BaseException) -> bool:
    """Whether the database is there and the worker's role may not do what was asked."""
    return isinstance(_cause(error), exc.ProgrammingError)


def is_beyond_limits(error: BaseException) -> bool:
    """Whether the database is there and does not take what was written, since it is too large, or one too many."""
    return isinstance(_cause(error), exc.DataError)


def describe(error: BaseException) -> str:
    """What the database said, in one line; without the statement, and never with the password."""
    cause = _cause(error)
    text = str(cause.orig) if isinstance(cause, exc.DBAPIError) and cause.orig is not None else str(cause)
    lines = (line.strip() for line in text.splitlines())
    return next((line for line in lines if line), type(cause).__name__)


def _cause(error: BaseException) -> BaseException:
    """What Optuna wrapped: its own text speaks of invalid data, whatever the cause."""
    if isinstance(error, StorageInternalError) and error.__cause__ is not None:
        return error.__cause__
    return error


def _for_optuna(url: str) -> str:
    """The URL with the driver that this image has, in the form that Optuna takes.

    NB: without a driver SQLAlchemy takes psycopg2 up to 2.0, and psycopg 3 since 2.1. And Optuna
    calls `str.format` on the URL (for SCHEMA_VERSION), so that a password must not have a brace; here it is escaped.
    """
    parts = make_url(url)
    if parts.drivername in {"postgres", "postgresql"}:
        parts = parts.set(drivername="postgresql+psycopg2")
    return parts.render_as_string(hide_password=False)
