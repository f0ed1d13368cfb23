"""The points of grid, qmc and bruteforce, which do not depend on results: planned here, and given to the trials.

So no two workers ever take the same point (optuna/optuna#5489), no worker has to write to the study, the last trial of a
grid ends like any other (optuna/optuna#4121), and a trial that is continued keeps its point. The points are those that
Optuna's own samplers give with the same seed, one after the other; tests compare them.
"""

import functools
import json
import threading
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, islice, repeat
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, BruteForceSampler, GridSampler, QMCSampler
from optuna.samplers._brute_force import _TreeNode, _UnexpandedTreeNode
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from typing_extensions import override

from tuning_api import space
from tuning_api.contract import Given
from tuning_api.distributions import suggest
from tuning_api.search import Parameter, Sampler, SamplerType
from tuning_api.spec import StudySpec
from tuning_operator.decide import points
from tuning_operator.model import Trial

_PLANS = 64
"""How many plans are remembered; one of 5,000 points is about 3 MB."""


@dataclass(frozen=True)
class Addition:
    """A trial that is to be added: its parameters as far as they are given, and where they come from."""

    params: space.Point = field(default_factory=dict)
    given: Given | None = None


def additions(
    spec: StudySpec, *, study: str, trials: tuple[Trial, ...], enqueue: Sequence[dict[str, Any]], add: int
) -> Iterator[Addition]:
    """The trials to add: known good points, and then others, which a planned sampler gives their points.

    Args:
        spec: The study's.
        study: Its name.
        trials: Those that it has.
        enqueue: Entries of spec.enqueue.
        add: How many others; fewer come if the search space has no more points.
    """
    plan = _plan_of(spec, study=study)
    trials = points.up_to_date(spec, trials, study=study)
    used = {item.number for item in points.given(trials) if plan and item.plan == plan.identity}
    taken = points.taken_points(spec, trials) if plan and plan.size else set()
    for entry in enqueue:
        addition = _of_entry(entry, spec.search_space, plan=plan, used=used, taken=taken)
        if addition.given and addition.given.number is not None:
            used.add(addition.given.number)
        taken.add(space.identity(addition.params))
        yield addition
    yield from islice(plan.free(used=used, taken=taken) if plan else repeat(Addition()), add)


def _of_entry(
    entry: dict[str, Any], parameters: list[Parameter], *, plan: "Plan | None", used: set[int | None], taken: set[str]
) -> Addition:
    """What an entry leaves open is taken from the plan if the space has an end, so that no other trial has that point."""
    params = space.typed(parameters, entry) if parameters else entry
    if plan is not None and plan.size is not None and not space.is_point(parameters, params):
        for point in plan.free(used=used, taken=taken):
            if point.given and params.items() <= point.params.items():
                return Addition(point.params, point.given.model_copy(update={"entry": entry}))
    return Addition(params, Given(entry=entry))


def _plan_of(spec: StudySpec, *, study: str) -> "Plan | None":
    identity = space.plan_id(spec.search_space, spec.resolved_sampler, study=study)
    if identity is None:
        return None
    parameters = json.dumps([parameter.to_document() for parameter in spec.search_space])
    sampler = json.dumps(spec.resolved_sampler.to_document())
    return _plan(identity, parameters, sampler, space.plan_seed(spec.resolved_sampler, study=study))


@functools.lru_cache(maxsize=_PLANS)
def _plan(identity: str, parameters: str, sampler: str, seed: int) -> "Plan":
    """The same plan for the same text: studies are read anew on each pass, and points cost a millisecond."""
    return Plan(
        identity,
        [Parameter.model_validate(document) for document in json.loads(parameters)],
        Sampler.model_validate(json.loads(sampler)),
        seed=seed,
    )


class Plan:
    """The points of a space in the order of a sampler, computed when they are first asked for; threads may share it."""

    def __init__(self, identity: str, parameters: list[Parameter], sampler: Sampler, *, seed: int) -> None:
        self.size = None if sampler.type is SamplerType.QMC else space.size(parameters)
        self.identity = identity
        asked = _sampler(parameters, sampler, seed)
        self._point = _far_point(asked, parameters) if isinstance(asked, _Sequence) else _next_points(asked, parameters)
        self._lock = threading.Lock()

    def point(self, number: int) -> space.Point:
        """A point of the plan, counted from 0."""
        with self._lock:
            return self._point(number)

    def free(self, *, used: Collection[int | None], taken: Collection[str]) -> Iterator[Addition]:
        """The points that no trial has, in their order; without end if the plan has none.

        In a space without an end a point counts by its number alone: the sequence may come back to a point of few choices.
        """
        for number in count() if self.size is None else range(self.size):
            if number in used:
                continue
            params = self.point(number)
            if self.size is None or space.identity(params) not in taken:
                yield Addition(params, Given(plan=self.identity, number=number))


def _sampler(parameters: list[Parameter], spec: Sampler, seed: int) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", ExperimentalWarning
        )  # of qmc and bruteforce: whoever names them has chosen them
        match spec.type:
            case SamplerType.GRID:
                return _Grid({item.name: space.candidates(item) or [] for item in parameters}, seed=seed)
            case SamplerType.BRUTEFORCE:
                return _Enumeration(seed)
            case _:
                return _Sequence(
                    seed=seed,
                    qmc_type=spec.qmc_type or "sobol",
                    scramble=bool(spec.scramble),
                    warn_independent_sampling=False,
                )


def _next_points(sampler: BaseSampler, parameters: list[Parameter]) -> Callable[[int], space.Point]:
    """What a sampler gives to one trial after the other, each of which follows from those before."""
    known: list[space.Point] = []
    study = optuna.create_study(sampler=sampler)

    def point(number: int) -> space.Point:
        while len(known) <= number:
            known.append(_asked(study, parameters))
        return known[number]

    return point


def _far_point(sampler: "_Sequence", parameters: list[Parameter]) -> Callable[[int], space.Point]:
    """What a sequence gives to a trial, without the points before it, however many they are.

    Only the very first one is drawn by itself: from that trial Optuna takes the space.
    """
    first = _first_trial(sampler, parameters)

    def point(number: int) -> space.Point:
        if number == 0:
            return dict(first.params)
        study = optuna.create_study(sampler=sampler)
        study.add_trial(first)
        sampler.place = number - 1
        return suggest(study.ask(), parameters)

    return point


def _first_trial(sampler: BaseSampler, parameters: list[Parameter]) -> FrozenTrial:
    study = optuna.create_study(sampler=sampler)
    _asked(study, parameters)
    return study.trials[0]


def _asked(study: Study, parameters: list[Parameter]) -> space.Point:
    trial = study.ask()
    point = suggest(trial, parameters)
    study.tell(trial, 0.0)
    return point


class _Sequence(QMCSampler):
    """Optuna's sequence, at a place of our choice: it goes there at once (`fast_forward`).

    Optuna counts the places in an attribute of the study.
    """

    place = 0

    @override
    def _find_sample_id(self, study: Study, search_space: dict[str, BaseDistribution]) -> int:
        return self.place


class _Grid(GridSampler):
    """Optuna's grid, without looking through all trials after each for whether it was the last."""

    @override
    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Nothing: the plan knows its size."""


class _Enumeration(BruteForceSampler):
    """Optuna's brute force, one trial after the other.

    Optuna builds its tree of values anew from all trials for each parameter, since it may have missed some: 5,000 points
    would take minutes. Here one tree grows with the trials, and Optuna's own code draws from it.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(seed=seed)
        self._root = self._place = _TreeNode()

    @override
    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Begin at the root."""
        self._place = self._root

    @override
    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Go down by one value."""
        self._place.expand(param_name, _range_of(param_distribution))
        value = self._place.sample_child(self._rng.rng, exclude_running=True)
        children = self._place.children or {}
        below = children[value]
        if isinstance(below, _UnexpandedTreeNode):
            below = children[value] = _TreeNode()
        self._place = below
        return param_distribution.to_external_repr(value)

    @override
    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """The branch ends here."""
        self._place.set_leaf()


def _range_of(distribution: BaseDistribution) -> tuple[int | float, int | float, int | float | None]:
    match distribution:
        case CategoricalDistribution(choices=choices):
            return 0, len(choices) - 1, 1
        case IntDistribution() | FloatDistribution():
            return distribution.low, distribution.high, distribution.step
        case _:
            raise TypeError(f"no distribution of a search space: {distribution}")
