"""The only place that sets Kopf's knobs, each with its reason."""

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import kopf
from typing_extensions import override

from tuning_api import naming
from tuning_api.spec import GROUP
from tuning_operator.errors import TuningError
from tuning_operator.handlers import JOBS, STUDIES

EXIT_SECONDS = 20
SIGN_IN_SECONDS = 3.0
"""Between two attempts to sign in."""
AGAIN_SECONDS = 2.0
_FAR_AWAY = timedelta(days=3650)

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
    # Bounds the herd of first passes after a start.
    settings.queueing.worker_limit = 50
    # The default of 2 s cancels a pass in the middle; below the pod's grace period of 45 s.
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


def register_login(registry: kopf.OperatorRegistry) -> None:
    """Sign in as a service account inside a cluster, else by the kubeconfig; a registry of our own has no default.

    NB: Kopf never again takes credentials that equal some that were refused, and ends for want of others. But an API server
    that starts refuses everybody for a moment (401). So the same credentials differ here in when they would end.
    """
    last = float("-inf")

    @kopf.on.login(registry=registry)
    async def sign_in(**context: Any) -> kopf.ConnectionInfo | None:
        nonlocal last
        await asyncio.sleep(max(0.0, last + SIGN_IN_SECONDS - time.monotonic()))
        last = time.monotonic()
        found = kopf.login_with_service_account(**context) or kopf.login_with_kubeconfig(**context)
        return replace(found, expiration=datetime.now(UTC) + _FAR_AWAY) if found else None
