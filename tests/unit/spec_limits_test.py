"""Specs that are made to be hard: each is answered at once, in words, and never with a traceback."""

import json
from typing import Any

import pytest
from tests.support.builders import a_manifest
from tests.support.wait import within

from tuning_api import manifest, space
from tuning_api.search import MAX_LEVELS, MAX_POINTS, Parameter
from tuning_operator.executors.kubernetes import read_study

EIGHT = [f"c{number}" for number in range(8)]


def in_a_row(levels: int, choices: list[Any] | None = None) -> list[dict[str, Any]]:
    """Parameters, each of which has a condition on the one before it."""
    choices = choices or EIGHT
    first: dict[str, Any] = {"name": "p0", "type": "categorical", "choices": choices}
    return [first] + [
        {"name": f"p{level}", "type": "categorical", "choices": choices}
        | {"when": {"parameter": f"p{level - 1}", "in": choices}}
        for level in range(1, levels)
    ]


def fault_of(**changes: Any) -> str:
    """Why a spec is refused, as the operator reads it."""
    document = a_manifest(**({"trial": {"objective": "m:o"}} | changes))
    document["metadata"] |= {"uid": "u", "generation": 1}
    with within(5):
        study = read_study(json.loads(json.dumps(document)))
    assert study.spec is None
    return str(study.fault)


def test_a_space_of_conditions_in_a_row_is_counted_at_once() -> None:
    """Each parameter is counted once, not once for each value of all that are above it."""
    with within(5):
        parameters = [Parameter.model_validate(document) for document in in_a_row(12)]
        assert space.size(parameters) == 8**12
        assert [parameter.name for parameter in space.search_order(parameters[::-1])] == [f"p{i}" for i in range(12)]


def test_a_sampler_that_tries_all_of_it_says_how_much_that_is() -> None:
    """And so does the operator, which reads the spec in a thread that others wait for."""
    assert f"at most {MAX_POINTS:,}, and searchSpace has 68,719,476,736" in fault_of(
        searchSpace=in_a_row(12), sampler={"type": "bruteforce"}
    )


NUMBER = {"name": "x", "type": "float", "low": 0, "high": 1}
FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "more conditions in a row than anybody reads": (
        {"searchSpace": in_a_row(64)},
        f"conditions may look at each other over {MAX_LEVELS} levels at most",
    ),
    "a condition on a list": (
        {"searchSpace": [NUMBER, {**NUMBER, "name": "y", "when": {"parameter": "x", "in": [[1]]}}]},
        "when.in must have strings, numbers, booleans or null, and [1] is none of them",
    ),
    "more points than Python writes": (
        {
            "searchSpace": [
                {"name": f"x{number}", "type": "int", "low": -(2**52), "high": 2**52} for number in range(64)
            ],
            "sampler": {"type": "grid"},
        },
        "searchSpace has more than 1,000,000,000,000,000",
    ),
    "steps that decimals cannot count": (
        {"searchSpace": [NUMBER | {"low": 1e-300, "high": 1e300, "step": 1e-300}]},
        "in steps of 1e-300 are more than 2^54 values: take a larger step",
    ),
    "a range that is infinite": (
        {"searchSpace": [NUMBER | {"low": -1.7e308, "high": 1.7e308}], "sampler": {"type": "qmc"}},
        "is more than a float can say: narrow the bounds",
    ),
    "an int that is none": (
        {"searchSpace": [{"name": "x", "type": "int", "low": 1e300, "high": 1e300}], "sampler": {"type": "grid"}},
        "larger ones are not exact",
    ),
    "a point far away": (
        {"searchSpace": [NUMBER], "enqueue": [{"x": 10**400}]},
        "not among the values from 0 to 1",
    ),
    "choices that are books": (
        {"searchSpace": [{"name": "x", "type": "categorical", "choices": ["a" * 40_000, "b"]}]},
        "choices may have 32,768 bytes together",
    ),
    "a pod template of half a megabyte": (
        {"trial": {"objective": "m:o", "podTemplate": {"metadata": {"annotations": {"a": "x" * 500_000}}}}},
        "trial.podTemplate may have 262,144 bytes as JSON, and has 500,",
    ),
    "a configuration of half a megabyte": (
        {"trial": {"lightning": {"model": {"class_path": "a.B", "init_args": {"x": "x" * 500_000}}}}},
        "trial.lightning may have 262,144 bytes as JSON, and has 500,",
    ),
    "points of a hundred thousand bytes": (
        {"searchSpace": [], "enqueue": [{"x": "x" * 100_000}]},
        "enqueue may have 65,536 bytes as JSON, and has 100,",
    ),
    "containers that are a number": (
        {"trial": {"objective": "m:o", "podTemplate": {"spec": {"containers": 5}}}},
        "must be a PodTemplateSpec",
    ),
    "containers that are nothing": (
        {"trial": {"objective": "m:o", "podTemplate": {"spec": {"containers": None}}}},
        "must be a PodTemplateSpec",
    ),
    "a container whose name is a list": (
        {"trial": {"objective": "m:o", "podTemplate": {"spec": {"containers": [{"name": [1]}]}}}},
        "must be a PodTemplateSpec",
    ),
}


@pytest.mark.parametrize(("changes", "words"), FAULTS.values(), ids=FAULTS)
def test_what_nobody_can_search_is_refused_in_words(changes: dict[str, Any], words: str) -> None:
    """A pass that raises writes no status, and its study's owner would never know why."""
    assert words in fault_of(**changes)


def wide(**root: Any) -> list[dict[str, Any]]:
    """As many conditions as fit, each with as many values as fit, all on one parameter."""
    return [{"name": "root"} | root] + [
        {"name": f"p{number}", "type": "int", "low": 0, "high": 9}
        | {"when": {"parameter": "root", "in": [number * 256 + value for value in range(256)]}}
        for number in range(63)
    ]


@pytest.mark.parametrize(
    "root",
    [{"type": "int", "low": 0, "high": 20_000}, {"type": "categorical", "choices": list(range(256))}],
    ids=["a number", "choices"],
)
def test_many_conditions_on_one_parameter_are_counted_at_once(root: dict[str, Any]) -> None:
    """Each value is looked up, not compared with all others."""
    document = a_manifest(searchSpace=wide(**root), sampler={"type": "bruteforce"}, trial={"objective": "m:o"})
    with within(5):
        spec, fault = manifest.read_spec(document)
    assert (spec, bool(fault)) == (None, True)
