"""The search space as values: its order, its conditions, its size, which points lie in it, who can search it. Pure.

A space is a forest: a parameter exists in every trial, or under a condition on one other parameter.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from tuning_api.limits import shortened
from tuning_api.schema import Scalar
from tuning_api.search import (
    EXHAUSTIVE,
    MAX_GP_VALUES,
    MAX_LEVELS,
    MAX_POINTS,
    PLANNED,
    UNCONDITIONAL,
    Condition,
    Parameter,
    ParameterType,
    Sampler,
    SamplerType,
)

Point = dict[str, Scalar]
"""Values by the names of their parameters; not always of all parameters."""

_LONGEST_VALUE = 80
"""Characters of a value in a sentence about it."""
_ON_A_STEP = 1e-8
"""How far from a step a value may lie, in steps: Optuna's own tolerance."""
_MANY = 10**15


def search_order(space: Sequence[Parameter]) -> list[Parameter]:
    """The parameters in an order in which each condition comes after the parameter that it looks at.

    Raises:
        ValueError: conditions go round in a circle.
    """
    levels = _levels(space)
    if endless := [parameter.name for parameter in space if parameter.name not in levels]:
        msg = f"the conditions of {', '.join(endless)} go round in a circle"
        raise ValueError(msg)
    return sorted(space, key=lambda parameter: levels[parameter.name])


def _levels(space: Sequence[Parameter]) -> dict[str, int]:
    """How many conditions are above each parameter; those are missing that go round in a circle, and what is below them."""
    below = _by_condition(space)
    reached = [parameter for parameter in space if parameter.when is None]
    levels = {parameter.name: 0 for parameter in reached}
    for parameter in reached:  # which grows meanwhile
        for other in below.get(parameter.name, []):
            if other.name in levels:
                continue
            levels[other.name] = levels[parameter.name] + 1
            reached.append(other)
    return levels


def _by_condition(space: Sequence[Parameter]) -> dict[str, list[Parameter]]:
    """The parameters that have a condition, by the name of the one that it looks at."""
    below: dict[str, list[Parameter]] = {}
    for parameter in space:
        if parameter.when is not None:
            below.setdefault(parameter.when.parameter, []).append(parameter)
    return below


def is_met(condition: Condition, values: Mapping[str, Scalar]) -> bool:
    """Whether the other parameter was chosen and has one of the values; `true` is not 1, but 2 is 2.0."""
    if condition.parameter not in values:
        return False
    value = values[condition.parameter]
    return any(is_same(value, item) for item in condition.in_)


def is_same(one: object, other: object) -> bool:
    """Whether a person who writes YAML means the same by both."""
    return isinstance(one, bool) == isinstance(other, bool) and one == other


def candidates(parameter: Parameter) -> list[Scalar] | None:
    """All values of a parameter, or None if there is no end to them (a float without step)."""
    if parameter.type is ParameterType.CATEGORICAL:
        return list(parameter.choices or [])
    count = _count(parameter)
    if count is None:
        return None
    # NB: decimals, as Optuna counts them: 0.1 + 2 * 0.1 is not 0.3.
    low, step = Decimal(str(parameter.low)), Decimal(str(parameter.step or 1))
    values = [low + index * step for index in range(count)]
    return [int(value) if parameter.type is ParameterType.INT else float(value) for value in values]


def size(space: Sequence[Parameter]) -> int | None:
    """How many points a space has, with its conditions; None if there is no end to them.

    NB: each parameter is counted once, from the last in the search order to the first. Counted below each value of the one
    above it, conditions in a row would multiply: eight choices at twelve levels are 8^11 counts.
    """
    if any(_count(parameter) is None for parameter in space):
        return None
    below = _by_condition(space)
    points: dict[str, int] = {}
    for parameter in reversed(search_order(space)):
        points[parameter.name] = _points_below(parameter, below.get(parameter.name, []), points)
    return math.prod(points[parameter.name] for parameter in space if parameter.when is None)


def _count(parameter: Parameter) -> int | None:
    if parameter.type is ParameterType.CATEGORICAL:
        return len(parameter.choices or [])
    if parameter.type is ParameterType.FLOAT and parameter.step is None:
        return 1 if parameter.low == parameter.high else None
    low, high, step = (Decimal(str(value)) for value in (parameter.low, parameter.high, parameter.step or 1))
    return int((high - low) // step) + 1


def _points_below(parameter: Parameter, under_it: Sequence[Parameter], points: Mapping[str, int]) -> int:
    """The values of a parameter, each as often as what exists only under it has values.

    Args:
        parameter: Which one.
        under_it: Those whose condition looks at it.
        points: How many points each of those has, with what is below it.
    """
    times: dict[tuple[bool, Scalar], int] = {}
    for other in under_it:
        for value in {_distinct(value) for value in other.when.in_} if other.when else ():
            times[value] = times.get(value, 1) * points[other.name]
    special = [count for (_, value), count in times.items() if fits(parameter, value)]
    return (_count(parameter) or 0) - len(special) + sum(special)


def _distinct(value: Scalar) -> tuple[bool, Scalar]:
    """A value as a key, so that `true` is not 1, but 2 is 2.0 (see `is_same`)."""
    return isinstance(value, bool), value


def fits(parameter: Parameter, value: object) -> bool:
    """Whether a parameter may have a value."""
    if parameter.type is ParameterType.CATEGORICAL:
        return any(is_same(value, choice) for choice in parameter.choices or [])
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    low, high = parameter.low, parameter.high
    # NB: compared, and not asked whether it is finite: an integer of a thousand digits becomes no float.
    if low is None or high is None or not low <= value <= high:
        return False
    step = parameter.step or (1 if parameter.type is ParameterType.INT else None)
    return step is None or abs((value - low) / step - round((value - low) / step)) < _ON_A_STEP


def is_point(space: Sequence[Parameter], values: Mapping[str, Any]) -> bool:
    """Whether these are values for exactly the parameters that exist together."""
    existing = {parameter.name for parameter in space if parameter.when is None or is_met(parameter.when, values)}
    return set(values) == existing and all(
        fits(parameter, values[parameter.name]) for parameter in space if parameter.name in existing
    )


def typed(space: Sequence[Parameter], values: Mapping[str, Any]) -> Point:
    """The values with the types of their parameters: a float that was written 1 is 1.0, an int 2.0 is 2."""
    by_name = {parameter.name: parameter for parameter in space}
    return {name: _typed(by_name[name], value) for name, value in values.items() if name in by_name}


def _typed(parameter: Parameter, value: Any) -> Scalar:
    if parameter.type is ParameterType.FLOAT:
        return float(value)
    if parameter.type is ParameterType.INT:
        return int(value)
    chosen: Scalar = next((choice for choice in parameter.choices or [] if is_same(choice, value)), value)
    return chosen


def identity(values: Mapping[str, Any]) -> str:
    """The same text for the same point, in whatever order and form it was written: 1 is 1.0, and `true` is neither."""
    plain = {
        name: float(value) if isinstance(value, int) and not isinstance(value, bool) else value
        for name, value in values.items()
    }
    return json.dumps(plain, sort_keys=True)


def plan_id(space: Sequence[Parameter], sampler: Sampler, *, study: str) -> str | None:
    """What the plan of a planned sampler follows from, in a few letters; None for a sampler that learns.

    Another space, other options, another seed are another plan. Without a seed the study's name is one, so that a study
    that is made anew goes on where it was.
    """
    if sampler.type not in PLANNED:
        return None
    document = [
        sampler.to_document(),
        [parameter.to_document() for parameter in space],
        plan_seed(sampler, study=study),
    ]
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:12]


def plan_seed(sampler: Sampler, *, study: str) -> int:
    """The seed of a plan: the one that was given, or one of the study's name."""
    if sampler.seed is not None:
        return sampler.seed
    return int.from_bytes(hashlib.sha256(study.encode()).digest()[:4]) % 2**31


def faults_of_point(space: Sequence[Parameter], values: Mapping[str, Any]) -> Iterator[str]:
    """Why a point that a person asks for cannot be tried, each in words that follow its name.

    Without a search space the objective alone knows its parameters, and any name may be right.
    """
    if not values:
        yield "is empty: give at least one parameter, or remove it"
    if not space:
        yield from (f"gives {name} no single value" for name, value in values.items() if not isinstance(value, Scalar))
        return
    by_name = {parameter.name: parameter for parameter in space}
    for name, value in values.items():
        parameter = by_name.get(name)
        if parameter is None:
            yield f"names {name}, and searchSpace has no such parameter (it has {', '.join(by_name)})"
        elif not fits(parameter, value):
            yield f"gives {name} the value {shortened(repr(value), most=_LONGEST_VALUE)}, which is {_not_within(parameter)}"
        elif parameter.when and not is_met(parameter.when, values):
            allowed = " or ".join(map(str, parameter.when.in_))
            condition = f"{parameter.when.parameter} {allowed}"
            yield f"gives {name}, which exists only with {condition}: give that too, or remove {name}"


def _not_within(parameter: Parameter) -> str:
    if parameter.type is ParameterType.CATEGORICAL:
        return f"none of its choices ({_values_of(parameter)})"
    return f"not among {_values_of(parameter)}"


def _values_of(parameter: Parameter) -> str:
    """What a parameter may be, in words."""
    if parameter.type is ParameterType.CATEGORICAL:
        return ", ".join(map(str, parameter.choices or []))
    whole = "whole numbers" if parameter.type is ParameterType.INT else "values"
    steps = f" in steps of {parameter.step:g}" if parameter.step else ""
    return f"the {whole} from {parameter.low:g} to {parameter.high:g}{steps}"


def faults_of_search(space: Sequence[Parameter], sampler: Sampler, *, objectives: int) -> Iterator[str]:
    """Why a sampler cannot search a space, in words; and what is wrong with the conditions of the space."""
    try:
        levels = _levels(search_order(space))
    except ValueError as error:
        yield str(error)
        return
    if deep := [name for name, level in levels.items() if level > MAX_LEVELS]:
        yield f"parameter {deep[0]}: conditions may look at each other over {MAX_LEVELS} levels at most: remove `when` of some"
    yield from _conditions_never_met(space)
    kind = sampler.type
    if kind in PLANNED and not space:
        yield f"sampler {kind} takes its points from searchSpace, which is empty: use tpe or random"
    if kind in UNCONDITIONAL and (conditional := [parameter.name for parameter in space if parameter.when]):
        other = "bruteforce" if kind is SamplerType.GRID else "tpe or random"
        yield f"sampler {kind} knows no conditions, and {conditional[0]} has one: use {other}, or remove `when`"
    if kind in EXHAUSTIVE:
        yield from _endless(space, kind)
    if kind is SamplerType.GP:
        yield from _too_many_values(space)
    if kind is SamplerType.CMAES:
        yield from _faults_of_cmaes(space, sampler, objectives=objectives)


def _faults_of_cmaes(space: Sequence[Parameter], sampler: Sampler, *, objectives: int) -> Iterator[str]:
    if objectives > 1:
        yield "sampler cmaes needs exactly one objective: use nsga2 or tpe"
    if space and all(parameter.type is ParameterType.CATEGORICAL for parameter in space):
        yield "sampler cmaes draws categorical parameters at random, and searchSpace has no other: use tpe"
    # NB: of a generation whose points are all the same it makes NaN (cmaes 0.13).
    if sampler.lr_adapt and all(_count(parameter) is not None for parameter in space):
        yield "sampler.lrAdapt needs a float without step: remove it"


def _endless(space: Sequence[Parameter], kind: SamplerType) -> Iterator[str]:
    if endless := [parameter.name for parameter in space if _count(parameter) is None]:
        yield f"sampler {kind} tries every point, and {endless[0]} has no end of values: give it a step, or use tpe"
    elif (points := size(space) or 0) > MAX_POINTS:
        advice = "widen the steps, remove a parameter, or use tpe, random or qmc"
        yield f"sampler {kind} tries every point, at most {MAX_POINTS:,}, and searchSpace has {_many(points)}: {advice}"


def _too_many_values(space: Sequence[Parameter]) -> Iterator[str]:
    """NB: Optuna's GP writes down all values of a parameter with steps (`optuna/_gp/search_space.py`): 16 GiB for 2^31."""
    for parameter in space:
        if (count := _count(parameter) or 0) > MAX_GP_VALUES:
            advice = "give it a step, make it a float, or use tpe"
            yield f"sampler gp writes down all values of {parameter.name}, and it has {_many(count)}: {advice}"


def _many(points: int) -> str:
    """A number of points. NB: Python refuses to write one of more than 4,300 digits."""
    return f"{points:,}" if points < _MANY else f"more than {_MANY:,}"


def _conditions_never_met(space: Sequence[Parameter]) -> Iterator[str]:
    by_name = {parameter.name: parameter for parameter in space}
    for parameter in space:
        if parameter.when is None or (other := by_name.get(parameter.when.parameter)) is None:
            continue
        for value in _outside(other, parameter.when.in_):
            shown = shortened(repr(value), most=_LONGEST_VALUE)
            yield f"parameter {parameter.name}: when.in has {shown}, and {other.name} has {_values_of(other)}"


def _outside(parameter: Parameter, values: Sequence[Scalar]) -> list[Scalar]:
    """Those that the parameter never has. NB: 64 conditions of 256 values on 256 choices are not compared one by one."""
    if parameter.type is not ParameterType.CATEGORICAL:
        return [value for value in values if not fits(parameter, value)]
    choices = set(map(_distinct, parameter.choices or []))
    return [value for value in values if _distinct(value) not in choices]
