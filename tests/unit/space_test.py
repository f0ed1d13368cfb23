"""The search space: how large it is, what lies in it, and which sampler can search it."""

from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.builders import a_spec
from tests.support.spaces import conditional_spaces, finite_spaces

from tuning_api import space
from tuning_api.search import MAX_POINTS, Parameter, Sampler, SamplerType

OPTIMIZER = {"name": "optimizer", "type": "categorical", "choices": ["sgd", "adam"]}
MOMENTUM = {"name": "momentum", "type": "float", "low": 0, "high": 0.9, "step": 0.3}
WHEN_SGD = {"when": {"parameter": "optimizer", "in": ["sgd"]}}
RATE = {"name": "rate", "type": "float", "low": 1e-4, "high": 1e-1, "log": True}
LAYERS = {"name": "layers", "type": "int", "low": 2, "high": 8, "step": 2}


def parameters(*documents: dict[str, Any]) -> list[Parameter]:
    return [Parameter.model_validate(document) for document in documents]


SPACE = parameters(MOMENTUM | WHEN_SGD, RATE, LAYERS, OPTIMIZER)


def enumerated(parameters: list[Parameter]) -> set[str]:
    """All points of a space, the slow way."""
    values = [space.candidates(parameter) or [] for parameter in parameters]
    found = set()
    for combination in product(*values):
        everything = dict(zip((parameter.name for parameter in parameters), combination, strict=True))
        point: dict[str, Any] = {}
        for parameter in space.search_order(parameters):
            if parameter.when is None or space.is_met(parameter.when, point):
                point[parameter.name] = everything[parameter.name]
        found.add(space.identity(point))
    return found


UNFIT: dict[str, tuple[dict[str, Any], str]] = {
    "a whole number that a double has not": ({"type": "int", "low": 0, "high": 2**53 + 1}, "larger ones are not exact"),
    "a negative one": ({"type": "int", "low": -(2**53), "high": 0}, "larger ones are not exact"),
    "true and 1": ({"type": "categorical", "choices": [True, 1]}, "true and 1 are one to Optuna"),
    "0 and false": ({"type": "categorical", "choices": ["a", 0, False]}, "0 and false are one to Optuna"),
    "1 and 1.0": ({"type": "categorical", "choices": [1, 1.0]}, "1 and 1.0 are one to Optuna"),
    "the same twice": ({"type": "categorical", "choices": ["a", "b", "a"]}, '"a" and "a" are alike'),
    "more than 64 bits": ({"type": "categorical", "choices": [2**63]}, "must be within 64 bits, and 922"),
}


@pytest.mark.parametrize(("fields", "words"), UNFIT.values(), ids=UNFIT)
def test_what_would_be_stored_as_something_else_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Parameter.model_validate({"name": "x"} | fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "int", "low": 1 - 2**53, "high": 2**53 - 1},
        {"type": "categorical", "choices": [True, "true", "1", None, 2**63 - 1, False]},
    ],
    ids=str,
)
def test_what_is_stored_as_it_is_may_be_searched(fields: dict[str, Any]) -> None:
    Parameter.model_validate({"name": "x"} | fields)


@given(parameters=st.one_of(finite_spaces(), conditional_spaces()))
def test_a_space_has_as_many_points_as_can_be_counted(parameters: list[Parameter]) -> None:
    """The size is computed without listing the points: a budget is asked for on every pass."""
    assert space.size(parameters) == len(enumerated(parameters))


@given(parameters=st.one_of(finite_spaces(), conditional_spaces()), data=st.data())
def test_a_point_of_a_space_lies_in_it(parameters: list[Parameter], data: st.DataObject) -> None:
    """And no longer when a parameter is missing, or one is added."""
    point: dict[str, Any] = {}
    for parameter in space.search_order(parameters):
        if parameter.when is None or space.is_met(parameter.when, point):
            point[parameter.name] = data.draw(st.sampled_from(space.candidates(parameter) or []))
    assert space.is_point(parameters, point)
    assert list(space.faults_of_point(parameters, point)) == []
    assert not space.is_point(parameters, point | {"another": 1})
    assert not space.is_point(parameters, dict(list(point.items())[1:]))


def test_a_float_without_step_has_no_end() -> None:
    """Unless it has one value."""
    assert space.size(SPACE) is None
    assert space.size(parameters({"name": "x", "type": "float", "low": 2, "high": 2})) == 1


def test_steps_are_counted_in_decimals() -> None:
    """In binary, 0.1 + 2 * 0.1 is beyond 0.3."""
    (parameter,) = parameters({"name": "x", "type": "float", "low": 0.1, "high": 0.3, "step": 0.1})
    assert space.candidates(parameter) == [0.1, 0.2, 0.3]
    assert all(space.fits(parameter, value) for value in (0.1, 0.2, 0.3))


def test_conditions_come_after_what_they_look_at() -> None:
    """And a circle is said."""
    assert [parameter.name for parameter in space.search_order(SPACE)] == ["rate", "layers", "optimizer", "momentum"]
    first = {"name": "a", "type": "int", "low": 0, "high": 1, "when": {"parameter": "b", "in": [1]}}
    second = {"name": "b", "type": "int", "low": 0, "high": 1, "when": {"parameter": "a", "in": [1]}}
    with pytest.raises(ValueError, match="the conditions of a, b go round in a circle"):
        space.search_order(parameters(first, second))


POINTS = {
    "an unknown name": ({"rat": 0.1}, "names rat, and searchSpace has no such parameter (it has momentum, rate,"),
    "too large": ({"rate": 0.5}, "gives rate the value 0.5, which is not among the values from 0.0001 to 0.1"),
    "between two steps": ({"layers": 3}, "which is not among the whole numbers from 2 to 8 in steps of 2"),
    "not a number": ({"layers": "four"}, "gives layers the value 'four'"),
    "a boolean for a number": ({"layers": True}, "gives layers the value True"),
    "no choice": ({"optimizer": "lion"}, "gives optimizer the value 'lion', which is none of its choices (sgd, adam)"),
    "an unmet condition": (
        {"optimizer": "adam", "momentum": 0.3},
        "gives momentum, which exists only with optimizer sgd: give that too, or remove momentum",
    ),
    "a condition left to chance": ({"momentum": 0.3}, "gives momentum, which exists only with optimizer sgd"),
    "nothing": ({}, "is empty: give at least one parameter, or remove it"),
}


@pytest.mark.parametrize(("point", "words"), POINTS.values(), ids=POINTS)
def test_a_point_that_cannot_be_tried_is_said(point: dict[str, Any], words: str) -> None:
    """At apply, not when the trial has failed."""
    assert words in next(space.faults_of_point(SPACE, point))


def test_whole_and_partial_points_are_welcome() -> None:
    """And get the types of their parameters, which YAML does not know."""
    for point in ({"rate": 0.01}, {"optimizer": "sgd", "momentum": 0.3}, {"layers": 4.0}):
        assert list(space.faults_of_point(SPACE, point)) == []
    typed = space.typed(SPACE, {"layers": 4.0, "rate": 1})
    assert [(value, type(value)) for value in typed.values()] == [(4, int), (1.0, float)]


def test_a_point_is_the_same_however_it_is_written() -> None:
    """But `true` is not 1."""
    assert space.identity({"a": 1, "b": "x"}) == space.identity({"b": "x", "a": 1.0})
    assert space.identity({"a": 1}) != space.identity({"a": True})


CANNOT_SEARCH = {
    "grid without an end": ("grid", {}, [RATE], "sampler grid tries every point, and rate has no end of values"),
    "bruteforce without an end": ("bruteforce", {}, [RATE], "give it a step, or use tpe"),
    "a grid that is too large": (
        "grid",
        {},
        [LAYERS | {"name": f"p{index}"} for index in range(8)],
        f"at most {MAX_POINTS:,}, and searchSpace has 65,536",
    ),
    "grid with conditions": (
        "grid",
        {},
        [OPTIMIZER, MOMENTUM | WHEN_SGD],
        "sampler grid knows no conditions, and momentum has one: use bruteforce, or remove `when`",
    ),
    "qmc with conditions": ("qmc", {}, [OPTIMIZER, MOMENTUM | WHEN_SGD], "use tpe or random, or remove `when`"),
    "cmaes with conditions": ("cmaes", {}, [OPTIMIZER, MOMENTUM | WHEN_SGD], "use tpe or random, or remove `when`"),
    "a learning rate of steps": (
        "cmaes",
        {"sampler": {"type": "cmaes", "lrAdapt": True}},
        [LAYERS],
        "sampler.lrAdapt needs a float without step: remove it",
    ),
    "cmaes with choices alone": ("cmaes", {}, [OPTIMIZER], "sampler cmaes draws categorical parameters at random"),
    "cmaes with two objectives": (
        "cmaes",
        {"objectives": [{"metric": name, "direction": "minimize"} for name in ("loss", "latency")]},
        [RATE],
        "sampler cmaes needs exactly one objective: use nsga2 or tpe",
    ),
    "a condition that is never met": (
        "tpe",
        {},
        [OPTIMIZER, MOMENTUM | {"when": {"parameter": "optimizer", "in": ["sdg"]}}],
        "parameter momentum: when.in has 'sdg', and optimizer has sgd, adam",
    ),
    "a condition on a text under a whole number": (
        "tpe",
        {},
        [LAYERS, MOMENTUM | {"when": {"parameter": "layers", "in": ["2"]}}],
        "parameter momentum: when.in has '2', and layers has the whole numbers from 2 to 8 in steps of 2",
    ),
    "a condition beyond a bound": (
        "tpe",
        {},
        [RATE, MOMENTUM | {"when": {"parameter": "rate", "in": [0.01, 0.5]}}],
        "parameter momentum: when.in has 0.5, and rate has the values from 0.0001 to 0.1",
    ),
    "a condition on true under a whole number": (
        "random",
        {},
        [
            {"name": "layers", "type": "int", "low": 1, "high": 3},
            MOMENTUM | {"when": {"parameter": "layers", "in": [True]}},
        ],
        "when.in has True, and layers has the whole numbers from 1 to 3",
    ),
    "gp with a seed to search": (
        "gp",
        {},
        [RATE, {"name": "seed", "type": "int", "low": 0, "high": 2**31 - 1}],
        "sampler gp writes down all values of seed, and it has 2,147,483,648: give it a step",
    ),
    "gp with fine steps": (
        "gp",
        {},
        [{"name": "rate", "type": "float", "low": 0, "high": 1, "step": 1e-7}],
        "sampler gp writes down all values of rate, and it has 10,000,001",
    ),
    "a bad known good point": ("tpe", {"enqueue": [{"rate": 0.01}, {"rate": 7}]}, [RATE], "enqueue[1] gives rate"),
}


@pytest.mark.parametrize(("sampler", "changes", "documents", "words"), CANNOT_SEARCH.values(), ids=CANNOT_SEARCH)
def test_a_space_that_cannot_be_searched_is_said(
    sampler: str, changes: dict[str, Any], documents: list[dict[str, Any]], words: str
) -> None:
    """Each with what to do instead."""
    trial = {"lightning": {"model": {document["name"]: f"${{{document['name']}}}" for document in documents}}}
    with pytest.raises(ValueError) as refusal:  # noqa: PT011 - the words are the parameter
        a_spec(**({"sampler": {"type": sampler}, "searchSpace": documents, "trial": trial} | changes))
    assert words in str(refusal.value)


def test_a_plan_follows_from_the_space_the_options_and_the_seed() -> None:
    """Whatever changes one of them is another plan; without a seed the study's name is one."""
    grid, other = Sampler(type=SamplerType.GRID), SPACE[1:]
    plans = {
        space.plan_id(SPACE, grid, study="a"),
        space.plan_id(SPACE, grid, study="b"),
        space.plan_id(other, grid, study="a"),
        space.plan_id(SPACE, grid.model_copy(update={"seed": 1}), study="a"),
    }
    assert len(plans) == 4
    assert space.plan_id(SPACE, grid, study="a") in plans
    seeded = grid.model_copy(update={"seed": 7})
    assert space.plan_seed(seeded, study="a") == space.plan_seed(seeded, study="b") == 7
    assert space.plan_id(SPACE, a_spec().resolved_sampler, study="a") is None
