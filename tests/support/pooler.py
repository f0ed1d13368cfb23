"""A real PgBouncer in front of the tests' Postgres: a connection of its own belongs to a client for one transaction."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest
from cluster import prerequisites
from sqlalchemy import make_url
from sqlalchemy.engine import URL
from tests.support.ports import free_port
from tests.support.postgres import ADMIN, PASSWORD, readable_by_all, unprivileged
from tests.support.wait import wait_until

START_SECONDS = 30


@contextmanager
def pooled(url: str, *, connections: int, clients: int = 200) -> Iterator[str]:
    """The same database behind a pooler that has so many connections to it for each role; skips where there can be none.

    It knows no role but the administrator, and asks Postgres for the others, which come with the namespaces.

    Args:
        url: The straight way to Postgres.
        connections: Of the pooler to Postgres.
        clients: So many may connect to the pooler.
    """
    if reason := prerequisites.reason_against_pooler():
        pytest.skip(f"the tests with a pooler: {reason}")
    prerequisites.install(prerequisites.POOLER_PACKAGES)
    straight = make_url(url)
    through = straight.set(port=free_port())
    with readable_by_all("tuningstudy-pooler-") as folder:
        (folder / "users").write_text(f'"{ADMIN}" "{PASSWORD}"\n')
        (folder / "pgbouncer.ini").write_text(_settings(straight, through, folder, connections, clients))
        with (folder / "log").open("wb") as log, _process(folder, log):
            wait_until(
                (folder / "log").read_text,
                lambda said: "process up" in said,
                seconds=START_SECONDS,
                what="the pooler is up",
            )
            yield through.render_as_string(hide_password=False)


@contextmanager
def _process(folder: Path, log: IO[bytes]) -> Iterator[None]:
    (program,) = prerequisites.POOLER_PACKAGES
    process = subprocess.Popen([program, folder / "pgbouncer.ini"], stdout=log, stderr=log, **unprivileged())
    try:
        yield
    finally:
        process.terminate()
        process.wait(START_SECONDS)


def _settings(straight: URL, through: URL, folder: Path, connections: int, clients: int) -> str:
    return f"""
[databases]
* = host={straight.host} port={straight.port}
[pgbouncer]
listen_addr = {through.host}
listen_port = {through.port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder}/users
auth_user = {ADMIN}
pool_mode = transaction
default_pool_size = {connections}
max_client_conn = {clients}
"""
