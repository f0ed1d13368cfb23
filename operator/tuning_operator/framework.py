"""The only place that sets Kopf's knobs, each with its reason."""

from typing import Any

import kopf

from tuning_api import naming
from tuning_api.spec import GROUP
from tuning_operator.handlers import JOBS

EXIT_SECONDS = 20


def configure(settings: kopf.OperatorSettings) -> None:
    """Set Kopf's settings."""
    settings.persistence.finalizer = naming.FINALIZER
    # Annotations under our own group, without the legacy twins.
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=GROUP, v1=False)
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=GROUP, key="last-handled", v1=False)
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


def register_login(registry: kopf.OperatorRegistry) -> None:
    """Sign in as a service account inside a cluster, else by the kubeconfig; a registry of our own has no default."""

    @kopf.on.login(registry=registry)
    async def sign_in(**context: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**context) or kopf.login_with_kubeconfig(**context)
