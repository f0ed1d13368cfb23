"""Links of a status, taken apart: where the charts server is, and the way to it from a laptop. Pure."""

from dataclasses import dataclass
from urllib.parse import urlsplit

CHARTS_SELECTOR = "app.kubernetes.io/part-of=tuningstudy,app.kubernetes.io/component=charts"
PORT = "http"
"""Name of the Service's port, in the chart."""
_SEGMENTS = 4
"""Of a study's page: studies, namespace, study, ticket (`charts.links`)."""


@dataclass(frozen=True)
class Service:
    """The charts server's Service."""

    namespace: str
    name: str

    @property
    def resource(self) -> str:
        """What RBAC calls it: the resourceName of services/proxy."""
        return f"http:{self.name}:{PORT}"

    @property
    def proxy_path(self) -> str:
        """Where the API server passes requests on to it."""
        return f"/api/v1/namespaces/{self.namespace}/services/{self.resource}/proxy"


def page_path(link: str) -> str:
    """The path of a study's page on the charts server itself: its link may begin with a path of an ingress' own."""
    segments = urlsplit(link).path.strip("/").split("/")
    return f"/{'/'.join(segments[-_SEGMENTS:])}/"


def service_in(link: str) -> Service | None:
    """The Service that a link names (NAME.NAMESPACE.svc); None for a link that works outside of the cluster, too."""
    name, *rest = (urlsplit(link).hostname or "").split(".")
    return Service(namespace=rest[0], name=name) if rest[1:2] == ["svc"] else None
