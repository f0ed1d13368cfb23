"""A cluster as a person sees it: the calls that the commands make, with the rights of the person's kubeconfig.

It shares the operator's transport (`tuning_operator.cluster`) and none of its calls, whose list is the operator's RBAC.
"""

import codecs
import json
import os
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

from kubernetes import config
from kubernetes.client import ApiClient
from kubernetes.client.rest import RESTResponse
from kubernetes.config import ConfigException
from urllib3.exceptions import HTTPError

from tuning_api import manifest, naming
from tuning_api.schema import Document
from tuning_api.spec import GROUP, PLURAL, VERSION
from tuning_operator import cluster
from tuning_operator.errors import ClusterUnavailable
from tuning_operator.local.errors import BadInputError
from tuning_operator.remote.links import Service
from tuning_operator.remote.where import Where

FIELD_MANAGER = "tuningstudy"
USER_AGENT = "tuningstudy"
APPLY = "application/apply-patch+yaml"
PAGE_SECONDS = 60.0
"""A report with many charts is drawn for half a minute."""
_OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class Gateway:
    """A connection to an API server, for the studies of one namespace.

    Raises (all methods):
        ClusterUnavailable: the API server does not answer.
        Refused: it refuses, with its own sentence; Missing when there is no such object.
    """

    def __init__(self, client: ApiClient, *, namespace: str) -> None:
        self._client = client
        self._client.user_agent = USER_AGENT
        self.namespace = namespace

    def study(self, name: str) -> Document:
        """A TuningStudy."""
        return self._get(f"{self._studies}/{name}")

    def apply_study(self, document: Document, *, force: bool, dry_run: bool = False) -> Document:
        """Apply a TuningStudy on the server; what is stored then, or with `dry_run` would be.

        Raises:
            Conflict: somebody else has set a field to another value.
        """
        return self._apply(f"{self._studies}/{manifest.name_of(document)}", document, force=force, dry_run=dry_run)

    def apply_config_map(self, document: Document) -> None:
        """Apply a ConfigMap on the server."""
        path = f"/api/v1/namespaces/{self.namespace}/configmaps/{document['metadata']['name']}"
        self._apply(path, document, force=True)

    def workers(self, *, uid: str) -> list[Document]:
        """The pods of a study's workers that still exist, the oldest first."""
        path = f"/api/v1/namespaces/{self.namespace}/pods"
        pods = self._get(path, labelSelector=naming.worker_selector(uid=uid))["items"]
        return sorted(pods, key=lambda pod: (pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]))

    def log(self, pod: str, *, follow: bool) -> Iterator[str]:
        """The lines of a worker, without their ends; with `follow` until it ends."""
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}/log"
        query = {"container": naming.CONTAINER} | ({"follow": "true"} if follow else {})
        response = cluster.begin(
            self._client, "GET", path, query=query, headers={"Accept": "*/*"}, seconds=(cluster.REQUEST_SECONDS, None)
        )
        if response.status >= HTTPStatus.BAD_REQUEST:
            raise cluster.error_of(response.status, cluster.read(response))
        yield from _lines(response)

    def services(self, namespace: str, *, selector: str) -> list[Document]:
        """Services of a namespace by label."""
        items: list[Document] = self._get(f"/api/v1/namespaces/{namespace}/services", labelSelector=selector)["items"]
        return items

    def fetch(self, service: Service, path: str, *, headers: Mapping[str, str]) -> RESTResponse:
        """What a Service answers, whatever that is, by the API server's proxy."""
        response = cluster.begin(self._client, "GET", service.proxy_path + path, headers=headers, seconds=PAGE_SECONDS)
        cluster.read(response)
        return response

    @property
    def _studies(self) -> str:
        return f"/apis/{GROUP}/{VERSION}/namespaces/{self.namespace}/{PLURAL}"

    def _get(self, path: str, **query: str) -> Document:
        found: Document = json.loads(cluster.send(self._client, "GET", path, query=query))
        return found

    def _apply(self, path: str, document: Document, *, force: bool, dry_run: bool = False) -> Document:
        query = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict", "force": str(force).lower()}
        if dry_run:
            query["dryRun"] = "All"
        answer = cluster.send(self._client, "PATCH", path, body=document, query=query, content_type=APPLY)
        stored: Document = json.loads(answer)
        return stored


def connect(where: Where, *, namespace: str | None = None) -> Gateway:
    """Connect by the kubeconfig; in a pod without one, as its service account.

    Args:
        where: What the person said.
        namespace: The manifest's, which comes after the person's and before the kubeconfig's.

    Raises:
        BadInputError: there is no cluster to connect to.
    """
    configuration = ApiClient().configuration
    own = where.namespace or namespace
    file = str(where.kubeconfig) if where.kubeconfig else os.environ.get("KUBECONFIG")
    try:
        if _is_in_a_pod(where):
            config.load_incluster_config(client_configuration=configuration)
            return Gateway(ApiClient(configuration), namespace=own or _OWN_NAMESPACE.read_text().strip())
        config.load_kube_config(file, context=where.context, client_configuration=configuration)
    except (ConfigException, OSError) as error:
        named = file or "~/.kube/config"
        raise BadInputError(
            f"no cluster: {named}: {str(error).rstrip('.')}; choose with --kubeconfig and --context"
        ) from error
    return Gateway(ApiClient(configuration), namespace=own or _namespace_of_the_context(file, where.context))


def _is_in_a_pod(where: Where) -> bool:
    has_kubeconfig = where.kubeconfig or os.environ.get("KUBECONFIG") or Path("~/.kube/config").expanduser().exists()
    return not has_kubeconfig and not where.context and _OWN_NAMESPACE.exists()


def _namespace_of_the_context(file: str | None, name: str | None) -> str:
    contexts, active = config.list_kube_config_contexts(file)
    found: dict[str, Any] = next((item for item in contexts if item["name"] == name), active or {})
    return str(found.get("context", {}).get("namespace") or manifest.DEFAULT_NAMESPACE)


def _lines(response: RESTResponse) -> Iterator[str]:
    decoder, rest = codecs.getincrementaldecoder("utf-8")(errors="replace"), ""
    try:
        for piece in response.response.stream(amt=None, decode_content=True):
            *whole, rest = (rest + decoder.decode(piece)).split("\n")
            yield from whole
    except HTTPError as error:
        raise ClusterUnavailable(f"the log broke off: {error}") from error
    finally:
        response.response.close()
    if rest:
        yield rest
