"""The only place that sets Kopf's knobs, each with its reason."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import aiohttp
import kopf
from typing_extensions import override

from tuning_api import naming
from tuning_api.spec import GROUP
from tuning_operator import answers
from tuning_operator.errors import TuningError
from tuning_operator.handlers import EXIT_SECONDS, JOBS, STUDIES

SIGN_IN_SECONDS = 3.0
"""Between two attempts to sign in."""
AGAIN_SECONDS = 2.0
_WATCH = "watcher for "
"""How the names of Kopf's tasks begin that watch."""
LIST_PAGE = 10
"""Objects that are listed at once. A list is read whole, and a tenant's study may have 1.5 MB."""
CONNECTIONS = 50
"""To the API server at the same time, besides the watches: bounds the herd of patches that set finalizers."""

Resource = tuple[str, str, str]
"""Group, version and plural."""


class NoDifferences(kopf.DiffBaseStorage):
    """No handler of ours asks what has changed.

    NB: Kopf's own storages copy the whole object for each event, which takes most of its time, and write it to an annotation.
    """

    @override
    def build(self, *, body: kopf.Body, extra_fields: Iterable[Any] | None = None) -> kopf.BodyEssence:
        """Nothing of an object matters."""
        return kopf.BodyEssence()

    @override
    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        """NB: not None, which would mean a new object, for ever."""
        return kopf.BodyEssence()

    @override
    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        """There is nothing to store."""


def configure(settings: kopf.OperatorSettings) -> None:
    """Set Kopf's settings."""
    settings.persistence.finalizer = naming.FINALIZER
    # Annotations under our own group, without the legacy twins.
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=GROUP, v1=False)
    settings.persistence.diffbase_storage = NoDifferences()
    # A foreign peering object named "default" could pause us.
    settings.peering.standalone = True
    # Scanning needs to list namespaces and CRDs of the whole cluster; both are known to us.
    settings.scanning.disabled = True
    # Filtered by the API server: without this, every Job of the cluster would be listed and watched.
    settings.watching.label_selectors[JOBS] = f"{naming.LABEL_MANAGED_BY}={naming.MANAGED_BY}"
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 10
    settings.watching.chunk_size = LIST_PAGE
    # NB: no `worker_limit`. Each object holds its worker for seconds, so that a tenant who makes many would hold them all;
    # handlers only enqueue (see `turns`), and there is no herd of them to bound.
    # The default of 2 s cancels a deletion in the middle.
    settings.queueing.exit_timeout = EXIT_SECONDS
    settings.process.ultimate_exiting_timeout = 60
    settings.execution.default_backoff = 15
    settings.posting.reporting_component = naming.MANAGED_BY
    settings.posting.event_name_prefix = "tuningstudy-"


def register_discovery(registry: kopf.OperatorRegistry, *, unserved: Callable[[Iterable[Resource]], list[str]]) -> None:
    """Begin when the API server lists all that is watched.

    NB: Kopf looks once for what there is to watch. At an API server that was starting then, it would watch nothing for ever.
    """

    @kopf.on.startup(registry=registry)
    async def await_resources(**_: Any) -> None:
        try:
            missing = await asyncio.to_thread(unserved, (STUDIES, JOBS))
        except TuningError as error:
            raise kopf.TemporaryError(str(error), delay=AGAIN_SECONDS) from error
        if missing:
            message = f"the API server does not serve {' and '.join(missing)} (is the CRD installed?)"
            raise kopf.TemporaryError(message, delay=AGAIN_SECONDS)


def register_login(registry: kopf.OperatorRegistry, *, watches: int) -> None:
    """Sign in as a service account inside a cluster, else by the kubeconfig; a registry of our own has no default.

    NB: Kopf never again takes credentials that equal some that were refused, and ends for want of others. But an API server
    that starts refuses everybody for a moment (401). No two sessions are equal, so the same credentials are tried again.

    Args:
        registry: Where to.
        watches: How many streams are open all the time.
    """
    last = float("-inf")

    @kopf.on.login(registry=registry)
    async def sign_in(**context: Any) -> kopf.AiohttpSession | None:
        nonlocal last
        await asyncio.sleep(max(0.0, last + SIGN_IN_SECONDS - time.monotonic()))
        last = time.monotonic()
        found = kopf.login_with_service_account(**context) or kopf.login_with_kubeconfig(**context)
        if found is None:
            return None
        session = open_session(found, connections=watches + CONNECTIONS)
        return kopf.AiohttpSession(
            server=found.server, default_namespace=found.default_namespace, aiohttp_session=session
        )

    @kopf.on.cleanup(registry=registry)
    async def end_watches(**_: Any) -> None:
        """When one watch has failed, Kopf leaves the other where it is, and closes the session.

        NB: that one would then wait for ever to sign in again (kopf 1.45: `api.stream` may take its end for a pause).
        """
        for task in asyncio.all_tasks():
            if task.get_name().startswith(_WATCH):
                task.cancel()


def open_session(credentials: kopf.ConnectionInfo, *, connections: int) -> aiohttp.ClientSession:
    """Kopf's way to the API server, as Kopf would make it, but that answers are read by `answers`.

    What handlers do not look at never comes to Kopf, which keeps objects for seconds. And what Python's parser cannot read
    would end Kopf's watch, and the operator with it (https://docs.kopf.dev/en/stable/authentication/#custom-http-sessions).
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connections, ssl=credentials.as_ssl_context()),
        headers=credentials.as_http_headers(),
        proxy=credentials.proxy_url,
        trust_env=credentials.trust_env,
        response_class=_Answer,
    )


class _Answer(aiohttp.ClientResponse):
    """An answer whose JSON, whole or in lines, has no more of objects than handlers look at."""

    @override
    async def start(self, connection: Any) -> "_Answer":
        """As aiohttp does; what follows is read by the line."""
        await super().start(connection)
        self.content = _Lines(self.content)  # type: ignore[assignment]
        return self

    @override
    async def json(self, **_: Any) -> Any:
        """The whole answer. In a thread, since large ones would hold up everything else."""
        return await asyncio.to_thread(answers.read_essence, await self.read())


class _Lines:
    """A body that is iterated over by whole lines, each of them JSON; read otherwise it is the body as it is."""

    def __init__(self, body: aiohttp.StreamReader) -> None:
        self._body = body

    def __getattr__(self, name: str) -> Any:
        return getattr(self._body, name)

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        """The lines of a watch, each as soon as it is there.

        Raises:
            ClientPayloadError: it broke off in the middle of one, as connections do; Kopf then watches from there.
        """
        rest = bytearray()
        async for chunk in self._body.iter_chunked(size):
            rest += chunk
            *lines, rest = rest.split(b"\n")
            for line in filter(None, lines):
                yield await asyncio.to_thread(_essence_of_line, bytes(line))
        if rest:
            raise aiohttp.ClientPayloadError("the watch ended in the middle of a line")


def _essence_of_line(line: bytes) -> bytes:
    return json.dumps(answers.read_essence(line)).encode() + b"\n"
