"""The bundled Postgres as the chart starts it: its arguments, rules, certificate and first start, with a real server.

The server is one that this machine has, built with OpenSSL, in the entry point that stands for the official image's.
"""

import base64
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from cluster import folders
from tests.chart.release import Document, environment, find, main_container, pod, render
from tests.support.ports import free_port
from tests.support.postgres import readable_by_all, unprivileged
from tests.support.wait import wait_until

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
"""Where Debian has them."""
VALUES = {"postgresql": {"maxConnections": 40}}
OPERATORS, WORKERS = 20, 20
"""Connections."""
WORKER = "tuning_research"
OWNER = os.geteuid()


@dataclass(frozen=True)
class Server:
    """A running server, and what the chart says of it."""

    host: str
    port: int
    authority: Path
    password: str

    def connect(self, *, user: str = "tuningstudy", **parameters: Any) -> "psycopg2.extensions.connection":
        """A connection as the settings make it; `parameters` are libpq's, over those of the chart."""
        chosen = {
            "host": self.host,
            "hostaddr": "127.0.0.1",
            "port": self.port,
            "dbname": "tuningstudy",
            "user": user,
            "password": self.password,
            "sslmode": "verify-full",
            "sslrootcert": str(self.authority),
        }
        connection = psycopg2.connect(**chosen | parameters)
        connection.autocommit = True
        return connection


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A first start on an empty volume; skips with the reason where there is none that can encrypt."""
    if not PROGRAMS:
        pytest.skip("no Postgres with OpenSSL: apt-get install postgresql")
    objects = render(VALUES)
    with readable_by_all("tuningstudy-bundled-") as folder:
        data = folder / "data"
        for path in (data, folder / "sockets"):
            path.mkdir()
            os.chown(path, unprivileged().get("user", OWNER), -1)
        files = _files(objects, folder)
        server = Server(
            host=environment(objects, "operator")["TUNING_DATABASE_HOST"]["value"],
            port=free_port(),
            authority=files["ca.crt"],
            password=base64.b64decode(find(objects, "Secret")["data"]["postgres-password"]).decode(),
        )
        log = (folder / "log").open("wb")
        process = subprocess.Popen(
            _command(objects, folder, server.port),
            env=_environment(objects, data, server.password),
            stdout=log,
            stderr=log,
            cwd=folder,
            **unprivileged(),
        )
        try:
            wait_until(
                lambda: _probe("startupProbe", server.port),
                lambda code: code == 0,
                seconds=60,
                what=f"Postgres listens, see {log.name}",
            )
            with closing(server.connect()) as connection, connection.cursor() as cursor:
                cursor.execute(f"CREATE ROLE {WORKER} LOGIN PASSWORD '{server.password}'")
            yield server
        finally:
            process.terminate()
            process.wait(30)
            log.close()


def test_plain_connections_are_refused(server: Server) -> None:
    """Whatever a client would put up with."""
    with pytest.raises(psycopg2.OperationalError, match="no encryption"):
        server.connect(sslmode="disable")


def test_the_chart_knows_the_servers_certificate(server: Server) -> None:
    """By the name under which the operator connects, and signed by the authority that the chart hands out."""
    with closing(server.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        is_encrypted, version = cursor.fetchone() or (None, "")
    assert is_encrypted is True
    assert version in {"TLSv1.2", "TLSv1.3"}


def test_another_server_is_not_taken_for_it(server: Server, tmp_path: Path) -> None:
    """Neither one of another authority, nor one of another name."""
    foreign = tmp_path / "ca.crt"
    foreign.write_bytes(base64.b64decode(find(render({"nameOverride": "other"}), "Secret")["data"]["ca.crt"]))
    with pytest.raises(psycopg2.OperationalError, match="certificate verify failed"):
        server.connect(sslrootcert=str(foreign))
    with pytest.raises(psycopg2.OperationalError, match="does not match host name"):
        server.connect(host="postgres.elsewhere.svc")


@pytest.mark.parametrize("database", ["postgres", "template1"])
def test_only_one_database_is_open_to_the_network(database: str, server: Server) -> None:
    """Not even to the operator."""
    with pytest.raises(psycopg2.OperationalError, match=r"no pg_hba\.conf entry"):
        server.connect(dbname=database)


def test_what_everybody_may_by_default_is_taken_away(server: Server) -> None:
    """On a new volume."""
    questions = {
        "has_database_privilege('postgres', 'CONNECT')": False,
        "has_database_privilege('template1', 'CONNECT')": False,
        "has_database_privilege('tuningstudy', 'TEMPORARY')": False,
        "has_schema_privilege('public', 'CREATE')": False,
        "has_database_privilege('tuningstudy', 'CONNECT')": True,
    }
    with closing(server.connect(user=WORKER)) as connection, connection.cursor() as cursor:
        cursor.execute(f"SELECT {', '.join(questions)}")
        assert cursor.fetchone() == tuple(questions.values())


def test_the_operator_finds_a_connection_when_workers_have_taken_all(server: Server) -> None:
    """The rest are reserved for its role."""
    with ExitStack() as taken:
        for _ in range(WORKERS):
            taken.enter_context(closing(server.connect(user=WORKER)))
        with pytest.raises(psycopg2.OperationalError, match="remaining connection slots are reserved"):
            server.connect(user=WORKER)
        for _ in range(OPERATORS):
            taken.enter_context(closing(server.connect()))


def test_the_probe_of_the_pod_is_answered(server: Server) -> None:
    """Which has neither a certificate nor a password."""
    assert [_probe(name, server.port) for name in ("startupProbe", "readinessProbe")] == [0, 0]


def _files(objects: list[Document], folder: Path) -> dict[str, Path]:
    """What the pod mounts, with the owners and modes that the kubelet gives."""
    contents = {name: text.encode() for name, text in find(objects, "ConfigMap")["data"].items()}
    contents |= {name: base64.b64decode(text) for name, text in find(objects, "Secret")["data"].items()}
    files = {name: folder / name for name in ("pg_hba.conf", "rights.sql", "tls.crt", "tls.key", "ca.crt")}
    for name, path in files.items():
        path.write_bytes(contents[name])
        path.chmod(0o444)
    # Root's and of the server's group, as `fsGroup` makes it; without root the server's own.
    if server := unprivileged():
        os.chown(files["tls.key"], 0, server["group"])
    files["tls.key"].chmod(0o440 if server else 0o400)
    return files


def _command(objects: list[Document], folder: Path, port: int) -> list[str | Path]:
    """The container's, with its folders moved below one of ours."""
    entry_point = folder / "entrypoint.sh"
    text = (folders.REPOSITORY / "cluster/postgres/entrypoint.sh").read_text()
    assert "/docker-entrypoint-initdb.d" in text
    entry_point.write_text(text.replace("/docker-entrypoint-initdb.d", str(folder)))
    arguments = main_container(pod(objects, "postgresql"))["args"]
    moved = [argument.replace(place, str(folder)) for argument in arguments for place in [_place(argument)]]
    return ["sh", entry_point, *moved, f"--port={port}", f"--unix_socket_directories={folder / 'sockets'}"]


def _place(argument: str) -> str:
    """The folder in an argument, or something that is in none."""
    _, _, path = argument.partition("=")
    return str(Path(path).parent) if path.startswith("/") else "\0"


def _environment(objects: list[Document], data: Path, password: str) -> dict[str, str]:
    given = {item["name"]: item.get("value", password) for item in main_container(pod(objects, "postgresql"))["env"]}
    return {"PATH": f"{PROGRAMS[-1].parent}:/usr/bin:/bin", "LC_ALL": "C", **given, "PGDATA": str(data)}


def _probe(name: str, port: int) -> int:
    """The exit status of a probe of the pod's, at our port."""
    program, *arguments = main_container(pod(render(VALUES), "postgresql"))[name]["exec"]["command"]
    command = [PROGRAMS[-1].parent / program, *arguments, "-p", str(port)]
    return subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode
