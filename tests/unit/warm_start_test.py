"""Which trials of an earlier study teach a new one, and what is copied of them."""

import math
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial
from tests.support.builders import a_spec

from tuning_api.contract import COPIED_ATTRIBUTE, LIMITED_ATTRIBUTE, OWNER_ATTRIBUTE, RETRY_OF_ATTRIBUTE, Origin
from tuning_api.spec import StudySpec
from tuning_operator import feasibility, warm_start
from tuning_operator.decide import report
from tuning_operator.model import TakenOver

RATE = FloatDistribution(1e-5, 1.0, log=True)
WIDTH = CategoricalDistribution([8, 16, 32, 64])
PARAMS: dict[str, Any] = {"learning_rate": 0.01, "hidden_dim": 16}
LATENCY = [{"metric": "latency", "upper": 50}]
CONDITIONAL = [
    {"name": "optimizer", "type": "categorical", "choices": ["adam", "sgd"]},
    {
        "name": "momentum",
        "type": "float",
        "low": 0.5,
        "high": 0.99,
        "when": {"parameter": "optimizer", "in": ["sgd"]},
    },
]
BRANCHES: dict[str, BaseDistribution] = {
    "optimizer": CategoricalDistribution(["adam", "sgd"]),
    "momentum": FloatDistribution(0, 1),
}


def an_earlier(
    params: dict[str, Any] | None = None,
    *,
    state: TrialState = TrialState.COMPLETE,
    value: float = 0.7,
    distributions: dict[str, BaseDistribution] | None = None,
    **attributes: Any,
) -> FrozenTrial:
    """A finished trial of an earlier study."""
    params = PARAMS if params is None else params
    known = {"learning_rate": RATE, "hidden_dim": WIDTH} | BRANCHES | (distributions or {})
    trial = create_trial(
        state=state,
        value=value,
        params=params,
        distributions={name: known[name] for name in params},
        intermediate_values={0: 0.5, 1: 0.6},
        user_attrs=attributes,
    )
    trial.number = 4
    return trial


def conditional_spec() -> StudySpec:
    config = {"model": {"class_path": "m.M", "init_args": {"o": "${optimizer}", "m": "${momentum}"}}}
    return a_spec(searchSpace=CONDITIONAL, trial={"lightning": config})


INTEGER: dict[str, BaseDistribution] = {"hidden_dim": IntDistribution(1, 64)}
FITS: dict[str, tuple[FrozenTrial, StudySpec, str | None]] = {
    "the same space": (an_earlier(), a_spec(), None),
    "wider before": (an_earlier(PARAMS | {"learning_rate": 0.1}), a_spec(), None),
    "outside the bounds": (
        an_earlier(PARAMS | {"learning_rate": 0.5}),
        a_spec(),
        "are outside the bounds of learning_rate, or between its steps",
    ),
    "a choice that is none any more": (
        an_earlier(PARAMS | {"hidden_dim": 64}),
        a_spec(),
        "have a hidden_dim that is no choice here",
    ),
    "another type": (an_earlier(distributions=INTEGER), a_spec(), "have another type of hidden_dim"),
    "another scale": (an_earlier(distributions={"learning_rate": FloatDistribution(0, 1)}), a_spec(), None),
    "a parameter is missing": (an_earlier({"learning_rate": 0.01}), a_spec(), "have no parameter hidden_dim"),
    "a parameter too many": (
        an_earlier(PARAMS | {"momentum": 0.9}),
        a_spec(),
        "have a parameter momentum, which this study has not",
    ),
    "a parameter that an objective of one's own may know": (
        an_earlier(PARAMS | {"momentum": 0.9}),
        a_spec(trial={"objective": "my.train:objective"}),
        None,
    ),
    "a condition that is met": (an_earlier({"optimizer": "sgd", "momentum": 0.9}), conditional_spec(), None),
    "a condition that is not met": (an_earlier({"optimizer": "adam"}), conditional_spec(), None),
    "a condition whose parameter is missing": (
        an_earlier({"optimizer": "sgd"}),
        conditional_spec(),
        "have no parameter momentum",
    ),
    "a parameter whose condition is not met": (
        an_earlier({"optimizer": "adam", "momentum": 0.9}),
        conditional_spec(),
        "have a parameter momentum, which this study has not",
    ),
    "an infinite value": (an_earlier(value=math.inf), a_spec(), "have no finite value"),
    "a pruned trial": (an_earlier(state=TrialState.PRUNED), a_spec(), None),
    "a constraint of which nothing is known": (an_earlier(), a_spec(constraints=LATENCY), "have no value of latency"),
    "a constraint of which user code wrote nonsense": (
        an_earlier(**{LIMITED_ATTRIBUTE: {"latency": "fast"}}),
        a_spec(constraints=LATENCY),
        "have no value of latency",
    ),
}


@pytest.mark.parametrize(("trial", "spec", "why"), FITS.values(), ids=FITS)
def test_only_what_fits_the_study_is_copied(trial: FrozenTrial, spec: StudySpec, why: str | None) -> None:
    """Names, kinds, bounds, conditions: a sampler would stumble over anything else, or learn what is not true here."""
    found = warm_start.copy(trial, spec, source="wide")
    assert why == (found if isinstance(found, str) else None)


def test_a_copy_has_what_samplers_and_pruners_read_and_says_where_it_is_from() -> None:
    """And nothing by which it could be taken for a trial of this study."""
    trial = an_earlier(**{OWNER_ATTRIBUTE: {"id": "a", "name": "b"}, RETRY_OF_ATTRIBUTE: 2})
    copied = warm_start.copy(trial, a_spec(), source="wide")
    assert isinstance(copied, FrozenTrial)
    assert (copied.state, copied.value, copied.params) == (TrialState.COMPLETE, 0.7, PARAMS)
    assert copied.intermediate_values == {0: 0.5, 1: 0.6}
    assert copied.user_attrs == {COPIED_ATTRIBUTE: {"study": "wide", "trial": 4}}
    assert warm_start.origin(copied) == Origin(study="wide", trial=4)
    assert copied.distributions["hidden_dim"] == CategoricalDistribution([8, 16, 32])


LIMITS = {"other bounds": (40, {"latency <= 40": 5.0}), "wider bounds": (60, {})}


@pytest.mark.parametrize(("upper", "broken"), LIMITS.values(), ids=LIMITS)
def test_constraints_are_judged_anew(upper: float, broken: dict[str, float]) -> None:
    """An earlier study may have had other bounds, and its trials know what they measured."""
    trial = an_earlier(**{LIMITED_ATTRIBUTE: {"latency": 45.0}})
    trial.set_constraint("latency <= 10", 35.0)
    copied = warm_start.copy(trial, a_spec(constraints=[{"metric": "latency", "upper": upper}]), source="wide")
    assert isinstance(copied, FrozenTrial)
    assert feasibility.broken(copied) == broken
    free = warm_start.copy(trial, a_spec(), source="wide")
    assert isinstance(free, FrozenTrial)
    assert free.constraints == {}


def test_constraints_that_an_objective_has_set_itself_are_kept() -> None:
    """No spec knows of them; the objective will set them again."""
    trial = an_earlier()
    trial.set_constraint("memory", 1.5)
    copied = warm_start.copy(trial, a_spec(), source="wide")
    assert isinstance(copied, FrozenTrial)
    assert feasibility.broken(copied) == {"memory": 1.5}


def test_a_copy_can_be_added_to_a_study_and_teaches_its_sampler() -> None:
    """Through Optuna's own door, which checks parameters against distributions."""
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(n_startup_trials=1, seed=1))
    for _ in range(3):
        copied = warm_start.copy(an_earlier(), a_spec(), source="wide")
        assert isinstance(copied, FrozenTrial)
        study.add_trial(copied)
    trial = study.ask()
    trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True)
    assert trial.suggest_categorical("hidden_dim", [8, 16, 32]) == 16


def test_failed_trials_and_copies_of_copies_are_not_looked_at() -> None:
    """Who wants the trials of an earlier study's earlier study names both."""
    trials = [
        an_earlier(),
        an_earlier(state=TrialState.PRUNED),
        create_trial(state=TrialState.FAIL),
        create_trial(state=TrialState.RUNNING),
        an_earlier(**{COPIED_ATTRIBUTE: {"study": "older", "trial": 1}}),
    ]
    assert warm_start.worth_a_look(trials) == trials[:2]


ACC = [{"metric": "val_acc", "direction": "maximize"}]
UNLIKE: dict[str, tuple[dict[str, Any] | None, list[StudyDirection], str | None]] = {
    "the same": ({"objectives": ACC}, [StudyDirection.MAXIMIZE], None),
    "a study of somebody else's": (None, [StudyDirection.MAXIMIZE], None),
    "another direction": (None, [StudyDirection.MINIMIZE], "have other objectives"),
    "one objective more": (None, [StudyDirection.MAXIMIZE] * 2, "have other objectives"),
    "another metric": (
        {"objectives": [{"metric": "train_acc", "direction": "maximize"}]},
        [StudyDirection.MAXIMIZE],
        "have other objectives",
    ),
}


@pytest.mark.parametrize(("stored", "directions", "why"), UNLIKE.values(), ids=UNLIKE)
def test_values_of_other_objectives_are_not_compared(
    stored: dict[str, Any] | None, directions: list[StudyDirection], why: str | None
) -> None:
    """Number, direction and, where it is known, the metric."""
    assert why == warm_start.unlike(a_spec(), stored=stored, directions=directions)


SENTENCES = {
    "all": (TakenOver("wide", taken=3), "took over 3 of 3 finished trials of study wide"),
    "none": (TakenOver("wide", taken=0), "study wide has no finished trial to learn from"),
    "some": (
        TakenOver("wide", taken=37, skipped={"have no finite value": 1, "have no parameter dropout": 22}),
        "took over 37 of 60 finished trials of study wide; of the others 22 have no parameter dropout, 1 have no finite value",
    ),
}


@pytest.mark.parametrize(("taken", "sentence"), SENTENCES.values(), ids=SENTENCES)
def test_what_was_taken_over_is_said_in_one_sentence(taken: TakenOver, sentence: str) -> None:
    """With why the rest was not."""
    assert sentence == report.taken_over(taken)
