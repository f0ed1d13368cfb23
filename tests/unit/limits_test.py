"""How large a document may be, before anything that calls itself reads it."""

from typing import Any

import pytest
from tests.support.builders import a_manifest

from tuning_api import limits, manifest


def nested(levels: int, kind: type = dict) -> Any:
    """Mappings or lists within one another."""
    value: Any = 1
    for _ in range(levels):
        value = [value] if kind is list else {"a": value}
    return value


@pytest.mark.parametrize("kind", [dict, list])
def test_the_levels_of_a_document_are_limited(kind: type) -> None:
    """The last level that is allowed, and the first that is not; what nests 9,900 deep is answered as well."""
    assert limits.fault_of(nested(limits.DEEPEST, kind), path="x") is None
    for levels in (limits.DEEPEST + 1, 9_900):
        assert "nests more than 100 levels deep" in str(limits.fault_of(nested(levels, kind), path="x"))


def test_the_values_of_a_document_are_limited() -> None:
    """Each counts as often as it is pointed to, as it would be written; a circle has an end, too."""
    assert limits.fault_of([1] * (limits.MOST_VALUES - 1), path="x") is None
    assert "x has more than 100,000 values" in str(limits.fault_of([1] * limits.MOST_VALUES, path="x"))
    doubled: Any = [1, 1]
    for _ in range(60):
        doubled = [doubled, doubled]
    assert "more than 100,000 values" in str(limits.fault_of(doubled, path="x"))
    circle: list[Any] = []
    circle += [circle] * 10
    assert limits.fault_of(circle, path="x")


@pytest.mark.parametrize("levels", [101, 1_200, 9_900])
@pytest.mark.parametrize("field", ["podTemplate", "lightning"])
def test_a_spec_that_nests_too_deep_is_refused_with_its_field(field: str, levels: int) -> None:
    """The API server stores free-form fields of 10,000 levels; pydantic gives up at 255, json at 1,000."""
    trial = {"objective": "m:o", "gpus": 0, field: {"a": nested(levels)}}
    spec, fault = manifest.read_spec(a_manifest(trial=trial))
    assert spec is None
    assert str(fault).startswith(f"spec.trial.{field} nests more than 100 levels deep")


@pytest.mark.parametrize("spec", [[nested(5_000)], {"enqueue": [{"x": nested(5_000)}]}, {"x" * 10_000: nested(5_000)}])
def test_any_field_of_a_spec_may_nest_too_deep(spec: Any) -> None:
    """Also those of the wrong kind, or with names that are no names; the sentence stays short."""
    fault = manifest.read_spec({"spec": spec})[1]
    assert "nests more than 100 levels deep" in str(fault)
    assert len(str(fault)) < 300
