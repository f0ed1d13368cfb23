"""Manifests for property tests: specs as the schema allows them, good ones, and good ones that somebody has broken.

They are made of the CRD itself, so that a new field is tried from the day on which it exists.
"""

import copy
import json
import re
from collections.abc import Callable
from typing import Any

import yaml
from hypothesis import strategies as st
from tests.support import spaces
from tests.support.builders import DIGITS_TRIAL, a_spec_document

from tuning_api import documents
from tuning_api.crd import structural
from tuning_api.schema import Document
from tuning_api.spec import StudySpec

SPEC: Document = structural(StudySpec.model_json_schema(by_alias=True))
_FIELDS: Document = SPEC["properties"]

_TEXTS = st.one_of(
    st.sampled_from(
        ["", "x", "1", "1h", "true", "${x}", "${", "<img src=x onerror=alert(1)>", "'\"`", "a\nb", "-1", "ü" * 300]
    ),
    st.text(max_size=20),
)
_NUMBERS = st.one_of(
    st.sampled_from([0, 1, -1, 2, 0.5, 2**31, 2**53 + 1, 1e308, -1e308, 5e-324, 1e-12]),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
)
_SCALARS = st.one_of(_TEXTS, _NUMBERS, st.booleans())
_WITH_NULL = _SCALARS | st.none()
_ANYTHING = st.recursive(
    _WITH_NULL,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abcde${}.<\"'", max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)
"""JSON of any kind."""


def fragments(schema: Document) -> st.SearchStrategy[Any]:  # noqa: PLR0911 - one line a type
    """Values that a structural schema allows, were there no rules that hold fields together."""
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return (
            st.dictionaries(st.text("abc", min_size=1, max_size=3), _ANYTHING, max_size=3)
            if "type" in schema
            else _WITH_NULL
        )
    if options := schema.get("enum"):
        return st.sampled_from(options)
    match schema["type"]:
        case "object":
            properties = schema.get("properties", {})
            required = set(schema.get("required", ()))
            return st.fixed_dictionaries(
                {name: fragments(item) for name, item in properties.items() if name in required},
                optional={name: fragments(item) for name, item in properties.items() if name not in required},
            )
        case "array":
            most = min(schema.get("maxItems", 3), 3)
            return st.lists(fragments(schema["items"]), min_size=schema.get("minItems", 0), max_size=most)
        case "boolean":
            return st.booleans()
        case "string":
            return _strings(schema)
        case _:
            return _numbers(schema)


def _strings(schema: Document) -> st.SearchStrategy[str]:
    if pattern := schema.get("pattern"):
        # NB: Python's `$` also fits before a last newline, Go's does not.
        texts: st.SearchStrategy[str] = st.from_regex(re.compile(pattern), fullmatch=True).filter(
            lambda text: not text.endswith("\n")
        )
        return texts.map(lambda text: text[: schema.get("maxLength", 64)])
    return st.text(min_size=schema.get("minLength", 0), max_size=min(schema.get("maxLength", 12), 12))


def _numbers(schema: Document) -> st.SearchStrategy[float]:
    low, high = schema.get("minimum"), schema.get("maximum")
    if schema["type"] == "integer":
        return st.integers(low if low is not None else -5, high if high is not None else (low or 0) + 9)
    within = st.floats(
        low, high, exclude_min=bool(schema.get("exclusiveMinimum")), exclude_max=bool(schema.get("exclusiveMaximum"))
    )
    return st.floats(allow_nan=False, allow_infinity=False) | st.integers(-3, 3) if low is None else within


@st.composite
def good_specs(draw: st.DrawFn) -> Document:
    """Specs with a search space of any kind, all of which is used, and options of samplers and pruners that may fit."""
    space = [
        item.to_document() for item in draw(st.one_of(spaces.flat_spaces(), spaces.conditional_spaces(endless=True)))
    ]
    arguments = {item["name"]: f"${{{item['name']}}}" for item in space}
    model = {"class_path": "package.Model", "init_args": arguments}
    document = a_spec_document(searchSpace=space, trial=DIGITS_TRIAL | {"lightning": {"model": model}})
    for name in draw(st.sets(st.sampled_from(sorted(_FIELDS.keys() - {"searchSpace", "trial"})), max_size=3)):
        document[name] = draw(fragments(_FIELDS[name]))
    options = sorted(_FIELDS["trial"]["properties"].keys() - {"lightning", "objective", "podTemplate"})
    for name in draw(st.sets(st.sampled_from(options), max_size=2)):
        document["trial"] = document["trial"] | {name: draw(fragments(_FIELDS["trial"]["properties"][name]))}
    return document


@st.composite
def broken_specs(draw: st.DrawFn) -> Document:
    """Specs in which up to three things were replaced, removed or added, anywhere."""
    document = copy.deepcopy(draw(good_specs()))
    for _ in range(draw(st.integers(1, 3))):
        _break(draw, document)
    return document


def _break(draw: st.DrawFn, document: Document) -> None:
    places = [*_places(document)]
    parent, key = draw(st.sampled_from(places))
    match draw(st.sampled_from(["replace", "rewrite", "remove", "add"])):
        case "replace":
            parent[key] = draw(_ANYTHING)
        case "rewrite":  # the same, as another type
            parent[key] = draw(st.sampled_from(_REWRITES))(parent[key])
        case "remove":
            del parent[key]
        case "add" if isinstance(parent, dict):
            parent[draw(st.text("abcXY", min_size=1, max_size=5))] = draw(_ANYTHING)
        case _:
            parent.append(draw(st.sampled_from(parent) | _ANYTHING))


def _as_text(value: Any) -> Any:
    """As somebody quotes it by mistake; and a text as the number or boolean that it looks like."""
    return yaml.safe_load(value) if isinstance(value, str) and value.isalnum() else json.dumps(value)


def _doubled(value: Any) -> Any:
    """A number as a whole float, a list or a text twice."""
    return value * 2.0 if isinstance(value, int | float) else value * 2 if isinstance(value, list | str) else value


_REWRITES: tuple[Callable[[Any], Any], ...] = (_as_text, bool, _doubled)


def _places(node: Any) -> Any:
    """Every place of a document: its container and the key in it."""
    keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
    for key in keys:
        yield node, key
        yield from _places(node[key])


def specs() -> st.SearchStrategy[Document]:
    """Specs of every kind, valid and not: about a fifth of them are."""
    # NB: as kubectl sends them: a whole float as an integer, which the scale subresource insists on.
    return st.one_of(good_specs(), broken_specs(), fragments(SPEC)).map(documents._as_json)
