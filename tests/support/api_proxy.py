"""A proxy in front of an API server, which can refuse everybody for a while, or end a watch in the middle of a line."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path

import yaml
from aiohttp import ClientSession, TCPConnector, web
from tests.support.ports import free_port

_OF_ONE_CONNECTION = {"host", "connection", "content-length", "transfer-encoding"}
_START_SECONDS = 10


class ApiProxy:
    """Passes everything on, and everything back; lives in a thread."""

    def __init__(self, kubeconfig: Path) -> None:
        """Describe a proxy.

        Args:
            kubeconfig: The way to the API server; whoever asks the proxy brings its own token.
        """
        self._server = yaml.safe_load(kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
        self._port = free_port()
        self._open: list[web.Request] = []
        self.refused = 0
        """Requests that were answered with 401."""
        self.refuses = False
        self.breaks = False
        """Whether a watch says that it cannot go on, which no client can mend."""
        self.cuts = False
        """Whether a watch ends in the middle of its first line, as if all had been said."""
        self.cut = 0
        """Watches that did."""

    @contextmanager
    def running(self) -> Iterator[None]:
        """Serve for as long as the block runs."""
        ready = threading.Event()
        thread = threading.Thread(target=lambda: asyncio.run(self._serve(ready)))
        thread.start()
        assert ready.wait(_START_SECONDS)
        try:
            yield
        finally:
            self._loop.call_soon_threadsafe(self._over.set)
            thread.join()

    def kubeconfig(self, original: Path, file: Path) -> Path:
        """A kubeconfig like another one, whose way goes through the proxy."""
        document = yaml.safe_load(original.read_text())
        document["clusters"][0]["cluster"] = {"server": f"http://127.0.0.1:{self._port}"}
        file.write_text(yaml.safe_dump(document))
        return file

    def refuse(self) -> None:
        """Break all connections, and refuse everybody from now on."""
        self.refuses = True
        self._loop.call_soon_threadsafe(self._break)

    def _break(self) -> None:
        for request in self._open:
            if request.transport:
                request.transport.abort()

    async def _serve(self, ready: threading.Event) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, shutdown_timeout=1)
        await runner.setup()
        # NB: who reaches it is a test, and what it protects is thrown away.
        async with ClientSession(connector=TCPConnector(ssl=False, limit=0), auto_decompress=False) as self._session:
            await web.TCPSite(runner, "127.0.0.1", self._port).start()
            ready.set()
            await self._over.wait()
            self._break()
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if self.refuses:
            self.refused += 1
            status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 401, "message": "Unauthorized"}
            return web.json_response(status, status=HTTPStatus.UNAUTHORIZED)
        self._open.append(request)
        try:
            return await self._pass_on(request)
        finally:
            self._open.remove(request)

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        async with self._session.request(
            request.method,
            self._server + request.raw_path,
            headers={name: value for name, value in request.headers.items() if name.lower() not in _OF_ONE_CONNECTION},
            data=await request.read() or None,
            skip_auto_headers=["Content-Type"],
        ) as answer:
            headers = {name: value for name, value in answer.headers.items() if name.lower() not in _OF_ONE_CONNECTION}
            passed = web.StreamResponse(status=answer.status, headers=headers)
            await passed.prepare(request)
            async for part in answer.content.iter_any():
                if self.breaks and request.query.get("watch"):
                    await passed.write(b'{"type":"ERROR","object":{"kind":"Status","code":500}}\n')
                    break
                if self.cuts and request.query.get("watch"):
                    await passed.write(part[: len(part) // 2])
                    self.cut += 1
                    break
                await passed.write(part)
            await passed.write_eof()
            return passed
