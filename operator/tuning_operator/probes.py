"""Health and metrics over HTTP.

/healthz answers while the event loop turns and passes come to their end; it does not ask for the database, since a restart
would not bring it back. Threads of passes that never end are given back by a restart alone.
/readyz answers once the operator watches.
"""

import threading
from collections.abc import Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from tuning_operator.listening import listen

READY = web.AppKey("ready", threading.Event)
REGISTRY = web.AppKey("registry", CollectorRegistry)
IS_STUCK: web.AppKey[Callable[[], bool]] = web.AppKey("is_stuck")


def probe_app(
    registry: CollectorRegistry, ready: threading.Event, *, is_stuck: Callable[[], bool] = lambda: False
) -> web.Application:
    """The endpoints as an application; `ready` is set by whoever knows."""
    app = web.Application()
    app[READY] = ready
    app[IS_STUCK] = is_stuck
    app[REGISTRY] = registry
    app.add_routes([web.get("/healthz", _healthz), web.get("/readyz", _readyz), web.get("/metrics", _metrics)])
    return app


async def serve(app: web.Application, *ports: int) -> web.AppRunner:
    """Listen on all addresses; whoever calls cleans the runner up."""
    return await listen(app, *ports, host="0.0.0.0")  # noqa: S104 - kubelet and Prometheus come from outside


async def _healthz(request: web.Request) -> web.Response:
    if request.app[IS_STUCK]():
        return web.Response(text="passes do not come to their end\n", status=503)
    return web.Response(text="ok\n")


async def _readyz(request: web.Request) -> web.Response:
    ready = request.app[READY].is_set()
    return web.Response(text="ok\n" if ready else "not watching yet\n", status=200 if ready else 503)


async def _metrics(request: web.Request) -> web.Response:
    return web.Response(body=generate_latest(request.app[REGISTRY]), headers={"Content-Type": CONTENT_TYPE_LATEST})
