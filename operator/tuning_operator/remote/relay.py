"""The charts server at an address of this machine: each request is passed on by the API server, with the person's rights.

Only pages of studies and their scripts and styles are passed on, and only to this machine's own browser: a page still
needs its signed link.
"""

import re
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tuning_operator import cluster
from tuning_operator.errors import TuningError
from tuning_operator.remote.charts import refusal
from tuning_operator.remote.gateway import Gateway
from tuning_operator.remote.links import Service

_PASSED_ON = re.compile(r"/(?:studies|static)/[A-Za-z0-9._~%/-]*")
_ASKED = ("Accept", "If-None-Match")
_ANSWERED = (
    "Cache-Control",
    "Content-Disposition",
    "Content-Security-Policy",
    "Content-Type",
    "Cross-Origin-Opener-Policy",
    "ETag",
    "Location",
    "Referrer-Policy",
    "Retry-After",
    "X-Content-Type-Options",
)


class Relay(ThreadingHTTPServer):
    """Listens on a free port of this machine."""

    daemon_threads = True

    def __init__(self, gateway: Gateway, service: Service) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.gateway = gateway
        self.service = service

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://localhost:{self.server_port}"


def may_pass(path: str) -> bool:
    """Whether a path leads to what the charts server shows to people, and nowhere else."""
    return bool(_PASSED_ON.fullmatch(path)) and ".." not in path and "%2e" not in path.lower()


class _Request(BaseHTTPRequestHandler):
    server: Relay

    def do_GET(self) -> None:
        if not may_pass(self.path):
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        relay = self.server
        headers = {name: value for name in _ASKED if (value := self.headers.get(name))}
        try:
            response = relay.gateway.fetch(relay.service, self.path, headers=headers)
            payload = cluster.read(response)
        except TuningError as error:
            self._say(HTTPStatus.BAD_GATEWAY, str(error))
            return
        if _is_of_the_api_server(response.status, response.headers.get("Content-Type", "")):
            self._say(HTTPStatus.BAD_GATEWAY, refusal(response.status, payload, relay.service))
            return
        self.send_response(response.status)
        for name in _ANSWERED:
            if value := response.headers.get(name):
                self.send_header(name, value)
        self._finish(payload)

    def log_message(self, *_: Any) -> None:
        """NB: says nothing: the paths are keys."""

    def _say(self, status: HTTPStatus, words: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self._finish(f"{words}\n".encode())

    def _finish(self, payload: bytes) -> None:
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)


def _is_of_the_api_server(status: int, content_type: str) -> bool:
    """The charts server itself refuses with pages."""
    return status >= HTTPStatus.BAD_REQUEST and not content_type.startswith("text/html")
