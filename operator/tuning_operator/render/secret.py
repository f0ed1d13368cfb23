"""The Secret that gives the workers of a namespace their way into the database."""

from typing import Any

from tuning_api import naming


def worker_secret(*, namespace: str, url: str, certificate: str | None) -> dict[str, Any]:
    """Return the one Secret of a namespace; it outlives single studies, so none of them owns it.

    Args:
        namespace: Where it is.
        url: The database's, with role and password.
        certificate: Of the authority that signed the database's own, as PEM; None where workers verify none.
    """
    certificates = {naming.WORKER_SECRET_CA: certificate} if certificate else {}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": naming.WORKER_SECRET,
            "namespace": namespace,
            "labels": {naming.LABEL_MANAGED_BY: naming.MANAGED_BY},
        },
        "type": "Opaque",
        "stringData": {naming.WORKER_SECRET_KEY: url} | certificates,
    }
