"""How a study searches: its objectives, its search space, its sampler and its pruner, in Optuna's own words."""

import json
import math
from enum import StrEnum
from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator
from pydantic.alias_generators import to_snake

from tuning_api.schema import Scalar, Schema, kubernetes, rule

MAX_CHOICES = 256
MAX_CHOICE_BYTES = 32_768
"""Of all choices of a parameter together, as JSON. Optuna stores them with each trial."""
MAX_LEVELS = 16
"""How many conditions may stand in a row."""
MAX_STEPS = 2**54
"""How many values a range with steps may have: all whole numbers that a float tells apart (IEEE 754). Optuna's decimals of 28
digits give up far beyond."""
LARGEST_INT = 2**53 - 1
"""Beyond it a double, which Optuna's tables and JSON have for a number, stands for several whole ones."""


class Direction(StrEnum):
    """Which way an objective improves."""

    MINIMIZE = "minimize"
    MAXIMIZE = "maximize"


class Objective(Schema):
    """What a trial is judged by."""

    metric: str = Field(min_length=1, max_length=128)
    """A key of `trainer.callback_metrics`, as logged with `self.log("val_acc", ...)`; or, for a plain Optuna objective, a
    name for the value that it returns."""
    direction: Direction
    """Whether the search looks for the smallest or the largest value."""


class ParameterType(StrEnum):
    """The kind of a parameter: Optuna's three distributions."""

    FLOAT = "float"
    INT = "int"
    CATEGORICAL = "categorical"


class Condition(Schema):
    """A parameter exists only in trials where another one has certain values."""

    parameter: str = Field(min_length=1, max_length=128)
    """The name of the other parameter."""
    in_: list[Any] = Field(alias="in", min_length=1, max_length=MAX_CHOICES)
    """The values of the other parameter for which this one is suggested."""

    @model_validator(mode="after")
    def _has_values(self) -> Self:
        for value in self.in_:
            if not isinstance(value, Scalar):
                raise ValueError(  # noqa: TRY004 - pydantic takes no other
                    f"when.in must have strings, numbers, booleans or null, and {value!r} is none of them"
                )
        return self


_IMMUTABLE = "is immutable: Optuna cannot compare the trials, create a new study"
_TOO_LARGE = (
    f"an int parameter must be within -{LARGEST_INT} and {LARGEST_INT}: larger ones are not exact;"
    " choose among texts, or an exponent"
)
_NUMERIC_FIELDS = ("low", "high", "step", "log")
_PARAMETER_RULES = [
    rule(
        "!has(self.low) || !has(self.high) || self.low <= self.high",
        "low must not be greater than high",
        field_path=".low",
    ),
    rule(
        "!has(self.log) || !self.log || !has(self.low) || self.low > 0.0",
        "a logarithmic parameter needs low > 0: set low above 0 or log to false",
        field_path=".low",
    ),
    rule(
        "!has(self.log) || !self.log || !has(self.step)",
        "a logarithmic parameter has no step: remove step or set log to false",
        field_path=".step",
    ),
    rule(
        "self.type == 'categorical' || (has(self.low) && has(self.high))",
        "a parameter of type float or int needs low and high",
    ),
    rule(
        "self.type != 'categorical' || !(has(self.low) || has(self.high) || has(self.step) || has(self.log))",
        "a categorical parameter has no low, high, step and log: remove them or change the type",
    ),
    rule(
        "self.type != 'int' || ((!has(self.low) || self.low == double(int(self.low)))"
        " && (!has(self.high) || self.high == double(int(self.high)))"
        " && (!has(self.step) || self.step == double(int(self.step))))",
        "an int parameter needs whole numbers for low, high and step",
    ),
    rule(
        f"self.type != 'int' || ((!has(self.low) || self.low >= -{LARGEST_INT}.0)"
        f" && (!has(self.high) || self.high <= {LARGEST_INT}.0))",
        _TOO_LARGE,
    ),
    rule("self.type == oldSelf.type", f"type {_IMMUTABLE}", field_path=".type"),
    rule("(has(self.log) && self.log) == (has(oldSelf.log) && oldSelf.log)", f"log {_IMMUTABLE}", field_path=".log"),
    # Of a categorical parameter there is nothing else that could change, and choices alone cannot be named (see below).
    rule(
        "self.type != 'categorical' || oldSelf.type != 'categorical' || self == oldSelf",
        f"a categorical parameter, with its choices, {_IMMUTABLE}",
    ),
]
_CATEGORICAL = {"properties": {"type": {"enum": ["categorical"]}}}
_CHOICES_ARE_FOR_CATEGORICAL = [
    {"anyOf": [{"required": ["choices"]}, {"not": _CATEGORICAL}]},
    {"anyOf": [_CATEGORICAL, {"not": {"required": ["choices"]}}]},
]
"""NB: choices has no type for CEL (its items are free), so `has(self.choices)` does not compile there."""


class Parameter(Schema):
    """One dimension of the search space."""

    model_config = ConfigDict(
        json_schema_extra=kubernetes(rules=_PARAMETER_RULES) | {"allOf": _CHOICES_ARE_FOR_CATEGORICAL}
    )

    name: str = Field(min_length=1, max_length=128, pattern=r"^[A-Za-z_][A-Za-z0-9_.-]*$")
    """The parameter's name; `${name}` in the trial's configuration becomes its value."""
    type: ParameterType
    """float, int or categorical."""
    low: float | None = None
    """The smallest value, included (float, int). May be moved while the study runs: start wide, then narrow."""
    high: float | None = None
    """The largest value, included (float, int). May be moved while the study runs."""
    step: float | None = Field(default=None, gt=0)
    """Only low, low + step, low + 2 step, ... are tried (float, int). A float needs it for sampler grid and bruteforce."""
    log: bool | None = None
    """Sample on a logarithmic scale: right for learning rates and weight decay."""
    choices: list[Any] | None = Field(default=None, min_length=1, max_length=MAX_CHOICES)
    """The values to choose from: strings, numbers, booleans or null (categorical)."""
    when: Condition | None = None
    """Suggest this parameter only when another one has certain values."""

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        fault = _fault(self)
        if fault:
            msg = f"parameter {self.name}: {fault}"
            raise ValueError(msg)
        return self


def _fault(parameter: Parameter) -> str | None:
    if parameter.type is ParameterType.CATEGORICAL:
        return _categorical_fault(parameter)
    return _numeric_fault(parameter)


def _categorical_fault(parameter: Parameter) -> str | None:
    if parameter.choices is None:
        return "a categorical parameter needs choices"
    if extra := [field for field in _NUMERIC_FIELDS if getattr(parameter, field) is not None]:
        return f"a categorical parameter has no {', '.join(extra)}: remove it or change the type"
    for choice in parameter.choices:
        if not isinstance(choice, Scalar):
            return f"choices must be strings, numbers, booleans or null, and {choice!r} is none of them"
        if isinstance(choice, int) and abs(choice) >= 2**63:
            return f"choices must be within 64 bits, and {choice} is not: write it as a text"
    if (length := len(json.dumps(parameter.choices))) > MAX_CHOICE_BYTES:
        return f"choices may have {MAX_CHOICE_BYTES:,} bytes together, and have {length:,}: give long ones a short name"
    return _equal_choices(parameter.choices)


def _equal_choices(choices: list[Any]) -> str | None:
    """NB: to Optuna, which compares as Python does, true is 1 and false is 0: trials of the one are stored as the other."""
    for place, choice in enumerate(choices):
        if choice in choices[:place]:
            known = choices[choices.index(choice)]
            both = f"{json.dumps(known)} and {json.dumps(choice)}"
            is_same = type(known) is type(choice)
            return f"choices must differ from each other, and {both} {'are alike' if is_same else 'are one to Optuna'}"
    return None


def _numeric_fault(parameter: Parameter) -> str | None:  # noqa: PLR0911 - one line a fault reads best
    low, high, step = parameter.low, parameter.high, parameter.step
    if parameter.choices is not None:
        return f"choices belong to categorical parameters: remove them or change type {parameter.type}"
    if low is None or high is None:
        return f"a parameter of type {parameter.type} needs low and high"
    if low > high:
        return f"low must not be greater than high, and {low:g} > {high:g}"
    if parameter.log and low <= 0:
        return f"a logarithmic parameter needs low > 0, not {low:g}"
    if parameter.log and step is not None:
        return "a logarithmic parameter has no step: remove step or set log to false"
    if parameter.type is ParameterType.INT and any(
        bound is not None and not bound.is_integer() for bound in (low, high, step)
    ):
        return "an int parameter needs whole numbers for low, high and step"
    return _fault_of_size(parameter.type, low, high, step)


def _fault_of_size(kind: ParameterType, low: float, high: float, step: float | None) -> str | None:
    if not math.isfinite(high - low):
        return f"from {low:g} to {high:g} is more than a float can say: narrow the bounds"
    is_whole = kind is ParameterType.INT
    if is_whole and max(abs(low), abs(high)) > LARGEST_INT:
        return _TOO_LARGE
    step = step or (1 if is_whole else None)
    if step is not None and (high - low) / step > MAX_STEPS:
        return f"from {low:g} to {high:g} in steps of {step:g} are more than 2^54 values: take a larger step"
    return None


class SamplerType(StrEnum):
    """Optuna's samplers."""

    TPE = "tpe"
    RANDOM = "random"
    GRID = "grid"
    QMC = "qmc"
    CMAES = "cmaes"
    GP = "gp"
    NSGA2 = "nsga2"
    NSGA3 = "nsga3"
    BRUTEFORCE = "bruteforce"


class PrunerType(StrEnum):
    """Optuna's pruners."""

    MEDIAN = "median"
    PERCENTILE = "percentile"
    SUCCESSIVE_HALVING = "successiveHalving"
    HYPERBAND = "hyperband"
    THRESHOLD = "threshold"
    PATIENT = "patient"
    WILCOXON = "wilcoxon"
    NONE = "none"


def _only_for(*types: StrEnum) -> dict[str, Any]:
    """Mark an option as belonging to some types; the models and the CRD's CEL rules both read the mark."""
    return {"x-only-for": [str(item) for item in types]}


def _rules_of_options(properties: dict[str, Any]) -> list[dict[str, str]]:
    """A CEL rule per option: it may be present only with the types that it belongs to."""
    return [
        rule(
            f"!has(self.{name}) || self.type in {types}",
            f"{name} is an option of {', '.join(types)}: remove it or change the type",
            field_path=f".{name}",
        )
        for name, schema in properties.items()
        if (types := schema.get("x-only-for"))
    ]


def _typed(*rules: dict[str, str]) -> ConfigDict:
    """The configuration of a choice among algorithms: the rules of its options, and rules of its own."""

    def with_rules(schema: dict[str, Any]) -> None:
        schema |= kubernetes(rules=[*_rules_of_options(schema["properties"]), *rules])
        for option in schema["properties"].values():
            option.pop("x-only-for", None)

    return ConfigDict(json_schema_extra=with_rules)


class _Typed(Schema):
    """A choice among algorithms: `type` picks one, and each option says which of them it belongs to."""

    @model_validator(mode="after")
    def _options_fit_the_type(self) -> Self:
        for name, field in type(self).model_fields.items():
            extra = field.json_schema_extra
            types = extra.get("x-only-for") if isinstance(extra, dict) else None
            if not isinstance(types, list) or getattr(self, name) is None:
                continue
            if str(getattr(self, "type")) not in types:  # noqa: B009 - every subclass has it
                msg = (
                    f"{field.alias or name} is an option of {', '.join(map(str, types))}: remove it or change the type"
                )
                raise ValueError(msg)
        return self


_TPE, _CMAES, _GP, _QMC = SamplerType.TPE, SamplerType.CMAES, SamplerType.GP, SamplerType.QMC
_NSGA = (SamplerType.NSGA2, SamplerType.NSGA3)

PLANNED = frozenset({SamplerType.GRID, SamplerType.QMC, SamplerType.BRUTEFORCE})
"""Samplers whose points do not depend on results: the operator plans them, so that parallel workers never share one."""
EXHAUSTIVE = frozenset({SamplerType.GRID, SamplerType.BRUTEFORCE})
"""Samplers that try every point of a space, which must therefore have an end."""
UNCONDITIONAL = frozenset({SamplerType.GRID, SamplerType.QMC, SamplerType.CMAES})
"""Samplers of Optuna's that know no conditions. NB: cmaes would draw at random from the first trial on that has a parameter
less than another, or raise."""
MAX_POINTS = 5_000
"""The largest space that is tried point by point: with a minute for each it would take three days and a half."""
MAX_GP_VALUES = 1_000_000
"""The most values of one parameter with steps under gp, which holds them all: some tens of megabytes a suggestion."""

_ONE_VARIANT = "withMargin, useSeparable and lrAdapt are three variants of cmaes: keep one of them"
_FEWEST_OF_CMAES = 4
_TOO_FEW_FOR_CMAES = (
    f"sampler cmaes needs a populationSize of {_FEWEST_OF_CMAES} at least: it learns from the better half"
)
_GROUP_IS_MULTIVARIATE = "group models parameters jointly: set multivariate to true, or remove one of them"


class Sampler(_Typed):
    """How the parameters of the next trial are chosen."""

    model_config = _typed(
        rule(
            "[has(self.withMargin) && self.withMargin, has(self.useSeparable) && self.useSeparable,"
            " has(self.lrAdapt) && self.lrAdapt].filter(used, used).size() <= 1",
            _ONE_VARIANT,
        ),
        rule(
            "!has(self.group) || !self.group || !has(self.multivariate) || self.multivariate",
            _GROUP_IS_MULTIVARIATE,
            field_path=".group",
        ),
        rule(
            f"self.type != 'cmaes' || !has(self.populationSize) || self.populationSize >= {_FEWEST_OF_CMAES}",
            _TOO_FEW_FOR_CMAES,
            field_path=".populationSize",
        ),
    )

    type: SamplerType = SamplerType.TPE
    """tpe: learns from finished trials, the default for most studies. random: independent draws, the honest baseline. grid:
    every combination. qmc: evenly spread. cmaes: numeric spaces, hundreds of trials. gp: few, expensive trials. nsga2, nsga3:
    several objectives, hundreds of trials. bruteforce: every combination of a finite space, with conditions."""
    seed: int | None = Field(default=None, ge=0, le=2**31 - 1)
    """Makes each trial's draw repeatable: a trial's seed is a function of this and of its number. Of grid, qmc and bruteforce
    it sets the order of the points; left out, the study's name does."""
    n_startup_trials: int | None = Field(default=None, ge=0, json_schema_extra=_only_for(_TPE, _CMAES, _GP))
    """Random trials before the model is used (tpe and gp: 10, cmaes: 1)."""
    n_ei_candidates: int | None = Field(default=None, ge=1, json_schema_extra=_only_for(_TPE))
    """Candidates drawn for each suggestion (24)."""
    multivariate: bool | None = Field(default=None, json_schema_extra=_only_for(_TPE))
    """Model the parameters jointly (true with one objective)."""
    group: bool | None = Field(default=None, json_schema_extra=_only_for(_TPE))
    """Model each branch of a conditional space by itself (true when the space has conditions)."""
    constant_liar: bool | None = Field(default=None, json_schema_extra=_only_for(_TPE))
    """Keep away from the points that are running now (true)."""
    population_size: int | None = Field(default=None, ge=2, json_schema_extra=_only_for(_CMAES, *_NSGA))
    """Trials in a generation (nsga2 and nsga3: 50; cmaes: 4 + 3 ln n for n parameters). maxTrials should be many times that."""
    crossover_prob: float | None = Field(default=None, ge=0, le=1, json_schema_extra=_only_for(*_NSGA))
    """Chance of a crossover (0.9)."""
    mutation_prob: float | None = Field(default=None, ge=0, le=1, json_schema_extra=_only_for(*_NSGA))
    """Chance that a parameter mutates (one over their number)."""
    dividing_parameter: int | None = Field(default=None, ge=1, le=20, json_schema_extra=_only_for(SamplerType.NSGA3))
    """Density of the reference points (3)."""
    with_margin: bool | None = Field(default=None, json_schema_extra=_only_for(_CMAES))
    """Keep a margin on int parameters and those with a step, so that none is fixed too early (false)."""
    use_separable: bool | None = Field(default=None, json_schema_extra=_only_for(_CMAES))
    """Assume independent parameters: better beyond some ten of them (false)."""
    lr_adapt: bool | None = Field(default=None, json_schema_extra=_only_for(_CMAES))
    """Adapt the learning rate: for noisy or multimodal objectives (false). Needs a float without step."""
    consider_pruned: bool | None = Field(default=None, json_schema_extra=_only_for(_CMAES))
    """Learn from pruned trials too (false)."""
    deterministic_objective: bool | None = Field(default=None, json_schema_extra=_only_for(_GP))
    """The objective has no noise (false)."""
    qmc_type: Literal["sobol", "halton"] | None = Field(default=None, json_schema_extra=_only_for(_QMC))
    """The sequence (sobol)."""
    scramble: bool | None = Field(default=None, json_schema_extra=_only_for(_QMC))
    """Randomise the sequence by the seed (false)."""

    @model_validator(mode="after")
    def _options_fit_each_other(self) -> Self:
        if self.type is SamplerType.CMAES and (self.population_size or _FEWEST_OF_CMAES) < _FEWEST_OF_CMAES:
            raise ValueError(_TOO_FEW_FOR_CMAES)
        if sum(map(bool, (self.with_margin, self.use_separable, self.lr_adapt))) > 1:
            raise ValueError(_ONE_VARIANT)
        if self.group and self.multivariate is False:
            raise ValueError(_GROUP_IS_MULTIVARIATE)
        return self


_MEDIAN, _PERCENTILE, _HYPERBAND = PrunerType.MEDIAN, PrunerType.PERCENTILE, PrunerType.HYPERBAND
_HALVING, _THRESHOLD, _PATIENT = PrunerType.SUCCESSIVE_HALVING, PrunerType.THRESHOLD, PrunerType.PATIENT

_NEEDS = {
    _PERCENTILE: ("percentile", "percentile, the share of trials that go on: 25 keeps the best quarter"),
    _HYPERBAND: (
        "maxResource",
        "maxResource, the steps of a whole trial: trainer.max_epochs, when each epoch is validated once",
    ),
    _PATIENT: ("patience", "patience, the steps without improvement after which it may stop"),
}
"""What has no default; `auto` of Optuna's differs from worker to worker, by what each has seen first."""
_A_THRESHOLD = "pruner threshold needs lower or upper, the bounds that you know"
_THRESHOLDS_IN_ORDER = "lower must be less than upper"
_RESOURCES_IN_ORDER = "minResource must not be greater than maxResource"
_WRAPS_ANOTHER = (
    "wrapped must decide by itself: not none, and not patient again; without wrapped, patience alone decides"
)

_PRUNER_RULES = [
    *(
        rule(f"self.type != '{kind}' || has(self.{field})", f"pruner {kind} needs {what}")
        for kind, (field, what) in _NEEDS.items()
    ),
    rule("self.type != 'threshold' || has(self.lower) || has(self.upper)", _A_THRESHOLD),
    rule("!has(self.lower) || !has(self.upper) || self.lower < self.upper", _THRESHOLDS_IN_ORDER, field_path=".lower"),
    rule(
        "!has(self.minResource) || !has(self.maxResource) || self.minResource <= self.maxResource",
        _RESOURCES_IN_ORDER,
        field_path=".minResource",
    ),
]


class _Pruner(_Typed):
    model_config = _typed(*_PRUNER_RULES)

    type: PrunerType
    """median: stop what is worse than the median of the earlier trials at the same step, the default. percentile: the same
    with another share. successiveHalving, hyperband: budgets in rungs. threshold: bounds that you know. patient: wait
    before another pruner may stop. wilcoxon: repeated measurements such as folds. none: every trial runs to its end."""
    n_startup_trials: int | None = Field(default=None, ge=0, json_schema_extra=_only_for(_MEDIAN, _PERCENTILE))
    """Trials that must have ended before any is pruned (5)."""
    n_warmup_steps: int | None = Field(
        default=None, ge=0, json_schema_extra=_only_for(_MEDIAN, _PERCENTILE, _THRESHOLD)
    )
    """No trial is pruned before it has reported this many steps (0)."""
    interval_steps: int | None = Field(
        default=None, ge=1, json_schema_extra=_only_for(_MEDIAN, _PERCENTILE, _THRESHOLD)
    )
    """Steps between two decisions (1)."""
    n_min_trials: int | None = Field(default=None, ge=1, json_schema_extra=_only_for(_MEDIAN, _PERCENTILE))
    """Trials that must have reported the step that is judged (1)."""
    percentile: float | None = Field(default=None, ge=0, le=100, json_schema_extra=_only_for(_PERCENTILE))
    """The share of trials that go on, in percent: 25 keeps the best quarter. Needed."""
    min_resource: int | None = Field(default=None, ge=1, json_schema_extra=_only_for(_HALVING, _HYPERBAND))
    """Steps before the first rung (1)."""
    max_resource: int | None = Field(default=None, ge=1, json_schema_extra=_only_for(_HYPERBAND))
    """Steps of a whole trial: trainer.max_epochs, when each epoch is validated once. Needed, since Optuna's `auto` differs from
    worker to worker."""
    reduction_factor: int | None = Field(default=None, ge=2, json_schema_extra=_only_for(_HALVING, _HYPERBAND))
    """One in this many goes on at each rung (successiveHalving: 4, hyperband: 3)."""
    min_early_stopping_rate: int | None = Field(default=None, ge=0, json_schema_extra=_only_for(_HALVING))
    """Skips the first rungs (0)."""
    bootstrap_count: int | None = Field(default=None, ge=0, json_schema_extra=_only_for(_HALVING, _HYPERBAND))
    """Trials that must have reached a rung before any passes it (0)."""
    lower: float | None = Field(default=None, json_schema_extra=_only_for(_THRESHOLD))
    """Stop a trial that reports less."""
    upper: float | None = Field(default=None, json_schema_extra=_only_for(_THRESHOLD))
    """Stop a trial that reports more."""
    patience: int | None = Field(default=None, ge=0, json_schema_extra=_only_for(_PATIENT))
    """Steps without improvement before the wrapped pruner may decide. Needed."""
    min_delta: float | None = Field(default=None, ge=0, json_schema_extra=_only_for(_PATIENT))
    """What counts as an improvement (0)."""
    p_threshold: float | None = Field(default=None, gt=0, lt=1, json_schema_extra=_only_for(PrunerType.WILCOXON))
    """The p-value below which a trial is stopped (0.1)."""
    n_startup_steps: int | None = Field(default=None, ge=0, json_schema_extra=_only_for(PrunerType.WILCOXON))
    """Steps before the first test (2)."""

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> Self:
        field, what = _NEEDS.get(self.type, ("type", ""))
        if getattr(self, to_snake(field)) is None:
            raise ValueError(f"pruner {self.type} needs {what}")
        if self.type is _THRESHOLD and self.lower is None and self.upper is None:
            raise ValueError(_A_THRESHOLD)
        if self.lower is not None and self.upper is not None and self.lower >= self.upper:
            raise ValueError(_THRESHOLDS_IN_ORDER)
        if self.min_resource and self.max_resource and self.min_resource > self.max_resource:
            raise ValueError(_RESOURCES_IN_ORDER)
        return self


class WrappedPruner(_Pruner):
    """The pruner whose decisions a patient pruner delays."""

    model_config = _typed(*_PRUNER_RULES, rule("!(self.type in ['none', 'patient'])", _WRAPS_ANOTHER))

    @model_validator(mode="after")
    def _decides(self) -> Self:
        if self.type in {PrunerType.NONE, PrunerType.PATIENT}:
            raise ValueError(_WRAPS_ANOTHER)
        return self


class Pruner(_Pruner):
    """Which trials are stopped early."""

    wrapped: WrappedPruner | None = Field(default=None, json_schema_extra=_only_for(_PATIENT))
    """The pruner that decides once patience is over; left out, patience alone decides."""
