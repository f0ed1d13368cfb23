"""What a sampler learns from trials that ran out of memory: their parameters do not fit.

Optuna's samplers look away from failed trials, and would propose the same again. Here such a trial is shown to them as
one that is complete, breaks a constraint and has the worst values so far, as Optuna knows infeasible trials. The rows stay
as they are.
"""

import copy
from collections.abc import Container, Sequence
from statistics import fmean
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState
from typing_extensions import override

from tuning_api.contract import REQUEUED_ATTRIBUTE, ran_out_of_memory

CONSTRAINT = "out of memory"
"""The constraint's name: 1 for a trial that ran out of memory, -1 for one that did not."""


class TaughtSampler(BaseSampler):
    """A sampler to which trials that ran out of memory are infeasible; without such trials it is the sampler itself."""

    def __init__(self, sampler: BaseSampler) -> None:
        self._sampler = sampler
        self._read: list[FrozenTrial] = []
        self._shown: list[FrozenTrial] = []

    @override
    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """See Optuna."""
        return self._sampler.infer_relative_search_space(self._seen(study), trial)

    @override
    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """See Optuna."""
        return self._sampler.sample_relative(self._seen(study), trial, search_space)

    @override
    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """See Optuna."""
        return self._sampler.sample_independent(self._seen(study), trial, param_name, param_distribution)

    @override
    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """See Optuna."""
        self._sampler.before_trial(self._seen(study), trial)

    @override
    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """See Optuna."""
        self._sampler.after_trial(self._seen(study), trial, state, values)

    @override
    def reseed_rng(self) -> None:
        """See Optuna."""
        self._sampler.reseed_rng()

    def _seen(self, study: Study) -> Study:
        trials = study._get_trials(deepcopy=False, use_cache=True)  # noqa: SLF001 - as Optuna's own samplers do
        if trials is not self._read:  # Optuna reads them once for a trial, and asks for each parameter
            self._read, self._shown = trials, as_infeasible(trials, study.directions)
        return study if self._shown is trials else _Seen(study, self._shown)  # type: ignore[return-value]


class _Seen:
    """A study with other trials.

    NB: no Study itself, for Optuna's own of a Hyperband's bracket can neither be copied nor be given another storage.
    """

    def __init__(self, study: Study, trials: list[FrozenTrial]) -> None:
        self._seen_of, self.trials = study, trials

    def __getattr__(self, name: str) -> Any:
        return getattr(self._seen_of, name)

    def _get_trials(
        self,
        deepcopy: bool = True,  # noqa: FBT001, FBT002 - the name and place are Optuna's
        states: Container[TrialState] | None = None,
        use_cache: bool = False,  # noqa: ARG002, FBT001, FBT002
    ) -> list[FrozenTrial]:
        trials = [trial for trial in self.trials if states is None or trial.state in states]
        return copy.deepcopy(trials) if deepcopy else trials

    def get_trials(
        self,
        deepcopy: bool = True,  # noqa: FBT001, FBT002
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """See Optuna."""
        return self._get_trials(deepcopy, states)


def as_infeasible(trials: list[FrozenTrial], directions: Sequence[StudyDirection]) -> list[FrozenTrial]:
    """The trials, of which those that ran out of memory are infeasible; the same list if there are none.

    Nor are there any to be told of before another trial has values: nobody knows what a bad one is.
    """
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    misfits = {trial.number for trial in trials if _is_misfit(trial)}
    if not complete or not misfits:
        return trials
    worst = [
        (max if direction is StudyDirection.MINIMIZE else min)(trial.values[place] for trial in complete)
        for place, direction in enumerate(directions)
    ]
    # NB: Optuna's GP takes all trials to have the same constraints, in one order.
    others = {name: fmean(trial.constraints.get(name, 0.0) for trial in complete) for name in complete[-1].constraints}
    return [
        _misfit(trial, values=worst, constraints=others) if trial.number in misfits else _fitting(trial)
        for trial in trials
    ]


def _is_misfit(trial: FrozenTrial) -> bool:
    return (
        trial.state is TrialState.FAIL
        and ran_out_of_memory(trial.user_attrs)
        and REQUEUED_ATTRIBUTE not in trial.user_attrs
    )


def _misfit(trial: FrozenTrial, *, values: list[float], constraints: dict[str, float]) -> FrozenTrial:
    seen = _copied(trial)
    seen.state, seen.values = TrialState.COMPLETE, values
    for name, value in constraints.items():
        seen.set_constraint(name, value)
    seen.set_constraint(CONSTRAINT, 1.0)
    return seen


def _fitting(trial: FrozenTrial) -> FrozenTrial:
    if trial.state not in {TrialState.COMPLETE, TrialState.PRUNED}:
        return trial
    seen = _copied(trial)
    seen.set_constraint(CONSTRAINT, -1.0)
    return seen


def _copied(trial: FrozenTrial) -> FrozenTrial:
    seen = copy.copy(trial)
    seen.system_attrs = dict(trial.system_attrs)
    return seen
