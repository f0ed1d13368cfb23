"""Whatever the controller can write as a status, a real API server stores, and nothing in it is lost.

`pytest --hypothesis-profile=many tests/component/status_schema_test.py` tries thousands.
"""

import json
from typing import Any

import pytest
from cluster.control_plane import ControlPlane
from cluster.kubectl import Kubectl
from hypothesis import HealthCheck, given, settings
from kubernetes import config
from kubernetes.client import ApiClient
from tests.support.builders import a_manifest
from tests.support.statuses import statuses

from tuning_operator.cluster import Cluster
from tuning_operator.model import StudyKey

Document = dict[str, Any]
EXAMPLES = max(300, settings.default.max_examples if settings.default else 0)


def as_doubles(document: Document) -> Any:
    """NB: the API server writes 2.0 as 2, and 5.259580992191078e+16 with zeros in the end: the same number as JSON has it."""
    return json.loads(json.dumps(document), parse_int=float)


@pytest.mark.timeout(3600)
def test_every_status_is_stored_as_it_was_written(
    control_plane: ControlPlane, kubectl: Kubectl, namespace: str
) -> None:
    """Through the operator's own gateway; no operator runs. A field that the schema lacks would be dropped in silence."""
    kubectl.apply(a_manifest(name="digits", namespace=namespace))
    configuration = ApiClient().configuration
    config.load_kube_config(config_file=str(control_plane.kubeconfig), client_configuration=configuration)
    cluster, key = Cluster(ApiClient(configuration)), StudyKey(namespace, "digits")

    @settings(max_examples=EXAMPLES, database=None, suppress_health_check=list(HealthCheck))
    @given(statuses())
    def is_stored(written: tuple[Document, Document]) -> None:
        for status in written:
            study = cluster.study(key)
            assert study is not None
            cluster.write_status(key, version=study["metadata"]["resourceVersion"], status=status)
            stored = cluster.study(key)
            assert stored is not None
            assert as_doubles(stored["status"]) == as_doubles(status)

    is_stored()
