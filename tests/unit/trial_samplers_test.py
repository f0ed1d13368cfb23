"""Every sampler and every pruner: which go together, how their options reach Optuna, and what they draw."""

import math
from itertools import product
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from optuna import pruners as theirs
from optuna import samplers
from optuna.samplers import BaseSampler
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState
from tests.support.builders import a_spec
from tests.support.spaces import conditional_spaces, flat_spaces

from tuning_api import space
from tuning_api.search import PLANNED, UNCONDITIONAL, Parameter, Pruner, PrunerType, Sampler, SamplerType
from tuning_trial import worker
from tuning_trial.pruners import build_pruner
from tuning_trial.samplers import NSGA2, NSGA3, build_sampler
from tuning_trial.search import suggest_within, trial_seed

LEARNING = [kind for kind in SamplerType if kind not in PLANNED]
SPACE: list[dict[str, Any]] = [
    {"name": "rate", "type": "float", "low": 0.1, "high": 0.9, "step": 0.2},
    {"name": "layers", "type": "int", "low": 1, "high": 5},
    {"name": "optimizer", "type": "categorical", "choices": ["sgd", "adam"]},
]
TRIAL = {"lightning": {"model": {"init_args": [f"${{{item['name']}}}" for item in SPACE]}}}
OBJECTIVES = [{"metric": metric, "direction": "minimize"} for metric in ("loss", "latency")]
NEEDED: dict[PrunerType, dict[str, Any]] = {
    PrunerType.PERCENTILE: {"percentile": 25},
    PrunerType.HYPERBAND: {"maxResource": 9},
    PrunerType.THRESHOLD: {"upper": 10},
    PrunerType.PATIENT: {"patience": 1, "wrapped": {"type": "median"}},
}


def a_pruner(kind: PrunerType) -> dict[str, Any]:
    return {"type": str(kind)} | NEEDED.get(kind, {})


def parameters(documents: list[dict[str, Any]]) -> list[Parameter]:
    return [Parameter.model_validate(document) for document in documents]


def run(
    sampler: Sampler,
    spaces: list[list[Parameter]],
    *,
    pruner: Pruner | None = None,
    objectives: int = 1,
    seed: int = 0,
) -> optuna.Study:
    """A trial for each space, as a worker runs it: everything is built anew, and nothing is written to the study."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(directions=["minimize"] * objectives)
    storage = study._storage
    assert isinstance(storage, InMemoryStorage)
    storage.set_study_system_attr = _refuse  # type: ignore[method-assign]
    for number, parameters_now in enumerate(spaces):
        conditional = any(parameter.when for parameter in parameters_now)
        study.sampler = build_sampler(sampler, seed=trial_seed(seed, number), conditional=conditional)
        study.pruner = build_pruner(pruner or Pruner(type=PrunerType.NONE))
        study._thread_local.cached_all_trials = None
        trial_id = storage.create_new_trial(study._study_id)
        chosen = chosen_within(study, storage.get_trial(trial_id), parameters_now)
        score = math.fsum(float(value) for value in chosen.params.values() if isinstance(value, int | float))
        if objectives > 1 or not _is_pruned(study, trial_id, score):
            study.tell(number, [score, *[-score] * (objectives - 1)])
    return study


def chosen_within(study: optuna.Study, own: FrozenTrial, space: list[Parameter]) -> FrozenTrial:
    """Choose, and write what was chosen."""
    chosen = suggest_within(study, own, space, trials=study.get_trials(deepcopy=False))
    for name, kind in chosen.distributions.items():
        study._storage.set_trial_param(own._trial_id, name, kind.to_internal_repr(chosen.params[name]), kind)
    for name, value in chosen.system_attrs.items():
        study._storage.set_trial_system_attr(own._trial_id, name, value)
    return chosen


def _is_pruned(study: optuna.Study, trial_id: int, score: float) -> bool:
    trial = optuna.trial.Trial(study, trial_id)
    for step in range(9):
        trial.report(score + step / 10, step)
        if trial.should_prune():
            study.tell(trial, state=TrialState.PRUNED)
            return True
    return False


def _refuse(*_: object) -> None:
    raise AssertionError("a worker's database role may not write to the study")


@pytest.mark.parametrize(("sampler", "pruner"), list(product(SamplerType, PrunerType)))
def test_every_sampler_goes_with_every_pruner(sampler: SamplerType, pruner: PrunerType) -> None:
    """With one objective. With several there is nothing to prune by, and the refusal says so."""
    both = {"sampler": {"type": str(sampler)}, "pruner": a_pruner(pruner)}
    study = {"searchSpace": SPACE, "trial": TRIAL}
    assert a_spec(**study | both).resolved_pruner.type is pruner
    if sampler is SamplerType.CMAES:
        words = "sampler cmaes needs exactly one objective: use nsga2 or tpe"
    elif pruner is not PrunerType.NONE:
        words = "pruning needs exactly one objective: remove the pruner, or set its type to none"
    else:
        assert len(a_spec(**study | both, objectives=OBJECTIVES).objectives) == 2
        return
    with pytest.raises(ValueError, match=words):
        a_spec(**study | both, objectives=OBJECTIVES)


@pytest.mark.parametrize(
    ("sampler", "pruner"), [pair for pair in product(LEARNING, PrunerType) if pair[0] is not SamplerType.GP]
)
def test_a_sampler_and_a_pruner_work_together(sampler: SamplerType, pruner: PrunerType) -> None:
    """Long enough for a sampler to use what it has learned, and for a pruner to prune."""
    options = {"populationSize": 4} if "population" in _options_of(sampler) else {}
    spec = Sampler.model_validate({"type": str(sampler)} | options)
    study = run(spec, [parameters(SPACE)] * 24, pruner=Pruner.model_validate(a_pruner(pruner)))
    assert {trial.state for trial in study.trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
    if pruner in {PrunerType.MEDIAN, PrunerType.PERCENTILE, PrunerType.SUCCESSIVE_HALVING, PrunerType.HYPERBAND}:
        assert TrialState.PRUNED in {trial.state for trial in study.trials}


def _options_of(sampler: SamplerType) -> str:
    return "population" if sampler in {SamplerType.CMAES, SamplerType.NSGA2, SamplerType.NSGA3} else ""


@pytest.mark.parametrize("sampler", [SamplerType.TPE, SamplerType.RANDOM, SamplerType.NSGA2, SamplerType.NSGA3])
def test_samplers_of_several_objectives_write_to_trials_alone(sampler: SamplerType) -> None:
    """Optuna's own NSGA keeps the parents of a generation in the study, which a worker's role may not touch."""
    options = {"populationSize": 4} if sampler in {SamplerType.NSGA2, SamplerType.NSGA3} else {}
    study = run(Sampler.model_validate({"type": sampler} | options), [parameters(SPACE)] * 16, objectives=3)
    assert len(study.trials) == 16


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize(("ours", "optunas"), [(NSGA2, samplers.NSGAIISampler), (NSGA3, samplers.NSGAIIISampler)])
def test_generations_are_those_of_optuna(ours: type[BaseSampler], optunas: type[BaseSampler]) -> None:
    """Only the place of the parents is another."""

    def points(build: type[BaseSampler]) -> list[dict[str, Any]]:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = optuna.create_study(directions=["minimize", "maximize"])
        for number in range(40):
            study.sampler = build(seed=trial_seed(5, number), population_size=6)  # type: ignore[call-arg]
            trial = study.ask()
            value = trial.suggest_float("x", 0, 1)
            study.tell(trial, (value, trial.suggest_int("y", 0, 9) * value))
        return [trial.params for trial in study.trials]

    assert points(ours) == points(optunas)


SAMPLERS: list[tuple[dict[str, Any], type[BaseSampler], dict[str, Any]]] = [
    (
        {"type": "tpe", "nStartupTrials": 3, "nEiCandidates": 7, "multivariate": False, "constantLiar": False},
        samplers.TPESampler,
        {"_n_startup_trials": 3, "_n_ei_candidates": 7, "_multivariate": False, "_constant_liar": False},
    ),
    ({"type": "tpe", "group": True}, samplers.TPESampler, {"_group": True, "_multivariate": True}),
    ({"type": "random"}, samplers.RandomSampler, {}),
    (
        {"type": "cmaes", "nStartupTrials": 3, "populationSize": 9, "withMargin": True, "considerPruned": True},
        samplers.CmaEsSampler,
        {"_n_startup_trials": 3, "_popsize": 9, "_with_margin": True, "_consider_pruned_trials": True},
    ),
    ({"type": "cmaes", "useSeparable": True}, samplers.CmaEsSampler, {"_use_separable_cma": True}),
    ({"type": "cmaes", "lrAdapt": True}, samplers.CmaEsSampler, {"_lr_adapt": True, "_n_startup_trials": 1}),
    (
        {"type": "gp", "nStartupTrials": 4, "deterministicObjective": True},
        samplers.GPSampler,
        {"_n_startup_trials": 4, "_deterministic": True},
    ),
    ({"type": "nsga2", "populationSize": 8}, samplers.NSGAIISampler, {"population_size": 8}),
    ({"type": "nsga2", "crossoverProb": 0.5}, samplers.NSGAIISampler, {"population_size": 50}),
    ({"type": "nsga3", "populationSize": 8, "dividingParameter": 4}, samplers.NSGAIIISampler, {"population_size": 8}),
    # What a known good point leaves open; all else is planned by the operator.
    ({"type": "grid"}, samplers.RandomSampler, {}),
    ({"type": "qmc", "qmcType": "halton", "scramble": True}, samplers.RandomSampler, {}),
    ({"type": "bruteforce"}, samplers.RandomSampler, {}),
]


@pytest.mark.parametrize(("document", "kind", "attributes"), SAMPLERS, ids=lambda value: str(value)[:60])
def test_options_reach_optunas_sampler(
    document: dict[str, Any], kind: type[BaseSampler], attributes: dict[str, Any]
) -> None:
    """The spec's words are Optuna's; without a warning, whatever Optuna calls experimental."""
    sampler = build_sampler(Sampler.model_validate(document), seed=1, conditional=False)
    assert isinstance(sampler, kind)
    assert {name: getattr(sampler, name) for name in attributes} == attributes


def test_options_of_a_generation_reach_optuna() -> None:
    """They are kept where a child is made."""
    options = {"type": "nsga3", "crossoverProb": 0.5, "mutationProb": 0.25, "dividingParameter": 4}
    sampler = build_sampler(Sampler.model_validate(options), seed=1, conditional=False)
    assert isinstance(sampler, NSGA3)
    child: Any = sampler._child_generation_strategy
    elite: Any = sampler._elite_population_selection_strategy
    assert (child._crossover_prob, child._mutation_prob, elite._dividing_parameter) == (0.5, 0.25, 4)


PRUNERS: list[tuple[dict[str, Any], type[theirs.BasePruner], dict[str, Any]]] = [
    ({"type": "none"}, theirs.NopPruner, {}),
    (
        {"type": "median", "nStartupTrials": 1, "nWarmupSteps": 2, "intervalSteps": 3, "nMinTrials": 4},
        theirs.MedianPruner,
        {"_n_startup_trials": 1, "_n_warmup_steps": 2, "_interval_steps": 3, "_n_min_trials": 4},
    ),
    (
        {"type": "percentile", "percentile": 30, "nStartupTrials": 1},
        theirs.PercentilePruner,
        {"_percentile": 30, "_n_startup_trials": 1, "_n_warmup_steps": 0},
    ),
    ({"type": "successiveHalving"}, theirs.SuccessiveHalvingPruner, {"_min_resource": 1, "_reduction_factor": 4}),
    (
        {"type": "successiveHalving", "minResource": 2, "minEarlyStoppingRate": 1, "bootstrapCount": 3},
        theirs.SuccessiveHalvingPruner,
        {"_min_resource": 2, "_min_early_stopping_rate": 1, "_bootstrap_count": 3},
    ),
    (
        {"type": "hyperband", "minResource": 2, "maxResource": 20, "reductionFactor": 4, "bootstrapCount": 1},
        theirs.HyperbandPruner,
        {"_min_resource": 2, "_max_resource": 20, "_reduction_factor": 4, "_bootstrap_count": 1},
    ),
    (
        {"type": "threshold", "lower": 0.1, "upper": 0.9, "nWarmupSteps": 2, "intervalSteps": 3},
        theirs.ThresholdPruner,
        {"_lower": 0.1, "_upper": 0.9, "_n_warmup_steps": 2, "_interval_steps": 3},
    ),
    ({"type": "patient", "patience": 2}, theirs.PatientPruner, {"_patience": 2, "_wrapped_pruner": None}),
    (
        {"type": "wilcoxon", "pThreshold": 0.2, "nStartupSteps": 3},
        theirs.WilcoxonPruner,
        {"_p_threshold": 0.2, "_n_startup_steps": 3},
    ),
]


@pytest.mark.parametrize(("document", "kind", "attributes"), PRUNERS, ids=lambda value: str(value)[:60])
def test_options_reach_optunas_pruner(
    document: dict[str, Any], kind: type[theirs.BasePruner], attributes: dict[str, Any]
) -> None:
    """Also those of the pruner that a patient one wraps."""
    pruner = build_pruner(Pruner.model_validate(document))
    assert type(pruner) is kind
    assert {name: getattr(pruner, name) for name in attributes} == attributes
    if document["type"] in {"none", "patient"}:
        return
    patient: Any = build_pruner(Pruner.model_validate({"type": "patient", "patience": 3, "wrapped": document}))
    assert type(patient._wrapped_pruner) is kind
    assert {name: getattr(patient._wrapped_pruner, name) for name in attributes} == attributes


REFUSED = {
    "hyperband": (
        {"type": "hyperband"},
        "pruner hyperband needs maxResource, the steps of a whole trial: trainer.max_epo",
    ),
    "percentile": ({"type": "percentile"}, "pruner percentile needs percentile, the share of trials that go on"),
    "threshold": ({"type": "threshold"}, "pruner threshold needs lower or upper"),
    "thresholds": ({"type": "threshold", "lower": 2, "upper": 1}, "lower must be less than upper"),
    "patient": ({"type": "patient"}, "pruner patient needs patience"),
    "resources": (
        {"type": "hyperband", "minResource": 9, "maxResource": 3},
        "minResource must not be greater than maxResource",
    ),
    "patient wraps none": ({"type": "patient", "patience": 1, "wrapped": {"type": "none"}}, "decide by itself"),
    "patient wraps patient": (
        {"type": "patient", "patience": 1, "wrapped": {"type": "patient", "patience": 1}},
        "wrapped must decide by itself: not none, and not patient again",
    ),
    "wrapped hyperband": (
        {"type": "patient", "patience": 1, "wrapped": {"type": "hyperband"}},
        "pruner hyperband needs maxResource",
    ),
    "an option of another": ({"type": "median", "patience": 1}, "patience is an option of patient"),
    "wrapped without patient": (
        {"type": "median", "wrapped": {"type": "none"}},
        "wrapped",
    ),
}


@pytest.mark.parametrize(("document", "words"), REFUSED.values(), ids=REFUSED)
def test_a_pruner_that_could_not_decide_is_refused(document: dict[str, Any], words: str) -> None:
    """At apply, with what it needs."""
    with pytest.raises(ValueError, match=words):
        Pruner.model_validate(document)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"type": "cmaes", "withMargin": True, "lrAdapt": True}, "three variants of cmaes: keep one of them"),
        ({"type": "tpe", "group": True, "multivariate": False}, "group models parameters jointly"),
        ({"type": "random", "nStartupTrials": 3}, "nStartupTrials is an option of tpe, cmaes, gp"),
        ({"type": "cmaes", "populationSize": 3}, "sampler cmaes needs a populationSize of 4 at least"),
    ],
    ids=["variants", "group", "random", "population"],
)
def test_options_that_exclude_each_other_are_refused(document: dict[str, Any], words: str) -> None:
    """Optuna would raise in every trial."""
    with pytest.raises(ValueError, match=words):
        Sampler.model_validate(document)


VARIANTS: list[dict[str, Any]] = [
    {"type": "tpe", "nStartupTrials": 2},
    {"type": "tpe", "nStartupTrials": 2, "multivariate": False},
    {"type": "random"},
    {"type": "cmaes", "populationSize": 4},
    {"type": "cmaes", "populationSize": 4, "withMargin": True},
    {"type": "cmaes", "populationSize": 4, "lrAdapt": True},
    {"type": "nsga2", "populationSize": 3},
    {"type": "nsga3", "populationSize": 3},
    {"type": "gp", "nStartupTrials": 3},
    {"type": "qmc"},
]


def assert_within(parameters: list[Parameter], params: dict[str, Any]) -> None:
    """Every parameter that exists is there, is within its bounds and on its step, and has its type; no other is there."""
    assert space.is_point(parameters, params), params
    for parameter in parameters:
        if parameter.name in params and parameter.type == "int":
            assert type(params[parameter.name]) is int


@pytest.mark.parametrize("document", VARIANTS, ids=str)
@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.filter_too_much])
@given(parameters=st.one_of(flat_spaces(), conditional_spaces(endless=True)), seed=st.integers(0, 2**31 - 1))
def test_every_sampler_stays_within_any_space(document: dict[str, Any], parameters: list[Parameter], seed: int) -> None:
    """Bounds, steps and conditions, before and after it has learned; any space that is accepted with it."""
    sampler = Sampler.model_validate(document)
    assume(not list(space.faults_of_search(parameters, sampler, objectives=1)))
    trials = 5 if document["type"] == "gp" else 12
    study = run(sampler, [parameters] * trials, seed=seed)
    for trial in study.trials:
        assert_within(parameters, trial.params)


SMOOTH = [SPACE[0] | {"step": None}, *SPACE[1:]]
WIDE, NARROW = parameters(SMOOTH), parameters([SMOOTH[0] | {"low": 0.3, "high": 0.7}, SPACE[1] | {"high": 3}, SPACE[2]])


@pytest.mark.parametrize("document", VARIANTS[:-1], ids=str)
@pytest.mark.parametrize(("before", "after"), [(WIDE, NARROW), (NARROW, WIDE)], ids=["narrowed", "widened"])
def test_bounds_that_move_are_followed_at_once(
    document: dict[str, Any], before: list[Parameter], after: list[Parameter]
) -> None:
    """By the next trial, and the sampler goes on from what lies within them."""
    few = document["type"] == "gp"
    study = run(Sampler.model_validate(document), [before] * (6 if few else 14) + [after] * (3 if few else 14))
    for trial in study.trials[6 if few else 14 :]:
        assert_within(after, trial.params)


@pytest.mark.parametrize("kind", ["cmaes", "nsga2", "tpe"])
def test_a_sampler_still_models_parameters_whose_bounds_moved(kind: str) -> None:
    """Optuna alone would draw them at random from then on: earlier trials have other bounds."""
    options: dict[str, Any] = {"nStartupTrials": 3} if kind == "tpe" else {"populationSize": 4}
    study = run(Sampler.model_validate({"type": kind} | options), [WIDE] * 20 + [NARROW] * 20)
    key = {"cmaes": "cma:generation", "nsga2": "NSGA2:generation", "tpe": "tpe:relative_params:0"}[kind]
    last = study.trials[-1]
    assert key in last.system_attrs
    assert last.distributions["rate"] != study.trials[0].distributions["rate"]


def test_a_trial_keeps_what_it_was_given_under_other_bounds() -> None:
    """It began before they moved, and is continued; its distribution has room for it, so that no warning is due."""
    study = optuna.create_study(sampler=samplers.RandomSampler(seed=1))
    study.enqueue_trial({"rate": 0.9, "layers": 5})
    study.ask()
    (trial,) = study.get_trials()
    chosen = suggest_within(study, trial, NARROW, trials=[trial])
    assert (chosen.params["rate"], chosen.params["layers"]) == (0.9, 5)
    assert all(chosen.distributions[name]._contains(float(chosen.params[name])) for name in ("rate", "layers"))


def test_a_parameter_that_became_another_one_is_refused() -> None:
    """Optuna says so when it writes a parameter; here it is said before, and nothing is written."""
    study = optuna.create_study(sampler=samplers.RandomSampler(seed=1))
    study.ask().suggest_int("rate", 1, 9)
    study.ask()
    trials = study.get_trials()
    with pytest.raises(ValueError, match="different distribution kind"):
        suggest_within(study, trials[1], parameters(SPACE), trials=trials)


def test_trials_are_read_once_for_a_suggestion(monkeypatch: pytest.MonkeyPatch) -> None:
    """Optuna alone reads all that have not ended several times, which takes longer than choosing."""
    study = optuna.create_study(sampler=samplers.TPESampler(seed=1, n_startup_trials=2))
    study.optimize(lambda trial: trial.suggest_float("rate", 0.1, 0.9), n_trials=4)
    study.ask()
    read = study.get_trials(deepcopy=False)
    monkeypatch.setattr(study._storage, "get_all_trials", _refuse_to_read)
    monkeypatch.setattr(study._storage, "get_trial", _refuse_to_read)
    chosen = suggest_within(study, read[-1], parameters(SPACE), trials=read)
    assert chosen.params.keys() == {"rate", "layers", "optimizer"}


def _refuse_to_read(*_: object, **__: object) -> None:
    raise AssertionError("the trials were read already")


@pytest.mark.parametrize("kind", sorted(UNCONDITIONAL))
def test_what_knows_no_conditions_says_so(kind: SamplerType) -> None:
    """Optuna itself would go wrong in silence."""
    momentum = {"name": "momentum", "type": "int", "low": 0, "high": 1, "when": {"parameter": "layers", "in": [1]}}
    used = {"lightning": {"model": [f"${{{item['name']}}}" for item in [*SPACE, momentum]]}}
    with pytest.raises(ValueError, match=f"sampler {kind} knows no conditions, and momentum has one"):
        a_spec(sampler={"type": kind}, searchSpace=[*SPACE, momentum], trial=used)


def test_a_worker_that_computed_with_torch_forks_no_trial_any_more() -> None:
    """Its threads are in no fork, and autograd refuses to work there; also when another sampler follows."""
    fields: Any = SimpleNamespace(isolation="fork")
    changing = [worker._isolation(fields, a_spec(sampler={"type": kind})) for kind in ("tpe", "gp", "tpe")]
    assert changing == ["fork", "process", "process"]
