"""The Secret that gives the workers of a namespace their way into the database."""

from typing import Any

from tuning_api import naming


def worker_secret(*, namespace: str, url: str) -> dict[str, Any]:
    """One Secret for each namespace; it outlives single studies, so no study owns it."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": naming.WORKER_SECRET,
            "namespace": namespace,
            "labels": {naming.LABEL_MANAGED_BY: naming.MANAGED_BY},
        },
        "type": "Opaque",
        "stringData": {naming.WORKER_SECRET_KEY: url},
    }
