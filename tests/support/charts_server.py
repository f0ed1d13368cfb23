"""The charts server as a process of its own, as the chart runs it."""

import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from sqlalchemy.engine import URL
from tests.support.operator_process import CHARTS_PASSWORD
from tests.support.ports import free_port
from tests.support.tenancy import SIGNING_KEY
from tests.support.wait import wait_until


class ChartsServer:
    """The real server as a process."""

    def __init__(self, port: int, process: psutil.Process) -> None:
        self.port, self._process = port, process

    def connect(self) -> socket.socket:
        """A connection that sends and receives without waiting long."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=2)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        return connection

    def megabytes(self) -> float:
        """What the process that listens holds now."""
        return float(self._process.memory_info().rss) / 1e6

    def answers(self) -> bool:
        """Whether a probe is answered."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/healthz", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def peak(self) -> int:
        """The most memory that its processes have had, each at its own time, in bytes."""
        return sum(most_memory(process.pid) for process in (self._process, *self._process.children(recursive=True)))


def most_memory(pid: int) -> int:
    """The most memory that a process has had, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024


@contextmanager
def running_charts_server(log: Path, *, database: URL | None = None) -> Iterator[ChartsServer]:
    """A server until the end of the block; without a database, its own is away."""
    port = free_port()
    url = database or URL.create("postgresql", host="127.0.0.1", port=1)
    settings = {
        "TUNING_DATABASE_URL": url.render_as_string(hide_password=False),
        "TUNING_CHARTS_PORT": str(port),
        "TUNING_SIGNING_KEY": SIGNING_KEY,
        "TUNING_CHARTS_DATABASE_PASSWORD": CHARTS_PASSWORD,
    }
    with log.open("wb") as output:
        command = [sys.executable, "-m", "tuning_operator", "charts"]
        process = subprocess.Popen(command, env=os.environ | settings, stdout=output, stderr=output)
    server = ChartsServer(port, psutil.Process(process.pid))
    try:
        wait_until(server.answers, bool, seconds=60, what="the charts server answers")
        yield server
    finally:
        process.terminate()
        assert process.wait(30) == 0, log.read_text()
