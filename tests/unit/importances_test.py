"""Which parameters matter: what makes trials differ, and how sure that is."""

import math
import random
from collections.abc import Callable
from typing import Any

import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState
from tests.support.chart_studies import a_finished_trial, a_search

from tuning_operator.importances import Importances, importances, judged, shares

UNIT = FloatDistribution(0.0, 1.0)


def trials_of(
    space: dict[str, BaseDistribution], value: Callable[[dict[str, Any]], float], count: int = 40, seed: int = 1
) -> list[FrozenTrial]:
    """Random trials of a space, each with the value of its parameters."""
    chance = random.Random(seed)
    drawn = [{name: _draw(distribution, chance) for name, distribution in space.items()} for _ in range(count)]
    return [
        a_finished_trial(number, value=value(params), params=params, distributions=space)
        for number, params in enumerate(drawn)
    ]


def _draw(distribution: BaseDistribution, chance: random.Random) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return chance.choice(distribution.choices)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    if distribution.log:
        return math.exp(chance.uniform(math.log(distribution.low), math.log(distribution.high)))
    place = chance.uniform(distribution.low, distribution.high)
    return round(place) if isinstance(distribution, IntDistribution) else place


def first(found: Importances) -> str:
    return next(iter(found.shares))


def test_the_shares_of_a_sum_are_those_of_its_variances() -> None:
    trials = trials_of({"a": UNIT, "b": UNIT, "c": UNIT}, lambda at: 3 * at["a"] + 2 * at["b"] + 0.1 * at["c"], 100)
    assert shares(trials) == pytest.approx({"a": 9 / 13, "b": 4 / 13, "c": 0}, abs=0.06)


def test_what_acts_through_others_alone_has_its_share() -> None:
    """Neither changes the mean of the values: a method that looks at one parameter at a time sees nothing."""
    space = {"a": UNIT, "b": UNIT, "c": UNIT}
    found = shares(trials_of(space, lambda at: (at["a"] - 0.5) * (at["b"] - 0.5), 150))
    assert min(found["a"], found["b"]) > 0.3 > found["c"]


def test_a_logarithmic_parameter_is_seen_on_its_scale() -> None:
    space = {"learning_rate": FloatDistribution(1e-5, 1e-1, log=True), "b": UNIT}
    found = shares(trials_of(space, lambda at: abs(math.log10(at["learning_rate"]) + 3) + at["b"] / 2))
    assert found["learning_rate"] > 0.8


@pytest.mark.parametrize("change", [lambda value: -value, lambda value: value**3, lambda value: 1e9 * value - 7])
def test_only_the_order_of_the_values_counts(change: Callable[[float], float]) -> None:
    """Whether more or less is better, and in which unit."""
    trials = trials_of({"a": UNIT, "b": UNIT}, lambda at: at["a"] + at["b"] / 2)
    changed = trials_of({"a": UNIT, "b": UNIT}, lambda at: change(at["a"] + at["b"] / 2))
    assert shares(changed) == pytest.approx(shares(trials), abs=1e-4)


def test_a_trial_that_diverged_is_the_worst_and_no_more() -> None:
    trials = trials_of({"a": UNIT, "b": UNIT}, lambda at: at["a"] + at["b"] / 4)
    trials[3].values = [math.inf]
    assert first(importances(trials)) == "a"


def test_of_several_objectives_they_are_those_of_the_first() -> None:
    trials = [trial for trial in a_search(80) if trial.state is TrialState.COMPLETE]
    both = [a_finished_trial(trial.number, params=trial.params) for trial in trials]
    for trial, with_two in zip(trials, both, strict=True):
        with_two.values = [*trial.values, -trial.params["dropout"]]
    assert shares(both) == shares(trials)


def test_pruned_trials_count_with_their_last_value() -> None:
    """The complete ones are those that a good value of `a` made: among them it makes no difference."""
    trials = trials_of({"a": UNIT, "b": UNIT}, lambda at: 0.01 * at["b"] + (0 if at["a"] < 0.3 else at["a"]))
    complete = [trial for trial in trials if trial.params["a"] < 0.3]
    for trial in trials:
        if trial.params["a"] >= 0.3:
            trial.intermediate_values = {0: math.nan, 1: 9.0, 2: trial.values[0]}
            trial.state, trial.values = TrialState.PRUNED, None
    assert first(importances(complete)) == "b"
    assert first(importances(trials)) == "a"


@pytest.mark.parametrize(
    "choices",
    [
        [[64], [64, 64], [128, 64]],
        [(64,), (64, 64), (128, 64, 32)],
        [{"width": 1}, {"width": 2}],
        [True, "true", None],
        [1.0, math.inf, math.nan],
        ["a\nb", "a b"],
        [[math.nan, {"a": (1, [2])}], object()],
    ],
    ids=["lists", "tuples", "mappings", "of several types", "infinite", "with line ends", "of any class"],
)
@pytest.mark.filterwarnings("ignore:Choices for a categorical distribution:UserWarning")
def test_any_choice_counts(choices: list[Any]) -> None:
    """As those of a database do, where a choice is what JSON makes of it."""
    space = {"layers": CategoricalDistribution(choices), "b": UNIT}
    trials = trials_of(space, lambda at: 2 * [repr(item) for item in choices].index(repr(at["layers"])) + at["b"])
    assert first(importances(trials)) == "layers"


def test_choices_that_python_takes_for_equal_are_told_apart() -> None:
    space: dict[str, BaseDistribution] = {"a": CategoricalDistribution([True, 1]), "b": UNIT}
    trials = trials_of(space, lambda at: 3 * ["True", "1"].index(repr(at["a"])) + at["b"])
    assert shares(trials)["a"] > 0.5


def test_a_parameter_of_one_value_has_no_share() -> None:
    space = {"a": UNIT, "fixed": FloatDistribution(0.5, 0.5), "only": CategoricalDistribution(["x"])}
    found = shares(trials_of(space, lambda at: at["a"]))
    assert found == {"a": pytest.approx(1), "fixed": 0, "only": 0}


def test_trials_that_differ_in_nothing_tell_nothing() -> None:
    trials = trials_of({"fixed": FloatDistribution(0.5, 0.5)}, lambda _: 0.0)
    for trial in trials:
        trial.values = [float(trial.number)]
    assert shares(trials) == {"fixed": 0}
    assert importances(trials).doubt is None


def test_a_parameter_that_some_trials_have_has_its_share_of_those() -> None:
    """What it means to have it is the other one's share."""
    space: dict[str, BaseDistribution] = {
        "optimizer": CategoricalDistribution(["adam", "sgd"]),
        "b": UNIT,
        "momentum": UNIT,
    }
    trials = trials_of(space, lambda at: (at["optimizer"] == "sgd") * (3 + at["momentum"]), 80)
    for trial in trials:
        if trial.params["optimizer"] == "adam":
            del trial.params["momentum"], trial.distributions["momentum"]
    found = shares(trials)
    assert found["optimizer"] > found["momentum"] > found["b"]


def test_a_range_may_be_moved_while_the_study_runs() -> None:
    early = trials_of({"a": UNIT, "b": UNIT}, lambda at: at["a"] + at["b"] / 4, 20)
    late = trials_of({"a": FloatDistribution(0.4, 5.0), "b": UNIT}, lambda at: at["a"] + at["b"] / 4, 20)
    assert first(importances([*early, *late])) == "a"


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_few_trials_tell_nothing(count: int) -> None:
    assert importances(trials_of({"a": UNIT}, lambda at: at["a"], count)) == Importances()


def test_equal_values_tell_nothing() -> None:
    assert shares(trials_of({"a": UNIT}, lambda _: 0.5)) == {}


def test_nan_counts_for_nothing() -> None:
    trials = [
        a_finished_trial(0, TrialState.PRUNED, params={"dropout": 0.1}, intermediate_values={0: math.nan}),
        a_finished_trial(1, TrialState.PRUNED, params={"dropout": 0.1}),
        a_finished_trial(2, TrialState.FAIL, params={"dropout": 0.1}),
    ]
    assert judged(trials) == []


@pytest.mark.parametrize(("parameters", "count"), [(3, 2000), (600, 100)])
def test_however_many_there_are_it_takes_seconds(parameters: int, count: int) -> None:
    """The test's own limit of time holds; memory is bounded by the pairs that are looked at."""
    space: dict[str, BaseDistribution] = {f"p{at}": UNIT for at in range(parameters)}
    found = importances(trials_of(space, lambda at: at["p1"], count))
    assert len(found.shares) == parameters
    assert found.trials <= 200


def test_chance_is_called_too_few_trials() -> None:
    """No parameter has a say in the values: at most two of ten studies are taken for sure."""
    chance = random.Random(3)
    space: dict[str, BaseDistribution] = {f"p{at}": UNIT for at in range(5)}
    doubts = [importances(trials_of(space, lambda _: chance.random(), 15, seed)).doubt for seed in range(10)]
    assert sum(doubt is None for doubt in doubts) <= 2
    assert doubts.count("15 trials are too few to tell which parameter matters most: halves of them disagree.") >= 8


def test_a_clear_order_is_sure_and_its_intervals_are_narrow() -> None:
    found = importances(trials_of({"a": UNIT, "b": UNIT}, lambda at: 5 * at["a"] + at["b"], 100))
    assert (first(found), found.doubt) == ("a", None)
    assert found.shares["a"].low > found.shares["b"].high
    assert all(share.low <= share.value <= share.high for share in found.shares.values())
