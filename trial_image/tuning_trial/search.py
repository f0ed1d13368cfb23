"""Optuna's sampler and pruner as the spec describes them, and the parameters of one trial.

Both are built anew for every trial: that costs microseconds, takes up every change of the spec, and lets each trial have
its own seed. One seed for all workers would give them the same points (10 different of 24 trials with 8 workers, as
measured); a seed for each worker would make a trial depend on the pod that happens to run it.
"""

import hashlib
import secrets
import warnings
from typing import Any

from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import Trial

from tuning_api.distributions import search_order
from tuning_api.schema import Scalar
from tuning_api.search import Condition, Parameter, ParameterType, Pruner, PrunerType, Sampler, SamplerType
from tuning_trial.errors import MisconfiguredError

_SEEDS = 2**32


def trial_seed(study_seed: int | None, number: int) -> int:
    """The seed of one trial, for its parameters as for its training; without a seed of the study, another one each time.

    It fits numpy and `lightning.seed_everything`, which take 32 bits.
    """
    if study_seed is None:
        return secrets.randbelow(_SEEDS)
    return int.from_bytes(hashlib.sha256(f"{study_seed}:{number}".encode()).digest()[:4])


def build_sampler(spec: Sampler, *, seed: int, conditional: bool) -> BaseSampler:
    """The sampler of one trial.

    Args:
        spec: Its type and options.
        seed: From :func:`trial_seed`.
        conditional: Whether some parameters exist only under a condition; TPE then models each branch by itself.

    Raises:
        MisconfiguredError: this image does not know the type.
    """
    match spec.type:
        case SamplerType.RANDOM:
            return RandomSampler(seed=seed)
        case SamplerType.TPE:
            group = spec.group if spec.group is not None else conditional and spec.multivariate is not False
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)  # of group, since 2.8
                return TPESampler(
                    seed=seed,
                    group=group,
                    **_given(
                        n_startup_trials=spec.n_startup_trials,
                        n_ei_candidates=spec.n_ei_candidates,
                        multivariate=spec.multivariate,
                        constant_liar=spec.constant_liar,
                    ),
                )
        case unknown:
            raise MisconfiguredError(
                f"this trial image knows the samplers tpe and random, not {unknown}: use a newer image"
            )


def build_pruner(spec: Pruner) -> BasePruner:
    """The pruner.

    Raises:
        MisconfiguredError: this image does not know the type.
    """
    match spec.type:
        case PrunerType.NONE:
            return NopPruner()
        case PrunerType.MEDIAN:
            return MedianPruner(
                **_given(
                    n_startup_trials=spec.n_startup_trials,
                    n_warmup_steps=spec.n_warmup_steps,
                    interval_steps=spec.interval_steps,
                    n_min_trials=spec.n_min_trials,
                )
            )
        case unknown:
            raise MisconfiguredError(
                f"this trial image knows the pruners median and none, not {unknown}: use a newer image"
            )


def _given(**options: Any) -> dict[str, Any]:
    """The options that were given; for the others Optuna's own defaults apply."""
    return {name: value for name, value in options.items() if value is not None}


def suggest(trial: Trial, space: list[Parameter]) -> dict[str, Scalar]:
    """Choose the parameters of a trial; those whose condition is not met are not chosen at all.

    Raises:
        ValueError: a fixed value is none of the choices, or a distribution does not fit those of earlier trials.
    """
    values: dict[str, Scalar] = {}
    for parameter in search_order(space):
        if parameter.when is None or is_met(parameter.when, values):
            values[parameter.name] = _suggest(trial, parameter)
    return values


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


def every_choice(space: list[Parameter]) -> list[dict[str, Scalar]]:
    """Fixed values of a few trials, in which each choice occurs once at least, and each condition is met."""
    by_name = {parameter.name: parameter for parameter in space}
    free = {parameter.name: parameter.choices for parameter in space if parameter.choices and not parameter.when}
    rounds = max(map(len, free.values()), default=0)
    together = [{name: choices[index % len(choices)] for name, choices in free.items()} for index in range(rounds)]
    return together + [
        _meeting(parameter, by_name) | fixed
        for parameter in space
        if parameter.when
        for fixed in ([{parameter.name: choice} for choice in parameter.choices] if parameter.choices else [{}])
    ]


def _meeting(parameter: Parameter, by_name: dict[str, Parameter]) -> dict[str, Scalar]:
    values: dict[str, Scalar] = {}
    while parameter.when and parameter.when.parameter not in values:
        values[parameter.when.parameter] = parameter.when.in_[0]
        parameter = by_name[parameter.when.parameter]
    return values


def is_met(condition: Condition, values: dict[str, Scalar]) -> bool:
    """Whether the other parameter was chosen and has one of the values; `true` is not 1, but 2 is 2.0."""
    if condition.parameter not in values:
        return False
    value = values[condition.parameter]
    return any(isinstance(value, bool) == isinstance(item, bool) and value == item for item in condition.in_)
