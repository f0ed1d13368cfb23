"""Generated manifests against a real API server, a real operator and a real Postgres.

`pytest --hypothesis-profile=many tests/component/fuzzing_test.py` tries thousands.
"""

import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from cluster.control_plane import ControlPlane
from cluster.kubectl import Kubectl
from hypothesis import HealthCheck, Phase, given, settings
from kubernetes import config
from kubernetes.client import ApiClient
from tests.support import audit
from tests.support.builders import a_manifest
from tests.support.operator_process import SYSTEM_NAMESPACE, OperatorProcess
from tests.support.strategies import good_specs, specs
from tests.support.wait import wait_until

from tuning_api import documents, manifest
from tuning_api.spec import GROUP, PLURAL, VERSION
from tuning_api.status import ConditionType, Reason
from tuning_operator.cluster import send
from tuning_operator.errors import Refused

Document = dict[str, Any]

_MANY = settings.default.max_examples if settings.default else 0
EXAMPLES = max(300, _MANY)
STUDIES = max(60, _MANY // 10)
OPERATOR = f"system:serviceaccount:{SYSTEM_NAMESPACE}:tuningstudy-operator"

KNOWN_TO_THE_MODELS_ALONE = {
    "choices are free for a schema": r"choices must (be (strings, numbers, booleans or null|within 64 bits)|differ)",
    "conditions in a circle": r"the conditions of .* go round in a circle",
    "a condition that is never met": r"when\.in has .*, and .* has",
    "a point outside the space": r"enqueue\[\d+\] (is empty|names|gives)",
    "a placeholder without a parameter": r"trial\.lightning uses \$\{.*\}, and searchSpace has no such parameter",
    "a parameter without a placeholder": r"searchSpace has .*, and nothing uses it",
    "a pod template that cannot be merged": r"trial\.podTemplate must be a PodTemplateSpec",
    "too many points": r"tries every point, at most 5,000, and searchSpace has",
    "nothing for cmaes to learn": r"sampler cmaes draws categorical parameters at random",
    "nothing whose rate could adapt": r"sampler\.lrAdapt needs a float without step",
}
"""The exceptions, which docs/security.md lists: what no schema and no CEL rule can say, and what then is InvalidSpec."""


@pytest.fixture(scope="module")
def client(control_plane: ControlPlane) -> Iterator[ApiClient]:
    """An administrator's connection, which stays open: a request takes milliseconds."""
    configuration = ApiClient().configuration
    config.load_kube_config(config_file=str(control_plane.kubeconfig), client_configuration=configuration)
    with ApiClient(configuration) as client:
        yield client


def refusal(client: ApiClient, document: Document, **query: str) -> str | None:
    """Why the API server refuses a manifest, as `kubectl apply` would show it, or None."""
    path = f"/apis/{GROUP}/{VERSION}/namespaces/{document['metadata']['namespace']}/{PLURAL}"
    try:
        send(client, "POST", path, body=document, query={"fieldValidation": "Strict"} | query)
    except Refused as error:
        return str(error)
    return None


@pytest.mark.timeout(3600)
def test_the_models_accept_what_the_api_server_accepts(client: ApiClient) -> None:
    """And the reverse, but for the exceptions above: a manifest means the same on a laptop."""
    seen = Counter[tuple[bool, bool]]()

    @settings(max_examples=EXAMPLES, database=None, suppress_health_check=list(HealthCheck))
    @given(specs())
    def agree(spec: Document) -> None:
        document = a_manifest(namespace="default") | {"spec": spec}
        theirs = refusal(client, document, dryRun="All")
        ours = manifest.read_spec(document)[1]
        seen[theirs is None, ours is None] += 1
        if ours is None:
            assert theirs is None
        elif theirs is None:
            unknown = [one for one in ours.split("; ") if not _is_known(one)]
            assert not unknown

    agree()
    assert min(seen[True, True], seen[False, False]) > EXAMPLES // 20, seen


def _is_known(fault: str) -> bool:
    return any(re.search(pattern, fault, re.DOTALL) for pattern in KNOWN_TO_THE_MODELS_ALONE.values())


@pytest.mark.timeout(3600)
def test_every_manifest_that_is_stored_ends_in_a_condition(
    client: ApiClient, control_plane: ControlPlane, kubectl: Kubectl, namespace: str, operator: OperatorProcess
) -> None:
    """No crash and no hot loop: a verdict for each, a handful of writes, and then silence."""
    begun, names = datetime.now(UTC), list[str]()

    @settings(max_examples=STUDIES, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(good_specs())
    def submit(spec: Document) -> None:
        document = a_manifest(name=f"fuzzed-{len(names)}", namespace=namespace)
        # Two pods for each would be as good as a thousand, and there is one API server.
        document["spec"] = documents._as_json(spec) | {"parallelism": min(spec.get("parallelism", 1), 1)}
        if refusal(client, document) is None:
            names.append(document["metadata"]["name"])

    submit()
    assert len(names) > STUDIES // 5
    items = wait_until(
        lambda: kubectl.items(PLURAL, "-n", namespace),
        lambda items: all(_has_a_verdict(item) for item in items),
        seconds=60 + 2 * len(names),
        what="a condition for each",
    )
    assert len(items) == len(names)
    reasons = Counter(_progressing(item)["reason"] for item in items)
    assert Reason.OPERATOR_ERROR not in reasons
    assert "Traceback" not in operator.log
    assert 'error="Bug"' not in operator.metrics()
    # As many status writes as a study has news: accepted, its worker started; and not one for each pass.
    written = audit.writes(control_plane.audit_log, user=OPERATOR, namespace=namespace, since=begun)
    assert written[f"update {PLURAL}/status"] <= 4 * len(names), written


def _has_a_verdict(item: Document) -> bool:
    conditions = item.get("status", {}).get("conditions", [])
    known = {
        condition["type"]
        for condition in conditions
        if condition["observedGeneration"] == item["metadata"]["generation"]
    }
    return known == set(ConditionType)


def _progressing(item: Document) -> Document:
    found: Document = next(item for item in item["status"]["conditions"] if item["type"] == ConditionType.PROGRESSING)
    return found
