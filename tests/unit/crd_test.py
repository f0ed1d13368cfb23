"""The CRD as the API server needs it: structural, bounded, described. Whether it compiles there, component tests show."""

from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.builders import a_spec_document

from tuning_api.crd import COLUMNS, crd
from tuning_api.spec import StudySpec
from tuning_api.status import StudyStatus

Document = dict[str, Any]
SCHEMA: Document = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
SPEC, STATUS = SCHEMA["properties"]["spec"], SCHEMA["properties"]["status"]


def nodes(schema: Document, path: str) -> Iterator[tuple[str, Document]]:
    """Every field of a schema with its path."""
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for name in ("items", "additionalProperties"):
        if isinstance(child := schema.get(name), dict):
            yield from nodes(child, f"{path}[]")


FIELDS = dict(nodes(SPEC, "spec"))


@pytest.mark.parametrize("word", ["$ref", "$defs", "anyOf", "title", "const"])
def test_nothing_is_left_that_a_structural_schema_may_not_hold(word: str) -> None:
    """KEP-1027: types are said once, without references and alternatives."""
    assert not [path for path, field in (FIELDS | dict(nodes(STATUS, "status"))).items() if word in field]


def test_every_field_of_the_spec_is_described() -> None:
    """`kubectl explain` is the reference that everyone has at hand."""
    assert not [path for path, field in FIELDS.items() if not field.get("description") and not path.endswith("[]")]


def test_every_list_and_text_of_the_spec_is_bounded() -> None:
    """Or the API server refuses the CEL rules over them for their estimated cost."""
    lists = [path for path, field in FIELDS.items() if field.get("type") == "array" and "maxItems" not in field]
    texts = [
        path
        for path, field in FIELDS.items()
        if field.get("type") == "string" and "maxLength" not in field and "enum" not in field
    ]
    assert (lists, texts) == ([], [])


def test_the_status_has_no_defaults() -> None:
    """The API server must not add to what the operator wrote."""
    assert not [path for path, field in nodes(STATUS, "status") if "default" in field]


def test_columns_show_fields_that_exist() -> None:
    """A column of a field that was renamed would be empty in silence."""
    known = dict(nodes(STATUS, ".status")) | {".metadata.creationTimestamp": {}}
    assert not [path for _, _, path, _ in COLUMNS if path not in known]


def test_defaults_of_the_schema_are_those_of_the_models() -> None:
    """What the API server fills in is what the models would have."""
    written = a_spec_document()
    document = StudySpec.model_validate(written).to_document()
    left_out = {name: field["default"] for name, field in SPEC["properties"].items() if "default" in field}
    left_out = {name: value for name, value in left_out.items() if name not in written}
    assert {name: document[name] for name in left_out if name in document} == {
        name: value for name, value in left_out.items() if name in document
    }
    assert {"maxFailedTrials", "suspend", "deletionPolicy"} <= left_out.keys() & document.keys()


def test_the_words_of_the_resource_are_those_of_the_models() -> None:
    """CamelCase outside, and not a field more or less."""
    assert set(SPEC["properties"]) == {field.alias for field in StudySpec.model_fields.values()}
    assert set(STATUS["properties"]) == {field.alias for field in StudyStatus.model_fields.values()}
