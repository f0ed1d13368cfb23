"""What a connection may take, and all of them together; how it ends that takes more."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry
from tests.support.ports import free_port

from tuning_operator import listening, probes
from tuning_operator.listening import listen

SECONDS = 20
HEAD = b"GET /%s HTTP/1.1\r\nHost: here\r\n"
MEGABYTES = b"x" * 20_000_000
"""More than the buffers of both kernels hold."""


class Client:
    """One connection, by its bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer

    async def ask(self, path: str = "", more: bytes = b"") -> str:
        """A request's answer, with its first line."""
        self.writer.write(HEAD % path.encode() + more + b"\r\n")
        head = await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), SECONDS)
        length = next(int(line[15:]) for line in head.splitlines() if line.lower().startswith(b"content-length:"))
        return (head + await asyncio.wait_for(self._reader.readexactly(length), SECONDS)).decode()

    async def the_end(self) -> str:
        """All that comes until the server ends the connection."""
        try:
            return (await asyncio.wait_for(self._reader.read(-1), SECONDS)).decode()
        except ConnectionError:
            return ""


class Site:
    """A server with a page that answers, one that waits for `gate`, and a large one."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._clients: list[Client] = []
        self.gate, self.is_asked = asyncio.Event(), asyncio.Event()

    def app(self) -> web.Application:
        app = web.Application()
        app.add_routes([web.get("/", self._page), web.get("/slow", self._slow), web.get("/large", self._large)])
        return app

    async def connect(self) -> Client:
        client = Client(*await asyncio.open_connection("127.0.0.1", self._port, limit=1024))
        self._clients.append(client)
        return client

    async def leave(self) -> None:
        """End all connections."""
        for client in self._clients:
            client.writer.transport.abort()
            with suppress(ConnectionError):
                await client.writer.wait_closed()

    async def _page(self, _: web.Request) -> web.Response:
        return web.Response(text="a page")

    async def _slow(self, _: web.Request) -> web.Response:
        self.is_asked.set()
        await self.gate.wait()
        return web.Response(text="at last")

    async def _large(self, _: web.Request) -> web.Response:
        return web.Response(body=MEGABYTES)


@asynccontextmanager
async def serving() -> AsyncIterator[Site]:
    site = Site(port := free_port())
    runner = await listen(site.app(), port, host="127.0.0.1")
    try:
        yield site
    finally:
        site.gate.set()
        await site.leave()
        await runner.cleanup()


def visit(story: Callable[[Site], Awaitable[None]]) -> None:
    """Let a story happen to a server."""

    async def begin() -> None:
        async with serving() as site:
            await story(site)

    asyncio.run(begin())


def test_a_request_that_is_not_finished_in_time_ends_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """At a connection's start, and after requests that were served."""
    monkeypatch.setattr(listening, "REQUEST_SECONDS", 0.2)

    async def story(site: Site) -> None:
        silent, slow, later = [await site.connect() for _ in range(3)]
        slow.writer.write(HEAD % b"")
        assert "a page" in await later.ask()
        later.writer.write(b"GET")
        assert [await client.the_end() for client in (silent, slow, later)] == ["", "", ""]

    visit(story)


def test_the_clock_of_a_request_stops_when_it_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer may take its time, and a connection may be kept for the next request."""
    monkeypatch.setattr(listening, "REQUEST_SECONDS", 0.2)

    async def story(site: Site) -> None:
        kept, waiting, witness = [await site.connect() for _ in range(3)]
        assert "a page" in await kept.ask()
        answer = asyncio.create_task(waiting.ask("slow"))
        await site.is_asked.wait()
        assert await witness.the_end() == ""  # the time is over
        site.gate.set()
        assert "at last" in await answer
        assert "a page" in await kept.ask()

    visit(story)


@pytest.mark.parametrize(
    "more",
    [b"x: " + b"a" * 20_000, b"".join(b"x-%d: %s\r\n" % (number, b"a" * 500) for number in range(60))],
    ids=["one header", "many headers"],
)
def test_a_request_that_is_too_large_is_refused_in_words(more: bytes) -> None:
    """Whether it would have ended or not."""

    async def story(site: Site) -> None:
        client = await site.connect()
        client.writer.write(HEAD % b"" + more)
        answer = await client.the_end()
        assert answer.startswith("HTTP/1.1 431 ")
        assert "A request may have 16384 bytes, headers and cookies included." in answer

    visit(story)


def test_the_operators_probes_and_metrics_are_bounded_too() -> None:
    """They stand beside what controls the whole cluster."""
    answers: list[str] = []

    async def begin() -> None:
        runner = await probes.serve(probes.probe_app(CollectorRegistry(), threading.Event()), port := free_port())
        site = Site(port)
        try:
            client = await site.connect()
            client.writer.write(HEAD % b"metrics" + b"x: " + b"a" * 20_000)
            answers.append(await client.the_end())
        finally:
            await site.leave()
            await runner.cleanup()

    asyncio.run(begin())
    assert answers[0].startswith("HTTP/1.1 431 ")


def test_each_request_of_a_connection_may_be_as_large_as_one() -> None:
    """It is the request that is bounded, not what a proxy sends in a day."""

    async def story(site: Site) -> None:
        client = await site.connect()
        for _ in range(5):
            assert "a page" in await client.ask(more=b"Cookie: " + b"a" * 6000 + b"\r\n")

    visit(story)


def test_what_comes_while_a_request_is_served_is_bounded_too() -> None:
    """Requests behind one that waits."""

    async def story(site: Site) -> None:
        client = await site.connect()
        client.writer.write(HEAD % b"slow" + b"\r\n")
        await site.is_asked.wait()
        client.writer.write((HEAD % b"" + b"x: " + b"a" * 4000 + b"\r\n\r\n") * 5)
        assert await client.the_end() == ""

    visit(story)


def test_an_answer_that_nobody_takes_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a stranger keeps it in our memory."""
    monkeypatch.setattr(listening, "UNREAD_SECONDS", 0.2)

    async def story(site: Site) -> None:
        client = await site.connect()
        client.writer.write(HEAD % b"large" + b"\r\n")
        witness = await site.connect()
        monkeypatch.setattr(listening, "REQUEST_SECONDS", 1.0)
        assert await witness.the_end() == ""
        assert len(await client.the_end()) < len(MEGABYTES)

    visit(story)


def test_one_more_takes_the_place_of_the_one_that_waits_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    """So idle strangers keep nobody out, and who is being served goes on."""
    monkeypatch.setattr(listening, "MOST_CONNECTIONS", 3)

    async def story(site: Site) -> None:
        busy, idle, active = [await site.connect() for _ in range(3)]
        answer = asyncio.create_task(busy.ask("slow"))
        await site.is_asked.wait()
        assert "a page" in await active.ask()
        fresh = await site.connect()
        assert "a page" in await fresh.ask()
        assert await idle.the_end() == ""
        assert "a page" in await active.ask()
        site.gate.set()
        assert "at last" in await answer

    visit(story)


def test_where_all_are_being_served_the_longest_of_them_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """A probe must always be answered."""
    monkeypatch.setattr(listening, "MOST_CONNECTIONS", 1)

    async def story(site: Site) -> None:
        busy = await site.connect()
        busy.writer.write(HEAD % b"slow" + b"\r\n")
        await site.is_asked.wait()
        assert "a page" in await (await site.connect()).ask()
        assert await busy.the_end() == ""

    visit(story)
