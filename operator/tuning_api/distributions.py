"""The search space as Optuna distributions; the only module of the contract that knows Optuna."""

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from tuning_api.search import Parameter, ParameterType


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


def search_order(space: list[Parameter]) -> list[Parameter]:
    """The parameters in an order in which each condition comes after the parameter that it looks at.

    Raises:
        ValueError: conditions go round in a circle.
    """
    ordered: list[Parameter] = []
    waiting = list(space)
    while waiting:
        known = {parameter.name for parameter in ordered}
        ready = [parameter for parameter in waiting if not parameter.when or parameter.when.parameter in known]
        if not ready:
            msg = f"the conditions of {', '.join(parameter.name for parameter in waiting)} go round in a circle"
            raise ValueError(msg)
        ordered += ready
        waiting = [parameter for parameter in waiting if parameter not in ready]
    return ordered
