"""Which finished trials of an earlier study teach a new one, and what is copied of them. Pure, on Optuna's values.

A copy has what a sampler or a pruner reads: parameters, values, learning curve, constraints. The curve comes too, since
the pruner counts complete trials before it begins: with copies that have none, it would begin at once, and judge the
first trials of the study by one or two others.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from tuning_api.contract import COPIED_ATTRIBUTE, LIMITED_ATTRIBUTE, Origin, read_attribute
from tuning_api.distributions import distribution
from tuning_api.search import Parameter
from tuning_api.space import fits, is_met, search_order
from tuning_api.spec import StudySpec

_COMPARABLE = frozenset({TrialState.COMPLETE, TrialState.PRUNED})
_OTHER_OBJECTIVES = "have other objectives"


def origin(trial: FrozenTrial) -> Origin | None:
    """Where a trial was run, if it was taken over."""
    return read_attribute(Origin, trial.user_attrs.get(COPIED_ATTRIBUTE))


def worth_a_look(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The finished trials that a study has run itself: failed ones teach nothing, and copies are their own study's."""
    return [trial for trial in trials if trial.state in _COMPARABLE and origin(trial) is None]


def unlike(spec: StudySpec, *, stored: Mapping[str, Any] | None, directions: Sequence[StudyDirection]) -> str | None:
    """Why values of an earlier study cannot be compared with those of this one, if they cannot.

    Args:
        spec: of this study.
        stored: the spec of the earlier one, if it was made by us.
        directions: of the earlier one.
    """
    wanted = [objective.to_document() for objective in spec.objectives]
    if stored is not None and stored.get("objectives") != wanted:
        return _OTHER_OBJECTIVES
    if [direction.name for direction in directions] != [objective.direction.name for objective in spec.objectives]:
        return _OTHER_OBJECTIVES
    return None


def copy(trial: FrozenTrial, spec: StudySpec, *, source: str) -> FrozenTrial | str:
    """A finished trial as one of the study that has this spec, or why it does not fit, in a few words."""
    if why := _misfit(trial.params, trial.distributions, spec):
        return why
    if not trial.values or not all(map(math.isfinite, trial.values)):
        return "have no finite value"
    constraints = _constraints(trial, spec)
    if isinstance(constraints, str):
        return constraints
    by_name = {parameter.name: parameter for parameter in spec.search_space}
    limited = trial.user_attrs.get(LIMITED_ATTRIBUTE)
    copied = create_trial(
        state=trial.state,
        values=trial.values,
        params=trial.params,
        distributions={
            name: distribution(by_name[name]) if name in by_name else trial.distributions[name] for name in trial.params
        },
        intermediate_values=trial.intermediate_values,
        user_attrs={COPIED_ATTRIBUTE: Origin(study=source, trial=trial.number).to_document()}
        | ({LIMITED_ATTRIBUTE: limited} if spec.constraints else {}),
    )
    for name, violation in constraints.items():
        copied.set_constraint(name, violation)
    return copied


def _misfit(params: Mapping[str, Any], distributions: Mapping[str, BaseDistribution], spec: StudySpec) -> str | None:
    """NB: an objective of a person's own may have parameters that only its code knows; these are taken as they are."""
    expected: dict[str, Any] = {}
    for parameter in search_order(spec.search_space):
        if parameter.when and not is_met(parameter.when, expected):
            continue
        if parameter.name not in params:
            return f"have no parameter {parameter.name}"
        value = expected[parameter.name] = params[parameter.name]
        if why := _outside(value, distributions[parameter.name], parameter):
            return why
    extra = sorted(params.keys() - expected.keys())
    if extra and spec.trial.objective is None:
        return f"have a parameter {extra[0]}, which this study has not"
    return None


def _outside(value: Any, before: BaseDistribution, parameter: Parameter) -> str | None:
    """NB: the scale may be another one: the value is there on both."""
    if type(before) is not type(distribution(parameter)):
        return f"have another type of {parameter.name}"
    if fits(parameter, value):
        return None
    if isinstance(before, CategoricalDistribution):
        return f"have a {parameter.name} that is no choice here"
    return f"are outside the bounds of {parameter.name}, or between its steps"


def _constraints(trial: FrozenTrial, spec: StudySpec) -> dict[str, float] | str:
    """How far the trial is beyond this study's bounds, which may be others than those that it was run under."""
    limited = trial.user_attrs.get(LIMITED_ATTRIBUTE)
    if not spec.constraints:
        # What no spec had asked for, the trial's own code has set, and sets again in this study.
        return {} if limited else trial.constraints
    found: dict[str, float] = {}
    for constraint in spec.constraints:
        value = limited.get(constraint.metric) if isinstance(limited, dict) else None
        if not isinstance(value, int | float) or not math.isfinite(value):
            return f"have no value of {constraint.metric}"
        found |= constraint.violations(value)
    return found
