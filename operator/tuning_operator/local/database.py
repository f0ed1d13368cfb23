"""One database for a study of its own: a file of SQLite's in the study's folder, or any URL that SQLAlchemy knows."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from optuna.storages import RDBStorage
from sqlalchemy import func, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from tuning_api.rows import RowStorage
from tuning_operator.database import connect_arguments, database_errors
from tuning_operator.local.errors import BadInputError
from tuning_operator.local.folder import PARENT

SQLITE_SECONDS = 10
"""How long a writer waits for another one."""

_LOCKS = 0x7475_6E65
"""The first half of the keys of our advisory locks in Postgres: "tune"."""


def sqlite_url(file: Path) -> URL:
    """The URL of a file."""
    return URL.create("sqlite", database=str(file.absolute()))


def read_url(text: str) -> URL:
    """A database as a person names it.

    Raises:
        BadInputError: it is none that workers could open.
    """
    try:
        url = make_url(text)
    except ArgumentError:
        example = "postgresql://user:password@host:5432/name or sqlite:////folder/study.db"
        raise BadInputError(f"--database: this is no database URL; it looks like {example}") from None
    if url.get_backend_name() == "sqlite":
        if not url.database or url.database == ":memory:":
            raise BadInputError("--database: workers are processes of their own, so SQLite needs a file")
        return url.set(database=str(Path(url.database).absolute()))
    # NB: without a driver SQLAlchemy takes psycopg2 up to 2.0, and psycopg 3 since 2.1.
    return url.set(drivername="postgresql+psycopg2") if url.drivername in {"postgres", "postgresql"} else url


class OneDatabase:
    """A `Database` without tenancy: whoever runs the study owns all of it."""

    def __init__(self, url: URL) -> None:
        self._url = url
        self._storage: RDBStorage | None = None

    def open(self, namespace: str) -> RDBStorage:  # noqa: ARG002 - the same for every namespace
        """See `Database`; the tables are created here and nowhere else.

        Raises:
            DatabaseUnavailable: the database does not answer, refuses us, or holds tables of another Optuna version.
            BadInputError: there is no driver for it.
        """
        if self._storage is None:
            self._storage = self._open()
        return self._storage

    def elsewhere(self, namespace: str, study: str) -> RDBStorage | None:
        """See `Database`: a study that ran beside this one has a file of the same name in its own folder."""
        own = Path(self._url.database or "")
        file = own.parent.parent / study / own.name
        if self._url.get_backend_name() != "sqlite" or own.parent.parent.name != PARENT or not file.exists():
            return None
        return OneDatabase(sqlite_url(file)).open(namespace)

    @contextmanager
    def held(self, study: str) -> Iterator[None]:
        """Be the only one that runs a study of a database that others may share, from folders of their own.

        Two controllers would take each other's workers for lost.

        Raises:
            BadInputError: somebody else runs it, perhaps on another machine.
            DatabaseUnavailable: the database does not answer.
        """
        match self._url.get_backend_name():
            case "postgresql":
                with self._advisory_lock(study):
                    yield
            case "sqlite":
                with self._lock_beside_the_file(study):
                    yield
            case _:
                yield

    @contextmanager
    def _lock_beside_the_file(self, study: str) -> Iterator[None]:
        """NB: the file itself is locked by SQLite, and other studies may be in it."""
        with Path(f"{self._url.database}.{study}.lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise self._is_run_elsewhere(study) from error
            yield

    @contextmanager
    def _advisory_lock(self, study: str) -> Iterator[None]:
        with database_errors():
            connection = self.open("").engine.connect()
            is_ours = connection.scalar(select(func.pg_try_advisory_lock(_LOCKS, func.hashtext(study))))
            connection.commit()  # the lock is the session's, not the transaction's
        try:
            if not is_ours:
                raise self._is_run_elsewhere(study)
            yield
        finally:
            connection.invalidate()
            connection.close()

    def _is_run_elsewhere(self, study: str) -> BadInputError:
        place = self._url.render_as_string(hide_password=True)
        return BadInputError(f"{place}: study {study} is being run already, from another folder or machine")

    def _open(self) -> RDBStorage:
        try:
            with database_errors():
                storage = RowStorage(self._url.render_as_string(hide_password=False), engine_kwargs=self._engine())
                if self._url.get_backend_name() == "sqlite":
                    _let_readers_read(storage)
                return storage
        except (ImportError, NoSuchModuleError) as error:
            words = str(error).splitlines()[0]
            raise BadInputError(f"--database: there is no driver for {self._url.drivername}: {words}") from error

    def _engine(self) -> dict[str, object]:
        if self._url.get_backend_name() == "sqlite":
            return {"connect_args": {"timeout": SQLITE_SECONDS}}
        if self._url.get_backend_name() != "postgresql":
            return {"pool_pre_ping": True}
        arguments = connect_arguments()
        if "options" in self._url.query:
            del arguments["options"]  # the person's own, such as a search path
        return {"pool_pre_ping": True, "connect_args": arguments}


def _let_readers_read(storage: RDBStorage) -> None:
    """Without write-ahead logging, each report of a trial would hold up every reader."""
    with storage.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA journal_mode=WAL")
