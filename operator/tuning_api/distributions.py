"""The search space as Optuna knows it: distributions, and the parameters of one trial.

With `rows` and `tables` the only module of the contract that knows Optuna.
"""

from collections.abc import Mapping, Sequence

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import Trial

from tuning_api.schema import Scalar
from tuning_api.search import Parameter, ParameterType
from tuning_api.space import Point, fits, is_met, search_order


def distribution(parameter: Parameter) -> BaseDistribution:
    """The distribution of one parameter.

    Raises:
        ValueError: the parameter is not a valid one; `Parameter` refuses those when it is read.
    """
    if parameter.type is ParameterType.CATEGORICAL:
        return CategoricalDistribution(parameter.choices or [])
    if parameter.low is None or parameter.high is None:
        msg = f"parameter {parameter.name} needs low and high"
        raise ValueError(msg)
    log = bool(parameter.log)
    if parameter.type is ParameterType.FLOAT:
        return FloatDistribution(parameter.low, parameter.high, log=log, step=parameter.step)
    return IntDistribution(int(parameter.low), int(parameter.high), log=log, step=int(parameter.step or 1))


def suggest(trial: Trial, space: Sequence[Parameter], *, fixed: Mapping[str, Scalar] | None = None) -> Point:
    """Choose the parameters of a trial; those whose condition is not met are not chosen at all.

    Args:
        trial: Optuna's trial, which runs.
        space: The parameters.
        fixed: Values that the trial was given when it was added.

    Raises:
        ValueError: a fixed value is none of the choices, or a distribution does not fit those of earlier trials.
    """
    values: Point = {}
    for parameter in search_order(space):
        if parameter.when is None or is_met(parameter.when, values):
            given = parameter.name in (fixed or {})
            around = _around(parameter, (fixed or {})[parameter.name]) if given else parameter
            values[parameter.name] = _suggest(trial, around)
    return values


def _around(parameter: Parameter, value: Scalar) -> Parameter:
    """A parameter with room for a value that a trial was given under other bounds, and keeps.

    NB: Optuna takes such a value with a warning, and then has a trial outside of its own distribution.
    """
    if fits(parameter, value) or isinstance(value, bool) or not isinstance(value, int | float):
        return parameter
    low, high = min(value, parameter.low or value), max(value, parameter.high or value)
    return parameter.model_copy(update={"low": low, "high": high, "step": None})


def _suggest(trial: Trial, parameter: Parameter) -> Scalar:
    name, log = parameter.name, bool(parameter.log)
    if parameter.type is ParameterType.CATEGORICAL:
        chosen: Scalar = trial.suggest_categorical(name, parameter.choices or [])
        return chosen
    if parameter.low is None or parameter.high is None:
        raise ValueError(f"parameter {name} needs low and high")
    if parameter.type is ParameterType.FLOAT:
        return trial.suggest_float(name, parameter.low, parameter.high, step=parameter.step, log=log)
    return trial.suggest_int(name, int(parameter.low), int(parameter.high), step=int(parameter.step or 1), log=log)
