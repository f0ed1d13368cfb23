"""The charts server's HTTP: who may see what, and how it is cached.

A ticket is verified before anything is loaded, and every refusal is the same 404, so that nobody learns which studies
exist; only a ticket that was good once is told that it has ended. All of a page comes from this server, and the
Content-Security-Policy holds browsers to it.
"""

import asyncio
import gzip
import hashlib
import json
import logging
import signal
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from aiohttp import web
from sqlalchemy.engine import URL

from tuning_operator.charts import page
from tuning_operator.charts.assets import assets
from tuning_operator.charts.figures import charts_of
from tuning_operator.charts.links import read_ticket
from tuning_operator.charts.page import Moment
from tuning_operator.charts.renderer import Crowded, Renderer, figures_version
from tuning_operator.charts.source import PostgresSource, StudySource
from tuning_operator.charts.trials import trials_json
from tuning_operator.errors import DatabaseUnavailable
from tuning_operator.listening import listen

log = logging.getLogger(__name__)

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}
RELOAD_SECONDS = 5
FRESH_SECONDS = 1.0
"""Readers of the same study within this time share one look at the database."""
MOST_KEPT = 32
"""Studies whose last moment is kept: half a megabyte of rows each, besides their trials."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Loader:
    """One look at the database for all who ask for the same study at about the same time; what it showed is kept."""

    def __init__(self, source: StudySource) -> None:
        self.source = source
        self._recent: dict[tuple[str, str], tuple[float, asyncio.Task[Moment | None]]] = {}

    async def load(self, namespace: str, study: str) -> Moment | None:
        """The study as it was at most a second ago, or None.

        Raises:
            DatabaseUnavailable: the database does not answer.
        """
        key, now = (namespace, study), time.monotonic()
        begun, task = self._recent.get(key, (0.0, None))
        if task is None or (task.done() and now - begun > FRESH_SECONDS):
            if len(self._recent) >= MOST_KEPT:
                self._recent.clear()
            task = asyncio.create_task(asyncio.to_thread(self._look, namespace, study, _shown(task)))
            self._recent[key] = now, task
        return await asyncio.shield(task)

    def _look(self, namespace: str, study: str, before: Moment | None) -> Moment | None:
        data = self.source.load(namespace, study)
        if data is None:
            return None
        # Trials that have ended are the same objects as before, so that this comparison takes no time.
        return before if before and before.data == data and before.stays else Moment(data, _now())


def _shown(task: "asyncio.Task[Moment | None] | None") -> Moment | None:
    """What an earlier look has shown, if it came to anything."""
    return task.result() if task and not task.cancelled() and task.exception() is None else None


LOADER: Final = web.AppKey("loader", Loader)
RENDERER: Final = web.AppKey("renderer", Renderer)
SIGNING_KEY: Final = web.AppKey("signing_key", str)


def create_app(*, source: StudySource, signing_key: str, renderer: Renderer | None = None) -> web.Application:
    """The server as an application."""
    app = web.Application(middlewares=[_finish])
    app[LOADER] = Loader(source)
    app[SIGNING_KEY] = signing_key
    app[RENDERER] = renderer or Renderer()
    prefix = "/studies/{namespace}/{study}/{ticket}/"
    app.add_routes(
        [
            web.get(prefix, _study),
            web.get(prefix.rstrip("/"), _with_slash),
            web.get(prefix + "data", _data),
            web.get(prefix + "figures", _figures),
            web.get(prefix + "report.html", _report),
            web.get(prefix + "trials.json", _trials),
            web.get(prefix + "{chart}", _chart),
            web.get("/static/{version}/{name}", _static),
            web.get("/healthz", _alive),
            web.get("/readyz", _alive),
        ]
    )
    app.on_cleanup.append(_close)
    return app


def serve(*, database_url: URL, signing_key: str, port: int) -> None:
    """Serve until asked to stop."""
    source = PostgresSource(database_url)
    app = create_app(source=source, signing_key=signing_key)
    app[RENDERER].start()  # else the first reader would wait for it
    try:
        asyncio.run(_serve_until_stopped(app, port))
    finally:
        source.close()


async def _serve_until_stopped(app: web.Application, port: int) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    runner = await listen(app, port)
    await stop.wait()
    await runner.cleanup()


async def _close(app: web.Application) -> None:
    app[RENDERER].close()


# Pages. They may be megabytes, so they are put together beside the loop.


async def _study(request: web.Request) -> web.Response:
    moment = await _load(request)
    return _html(await asyncio.to_thread(lambda: page.study_page(moment, **_versions(moment))))


async def _chart(request: web.Request) -> web.Response:
    moment, chart = await _load(request), request.match_info["chart"]
    if chart not in charts_of(moment.data.directions):
        raise web.HTTPNotFound
    return _html(await asyncio.to_thread(lambda: page.chart_page(moment, chart=chart, **_versions(moment))))


async def _with_slash(request: web.Request) -> web.Response:
    _verify(request)
    # Relative: the server may be served below a path that it does not know.
    return web.Response(status=308, headers={"Location": request.match_info["ticket"] + "/"})


async def _data(request: web.Request) -> web.Response:
    moment = await _load(request)
    return _json(request, await asyncio.to_thread(_live_parts, moment))


def _versions(moment: Moment) -> dict[str, str]:
    """What a page has, so that its script asks only for what is newer."""
    return {"figures_version": figures_version(moment.data), "live_version": f'"{_entity_tag(_live_parts(moment))}"'}


def _live_parts(moment: Moment) -> str:
    live = moment.live
    answer = {
        "title": live.title,
        "summary": live.summary,
        "rows": live.rows,
        "params": live.params,
        "terminal": live.is_terminal,
        "figures": figures_version(moment.data),
    }
    return json.dumps(answer)


async def _figures(request: web.Request) -> web.Response:
    moment = await _load(request)
    figures = await request.app[RENDERER].figures(moment.data, moment.drawn)
    return _json(request, "{" + ", ".join(f"{json.dumps(key)}: {figure}" for key, figure in figures.items()) + "}")


async def _report(request: web.Request) -> web.Response:
    """The page as one file to keep."""
    moment = await _load(request)
    figures = await request.app[RENDERER].figures(moment.data, moment.drawn)
    response = _html(await asyncio.to_thread(page.report_page, moment, figures=figures))
    response.headers["Content-Disposition"] = f'attachment; filename="{moment.data.name}.html"'
    return response


async def _trials(request: web.Request) -> web.Response:
    moment = await _load(request)
    return _json(request, trials_json(moment.data, now=moment.now))


def _verify(request: web.Request) -> tuple[str, str, str]:
    """Return namespace, study and the namespace's mark of a signed link.

    Raises:
        web.HTTPNotFound: it is not signed for this study.
        web.HTTPGone: it was, and has ended.
    """
    namespace, study, text = (request.match_info[name] for name in ("namespace", "study", "ticket"))
    ticket = read_ticket(text, key=request.app[SIGNING_KEY], namespace=namespace, study=study)
    if ticket is None:
        raise web.HTTPNotFound
    if ticket.end <= _now().timestamp():
        raise web.HTTPGone
    return namespace, study, ticket.mark


async def _load(request: web.Request) -> Moment:
    namespace, study, mark = _verify(request)
    moment = await request.app[LOADER].load(namespace, study)
    if moment is None:
        raise web.HTTPNotFound
    if mark != moment.data.mark:
        raise web.HTTPGone
    return moment


# Everything else


@lru_cache
def _compressed(path: str) -> bytes:
    """Once for all readers."""
    return gzip.compress(assets()[path][1], compresslevel=9, mtime=0)


async def _static(request: web.Request) -> web.Response:
    path = f"{request.match_info['version']}/{request.match_info['name']}"
    if path not in assets():
        raise web.HTTPNotFound
    content_type, content = assets()[path]
    headers = {"Cache-Control": "public, max-age=31536000, immutable", "Vary": "Accept-Encoding"}
    if "gzip" in request.headers.get("Accept-Encoding", ""):
        content = await asyncio.to_thread(_compressed, path)
        headers["Content-Encoding"] = "gzip"
    return web.Response(body=content, content_type=content_type, charset="utf-8", headers=headers)


async def _alive(_: web.Request) -> web.Response:
    """Alive and ready without the database, too.

    A restart would not bring it back; and this server says in words that it is away, which an ingress would not.
    """
    return web.Response(text="ok\n")


@web.middleware
async def _finish(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn refusals, outages and mistakes into pages in words, and add the headers that all answers have."""
    try:
        response = await handler(request)
    except DatabaseUnavailable as error:
        log.warning("the database is unavailable: %s", error)
        response = _unavailable(request)
    except Crowded:
        response = _crowded(request)
    except web.HTTPException as error:
        response = _refusal(request, error)
    except Exception:
        log.exception("a page could not be made")
        response = _broken(request)
    response.headers.update(SECURITY_HEADERS)
    # Private: a cache that many share would keep what only those may see who have the link.
    response.headers.setdefault("Cache-Control", "private, no-cache")
    # NB: compressing an answer without a body, such as 304, breaks aiohttp's connection.
    if isinstance(response, web.Response) and response.body and "Content-Encoding" not in response.headers:
        response.enable_compression()
    return response


def _refusal(request: web.Request, error: web.HTTPException) -> web.Response:
    if error.status == web.HTTPGone.status_code:
        return _ended(request)
    if error.status != web.HTTPNotFound.status_code:
        return web.Response(text=f"{error.reason}\n", status=error.status)
    text = page.message_page(
        title="Nothing here",
        message=(
            "This link opens no study: it may be incomplete, or the study was deleted."
            " kubectl get tuningstudy -o yaml shows a study's links under status.charts."
        ),
        root=_root(request),
    )
    return _html(text, status=404)


def _ended(request: web.Request) -> web.Response:
    """What opens the study again, for those who may read it; whether it is still there is not looked up."""
    study = f"{request.match_info['study']} -n {request.match_info['namespace']}"
    text = page.message_page(
        title="This link has ended",
        message="Links to a study's page end after some days. Its status has one that is good, which these open and print:",
        commands=(
            f"tuningstudy open {study}",
            f"kubectl get tuningstudy {study} -o jsonpath='{{.status.charts.report}}'",
        ),
        root=_root(request),
    )
    return _html(text, status=410)


def _unavailable(request: web.Request) -> web.Response:
    return _later(
        request,
        title="The database does not answer",
        message="Nothing is lost: trials and this page go on as soon as it is back.",
    )


def _crowded(request: web.Request) -> web.Response:
    return _later(
        request,
        title="Many charts are being drawn",
        message="This study's are drawn when it is their namespace's turn. This page asks again by itself.",
    )


def _later(request: web.Request, *, title: str, message: str) -> web.Response:
    """Words for now; the page asks again."""
    text = page.message_page(title=title, message=message, root=_root(request), reload_seconds=RELOAD_SECONDS)
    response = _html(text, status=503)
    response.headers["Retry-After"] = str(RELOAD_SECONDS)
    return response


def _broken(request: web.Request) -> web.Response:
    text = page.message_page(
        title="This page could not be made",
        message="The study itself goes on. The charts server's log says what happened.",
        root=_root(request),
    )
    return _html(text, status=500)


def _root(request: web.Request) -> str:
    """The way from a path to this server's root: it may be served below a path that it does not know."""
    return "../" * (request.rel_url.raw_path.count("/") - 1) or "./"


def _html(text: str, *, status: int = 200) -> web.Response:
    return web.Response(text=text, status=status, content_type="text/html")


def _json(request: web.Request, text: str) -> web.Response:
    """An answer that is sent only if the reader does not have it already."""
    etag = _entity_tag(text)
    if any(known.value == etag for known in request.if_none_match or ()):
        response = web.Response(status=304)
    else:
        response = web.Response(text=text, content_type="application/json")
    response.etag = etag
    return response


def _entity_tag(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _now() -> datetime:
    return datetime.now(UTC)
