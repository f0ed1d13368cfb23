"""Listening for HTTP where strangers may connect: what one connection may take, and all of them together.

aiohttp bounds each header, the time without any request, and neither a request as a whole nor the number of connections.
So between its protocol and the socket stands one of ours, which counts bytes and seconds.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

import aiohttp.web_response
from aiohttp import web

MOST_CONNECTIONS = 256
"""At a time, on a port. One more takes the place of the one that has waited longest without being served."""
MOST_BYTES = 16 * 1024
"""From one request that is served to the next: all its headers with the cookies of proxies in them. None has a body."""
REQUEST_SECONDS = 10.0
"""From the first byte of a request, or from the connection, until the request is whole."""
UNREAD_SECONDS = 30.0
"""How long an answer may wait for a reader who takes nothing of it."""
IDLE_SECONDS = 75.0
"""Between requests: longer than reverse proxies keep a connection that they do not use."""
MOST_HEADERS = 64
LONGEST_LINE = 2048
"""Bytes of a request's first line; the longest link has some 500."""
SERVER_NAME = "tuningstudy"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_TOO_LARGE = (
    "HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n"
    f"A request may have {MOST_BYTES} bytes, headers and cookies included.\n"
).encode()

# NB: aiohttp refuses what is no HTTP before any middleware sees it, and signs with the versions of Python and its own.
aiohttp.web_response.SERVER_SOFTWARE = SERVER_NAME  # type: ignore[attr-defined]


async def listen(app: web.Application, *ports: int, host: str | None = None) -> web.AppRunner:
    """Serve an application on some ports; whoever calls cleans the runner up.

    Args:
        app: What answers; it gets a middleware.
        ports: Where.
        host: The address to listen on; None: all, of IPv4 and IPv6.
    """
    app.middlewares.insert(0, _serve)
    # NB: no access log: the paths in it are keys.
    runner = web.AppRunner(
        app,
        access_log=None,
        keepalive_timeout=IDLE_SECONDS,
        max_headers=MOST_HEADERS,
        max_line_size=LONGEST_LINE,
        shutdown_timeout=5,
    )
    await runner.setup()
    for port in sorted(set(ports)):
        await _Site(runner, host, port).start()
    return runner


class _Site(web.BaseSite):
    """A port whose connections are counted."""

    def __init__(self, runner: web.AppRunner, host: str | None, port: int) -> None:
        super().__init__(runner)
        self._address = host, port

    @property
    def name(self) -> str:
        """See BaseSite."""
        host, port = self._address
        return f"http://{host or '*'}:{port}"

    async def start(self) -> None:
        """See BaseSite."""
        await super().start()
        handler, everyone = cast("web.Server", self._runner.server), dict[_Connection, None]()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(handler(), everyone), *self._address)


class _Connection(asyncio.Protocol):
    """Passes on what comes to aiohttp's protocol, and ends where a connection takes more than its share.

    `everyone` has the open connections, those first that have waited longest since they were served.
    """

    def __init__(self, handler: asyncio.Protocol, everyone: "dict[_Connection, None]") -> None:
        self._handler, self._everyone = handler, everyone
        self._received = 0
        self._unfinished, self._unread = _Clock(self.abort), _Clock(self.abort)
        self.is_served = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a place, which another loses where all are taken."""
        self._transport = cast("asyncio.Transport", transport)
        if len(self._everyone) >= MOST_CONNECTIONS:
            self._longest_waiting().abort()
        self._everyone[self] = None
        self._unfinished.start(REQUEST_SECONDS)
        self._handler.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Count it, and start the clock of a request that begins."""
        self._received += len(data)
        if self._received > MOST_BYTES:
            self._refuse()
            return
        if not self.is_served:
            self._unfinished.start(REQUEST_SECONDS)
        self._handler.data_received(data)

    def begin(self) -> None:
        """A request is whole, and is being served from now on."""
        self.is_served, self._received = True, 0
        self._unfinished.stop()
        if self in self._everyone:
            del self._everyone[self]
            self._everyone[self] = None

    def abort(self) -> None:
        """Close at once, and give up the place."""
        self._everyone.pop(self, None)
        self._transport.abort()

    def eof_received(self) -> bool | None:
        """See Protocol."""
        return self._handler.eof_received()

    def pause_writing(self) -> None:
        """The reader takes nothing: an answer may be kept for it only so long."""
        self._unread.start(UNREAD_SECONDS)
        self._handler.pause_writing()

    def resume_writing(self) -> None:
        """The reader goes on."""
        self._unread.stop()
        self._handler.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        """See Protocol."""
        self._unfinished.stop()
        self._unread.stop()
        self._everyone.pop(self, None)
        self._handler.connection_lost(error)

    def _longest_waiting(self) -> "_Connection":
        return next((other for other in self._everyone if not other.is_served), next(iter(self._everyone)))

    def _refuse(self) -> None:
        """In words, unless an answer that is under way would be mixed with them."""
        if self.is_served:
            self.abort()
            return
        self._transport.write(_TOO_LARGE)
        self._transport.close()


class _Clock:
    """Calls something after some seconds, unless it is stopped before."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self._timer: asyncio.TimerHandle | None = None

    def start(self, seconds: float) -> None:
        """Begin to count, if it does not count already."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._call)

    def stop(self) -> None:
        """Call nothing."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


@web.middleware
async def _serve(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Tell the connection that a request of its is being served."""
    connection = request.transport.get_protocol() if request.transport else None
    if not isinstance(connection, _Connection):  # it has gone meanwhile
        return await handler(request)
    connection.begin()
    try:
        return await handler(request)
    finally:
        connection.is_served = False
