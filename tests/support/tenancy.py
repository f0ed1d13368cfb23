"""Namespaces at home in a database, as the operator makes them, and the way in that it gives their workers."""

from cluster.kubectl import Kubectl
from sqlalchemy.engine import URL

from tuning_api import naming
from tuning_operator.tenancy import Tenancy, role_password

SIGNING_KEY = "a-signing-key-for-tests-0123456789"
PASSWORD_KEY = "a-password-key-for-tests-0123456789"
UID = "8a6f0c8e-3f5d-4a57-9d0c-1d2b0d6f5c11"
"""Of every namespace, where there is no API server to make one up."""


CHARTS_PASSWORD = "charts"


def a_tenancy(
    url: URL, *, charts_password: str | None = CHARTS_PASSWORD, uid: str = UID, connections: int | None = None
) -> Tenancy:
    """Return a tenancy in a database, in which all namespaces have one uid."""
    return Tenancy(
        url,
        password_key=PASSWORD_KEY,
        charts_password=charts_password,
        uid_of=lambda _: uid,
        connections=connections,
    )


def worker_url(database: URL, namespace: str = "team-a", *, uid: str = UID) -> URL:
    """Return the way into a database that the workers of a namespace have."""
    role = naming.database_schema(namespace)
    return database.set(username=role, password=role_password(PASSWORD_KEY, role=role, uid=uid))


def namespace_uid(kubectl: Kubectl, namespace: str) -> str:
    """Return a namespace's uid, from a real API server."""
    return kubectl("get", "namespace", namespace, "-o", "jsonpath={.metadata.uid}").strip()
