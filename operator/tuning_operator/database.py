"""Where Optuna's tables are: in Postgres a schema and a role for each namespace, or one database for a study of its own.

Only the operator creates tables: first-time creation from several processes at once fails (optuna/optuna#1092). A worker
can claim, report and tell; it can neither create a trial nor touch a study nor change what has ended (`rights`), so the
budget holds against any user code, and it cannot see another namespace's schema at all.
"""

import base64
import hashlib
import hmac
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Protocol

from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from psycopg2 import errors as postgres_errors
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.engine import URL, Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from tuning_api import naming
from tuning_api.naming import CHARTS_ROLE
from tuning_api.rows import RowStorage
from tuning_operator import rights
from tuning_operator.errors import DatabaseUnavailable

CONNECT_SECONDS = 5
STATEMENT_MILLISECONDS = 10_000
"""Threads cannot be cancelled, so no statement may hold one for long."""


def role_password(signing_key: str, role: str) -> str:
    """A role's password, derived and so never stored: the same key gives the same password after any restart."""
    digest = hmac.new(signing_key.encode(), f"database role {role}".encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def connect_arguments(schema: str | None = None) -> dict[str, object]:
    """psycopg2's arguments: time limits everywhere, and one schema only.

    NB: the search path is the schema alone. With `public` behind it Optuna would find tables there and use those.
    """
    options = [f"-cstatement_timeout={STATEMENT_MILLISECONDS}", "-clock_timeout=5000"]
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


def open_storage(url: URL, schema: str, *, create_tables: bool = False) -> RDBStorage:
    """Optuna's tables in a schema.

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
                "connect_args": connect_arguments(schema),
            },
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


class Tenancy:
    """Makes namespaces at home in the database; holds the engine with the operator's own role."""

    def __init__(self, url: URL, *, signing_key: str, charts_password: str | None) -> None:
        self._url = url
        self._signing_key = signing_key
        self._charts_password = charts_password
        self._engine: Engine = create_engine(url, poolclass=NullPool, connect_args=connect_arguments())

    def open(self, namespace: str) -> RDBStorage:
        """See `Database`: a schema and a role for each namespace."""
        schema = naming.database_schema(namespace)
        self.prepare(schema)
        return open_storage(self._url, schema)

    def elsewhere(self, namespace: str, study: str) -> None:
        """See `Database`: all studies of a namespace are in its schema."""

    def worker_url(self, schema: str, *, base: URL) -> str:
        """The way into the database for the workers of a namespace."""
        url = base.set(username=schema, password=role_password(self._signing_key, schema))
        return url.render_as_string(hide_password=False)

    def prepare(self, schema: str) -> None:
        """Create or repair the schema, its tables, its role and the grants; any step may be repeated.

        Raises:
            DatabaseUnavailable: the database does not answer, or the operator's role may not create roles.
        """
        with database_errors(), self._engine.begin() as connection:
            _ensure_role(connection, schema, password=role_password(self._signing_key, schema))
            if self._charts_password is not None:
                _ensure_role(connection, CHARTS_ROLE, password=self._charts_password)
            connection.execute(text(f'CREATE SCHEMA IF NOT EXISTS "{schema}"'))
        open_storage(self._url, schema, create_tables=True).engine.dispose()
        with database_errors(), self._engine.connect() as connection:
            # NB: each by itself. A trigger waits for whoever writes to its table; with several tables at once, that would
            # be a deadlock with a worker that ends a trial.
            for statement in rights.triggers(schema):
                connection.execute(text(statement))
                connection.commit()
            for statement in rights.grants(schema, charts=self._charts_password is not None):
                connection.execute(text(statement))
            connection.commit()

    def ping(self) -> None:
        """Ask the database for a sign of life.

        Raises:
            DatabaseUnavailable: there is none.
        """
        with database_errors(), self._engine.connect() as connection:
            connection.execute(text("SELECT 1"))


def _ensure_role(connection: Connection, role: str, *, password: str) -> None:
    """Create a role that may only log in, with its password as it should be.

    Names come from `naming.database_schema` and hold nothing but [a-z0-9_]; DDL takes no bound parameters.
    """
    exists = connection.execute(text("SELECT 1 FROM pg_roles WHERE rolname = :role"), {"role": role}).scalar()
    verb = "ALTER" if exists else "CREATE"
    connection.execute(text(f"{verb} ROLE \"{role}\" LOGIN PASSWORD '{_scram_safe(password)}'"))
    if role != CHARTS_ROLE:
        connection.execute(text(f'ALTER ROLE "{role}" SET search_path = "{role}"'))


def _scram_safe(password: str) -> str:
    return password.replace("'", "''")


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
    cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
    return " ".join(str(cause).split())[:500]
