"""The search as one trial sees it: its seed, the earlier trials that its sampler learns from, its parameters."""

import copy
import hashlib
import secrets
from collections.abc import Container, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, check_distribution_compatibility
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from tuning_api.distributions import distribution, suggest
from tuning_api.schema import Scalar
from tuning_api.search import Parameter
from tuning_api.space import fits, is_met
from tuning_trial.database import Knowing
from tuning_trial.errors import MisconfiguredError
from tuning_trial.lineage import SEEDS
from tuning_trial.log import logger
from tuning_trial.pruners import build_pruner
from tuning_trial.samplers import build_sampler

__all__ = ["build_pruner", "build_sampler", "every_choice", "is_met", "suggest", "suggest_within", "trial_seed"]

_LONGEST_CAUSE = 200
_FIXED_PARAMS = "fixed_params"
"""Optuna's system attribute of a trial with given parameters: a planned or known good point, or a retry."""
_STATE_OF_CMAES = ("cma:", "cmawm:", "sepcma:")
"""Optuna's system attributes with the state of CMA-ES, in units of the bounds that it was made under."""


def trial_seed(study_seed: int | None, number: int) -> int:
    """The seed of one trial, for its parameters as for its training; without a seed of the study, another one each time.

    It fits numpy and `lightning.seed_everything`, which take 32 bits.
    """
    if study_seed is None:
        return secrets.randbelow(SEEDS)
    return int.from_bytes(hashlib.sha256(f"{study_seed}:{number}".encode()).digest()[:4])


def suggest_within(
    study: optuna.Study, own: FrozenTrial, space: list[Parameter], *, trials: Sequence[FrozenTrial], seed: int = 0
) -> FrozenTrial:
    """Choose the parameters of a trial that runs, with the study's sampler and pruner.

    Where the sampler stumbles over a row, they are drawn at random. NB: any pod of the namespace may write about its own
    trial, and a row that is read by all must not end their workers.

    Args:
        study: Has the sampler, the pruner and the storage.
        own: The trial.
        space: The parameters.
        trials: All trials as they were read since this one began to run, itself among them. They are not read again.
        seed: For parameters that the sampler cannot choose.

    Returns:
        The trial with its parameters and what the sampler notes of them, which are written nowhere yet.

    Raises:
        ValueError: a fixed value is none of the choices, or a distribution does not fit those of earlier trials.
    """
    current = {parameter.name: (parameter, distribution(parameter)) for parameter in space}
    study = copy.copy(study)
    told = [trial for trial in trials if _is_told(trial, objectives=len(study.directions))]
    seen = _TrialsWithin(study._storage, current, trials=told, own=own)  # noqa: SLF001
    study._storage = seen  # type: ignore[assignment]  # noqa: SLF001
    try:
        trial = _suggested(study, own, space)
    except (ImportError, MisconfiguredError, StorageInternalError, SQLAlchemyError, UpdateFinishedTrialError):
        raise
    except Exception as error:  # noqa: BLE001 - whatever Optuna does with a value that it has not written
        seen.noted = dict(own.system_attrs)
        study.sampler = RandomSampler(seed=seed)
        try:
            trial = _suggested(study, own, space)
        except (TypeError, ArithmeticError) as garbage:  # of what the trial was given
            raise ValueError(f"{type(garbage).__name__}: {garbage}") from garbage
        logger.warning(
            "trial %d: the sampler cannot make sense of the study's rows (%s), and its parameters are drawn at random",
            own.number,
            " ".join(f"{type(error).__name__}: {error}".split())[:_LONGEST_CAUSE],
        )
    chosen = copy.copy(own)
    chosen.params, chosen.distributions, chosen.system_attrs = trial.params, trial.distributions, seen.noted
    return chosen


def _suggested(study: optuna.Study, own: FrozenTrial, space: list[Parameter]) -> Trial:
    trial = Trial(study, own._trial_id)  # noqa: SLF001 - there is no public way
    suggest(trial, space, fixed=own.system_attrs.get(_FIXED_PARAMS))
    return trial


def _is_told(trial: FrozenTrial, *, objectives: int) -> bool:
    """Whether a trial has what its state promises: samplers take a complete one for a point with a value of each objective."""
    return trial.state is not TrialState.COMPLETE or len(trial.values or ()) == objectives


class _TrialsWithin(Knowing):
    """Optuna's storage, in which all trials are as they were read once, and seem to be of the space as it is now.

    NB: Optuna reads every trial that has not ended several times for one suggestion, each time in seven statements. And it
    drops a parameter from what it models jointly as soon as two trials have different bounds for it: after a change of
    bounds, cmaes, nsga2, nsga3 and gp would draw it at random for ever. What is chosen is written when all is.
    """

    def __init__(
        self,
        storage: Any,
        space: Mapping[str, tuple[Parameter, BaseDistribution]],
        *,
        trials: Sequence[FrozenTrial],
        own: FrozenTrial,
    ) -> None:
        super().__init__(storage, own)
        self.noted = dict(own.system_attrs)
        """The trial's system attributes, those of the sampler among them."""
        self._trials = trials
        self._seen = [seen for trial in trials if (seen := _seen_within(trial, space)) is not None]

    def set_trial_param(
        self,
        trial_id: int,  # noqa: ARG002
        param_name: str,
        param_value_internal: float,  # noqa: ARG002
        distribution: BaseDistribution,
    ) -> None:
        """See Optuna; only whether the parameter may be written.

        Raises:
            ValueError: earlier trials have another type, log or choices for it.
        """
        before = (trial.distributions for trial in reversed(self._trials))
        if known := next((kinds[param_name] for kinds in before if param_name in kinds), None):
            check_distribution_compatibility(known, distribution)

    def get_trial_system_attrs(self, trial_id: int) -> dict[str, Any]:
        """See Optuna."""
        if trial_id == self._known._trial_id:  # noqa: SLF001
            return dict(self.noted)
        attributes: dict[str, Any] = self._storage.get_trial_system_attrs(trial_id)
        return attributes

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """See Optuna; samplers note in the trial what they, or those of later trials, have to know."""
        if trial_id == self._known._trial_id:  # noqa: SLF001
            self.noted[key] = value
        else:
            self._storage.set_trial_system_attr(trial_id, key, value)

    def get_all_trials(
        self,
        study_id: int,  # noqa: ARG002
        deepcopy: bool = True,  # noqa: FBT001, FBT002 - the name and place are Optuna's
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """See Optuna."""
        trials = [trial for trial in self._seen if states is None or trial.state in states]
        return copy.deepcopy(trials) if deepcopy else trials


def _seen_within(trial: FrozenTrial, space: Mapping[str, tuple[Parameter, BaseDistribution]]) -> FrozenTrial | None:
    """A trial as the sampler may see it: itself, itself under the present bounds, or None if it lies outside of them."""
    present = {name: space[name] for name in trial.params if name in space}
    if all(trial.distributions[name] == now for name, (_, now) in present.items()):
        return trial
    if not all(fits(parameter, trial.params[name]) for name, (parameter, _) in present.items()):
        return None
    seen = copy.copy(trial)
    seen.distributions = trial.distributions | {name: now for name, (_, now) in present.items()}
    seen.system_attrs = {
        name: value for name, value in trial.system_attrs.items() if not name.startswith(_STATE_OF_CMAES)
    }
    return seen


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
