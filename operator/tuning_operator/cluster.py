"""The cluster gateway: the official client behind the few calls that we make, documents in and documents out.

Typed models would be built from JSON only to be taken apart again, and they refuse what a newer API server adds; so
requests go through the client's own transport (authentication, TLS, proxies, pooling) and stay plain documents.
"""

import base64
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from kubernetes import config
from kubernetes.client import ApiClient
from kubernetes.client.exceptions import ApiException
from kubernetes.client.rest import RESTResponse
from urllib3.exceptions import HTTPError

from tuning_api.spec import GROUP, KIND, PLURAL, VERSION
from tuning_operator import answers
from tuning_operator.errors import ClusterUnavailable, Conflict, Missing, Refused
from tuning_operator.model import StudyKey

REQUEST_SECONDS = 15
PAGE = 50
"""Objects of a list that are read at once: a Job has a tenant's pod template in it."""
USER_AGENT = "tuningstudy-operator"
_JSON = "application/json"
_TRY_AGAIN = {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.UNAUTHORIZED}

Document = dict[str, Any]


class Cluster:
    """A connection to an API server; safe to share between threads.

    Raises (all methods):
        ClusterUnavailable: the API server does not answer, or asks us to wait.
        Conflict: the object exists already, or changed in the meantime.
        Refused: the API server refuses for good, with its own sentence.
    """

    def __init__(self, client: ApiClient) -> None:
        self._client = client
        self._client.user_agent = USER_AGENT

    def study(self, key: StudyKey) -> Document | None:
        """A TuningStudy, or None if it is gone.

        NB: a key may come from what a tenant wrote, and the operator may read all namespaces. So a name is no more than a
        part of the path, and the answer is asked whether it is what was meant.
        """
        document = self._get(_path(*_STUDIES, key.namespace, PLURAL, key.name))
        if document is not None and _key(document) != key:
            raise Refused(f"the API server answered with another object than TuningStudy {key}")
        return document

    def write_status(self, key: StudyKey, *, version: str, status: Document) -> None:
        """Replace a TuningStudy's status, if the resource still has this version.

        The API server takes nothing but the status from what is sent to that path, so there is nothing else in it.
        """
        metadata = {"namespace": key.namespace, "name": key.name, "resourceVersion": version}
        body = {"apiVersion": f"{GROUP}/{VERSION}", "kind": KIND, "metadata": metadata, "status": status}
        self._call("PUT", _path(*_STUDIES, key.namespace, PLURAL, key.name, "status"), body=body)

    def namespace_uid(self, namespace: str) -> str:
        """Return the uid of a namespace: another one when it was deleted and made again under the same name."""
        document = self._call("GET", _path(*_CORE, namespace)) or {}
        return str(document["metadata"]["uid"])

    def jobs(self, namespace: str, *, selector: str) -> list[Document]:
        """Jobs of a namespace by label, without their pod templates."""
        return self._list(_path(*_BATCH, namespace, "jobs"), labelSelector=selector)

    def job(self, namespace: str, name: str) -> Document | None:
        """A Job, or None if there is none of that name."""
        return next(iter(self._list(_path(*_BATCH, namespace, "jobs"), fieldSelector=f"metadata.name={name}")), None)

    def create_job(self, job: Document) -> None:
        """Create a Job."""
        self._call("POST", _path(*_BATCH, job["metadata"]["namespace"], "jobs"), body=job)

    def delete_job(self, namespace: str, name: str) -> None:
        """Delete a Job and its pods, which get their grace period; one that is gone already is fine."""
        options = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        self._call("DELETE", _path(*_BATCH, namespace, "jobs", name), body=options, missing_ok=True)

    def pods(self, namespace: str, *, selector: str) -> list[Document]:
        """Pods of a namespace by label, without their specs."""
        return self._list(_path(*_CORE, namespace, "pods"), labelSelector=selector)

    def events(self, namespace: str, *, kind: str, name: str) -> list[Document]:
        """Events about an object."""
        fields = f"involvedObject.kind={kind},involvedObject.name={name}"
        return self._list(_path(*_CORE, namespace, "events"), fieldSelector=fields)

    def create_event(self, event: Document) -> None:
        """Record an event."""
        self._call("POST", _path(*_CORE, event["metadata"]["namespace"], "events"), body=event)

    def ensure_secret(self, secret: Document) -> None:
        """Create a Secret, or make an existing one hold the same; `secret` gives its values in `stringData`."""
        metadata = secret["metadata"]
        collection = _path(*_CORE, metadata["namespace"], "secrets")
        path = _path(*_CORE, metadata["namespace"], "secrets", metadata["name"])
        stored = self._get(path)
        if stored is None:
            self._call("POST", collection, body=secret)
        elif _differs(secret["stringData"], stored.get("data", {})):
            self._call("PUT", path, body=secret)

    def unserved(self, resources: Iterable[tuple[str, str, str]]) -> list[str]:
        """Which resources, each a group with its version and plural, the API server does not list (or not yet)."""
        groups = {group["name"] for group in (self._get("/apis") or {}).get("groups", [])}
        return [
            f"{plural}.{group}"
            for group, version, plural in resources
            if group not in groups or plural not in self._listed(group, version)
        ]

    def _listed(self, group: str, version: str) -> set[str]:
        return {resource["name"] for resource in (self._get(_path("apis", group, version)) or {}).get("resources", [])}

    def ping(self) -> None:
        """Ask the API server for a sign of life."""
        self._call("GET", "/version")

    def _get(self, path: str) -> Document | None:
        return self._call("GET", path, missing_ok=True)

    def _list(self, path: str, **query: str) -> list[Document]:
        """All objects of a list, a page at a time; their specs are dropped but for whether they are suspended."""
        items: list[Document] = []
        page: Mapping[str, str] = {"limit": str(PAGE)}
        while page:
            answer = self._call("GET", path, query={**query, **page}) or {}
            items += map(_without_template, answer.get("items") or [])
            token = answer.get("metadata", {}).get("continue")
            page = {"limit": str(PAGE), "continue": token} if token else {}
        return items

    def _call(
        self,
        method: str,
        path: str,
        *,
        body: Document | None = None,
        query: Mapping[str, str] | None = None,
        missing_ok: bool = False,
    ) -> Document | None:
        try:
            response = send(self._client, method, path, body=body, query=query)
        except Missing:
            if missing_ok:
                return None
            raise
        document: Document = answers.read(response)
        return document


def send(
    client: ApiClient,
    method: str,
    path: str,
    *,
    body: Document | None = None,
    query: Mapping[str, str] | None = None,
    content_type: str = _JSON,
    accept: str = _JSON,
    seconds: float = REQUEST_SECONDS,
) -> bytes:
    """One request, and all of its answer.

    Raises:
        ClusterUnavailable, Conflict, Refused: see `Cluster`; Missing, which is a Refused, when there is no such thing.
    """
    headers = {"Accept": accept, "Content-Type": content_type}
    response = begin(client, method, path, body=body, query=query, headers=headers, seconds=seconds)
    payload = read(response)
    if response.status >= HTTPStatus.BAD_REQUEST:
        raise error_of(response.status, payload)
    return payload


def begin(
    client: ApiClient,
    method: str,
    path: str,
    *,
    headers: Mapping[str, str],
    body: Document | None = None,
    query: Mapping[str, str] | None = None,
    seconds: float | tuple[float, float | None] = REQUEST_SECONDS,
) -> RESTResponse:
    """One request, whatever the answer; the answer is not read yet.

    It may take `seconds` in all, or as many for connecting and for each piece of the answer, None for ever.

    Raises:
        ClusterUnavailable: the API server does not answer.
    """
    request = client.param_serialize(
        method,
        path,
        query_params=list((query or {}).items()),
        header_params=dict(headers),
        body=body,
        auth_settings=["BearerToken"],
    )
    try:
        return client.call_api(*request, _request_timeout=seconds)
    except ApiException as error:  # the transport's own: no answer at all, or TLS
        raise ClusterUnavailable(f"the API server does not answer: {error.reason}") from error
    except HTTPError as error:
        raise ClusterUnavailable(f"the API server does not answer: {error}") from error


def read(response: RESTResponse) -> bytes:
    """The whole of an answer.

    Raises:
        ClusterUnavailable: it broke off.
    """
    try:
        payload: bytes = response.read()
    except HTTPError as error:
        raise ClusterUnavailable(f"the API server does not answer: {error}") from error
    return payload


def connect(context: str | None = None) -> Cluster:
    """Connect as a service account inside a cluster, else by the kubeconfig."""
    client = ApiClient()
    if context is None:
        try:
            config.load_incluster_config(client_configuration=client.configuration)
        except config.ConfigException:
            config.load_kube_config(client_configuration=client.configuration)
    else:
        config.load_kube_config(context=context, client_configuration=client.configuration)
    return Cluster(ApiClient(client.configuration))


_CORE = ("api", "v1", "namespaces")
_BATCH = ("apis", "batch", "v1", "namespaces")
_STUDIES = ("apis", GROUP, VERSION, "namespaces")


def _path(*parts: str) -> str:
    """A path of the API, whatever letters are in its parts."""
    if bad := [part for part in parts if part in {"", ".", ".."}]:
        raise Refused(f"{bad[0]!r} is no name of an object")
    return "".join(f"/{quote(part, safe='')}" for part in parts)


def _key(document: Document) -> StudyKey:
    metadata = document.get("metadata") or {}
    return StudyKey(str(metadata.get("namespace")), str(metadata.get("name")))


def _without_template(item: Document) -> Document:
    """A Job or a pod without what it runs: hundreds of them may have a tenant's large pod template each."""
    spec = item.get("spec") or {}
    return item | {"spec": {"suspend": spec.get("suspend")}} if spec else item


def _differs(wanted: Document, stored: Document) -> bool:
    return {name: base64.b64encode(value.encode()).decode() for name, value in wanted.items()} != stored


def _message(payload: bytes) -> str:
    try:
        return str(answers.read(payload).get("message", ""))
    except (ValueError, AttributeError):
        return payload[:300].decode(errors="replace")


def error_of(status: int, payload: bytes) -> ClusterUnavailable | Conflict | Refused:
    """What an answer that is none means."""
    message = _message(payload)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _TRY_AGAIN:
        return ClusterUnavailable(f"the API server answers {status}: {message}")
    if status == HTTPStatus.CONFLICT:
        return Conflict(message)
    return Missing(message) if status == HTTPStatus.NOT_FOUND else Refused(message)
