"""Connections to Optuna's tables, with limits of time, and the one verdict on all that can go wrong with them."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Protocol

import psycopg2
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from psycopg2 import errors as postgres_errors
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, SQLAlchemyError, StatementError

from tuning_api.rows import EVERYTHING, RowStorage, Wanted
from tuning_operator.errors import DatabaseUnavailable

CONNECT_SECONDS = 5
STATEMENT_MILLISECONDS = 10_000
"""Threads cannot be cancelled, so no statement may hold one for long."""


def connect_arguments(schema: str | None = None) -> dict[str, object]:
    """psycopg2's arguments: time limits everywhere, and one schema only.

    NB: the search path is the schema alone. With `public` behind it Optuna would find tables there and use those.
    """
    options = [f"-cstatement_timeout={STATEMENT_MILLISECONDS}", "-clock_timeout=2000"]
    if schema:
        options.append(f"-csearch_path={schema}")
    return {
        "connect_timeout": CONNECT_SECONDS,
        "options": " ".join(options),
        "keepalives_idle": 30,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "application_name": "tuningstudy-operator",
    }


def open_storage(url: URL, schema: str, *, create_tables: bool = False, wanted: Wanted = EVERYTHING) -> RDBStorage:
    """Optuna's tables in a schema, and what is wanted of the trials in them.

    Raises:
        DatabaseUnavailable: the database does not answer, or holds tables of another Optuna version.
    """
    with database_errors():
        return RowStorage(
            url.render_as_string(hide_password=False),
            engine_kwargs={
                "pool_size": 1,
                "max_overflow": 4,
                "pool_pre_ping": True,
                "pool_recycle": 300,
                # Else an error quotes the values of its statement, and whoever reads a status would read them.
                "hide_parameters": True,
                "connect_args": connect_arguments(schema),
            },
            wanted=wanted,
            skip_table_creation=not create_tables,
            skip_compatibility_check=not create_tables,
        )


class Database(Protocol):
    """Where the tables of a namespace are."""

    def open(self, namespace: str) -> RDBStorage:
        """The tables, created or repaired.

        Raises:
            DatabaseUnavailable: the database does not answer, refuses us, or holds tables of another Optuna version.
        """

    def elsewhere(self, namespace: str, study: str) -> RDBStorage | None:
        """The tables of a study that has its own, if there are any."""


@contextmanager
def database_errors() -> Iterator[None]:
    """Translate what drivers and Optuna raise into one verdict with the driver's sentence."""
    try:
        yield
    except StorageInternalError as error:
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        raise DatabaseUnavailable(_sentence(cause)) from error
    except SQLAlchemyError as error:
        raise DatabaseUnavailable(_sentence(error)) from error
    except RuntimeError as error:
        # Optuna says so when the tables are of another version than its own.
        if "table schema" not in str(error) and "schema version" not in str(error):
            raise
        raise DatabaseUnavailable(str(error)) from error


def import_all() -> None:
    """Import now what Optuna imports when it first makes tables: else the first study would wait for it."""
    # As Optuna does it, and before Alembic greets each of its plugins.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    for module in ("alembic.command", "alembic.config", "alembic.migration", "alembic.script"):
        import_module(module)


def tables_are_gone(error: BaseException | None) -> bool:
    """Whether the database answers, and has no such table."""
    if error is None:
        return False
    is_missing = isinstance(error, DBAPIError) and isinstance(error.orig, postgres_errors.UndefinedTable)
    return is_missing or tables_are_gone(error.__cause__)


def _sentence(error: Exception) -> str:
    """Return the database's own words, cut to 500 characters.

    NB: never the text of a StatementError, and of Postgres' errors neither the statement's line nor its context: both quote
    the statement, and this sentence stands in the status of studies.
    """
    words = str(error)
    if isinstance(error, DBAPIError):
        words = _said_by_server(error.orig) or str(error.orig)
    elif isinstance(error, StatementError):
        words = f"a statement failed: {type(error.orig).__name__}"
    return " ".join(words.split())[:500]


def _said_by_server(error: object) -> str:
    if not isinstance(error, psycopg2.Error):
        return ""
    return ": ".join(filter(None, (error.diag.message_primary, error.diag.message_detail)))
