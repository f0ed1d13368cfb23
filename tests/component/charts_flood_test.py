"""Strangers who reach the charts server, and have no link: what they may take of its memory, and for how long."""

import re
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest
from tests.support.charts_server import ChartsServer, running_charts_server

from tuning_operator.charts.assets import PLOTLY, asset_path

CONNECTIONS = 700
MOST_MEGABYTES = 50
"""More than before, whatever strangers do: a twentieth of what the chart lets the charts server have."""
REQUEST = b"GET /healthz HTTP/1.1\r\nHost: charts\r\n"


@pytest.fixture
def charts_server(tmp_path: Path) -> Iterator[ChartsServer]:
    """One for each attack: what a process has once taken it seldom gives back."""
    with running_charts_server(tmp_path / "charts.log") as server:
        yield server


def unfinished_headers(connection: socket.socket) -> None:
    """A request that never ends, with as many and as long headers as aiohttp takes."""
    connection.sendall(REQUEST)
    for number in range(120):
        connection.sendall(f"x-{number}: ".encode() + b"a" * 8000 + b"\r\n")


def requests_behind_an_unread_answer(connection: socket.socket) -> None:
    """A megabyte that nobody takes; while it waits, more requests come."""
    connection.sendall(f"GET /{asset_path(PLOTLY)} HTTP/1.1\r\nHost: charts\r\n\r\n".encode())
    for number in range(32):
        connection.sendall(REQUEST + f"x-{number}: ".encode() + b"a" * 8000 + b"\r\n\r\n")


def a_body(connection: socket.socket) -> None:
    """To a page that takes none."""
    connection.sendall(b"POST /healthz HTTP/1.1\r\nHost: charts\r\nContent-Length: 100000000\r\n\r\n")
    for _ in range(20):
        connection.sendall(b"a" * 50_000)


@pytest.mark.parametrize(
    "attack",
    [unfinished_headers, requests_behind_an_unread_answer, a_body],
    ids=lambda attack: str(attack.__name__),
)
def test_strangers_take_little_memory(attack: Callable[[socket.socket], None], charts_server: ChartsServer) -> None:
    """However many connect, and whatever they send; and meanwhile others are served."""
    before, most = charts_server.megabytes(), 0.0
    with ExitStack() as open_connections:
        for _ in range(CONNECTIONS):
            with suppress(ConnectionError, TimeoutError):
                connection = open_connections.enter_context(closing(charts_server.connect()))
                attack(connection)
            most = max(most, charts_server.megabytes())
        assert charts_server.answers()
        most = max(most, charts_server.megabytes())
    assert most - before < MOST_MEGABYTES


def test_nothing_tells_which_versions_answer(charts_server: ChartsServer) -> None:
    """Neither a page nor the refusal of what is no HTTP, which no page of ours makes."""
    for request in (REQUEST + b"\r\n", b"\x16\x03\x01 no HTTP\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"):
        with closing(charts_server.connect()) as connection:
            connection.sendall(request)
            answer = connection.recv(65536).decode()
        assert re.findall(r"(?im)^server: (.*?)\r$", answer) == ["tuningstudy"]
