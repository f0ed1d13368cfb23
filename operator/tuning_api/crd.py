"""The CustomResourceDefinition, generated from the models: `python -m tuning_api.crd` prints it.

Pydantic speaks JSON schema, the API server a structural subset of it (KEP-1027 and the Kubernetes documentation on
structural schemas): no references, no `anyOf` over types, no titles. Everything else the models already say in
Kubernetes' own words.
"""

import sys
from typing import Any

import yaml

from tuning_api.schema import rule
from tuning_api.spec import GROUP, KIND, PLURAL, VERSION, StudySpec
from tuning_api.status import StudyStatus

Document = dict[str, Any]

NAME_RULE = rule(
    "size(self.metadata.name) <= 63",
    "metadata.name must have at most 63 characters: it becomes a label of the workers",
)
COLUMNS = (
    ("Phase", "string", ".status.phase", 0),
    ("Trials", "string", ".status.progress", 0),
    ("Running", "integer", ".status.trials.running", 0),
    ("Pruned", "integer", ".status.trials.pruned", 0),
    ("Failed", "integer", ".status.trials.failed", 0),
    ("Best", "string", ".status.bestDisplay", 0),
    ("Age", "date", ".metadata.creationTimestamp", 0),
    ("Workers", "integer", ".status.workers", 1),
    ("Message", "string", ".status.message", 1),
)
_ANY_SCALAR = {"x-kubernetes-preserve-unknown-fields": True, "nullable": True}
"""NB: without `nullable` null is stored all the same, and then every update, the status' too, is refused by the CEL rules."""
_DROPPED = frozenset({"title", "additionalProperties", "$defs"})


def crd() -> Document:
    """The whole CustomResourceDefinition."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["ts", "study"],
                "categories": ["tuning"],
            },
            "versions": [_version()],
        },
    }


def _version() -> Document:
    return {
        "name": VERSION,
        "served": True,
        "storage": True,
        "schema": {
            "openAPIV3Schema": {
                "description": "A hyperparameter study of a PyTorch Lightning model.",
                "type": "object",
                "required": ["spec"],
                "properties": {
                    "apiVersion": {"type": "string"},
                    "kind": {"type": "string"},
                    "metadata": {"type": "object"},
                    "spec": structural(StudySpec.model_json_schema(by_alias=True)),
                    "status": _without_defaults(structural(StudyStatus.model_json_schema(by_alias=True))),
                },
                "x-kubernetes-validations": [NAME_RULE],
            }
        },
        "subresources": {
            "status": {},
            "scale": {
                "specReplicasPath": ".spec.parallelism",
                "statusReplicasPath": ".status.workers",
                "labelSelectorPath": ".status.selector",
            },
        },
        "additionalPrinterColumns": [
            {"name": name, "type": type_, "jsonPath": path} | ({"priority": priority} if priority else {})
            for name, type_, path, priority in COLUMNS
        ],
        "selectableFields": [{"jsonPath": ".status.phase"}],
    }


def structural(schema: Document) -> Document:
    """A JSON schema of pydantic's as a structural schema."""
    return _translate(schema, definitions=schema.get("$defs", {}))


def _translate(schema: Document, *, definitions: Document) -> Document:
    if reference := schema.get("$ref"):
        target = definitions[reference.removeprefix("#/$defs/")]
        return _translate(
            target | {key: value for key, value in schema.items() if key != "$ref"}, definitions=definitions
        )
    if alternatives := schema.get("anyOf"):
        return _translate(_unwrap_optional(schema, alternatives), definitions=definitions)
    translated = {key: value for key, value in schema.items() if key not in _DROPPED}
    if "default" in translated and translated["default"] is None:
        del translated["default"]
    if "const" in translated:
        translated["enum"] = [translated.pop("const")]
    if properties := schema.get("properties"):
        translated["properties"] = {
            name: _translate(item, definitions=definitions) for name, item in properties.items()
        }
    elif isinstance(values := schema.get("additionalProperties"), dict):
        translated["additionalProperties"] = _translate(values, definitions=definitions)
    if (items := schema.get("items")) is not None:
        translated["items"] = _translate(items, definitions=definitions) or _ANY_SCALAR
    _be_exact_about_numbers(translated)
    return translated


def _unwrap_optional(schema: Document, alternatives: list[Document]) -> Document:
    """`X | None` is an optional X: the API server knows absence, not null."""
    present = [item for item in alternatives if item.get("type") != "null"]
    if len(present) != 1:
        msg = f"a structural schema has one type, not {present}"
        raise ValueError(msg)
    return present[0] | {key: value for key, value in schema.items() if key != "anyOf"}


def _be_exact_about_numbers(schema: Document) -> None:
    """Kubernetes reads JSON schema as OpenAPI v3.0: exclusive bounds are flags, and integers have a width."""
    if schema.get("type") == "integer":
        schema["format"] = "int64"
    for bound, flag in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if flag in schema:
            schema[bound], schema[flag] = schema[flag], True


def _without_defaults(schema: Document) -> Document:
    """The status is what the operator wrote; the API server must not add to it."""
    return {
        key: _without_defaults(value) if isinstance(value, dict) else value
        for key, value in schema.items()
        if key != "default"
    }


def to_yaml(document: Document) -> str:
    """YAML that diffs well: in our order, without anchors or folded lines."""

    class Plain(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
            return True

    return yaml.dump(document, Dumper=Plain, sort_keys=False, width=120, allow_unicode=True)


if __name__ == "__main__":
    sys.stdout.write(to_yaml(crd()))
