"""How a study searches: its objectives, its search space, its sampler and its pruner, in Optuna's own words."""

from enum import StrEnum
from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from tuning_api.schema import Scalar, Schema, kubernetes, rule

MAX_CHOICES = 256


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


_IMMUTABLE = "is immutable: Optuna cannot compare the trials, create a new study"
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
    """The smallest value, included (float, int)."""
    high: float | None = None
    """The largest value, included (float, int)."""
    step: float | None = Field(default=None, gt=0)
    """Only low, low + step, low + 2 step, ... are tried (float, int)."""
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
    if len({(type(choice), choice) for choice in parameter.choices}) < len(parameter.choices):
        return "choices must differ from each other"
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


def _with_rules_of_options(schema: dict[str, Any]) -> None:
    schema |= kubernetes(rules=_rules_of_options(schema["properties"]))
    for option in schema["properties"].values():
        option.pop("x-only-for", None)


class _Typed(Schema):
    """A choice among algorithms: `type` picks one, and each option says which of them it belongs to."""

    model_config = ConfigDict(json_schema_extra=_with_rules_of_options)

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


class Sampler(_Typed):
    """How the parameters of the next trial are chosen."""

    type: SamplerType = SamplerType.TPE
    """tpe: learns from finished trials, the default for most studies. random: independent draws, the honest baseline. grid:
    every combination. qmc: evenly spread. cmaes: continuous spaces, hundreds of trials. gp: few, expensive trials. nsga2,
    nsga3: several objectives. bruteforce: every combination of a finite, conditional space."""
    seed: int | None = Field(default=None, ge=0, le=2**31 - 1)
    """Makes each trial's draw repeatable: a trial's seed is a function of this and of its number."""
    n_startup_trials: int | None = Field(default=None, ge=0, json_schema_extra=_only_for(_TPE, _CMAES, _GP))
    """Random trials before the model is used (tpe: 10)."""
    n_ei_candidates: int | None = Field(default=None, ge=1, json_schema_extra=_only_for(_TPE))
    """Candidates drawn for each suggestion (24)."""
    multivariate: bool | None = Field(default=None, json_schema_extra=_only_for(_TPE))
    """Model the parameters jointly (true with one objective)."""
    group: bool | None = Field(default=None, json_schema_extra=_only_for(_TPE))
    """Model each branch of a conditional space by itself (true when the space has conditions)."""
    constant_liar: bool | None = Field(default=None, json_schema_extra=_only_for(_TPE))
    """Keep away from the points that are running now (true)."""
    population_size: int | None = Field(default=None, ge=2, json_schema_extra=_only_for(_CMAES, *_NSGA))
    """Trials in a generation."""
    crossover_prob: float | None = Field(default=None, ge=0, le=1, json_schema_extra=_only_for(*_NSGA))
    """Chance of a crossover (0.9)."""
    mutation_prob: float | None = Field(default=None, ge=0, le=1, json_schema_extra=_only_for(*_NSGA))
    """Chance that a parameter mutates (one over their number)."""
    dividing_parameter: int | None = Field(default=None, ge=1, json_schema_extra=_only_for(SamplerType.NSGA3))
    """Density of the reference points (3)."""
    with_margin: bool | None = Field(default=None, json_schema_extra=_only_for(_CMAES))
    """Keep a margin on discrete parameters, so that none is fixed too early."""
    use_separable: bool | None = Field(default=None, json_schema_extra=_only_for(_CMAES))
    """Assume independent parameters: better beyond some ten of them."""
    lr_adapt: bool | None = Field(default=None, json_schema_extra=_only_for(_CMAES))
    """Adapt the learning rate: for noisy or multimodal objectives."""
    consider_pruned: bool | None = Field(default=None, json_schema_extra=_only_for(_CMAES))
    """Learn from pruned trials too."""
    deterministic_objective: bool | None = Field(default=None, json_schema_extra=_only_for(_GP))
    """The objective has no noise."""
    qmc_type: Literal["sobol", "halton"] | None = Field(default=None, json_schema_extra=_only_for(_QMC))
    """The sequence (sobol)."""
    scramble: bool | None = Field(default=None, json_schema_extra=_only_for(_QMC))
    """Randomise the sequence; every worker needs the same seed."""
    avoid_premature_stop: bool | None = Field(
        default=None, json_schema_extra=_only_for(SamplerType.GRID, SamplerType.BRUTEFORCE)
    )
    """Go on until every combination has ended, not only started."""


_MEDIAN, _PERCENTILE, _HYPERBAND = PrunerType.MEDIAN, PrunerType.PERCENTILE, PrunerType.HYPERBAND
_HALVING, _THRESHOLD, _PATIENT = PrunerType.SUCCESSIVE_HALVING, PrunerType.THRESHOLD, PrunerType.PATIENT


class _Pruner(_Typed):
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
    """The share of trials that go on, in percent."""
    min_resource: int | None = Field(default=None, ge=1, json_schema_extra=_only_for(_HALVING, _HYPERBAND))
    """Steps before the first rung."""
    max_resource: int | None = Field(default=None, ge=1, json_schema_extra=_only_for(_HYPERBAND))
    """Steps of a whole trial; needed, since `auto` differs from worker to worker."""
    reduction_factor: int | None = Field(default=None, ge=2, json_schema_extra=_only_for(_HALVING, _HYPERBAND))
    """One in this many goes on at each rung."""
    min_early_stopping_rate: int | None = Field(default=None, ge=0, json_schema_extra=_only_for(_HALVING))
    """Skips the first rungs."""
    bootstrap_count: int | None = Field(default=None, ge=0, json_schema_extra=_only_for(_HALVING, _HYPERBAND))
    """Trials that a rung waits for before it stops any."""
    lower: float | None = Field(default=None, json_schema_extra=_only_for(_THRESHOLD))
    """Stop a trial that reports less."""
    upper: float | None = Field(default=None, json_schema_extra=_only_for(_THRESHOLD))
    """Stop a trial that reports more."""
    patience: int | None = Field(default=None, ge=0, json_schema_extra=_only_for(_PATIENT))
    """Steps without improvement before the wrapped pruner may decide."""
    min_delta: float | None = Field(default=None, ge=0, json_schema_extra=_only_for(_PATIENT))
    """What counts as an improvement (0)."""
    p_threshold: float | None = Field(default=None, gt=0, lt=1, json_schema_extra=_only_for(PrunerType.WILCOXON))
    """The p-value below which a trial is stopped (0.1)."""
    n_startup_steps: int | None = Field(default=None, ge=0, json_schema_extra=_only_for(PrunerType.WILCOXON))
    """Steps before the first test (2)."""


class WrappedPruner(_Pruner):
    """The pruner whose decisions a patient pruner delays."""


class Pruner(_Pruner):
    """Which trials are stopped early."""

    wrapped: WrappedPruner | None = Field(default=None, json_schema_extra=_only_for(_PATIENT))
    """The pruner that decides once patience is over."""
