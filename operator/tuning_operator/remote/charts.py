"""The charts server from a laptop: by the study's own link where that works outside of the cluster, else by the API server.

The API server's proxy asks for one narrow right, `get` on `services/proxy` of the charts server's Service, which an
administrator can give without giving any other (docs/operations.md); a port-forward asks for all pods of the namespace.
"""

import urllib.error
import urllib.request
from http import HTTPStatus
from urllib.parse import urlsplit

from tuning_api.schema import Document
from tuning_operator import cluster
from tuning_operator.charts.trials import read_trials
from tuning_operator.errors import TuningError
from tuning_operator.local.errors import BadInputError
from tuning_operator.local.progress import Progress
from tuning_operator.remote.gateway import PAGE_SECONDS, Gateway
from tuning_operator.remote.links import CHARTS_SELECTOR, Service, page_path, service_in

_HAS_ENDED = "the link in the study's status has ended: the operator, which renews it, has not done so; does it run?"


def link_of(study: Document) -> str:
    """The link of a study's page.

    Raises:
        BadInputError: it has none yet.
    """
    link = study.get("status", {}).get("charts", {}).get("report")
    if not link:
        name = study["metadata"]["name"]
        raise BadInputError(f"study {name} has no link yet: the operator has not looked at it; does it run?")
    return str(link)


def service_of(gateway: Gateway, link: str, *, operator_namespace: str | None) -> Service | None:
    """The Service behind a link; None for a link that works from here.

    Args:
        gateway: The cluster.
        link: Of the study's page.
        operator_namespace: Where the charts server is; then by its Service, whatever the link says.

    Raises:
        BadInputError: there is no charts server in that namespace.
    """
    if operator_namespace is None:
        return service_in(link)
    found = gateway.services(operator_namespace, selector=CHARTS_SELECTOR)
    if not found:
        raise BadInputError(f"namespace {operator_namespace} has no Service of a charts server ({CHARTS_SELECTOR})")
    return Service(namespace=operator_namespace, name=found[0]["metadata"]["name"])


def progress_of(gateway: Gateway, study: Document, *, operator_namespace: str | None) -> Progress:
    """How far a study is, with all its trials.

    Raises:
        BadInputError: the charts server cannot be reached, or speaks another version.
    """
    payload = fetch(gateway, study, "trials.json", operator_namespace=operator_namespace)
    try:
        return read_trials(payload)
    except ValueError as error:
        raise BadInputError(
            f"{link_of(study)}: this is no answer of a charts server of this version: install the version of the cluster,"
            " or go by the API server with --operator-namespace"
        ) from error


def fetch(gateway: Gateway, study: Document, file: str, *, operator_namespace: str | None) -> bytes:
    """A file beside a study's page.

    Raises:
        BadInputError: the charts server cannot be reached, or refuses.
    """
    link = link_of(study)
    service = service_of(gateway, link, operator_namespace=operator_namespace)
    if service is None:
        return _fetch_directly(link + file)
    try:
        response = gateway.fetch(service, page_path(link) + file, headers={"Accept": "*/*"})
    except TuningError as error:
        raise BadInputError(str(error)) from error
    payload = cluster.read(response)
    if response.status >= HTTPStatus.BAD_REQUEST:
        raise BadInputError(refusal(response.status, payload, service))
    return payload


def refusal(status: int, payload: bytes, service: Service) -> str:
    """Why the charts server, or the API server before it, gave no page."""
    if status == HTTPStatus.FORBIDDEN:
        return (
            f"{cluster.error_of(status, payload)}: ask for the right to get services/proxy {service.resource}"
            f" in namespace {service.namespace} (docs/operations.md)"
        )
    if status == HTTPStatus.GONE:
        return _HAS_ENDED
    if payload.lstrip().startswith(b"<"):
        return f"the charts server answers {status}: see the page in the study's status (status.charts.report)"
    return f"the charts server cannot be reached by the API server: {cluster.error_of(status, payload)}"


def _fetch_directly(link: str) -> bytes:
    if urlsplit(link).scheme not in {"http", "https"}:
        raise BadInputError(f"{link}: this is no link of a charts server")
    try:
        with urllib.request.urlopen(link, timeout=PAGE_SECONDS) as answer:  # noqa: S310 - the scheme is known
            payload: bytes = answer.read()
            return payload
    except (urllib.error.URLError, OSError) as error:
        if isinstance(error, urllib.error.HTTPError) and error.code == HTTPStatus.GONE:
            raise BadInputError(_HAS_ENDED) from error
        raise BadInputError(
            f"{link}: cannot be reached from here: {error}; --operator-namespace goes by the API server"
        ) from error
