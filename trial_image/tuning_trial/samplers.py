"""Optuna's samplers as the spec describes them, built anew for every trial with the trial's own seed.

What a sampler has to remember from one trial to the next is in the trials themselves, so nothing is lost with an instance:
tpe, gp and random look at finished trials only, cmaes keeps its state in their attributes, nsga2 and nsga3 their
generations. One seed for all workers would give them the same points (10 different of 24 trials with 8 workers, as
measured); a seed for each worker would make a trial depend on the pod that happens to run it.

The points of grid, qmc and bruteforce are planned by the operator, which gives them to the trials: here they need none.
"""

import copy
import math
import warnings
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

from optuna._transform import _SearchSpaceTransform
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import (
    BaseSampler,
    CmaEsSampler,
    GPSampler,
    NSGAIIISampler,
    NSGAIISampler,
    RandomSampler,
    TPESampler,
)
from optuna.samplers._ga import BaseGASampler
from optuna.samplers._lazy_random_state import LazyRandomState
from optuna.study import Study
from optuna.trial import FrozenTrial
from typing_extensions import override

from tuning_api.search import PLANNED, Sampler, SamplerType
from tuning_trial.errors import MisconfiguredError
from tuning_trial.log import logger
from tuning_trial.misfits import TaughtSampler


def build_sampler(spec: Sampler, *, seed: int, conditional: bool, learns_what_fits: bool = False) -> BaseSampler:
    """The sampler of one trial.

    Args:
        spec: Its type and options.
        seed: From :func:`tuning_trial.search.trial_seed`.
        conditional: Whether some parameters exist only under a condition; tpe then models each branch by itself.
        learns_what_fits: Whether trials that ran out of memory are infeasible to it (spec.trial.outOfMemory).

    Raises:
        MisconfiguredError: this image does not know the type, or has not what it needs.
    """
    with warnings.catch_warnings():
        # Whoever writes one of these types or options has chosen it; their warnings are of no use in a worker's log.
        warnings.simplefilter("ignore", ExperimentalWarning)
        sampler = _build(spec, seed=seed, conditional=conditional)
    looks_back = spec.type is not SamplerType.RANDOM and spec.type not in PLANNED
    return TaughtSampler(sampler) if looks_back and learns_what_fits else sampler


def _build(spec: Sampler, *, seed: int, conditional: bool) -> BaseSampler:  # noqa: PLR0911 - one for each type
    match spec.type:
        case SamplerType.RANDOM:
            return RandomSampler(seed=seed)
        case SamplerType.TPE:
            return _tpe(spec, seed=seed, conditional=conditional)
        case SamplerType.CMAES:
            return _cmaes(spec, seed=seed)
        case SamplerType.GP:
            return GPSampler(
                seed=seed,
                warn_independent_sampling=False,
                **given(n_startup_trials=spec.n_startup_trials, deterministic_objective=spec.deterministic_objective),
            )
        case SamplerType.NSGA2:
            return NSGA2(seed=seed, **_genetic(spec))
        case SamplerType.NSGA3:
            return NSGA3(seed=seed, **_genetic(spec), **given(dividing_parameter=spec.dividing_parameter))
        case planned if planned in PLANNED:
            return RandomSampler(seed=seed)  # for what a point of enqueue leaves open
        case unknown:
            raise MisconfiguredError(f"this trial image knows no sampler {unknown}: use a newer image")


def computes_with_torch(spec: Sampler) -> bool:
    """Whether choosing parameters leaves this process in a state that must not be forked: torch's threads have started."""
    return spec.type is SamplerType.GP


def given(**options: Any) -> dict[str, Any]:
    """The options that were given; for the others Optuna's own defaults apply."""
    return {name: value for name, value in options.items() if value is not None}


def _tpe(spec: Sampler, *, seed: int, conditional: bool) -> TPESampler:
    group = spec.group if spec.group is not None else conditional and spec.multivariate is not False
    return TPESampler(
        seed=seed,
        group=group,
        **given(
            n_startup_trials=spec.n_startup_trials,
            n_ei_candidates=spec.n_ei_candidates,
            multivariate=True if group else spec.multivariate,
            constant_liar=spec.constant_liar,
        ),
    )


def _cmaes(spec: Sampler, *, seed: int) -> "CmaEs":
    if find_spec("cmaes") is None:  # Optuna would say so in the first trial that needs it
        raise MisconfiguredError("sampler cmaes needs the package cmaes, and this trial image has none")
    return CmaEs(
        seed=seed,
        warn_independent_sampling=False,
        **given(
            n_startup_trials=spec.n_startup_trials,
            popsize=spec.population_size,
            with_margin=spec.with_margin,
            use_separable_cma=spec.use_separable,
            lr_adapt=spec.lr_adapt,
            consider_pruned_trials=spec.consider_pruned,
        ),
    )


def _genetic(spec: Sampler) -> dict[str, Any]:
    return given(
        population_size=spec.population_size, crossover_prob=spec.crossover_prob, mutation_prob=spec.mutation_prob
    )


class _ParentsInTrials(BaseGASampler):
    """Keeps the parents of each generation with the trial that chose them.

    NB: Optuna keeps them in an attribute of the study, which a worker may not write. They have to be kept: trials that were
    running while a generation filled up join it later, and the parents of the next one would change. Of two workers that
    choose at the same time, the trial with the lower number counts.
    """

    _trial_id: int

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """See Optuna; remembers which trial asks."""
        self._trial_id = trial._trial_id  # noqa: SLF001 - there is no public way
        return super().sample_relative(study, trial, search_space)  # type: ignore[safe-super]

    def get_parent_population(self, study: Study, generation: int) -> list[FrozenTrial]:
        """See Optuna."""
        if generation == 0:
            return []
        key = f"{self._get_parent_cache_key_prefix()}{generation}"
        trials = study._get_trials(deepcopy=False, use_cache=True)  # noqa: SLF001 - as Optuna's own samplers do
        chosen = next((trial.system_attrs[key] for trial in trials if key in trial.system_attrs), None)
        if chosen is not None:
            numbers = set(chosen)
            return [trial for trial in trials if trial.number in numbers]
        parents = self.select_parent(study, generation)
        study._storage.set_trial_system_attr(  # noqa: SLF001
            self._trial_id, key, [trial.number for trial in parents]
        )
        return parents


class NSGA2(_ParentsInTrials, NSGAIISampler):
    """Optuna's NSGA-II under a worker's rights."""


class NSGA3(_ParentsInTrials, NSGAIIISampler):
    """Optuna's NSGA-III under a worker's rights."""


class CmaEs(CmaEsSampler):
    """Optuna's CMA-ES, for which a row is numbers and not a program; points are those of Optuna's own.

    What cannot be read counts as not written: the search goes on from the state before, or begins once more.
    """

    _make: Callable[[int], Any]
    _dimensions: int

    @override
    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """See Optuna; remembers what a state has to look like."""
        self._dimensions = len(search_space)
        if search_space:
            transform = _SearchSpaceTransform(
                search_space, transform_step=not self._with_margin, transform_0_1=True
            )  # as Optuna's own does
            self._make = partial(self._optimizer, transform, study)
        return super().sample_relative(study, trial, search_space)

    def _optimizer(self, transform: _SearchSpaceTransform, study: Study, population: int) -> Any:
        """One that has learned nothing; without a number of this sampler's, which would be missing in the next point."""
        apart = copy.copy(self)
        apart._cma_rng, apart._popsize = LazyRandomState(0), population  # noqa: SLF001 - our own
        return apart._init_optimizer(transform, study.direction)  # noqa: SLF001 - likewise

    @override
    def _restore_optimizer(self, completed_trials: list[FrozenTrial]) -> Any:
        """The newest state that can be read."""
        from tuning_trial import cmaes_state  # noqa: PLC0415 - an image may do without cmaes

        has_said = False
        for trial in reversed(completed_trials):
            prefix = self._attr_key_optimizer
            parts = {name: value for name, value in trial.system_attrs.items() if name.startswith(prefix)}
            if not parts:
                continue
            try:
                return cmaes_state.read(cmaes_state.joined(parts, prefix), make=self._make)
            except cmaes_state.UnreadableState as error:
                if not has_said:
                    logger.warning("the state of CMA-ES in trial %d counts as none: %s", trial.number, error)
                has_said = True
        return None

    @override
    def _get_solution_trials(self, trials: list[FrozenTrial], generation: int) -> list[FrozenTrial]:
        """The results of a generation, as far as they can be learned from."""
        found = super()._get_solution_trials(trials, generation)
        return [trial for trial in found if self._can_be_told(trial)]

    def _can_be_told(self, trial: FrozenTrial) -> bool:
        has_value = len(trial.values or ()) == 1 and not math.isnan(trial.values[0])
        if not has_value or not self._with_margin:
            return has_value
        point = trial.system_attrs.get("x_for_tell")
        return isinstance(point, list) and len(point) == self._dimensions and all(map(_is_coordinate, point))


def _is_coordinate(value: object) -> bool:
    return isinstance(value, float) and abs(value) < _FARTHEST


_FARTHEST = 1e32
"""From the origin of a search between 0 and 1; cmaes refuses what lies beyond by an assertion. Not a number does, too."""
