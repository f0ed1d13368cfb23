"""Which errors of a database are worth waiting for, and what a worker makes of its URL."""

import inspect
import re
from typing import Any

import psycopg2
import pytest
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from sqlalchemy import exc

from tuning_trial import database


def wrapped(cause: BaseException) -> StorageInternalError:
    """As Optuna wraps whatever SQLAlchemy raises."""
    error = StorageInternalError("An exception is raised during the commit. This typically happens due to invalid data")
    error.__cause__ = cause
    return error


def operational(text: str) -> exc.OperationalError:
    return exc.OperationalError("SELECT 1", {}, psycopg2.OperationalError(text))


AWAY = [
    'connection to server at "db", port 5432 failed: Connection refused',
    'could not translate host name "db" to address: Temporary failure in name resolution',
    'connection to server at "db" failed: FATAL:  the database system is starting up',
    'connection to server at "db" failed: FATAL:  sorry, too many clients already',
    "terminating connection due to administrator command\nSSL connection has been closed unexpectedly",
    "server closed the connection unexpectedly",
    "connection timeout expired",
    "deadlock detected",
    "database is locked",
]
REFUSED = [
    'FATAL:  password authentication failed for user "tuning_research"',
    "fe_sendauth: no password supplied",
    'FATAL:  role "tuning_research" does not exist',
    'FATAL:  database "tuning" does not exist',
    'FATAL:  no pg_hba.conf entry for host "10.0.0.1", user "x", database "y", no encryption',
    'FATAL:  role "x" is not permitted to log in',
    'FATAL:  permission denied for database "tuning"',
    "no such table: studies",
    "unable to open database file",
]


@pytest.mark.parametrize("text", AWAY)
@pytest.mark.parametrize("wrap", [wrapped, lambda error: error])
def test_a_database_that_is_away_is_waited_for(text: str, wrap: Any) -> None:
    """A restart, a failover, a full connection table: minutes later the same call succeeds."""
    assert database.is_away(wrap(operational(text)))


@pytest.mark.parametrize(
    ("error", "is_refused"),
    [
        (exc.ProgrammingError("INSERT", {}, psycopg2.ProgrammingError("permission denied for table trials")), True),
        (operational(AWAY[0]), False),
        (operational(REFUSED[0]), False),
    ],
    ids=["permission", "away", "password"],
)
def test_what_the_workers_role_may_not_do_is_told_from_a_database_that_is_lost(
    error: BaseException,
    is_refused: bool,  # noqa: FBT001
) -> None:
    """The first is the objective's fault, the others cost no trial."""
    assert database.is_refused(wrapped(error)) is is_refused


@pytest.mark.parametrize(
    "error",
    [
        *map(operational, REFUSED),
        exc.ProgrammingError("INSERT", {}, psycopg2.ProgrammingError("permission denied for table trials")),
        exc.IntegrityError("INSERT", {}, psycopg2.IntegrityError("duplicate key")),
        UpdateFinishedTrialError("Trial#1 has already finished and can not be updated."),
        KeyError("Record does not exist."),
        StorageInternalError("without a cause"),
    ],
)
def test_what_waiting_cannot_mend_is_raised_at_once(error: BaseException) -> None:
    """Above all the refusal to change a finished trial: it means that we were replaced."""
    assert not database.is_away(error)
    assert not database.is_away(wrapped(error))


@pytest.mark.parametrize(
    "error",
    [
        exc.InternalError("SELECT 1", {}, psycopg2.InternalError("x"), connection_invalidated=True),
        exc.InterfaceError("SELECT 1", {}, psycopg2.InterfaceError("connection already closed")),
    ],
)
def test_a_broken_connection_is_recognised_in_all_its_forms(error: exc.SQLAlchemyError) -> None:
    """Drivers say it in several ways, and SQLAlchemy knows of some that a connection is gone."""
    assert database.is_away(wrapped(error))


def test_the_database_is_quoted_in_one_line_without_statement() -> None:
    """SQLAlchemy's text has the statement and its parameters; Optuna's speaks of invalid data."""
    error = wrapped(operational("server closed the connection unexpectedly\n\tThis probably means"))
    assert database.describe(error) == "server closed the connection unexpectedly"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("postgresql://u:p@db/x", "postgresql+psycopg2://u:p@db/x"),
        ("postgres://u:p@db/x", "postgresql+psycopg2://u:p@db/x"),
        ("postgresql+psycopg2://u:p@db/x?sslmode=require", "postgresql+psycopg2://u:p@db/x?sslmode=require"),
        ("postgresql://u:p%40%2F{0}@db/x", "postgresql+psycopg2://u:p%40%2F%7B0%7D@db/x"),
        ("sqlite:////tmp/{0}.db", "sqlite:////tmp/%7B0%7D.db"),
    ],
)
def test_the_url_becomes_what_optuna_and_this_image_need(given: str, expected: str) -> None:
    """Secrets hold plain postgresql:// URLs, and passwords may hold anything."""
    assert database._for_optuna(given) == expected


def test_every_transaction_of_optunas_storage_is_patient() -> None:
    """A contract with Optuna 5.0: a method that it adds or renames must be looked at here."""
    never_in_a_worker = {
        "create_new_study",
        "delete_study",
        "set_study_user_attr",
        "get_all_studies",
        "_create_new_trial",
        "set_trial_param",
        "set_trial_state_values",
        "record_heartbeat",
        "_get_stale_trial_ids",
    }
    opens_session = {
        name
        for name, method in inspect.getmembers(RDBStorage, inspect.isfunction)
        if re.search(r"_create_scoped_session\(", inspect.getsource(method))
    }
    assert opens_session - never_in_a_worker == set(database.TRANSACTIONS)
