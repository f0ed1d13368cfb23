"""Samplers, pruners, seeds and parameters of one trial, as the spec describes them."""

from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.pruners import MedianPruner, NopPruner
from optuna.samplers import RandomSampler, TPESampler
from optuna.trial import FixedTrial, create_trial

from tuning_api.search import Condition, Parameter, Pruner, Sampler
from tuning_trial.errors import MisconfiguredError
from tuning_trial.search import build_pruner, build_sampler, every_choice, is_met, suggest, trial_seed

SPACE = [
    Parameter.model_validate(document)
    for document in (
        # NB: the condition comes before what it looks at.
        {
            "name": "momentum",
            "type": "float",
            "low": 0.8,
            "high": 0.99,
            "when": {"parameter": "optimizer", "in": ["sgd"]},
        },
        {"name": "lr", "type": "float", "low": 1e-5, "high": 1e-2, "log": True},
        {"name": "layers", "type": "int", "low": 2, "high": 8, "step": 2},
        {"name": "optimizer", "type": "categorical", "choices": ["sgd", "adam"]},
    )
]


def draw(seed: int, sampler: Sampler | None = None) -> dict[str, Any]:
    study = optuna.create_study(sampler=build_sampler(sampler or Sampler(), seed=seed, conditional=True))
    return dict(suggest(study.ask(), SPACE))


def test_parameters_are_drawn_within_their_bounds_and_with_their_types() -> None:
    """What reaches a model is an int where the spec says int."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for seed in range(20):
        values = draw(seed)
        assert 1e-5 <= values["lr"] <= 1e-2
        assert (values["layers"] in {2, 4, 6, 8}, type(values["layers"])) == (True, int)
        assert ("momentum" in values) == (values["optimizer"] == "sgd")


@pytest.mark.parametrize(("optimizer", "expected"), [("sgd", {"momentum"}), ("adam", set())])
def test_a_parameter_exists_only_when_its_condition_is_met(optimizer: str, expected: set[str]) -> None:
    """Conditional parameters of other branches would only mislead the sampler."""
    trial = FixedTrial({"momentum": 0.9, "lr": 1e-3, "layers": 4, "optimizer": optimizer})
    values = suggest(trial, SPACE)  # type: ignore[arg-type]
    assert set(values) == {"lr", "layers", "optimizer"} | expected


@pytest.mark.parametrize(
    ("values", "allowed", "expected"),
    [
        ({"a": "x"}, ["x", "y"], True),
        ({"a": "z"}, ["x", "y"], False),
        ({}, ["x"], False),
        ({"a": 2}, [2.0], True),
        ({"a": True}, [1], False),
        ({"a": 1}, [True], False),
        ({"a": True}, [True], True),
        ({"a": None}, [None], True),
    ],
)
def test_conditions_compare_as_people_do(values: dict[str, Any], allowed: list[Any], expected: bool) -> None:  # noqa: FBT001
    """To Python, True equals 1; to a person writing YAML it does not."""
    assert is_met(Condition.model_validate({"parameter": "a", "in": allowed}), values) is expected


@given(seed=st.integers(0, 2**31 - 1), numbers=st.sets(st.integers(0, 100_000), min_size=2, max_size=50))
def test_each_trial_of_a_study_has_its_own_repeatable_seed(seed: int, numbers: set[int]) -> None:
    """A function of the study's seed and the trial's number: independent of which worker runs it."""
    seeds = [trial_seed(seed, number) for number in sorted(numbers)]
    assert seeds == [trial_seed(seed, number) for number in sorted(numbers)]
    assert all(0 <= item < 2**32 for item in seeds)
    assert len(set(seeds)) == len(numbers)


def test_seeds_never_change_between_versions() -> None:
    """A study that is resumed with a newer image must go on as it began."""
    assert [trial_seed(42, number) for number in (0, 1, 2)] == [1416840650, 64878673, 3455414167]


def test_without_a_seed_every_trial_is_different() -> None:
    """Two studies without seeds must not try the same points."""
    assert len({trial_seed(None, 1) for _ in range(20)}) == 20


@pytest.mark.parametrize("kind", ["tpe", "random"])
def test_one_seed_draws_the_same_point_again(kind: str) -> None:
    """A trial can be repeated from its number."""
    sampler = Sampler.model_validate({"type": kind})
    assert draw(7, sampler) == draw(7, sampler)
    assert draw(7, sampler) != draw(8, sampler)


def test_options_reach_the_sampler_and_the_others_keep_optunas_defaults() -> None:
    """The spec's words are Optuna's."""
    spec = Sampler.model_validate({"type": "tpe", "nStartupTrials": 3, "multivariate": False, "constantLiar": False})
    sampler = build_sampler(spec, seed=1, conditional=False)
    assert isinstance(sampler, TPESampler)
    ours = (sampler._n_startup_trials, sampler._multivariate, sampler._constant_liar, sampler._group)
    assert ours == (3, False, False, False)
    assert sampler._n_ei_candidates == TPESampler()._n_ei_candidates


@pytest.mark.parametrize(
    ("spec", "conditional", "expected"),
    [({}, True, True), ({}, False, False), ({"group": False}, True, False), ({"multivariate": False}, True, False)],
)
def test_a_conditional_space_is_modelled_branch_by_branch(
    spec: dict[str, Any],
    conditional: bool,  # noqa: FBT001
    expected: bool,  # noqa: FBT001
) -> None:
    """Unless the person decided otherwise."""
    sampler = build_sampler(Sampler.model_validate(spec), seed=1, conditional=conditional)
    assert isinstance(sampler, TPESampler)
    assert sampler._group is expected


def test_random_and_none_are_what_they_say() -> None:
    """The honest baseline."""
    assert isinstance(
        build_sampler(Sampler.model_validate({"type": "random"}), seed=1, conditional=False), RandomSampler
    )
    assert isinstance(build_pruner(Pruner.model_validate({"type": "none"})), NopPruner)


def test_the_median_pruner_spares_the_warmup_steps() -> None:
    """With one validation an epoch, nWarmupSteps: 10 prunes in the eleventh epoch at the earliest."""
    spec = Pruner.model_validate({"type": "median", "nStartupTrials": 1, "nWarmupSteps": 10})
    pruner = build_pruner(spec)
    assert isinstance(pruner, MedianPruner)
    study = optuna.create_study(pruner=pruner, direction="maximize")
    good = dict.fromkeys(range(20), 1.0)
    study.add_trial(create_trial(value=1.0, intermediate_values=good))
    trial = study.ask()
    decisions = []
    for step in range(12):
        trial.report(0.0, step)
        decisions.append(trial.should_prune())
    assert decisions == [False] * 10 + [True, True]


def test_an_image_without_what_a_sampler_needs_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Optuna would in the first trial that has something to learn from."""
    monkeypatch.setattr("tuning_trial.samplers.find_spec", lambda _name: None)
    with pytest.raises(
        MisconfiguredError, match="sampler cmaes needs the package cmaes, and this trial image has none"
    ):
        build_sampler(Sampler.model_validate({"type": "cmaes"}), seed=1, conditional=False)


def test_every_choice_is_tried_and_every_condition_met() -> None:
    """Before a study runs, with as few trials as that takes: free choices side by side, conditional ones one by one."""
    space = [
        Parameter(name="size", type="categorical", choices=[16, 32, 64]),
        Parameter(name="optimizer", type="categorical", choices=["adam", "sgd"]),
        Parameter(name="rate", type="float", low=0, high=1),
        Parameter(name="nesterov", type="categorical", choices=[True, False], when=_when("optimizer", "sgd")),
        Parameter(name="momentum", type="float", low=0, high=1, when=_when("nesterov", value=True)),
    ]
    assert every_choice(space) == [
        {"size": 16, "optimizer": "adam"},
        {"size": 32, "optimizer": "sgd"},
        {"size": 64, "optimizer": "adam"},
        {"optimizer": "sgd", "nesterov": True},
        {"optimizer": "sgd", "nesterov": False},
        {"optimizer": "sgd", "nesterov": True},
    ]


def _when(parameter: str, value: str | bool) -> Condition:  # noqa: FBT001 - a choice
    return Condition.model_validate({"parameter": parameter, "in": [value]})


def test_a_space_without_choices_needs_no_trial_for_them() -> None:
    """Its draws are enough."""
    assert every_choice([Parameter(name="rate", type="float", low=0, high=1)]) == []
