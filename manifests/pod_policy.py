"""The rules of restricted podTemplates as an admission policy for the Jobs that the operator's account makes.

The decision in tuning_operator.decide.pod_templates judges what a study asks for; this judges what comes of it, with what
the operator sets itself and the API server adds by default. Both are the same rules, here written as CEL.

NB: the API server gives CEL its own types only to check expressions; while they run, an object is a plain mapping, so what
is wrapped in dyn() can be asked for its keys, and fields that are not known here are refused.
"""

import json
from collections.abc import Iterator

from tuning_api import naming
from tuning_operator.decide import pod_templates
from tuning_operator.decide.pod_templates import Each, Fields, Leaf, Only, Rule

_NAME = "pods"
_JOBS_OWN_LABELS = (
    "batch.kubernetes.io/controller-uid",
    "batch.kubernetes.io/job-name",
)
_OUR_LABELS = (naming.LABEL_MANAGED_BY, naming.LABEL_STUDY, naming.LABEL_STUDY_UID, *_JOBS_OWN_LABELS)

_CONTAINER = Fields(
    {
        **pod_templates.CONTAINER,
        "image": Leaf.ANYTHING,
        "command": Only((["python", "-m", "tuning_trial"],)),
        "securityContext": Fields(
            pod_templates.CONTAINER_SECURITY,
            needs=("allowPrivilegeEscalation", "readOnlyRootFilesystem", "capabilities"),
        ),
        # By default.
        "terminationMessagePath": Leaf.ANYTHING,
        "terminationMessagePolicy": Leaf.ANYTHING,
    },
    needs=("name", "command", "securityContext"),
)
_POD = Fields(
    {
        **pod_templates.POD,
        "containers": Each(_CONTAINER),
        "securityContext": Fields(pod_templates.POD_SECURITY, needs=("runAsNonRoot", "seccompProfile")),
        "restartPolicy": Only(("Never",)),
        "automountServiceAccountToken": Only((False,)),
        "enableServiceLinks": Only((False,)),
        "terminationGracePeriodSeconds": Leaf.ANYTHING,
        # By default.
        "dnsPolicy": Only(("ClusterFirst",)),
    },
    needs=("containers", "securityContext", "automountServiceAccountToken"),
)
WORKER = Fields({"metadata": Fields(pod_templates.METADATA), "spec": _POD}, needs=("metadata", "spec"))
"""The pod template of a worker's Job as the API server has it."""

_TEMPLATE = """\
{{{{- if and (eq .Values.podTemplates "restricted") (include "tuningstudy.servesPolicies" .) }}}}
{{{{- $secrets := concat (list {worker_secret}) .Values.podTemplateSecrets }}}}
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {{{{- include "tuningstudy.policyMetadata" (list . "{name}") | nindent 2 }}}}
spec:
  failurePolicy: Fail
  matchConstraints:
    resourceRules:
      - {{apiGroups: [batch], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [jobs]}}
  matchConditions: {{{{- include "tuningstudy.isTheOperator" . | nindent 4 }}}}
  variables:
    - name: readable
      expression: {{{{ $secrets | toJson | quote }}}}
    - name: pullable
      expression: {{{{ concat $secrets .Values.imagePullSecrets | toJson | quote }}}}
    - {{name: template, expression: "dyn(object.spec.template)"}}
    - {{name: pod, expression: "variables.template.spec"}}
    - {{name: container, expression: "variables.pod.containers[0]"}}
  validations:
{validations}---
{{{{ include "tuningstudy.policyBinding" (list . "{name}") }}}}
{{{{- end }}}}
"""


def chart_template() -> str:
    """The chart's template of the policy and its binding."""
    worker_secret = json.dumps(naming.WORKER_SECRET)
    return _TEMPLATE.format(name=_NAME, worker_secret=worker_secret, validations="".join(_validations()))


def _validations() -> Iterator[str]:
    """One for each field of the pod and of its container, so that a refusal names it."""
    yield from _each_field("spec.template", "variables.template", WORKER, besides=("spec",))
    yield from _each_field("spec.template.spec", "variables.pod", _POD, besides=("containers",))
    yield _validation("spec.template.spec.containers", ["variables.pod.containers.size() == 1"])
    yield from _each_field("spec.template.spec.containers[0]", "variables.container", _CONTAINER)


def _each_field(field: str, at: str, rule: Fields, *, besides: tuple[str, ...] = ()) -> Iterator[str]:
    yield _validation(field, [*_own(at, rule)])
    for name, inner in rule.by_name.items():
        conditions = [*_conditions(f"{at}.{name}", inner, 1)]
        if conditions and name not in besides:
            absent = f"!has({at}.{name}) || " if name not in rule.needs else ""
            yield _validation(f"{field}.{name}", [f"{absent}({conditions[0]}", *conditions[1:]], end=")")


def _validation(field: str, conditions: list[str], *, end: str = "") -> str:
    expression = "\n        && ".join(conditions) + end
    message = f"{field} of the Job is not a worker's where podTemplates are restricted"
    return f"    - expression: >-\n        {expression}\n      message: {json.dumps(message)}\n"


def _conditions(at: str, rule: Rule, depth: int) -> Iterator[str]:
    """What must hold of the value at a place; nothing if it may be anything."""
    match rule:
        case Leaf.ANYTHING:
            return
        case Leaf.OWN_KEYS:
            ours = json.dumps(list(_OUR_LABELS)) if at == "variables.template.metadata.labels" else "[]"
            yield f"{at}.all(k{depth}, !k{depth}.contains('/') || k{depth} in {ours})"
        case Leaf.NOT_ROOT:
            yield f"{at} > 0"
        case Leaf.SECRET:
            yield f"{at} in variables.readable"
        case Leaf.PULL_SECRET:
            yield f"{at} in variables.pullable"
        case Only(values):
            yield f"{at} in {json.dumps(list(values))}"
        case Each(inner):
            item = f"item{depth}"
            if conditions := [*_conditions(item, inner, depth + 1)]:
                yield f"{at}.all({item}, {' && '.join(conditions)})"
        case Fields():
            yield from _own(at, rule, depth)
            yield from _inner(at, rule, depth)


def _own(at: str, rule: Fields, depth: int = 0) -> Iterator[str]:
    """That a mapping has the fields that it may and must have."""
    yield f"{at}.all(k{depth}, k{depth} in {json.dumps(list(rule.by_name))})"
    yield from (f"has({at}.{name})" for name in rule.needs)


def _inner(at: str, rule: Fields, depth: int) -> Iterator[str]:
    """That each field that a mapping has is as it may be."""
    for name, inner in rule.by_name.items():
        condition = " && ".join(_conditions(f"{at}.{name}", inner, depth + 1))
        if condition:
            yield condition if name in rule.needs else f"(!has({at}.{name}) || ({condition}))"
