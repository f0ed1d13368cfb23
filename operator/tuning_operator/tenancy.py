"""A schema and a role for each namespace of the cluster, in the operator's Postgres.

Only the operator creates tables: first-time creation from several processes at once fails (optuna/optuna#1092). A worker
can claim, report and tell; it can neither create a trial nor touch a study nor change what has ended (`rights`), so the
budget holds against any user code, and it cannot see another namespace's schema at all.
"""

import base64
import hashlib
import hmac
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass

from optuna.storages import RDBStorage
from psycopg2.extensions import encrypt_password
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.engine import URL, Connection
from sqlalchemy.pool import NullPool

from tuning_api import naming
from tuning_api.naming import CHARTS_ROLE
from tuning_api.rows import RESULTS
from tuning_operator import rights
from tuning_operator.database import connect_arguments, database_errors, open_storage
from tuning_operator.errors import DatabaseUnavailable

logger = logging.getLogger(__name__)

TEMPORARY_FILES = "1GB"
"""How much a worker's queries may write to the server's disk for sorting, where the operator may say so."""


@dataclass(frozen=True)
class Owner:
    """Whose schema it is; kept as the schema's comment."""

    namespace: str
    uid: str
    """The namespace's: another one when a namespace is deleted and another of its name is made."""

    def to_comment(self) -> str:
        """Return the comment that says so."""
        return json.dumps({"namespace": self.namespace, "uid": self.uid})

    @classmethod
    def from_comment(cls, comment: str | None) -> "Owner | None":
        """Read a comment; None for one that the operator has not written."""
        try:
            document = json.loads(comment or "")
            return cls(namespace=document["namespace"], uid=document["uid"])
        except (ValueError, TypeError, KeyError):
            return None


class Tenancy:
    """Gives namespaces their place in the database; holds the engine with the operator's own role."""

    def __init__(
        self,
        url: URL,
        *,
        password_key: str,
        charts_password: str | None,
        uid_of: Callable[[str], str],
        connections: int | None = None,
    ) -> None:
        """See the class.

        Args:
            url: The operator's way into the database.
            password_key: From which the passwords of the workers' roles are derived.
            charts_password: Of the charts server's role; None if there is none.
            uid_of: The uid of a namespace.
            connections: How many a namespace's workers may have at a time; None: half of what the server has.
        """
        self._url = url
        self._password_key = password_key
        self._charts_password = charts_password
        self._uid_of = uid_of
        self._connections = connections
        self._uids: dict[str, str] = {}
        # NB: the search path is PostgreSQL's own. Operators that anybody may create in `public` would match better than
        # its polymorphic ones, and be kept in the triggers for good (CVE-2018-1058).
        self._engine: Engine = create_engine(
            url, poolclass=NullPool, connect_args=connect_arguments("pg_catalog"), hide_parameters=True
        )

    def open(self, namespace: str) -> RDBStorage:
        """See `Database`: a schema and a role for each namespace."""
        self._prepare(namespace, self._uid_of(namespace))
        return open_storage(self._url, naming.database_schema(namespace), wanted=RESULTS)

    def elsewhere(self, namespace: str, study: str) -> None:
        """See `Database`: all studies of a namespace are in its schema."""

    def worker_url(self, namespace: str, *, base: URL) -> str:
        """Return the way into the database for the workers of a namespace.

        NB: the namespace may be another one than at the last call, deleted and made again under the same name. It then
        gets another password, so that what was known in the old one opens nothing.

        Raises:
            DatabaseUnavailable: the database does not answer, or the operator's role may not create roles.
        """
        uid = self._uid_of(namespace)
        if self._uids.get(namespace) != uid:
            self._prepare(namespace, uid)
        role = naming.database_schema(namespace)
        password = role_password(self._password_key, role=role, uid=uid)
        return base.set(username=role, password=password).render_as_string(hide_password=False)

    def uid(self, namespace: str) -> str | None:
        """Return the uid of a namespace as it was last asked for; None before."""
        return self._uids.get(namespace)

    def _prepare(self, namespace: str, uid: str) -> None:
        """Create or repair the schema, its tables, its role and the grants; any step may be repeated.

        Raises:
            DatabaseUnavailable: the database does not answer, the operator's role may not create roles, or the schema
                belongs to another namespace.
        """
        schema = naming.database_schema(namespace)
        with database_errors(), self._engine.begin() as connection:
            if not self._uids:
                _close_to_others(connection)
            _rename_from_earlier_version(connection, namespace)
            self._ensure_worker_role(connection, schema, uid=uid)
            if self._charts_password is not None:
                _ensure_role(connection, CHARTS_ROLE, password=self._charts_password)
            _ensure_schema(connection, schema, Owner(namespace, uid))
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
        self._uids[namespace] = uid

    def _ensure_worker_role(self, connection: Connection, role: str, *, uid: str) -> None:
        _ensure_role(connection, role, password=role_password(self._password_key, role=role, uid=uid))
        limit = self._connections or connection.execute(text(_HALF_OF_ALL_CONNECTIONS)).scalar_one()
        database = _current_database(connection)
        for statement in (
            f'ALTER ROLE "{role}" CONNECTION LIMIT {limit}',
            # A role may set defaults for itself, such as a statement_timeout of a millisecond.
            f'ALTER ROLE "{role}" RESET ALL',
            f'ALTER ROLE "{role}" IN DATABASE "{database}" RESET ALL',
            f'ALTER ROLE "{role}" SET search_path = "{role}"',
        ):
            connection.exec_driver_sql(statement)
        if _is_superuser(connection):
            connection.exec_driver_sql(f"ALTER ROLE \"{role}\" SET temp_file_limit = '{TEMPORARY_FILES}'")


_HALF_OF_ALL_CONNECTIONS = """
SELECT greatest(10, (current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int) / 2)
"""


def role_password(key: str, *, role: str, uid: str) -> str:
    """Derive a role's password, which is so never stored: the same after any restart, another one for another namespace."""
    digest = hmac.new(key.encode(), f"database role {role} of {uid}".encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def _ensure_role(connection: Connection, role: str, *, password: str) -> None:
    """Create a role that may only log in, with its password as it should be.

    NB: Postgres logs the statement, so it is sent a SCRAM verifier (RFC 5802), from which the password does not follow.
    Names come from `naming` and hold nothing but [a-z0-9_]; DDL takes no bound parameters, psycopg2 writes them out.
    """
    exists = _role_exists(connection, role)
    verifier = encrypt_password(
        password, role, scope=connection.connection.driver_connection, algorithm="scram-sha-256"
    )
    connection.exec_driver_sql(f'{"ALTER" if exists else "CREATE"} ROLE "{role}" LOGIN PASSWORD %s', (verifier,))


def _role_exists(connection: Connection, role: str) -> bool:
    found = connection.execute(text("SELECT 1 FROM pg_roles WHERE rolname = :role"), {"role": role})
    return found.first() is not None


def _ensure_schema(connection: Connection, schema: str, owner: Owner) -> None:
    """Create the schema of a namespace, and note whose it is.

    Raises:
        DatabaseUnavailable: it belongs to another namespace, or may do so.
    """
    stored = owner_of(connection, schema)
    if stored is None and naming.may_be_a_cut_schema(schema) and _schema_exists(connection, schema):
        raise DatabaseUnavailable(
            f"schema {schema} may be that of another namespace, whose longer name an earlier version cut: if it is this"
            f" one's, say so by COMMENT ON SCHEMA {schema} IS '{owner.to_comment()}'"
        )
    if stored is not None and stored.namespace != owner.namespace:
        raise DatabaseUnavailable(f"schema {schema} belongs to namespace {stored.namespace}, as its comment says")
    connection.exec_driver_sql(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
    if stored != owner:
        connection.exec_driver_sql(f'COMMENT ON SCHEMA "{schema}" IS %s', (owner.to_comment(),))


def owner_of(connection: Connection, schema: str) -> Owner | None:
    """Return whose schema it is; None if there is none, or an earlier version made it."""
    statement = text("SELECT obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = :schema")
    return Owner.from_comment(connection.execute(statement, {"schema": schema}).scalar())


def _schema_exists(connection: Connection, schema: str) -> bool:
    found = connection.execute(text("SELECT 1 FROM pg_namespace WHERE nspname = :schema"), {"schema": schema})
    return found.first() is not None


def _rename_from_earlier_version(connection: Connection, namespace: str) -> None:
    """Give the schema and the role of a namespace with a long name the names that they have now.

    Raises:
        DatabaseUnavailable: by SQLAlchemy's errors, see `database_errors`.
    """
    schema, earlier = naming.database_schema(namespace), naming.earlier_database_schema(namespace)
    if earlier == schema or not _schema_exists(connection, earlier) or _schema_exists(connection, schema):
        return
    if owner_of(connection, earlier) is not None:
        return  # of the namespace whose whole name this is
    logger.info("schema and role %s are renamed to %s", earlier, schema)
    connection.exec_driver_sql(f'ALTER SCHEMA "{earlier}" RENAME TO "{schema}"')
    if _role_exists(connection, earlier):
        connection.exec_driver_sql(f'ALTER ROLE "{earlier}" RENAME TO "{schema}"')


def _close_to_others(connection: Connection) -> None:
    """Take from all roles what PostgreSQL gives everybody in a database, where the operator owns it.

    Temporary objects stand before all others where a name is looked up, and take disk. Advisory locks fill a table that
    all sessions of the server share. Large objects are everybody's to make, and belong to no schema.
    """
    if not connection.execute(text(_OWNS_DATABASE)).scalar():
        logger.info("the operator does not own the database: what PostgreSQL gives all roles in it stays as it is")
        return
    connection.exec_driver_sql(f'REVOKE TEMPORARY ON DATABASE "{_current_database(connection)}" FROM PUBLIC')
    if not _is_superuser(connection):
        return
    connection.exec_driver_sql("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    for function in connection.execute(text(_OPEN_FUNCTIONS)).scalars().all():
        connection.exec_driver_sql(f"REVOKE EXECUTE ON FUNCTION {function} FROM PUBLIC")


def _current_database(connection: Connection) -> str:
    return str(connection.execute(text("SELECT current_database()")).scalar_one()).replace('"', '""')


def _is_superuser(connection: Connection) -> bool:
    return bool(connection.execute(text("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")).scalar())


_OWNS_DATABASE = "SELECT pg_has_role(current_user, datdba, 'USAGE') FROM pg_database WHERE datname = current_database()"
_OPEN_FUNCTIONS = r"""
SELECT oid::regprocedure FROM pg_proc
WHERE pronamespace = 'pg_catalog'::regnamespace
  AND (proname LIKE 'pg\_%advisory\_%' OR proname LIKE 'lo\_%' OR proname IN ('lowrite', 'loread'))
  AND has_function_privilege('public', oid, 'EXECUTE')
"""
