"""The points of grid, qmc and bruteforce: those of Optuna's own samplers, each for one trial."""

from collections.abc import Callable
from itertools import islice
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.samplers import BaseSampler, BruteForceSampler, GridSampler, QMCSampler
from tests.support.builders import a_spec, a_trial
from tests.support.spaces import conditional_spaces, finite_spaces, flat_spaces

from tuning_api import space
from tuning_api.contract import Given
from tuning_api.distributions import suggest
from tuning_api.search import Parameter, Sampler, SamplerType
from tuning_api.spec import StudySpec
from tuning_operator.model import Trial
from tuning_operator.planning import Addition, Plan, additions

STUDY = "digits"


def of_optuna(sampler: BaseSampler, parameters: list[Parameter], trials: int) -> list[dict[str, Any]]:
    """What a plain study would try."""
    study = optuna.create_study(sampler=sampler)
    study.optimize(lambda trial: float(len(suggest(trial, parameters))), n_trials=trials)
    return [trial.params for trial in study.trials]


def planned(sampler: Sampler, parameters: list[Parameter], trials: int, *, seed: int) -> list[dict[str, Any]]:
    plan = Plan("plan", parameters, sampler, seed=seed)
    return [plan.point(number) for number in range(trials)]


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@settings(deadline=None, max_examples=40)
@given(parameters=st.one_of(finite_spaces(), conditional_spaces()), seed=st.integers(0, 2**31 - 1))
def test_bruteforce_goes_where_optunas_goes(parameters: list[Parameter], seed: int) -> None:
    """Each branch of a conditional space, in the same order, once; then it ends."""
    points = space.size(parameters) or 0
    theirs = of_optuna(BruteForceSampler(seed=seed), parameters, points + 1)
    assert planned(Sampler(type=SamplerType.BRUTEFORCE), parameters, points, seed=seed) == theirs[:points]
    assert len({space.identity(point) for point in theirs}) == points


@settings(deadline=None, max_examples=40)
@given(parameters=finite_spaces(), seed=st.integers(0, 2**31 - 1))
def test_a_grid_is_gone_through_as_optuna_does(parameters: list[Parameter], seed: int) -> None:
    """Its order is a shuffle, so that a small budget sees all of the space."""
    values = {parameter.name: space.candidates(parameter) or [] for parameter in parameters}
    points = space.size(parameters) or 0
    theirs = of_optuna(GridSampler(values, seed=seed), parameters, points)  # type: ignore[arg-type]
    assert planned(Sampler(type=SamplerType.GRID), parameters, points, seed=seed) == theirs


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("scramble", [False, True])
@pytest.mark.parametrize("kind", ["sobol", "halton"])
@settings(deadline=None, max_examples=15)
@given(parameters=flat_spaces(), seed=st.integers(0, 2**31 - 1))
def test_qmc_gives_optunas_sequence(kind: str, scramble: bool, parameters: list[Parameter], seed: int) -> None:  # noqa: FBT001
    """After the one random point from which Optuna's sampler learns the space."""
    theirs = of_optuna(QMCSampler(qmc_type=kind, scramble=scramble, seed=seed), parameters, 9)
    ours = Sampler.model_validate({"type": "qmc", "qmcType": kind, "scramble": scramble})
    assert planned(ours, parameters, 9, seed=seed) == theirs


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("scramble", [False, True])
@pytest.mark.parametrize("kind", ["sobol", "halton"])
def test_qmc_goes_on_after_a_restart_at_the_point_it_was_at(
    kind: str,
    scramble: bool,  # noqa: FBT001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A plan that remembers nothing computes the points that it is asked for, and none before them."""
    parameters = [Parameter.model_validate(document) for document in QMC_SPACE]
    ours = Sampler.model_validate({"type": "qmc", "qmcType": kind, "scramble": scramble})
    theirs = of_optuna(QMCSampler(qmc_type=kind, scramble=scramble, seed=3), parameters, 40)
    asked = list[int]()
    really = QMCSampler._sample_qmc
    monkeypatch.setattr(QMCSampler, "_sample_qmc", lambda *args: asked.append(1) or really(*args))
    assert [Plan("plan", parameters, ours, seed=3).point(number) for number in (39, 7)] == [theirs[39], theirs[7]]
    assert len(asked) == 2
    assert Plan("plan", parameters, ours, seed=3).point(99_999).keys() == theirs[0].keys()


QMC_SPACE = [
    {"name": "learning_rate", "type": "float", "low": 1e-4, "high": 0.1, "log": True},
    {"name": "layers", "type": "int", "low": 1, "high": 9},
    {"name": "optimizer", "type": "categorical", "choices": ["sgd", "adam", "rmsprop"]},
    {"name": "only", "type": "int", "low": 4, "high": 4},
]

GRID: dict[str, Any] = {
    "sampler": {"type": "grid"},
    "searchSpace": [
        {"name": "learning_rate", "type": "float", "low": 0.1, "high": 0.3, "step": 0.1},
        {"name": "hidden_dim", "type": "categorical", "choices": [8, 16]},
    ],
}
QMC: dict[str, Any] = {"sampler": {"type": "qmc", "seed": 3}}


def added(
    spec: StudySpec, *, rows: tuple[Trial, ...] = (), enqueue: tuple[dict[str, Any], ...] = (), add: int = 0
) -> list[Addition]:
    return list(additions(spec, study=STUDY, trials=rows, enqueue=enqueue, add=add))


def as_rows(found: list[Addition], state: str = "COMPLETE") -> tuple[Trial, ...]:
    return tuple(
        a_trial(number, state, given=item.given, fixed=item.params, params=item.params)
        for number, item in enumerate(found)
    )


@pytest.mark.parametrize("kind", ["grid", "bruteforce"])
@given(steps=st.lists(st.integers(1, 3), min_size=1, max_size=8))
def test_every_point_is_added_once_and_then_none(kind: str, steps: list[int]) -> None:
    """In however many passes."""
    spec = a_spec(**GRID | {"sampler": {"type": kind}})
    found: list[Addition] = []
    for add in [*steps, 6]:
        found += added(spec, rows=as_rows(found), add=add)
    assert len({space.identity(item.params) for item in found}) == len(found) == 6
    assert added(spec, rows=as_rows(found), add=3) == []


@pytest.mark.parametrize("changes", [GRID, QMC], ids=["grid", "qmc"])
def test_the_points_go_on_where_they_were(changes: dict[str, Any]) -> None:
    """A new operator remembers nothing, and reads from the rows how far the plan is."""
    spec = a_spec(**changes)
    at_once = added(spec, add=5)
    first = added(spec, add=2)
    assert first + added(spec, rows=as_rows(first), add=3) == at_once


def test_a_trial_that_was_withdrawn_leaves_its_point() -> None:
    """So that a budget that was lowered and raised again still covers the space."""
    spec = a_spec(**GRID)
    first, second = added(spec, add=2)
    withdrawn = (*as_rows([first]), a_trial(1, "FAIL", given=second.given, fixed=second.params, cancelled=True))
    assert added(spec, rows=withdrawn, add=1) == [second]


def test_a_lost_trial_and_its_successor_have_one_point() -> None:
    """The successor is given the same."""
    spec = a_spec(**GRID)
    first, second = added(spec, add=2)
    lost = a_trial(0, "FAIL", given=first.given, fixed=first.params, requeued="Interrupted")
    successor = a_trial(1, "WAITING", given=first.given, fixed=first.params, retry_of=0)
    assert added(spec, rows=(lost, successor), add=1) == [second]


def test_a_known_good_point_is_not_tried_again_by_the_grid() -> None:
    """Whether it is tried before or was before."""
    spec = a_spec(**GRID)
    entry = {"learning_rate": 0.2, "hidden_dim": 8}
    found = added(spec, enqueue=(entry,), add=9)
    assert (found[0].params, found[0].given) == (entry, Given(entry=entry))
    assert len({space.identity(item.params) for item in found}) == len(found) == 6


def test_what_a_known_good_point_leaves_open_comes_from_the_grid() -> None:
    """Two such points get two points of the grid; a third finds none left and is drawn at random."""
    spec = a_spec(**GRID)
    entry = {"learning_rate": 0.2}
    first, second, third = added(spec, enqueue=(entry, entry, entry))
    assert {first.params["hidden_dim"], second.params["hidden_dim"]} == {8, 16}
    assert [item.given.entry for item in (first, second, third) if item.given] == [entry] * 3
    assert third.params == entry
    assert len(added(spec, rows=as_rows([first, second]), add=9)) == 4


def test_other_bounds_are_another_plan() -> None:
    """Its sequence begins anew, and in a grid without the points that were tried."""
    narrow = GRID | {"searchSpace": [GRID["searchSpace"][0] | {"high": 0.2}, GRID["searchSpace"][1]]}
    tried = added(a_spec(**GRID), add=3)
    found = added(a_spec(**narrow), rows=as_rows(tried), add=9)
    inside = {space.identity(item.params) for item in tried if item.params["learning_rate"] != 0.3}
    assert inside.isdisjoint(space.identity(item.params) for item in found)
    assert len(found) == 4 - len(inside)
    assert all(0.1 <= float(item.params["learning_rate"] or 0) <= 0.2 for item in found)


def test_a_choice_of_nothing_is_remembered_as_it_was_written() -> None:
    """A point with a null is tried once too."""
    entry = {"activation": None}
    assert Given.model_validate(Given(entry=entry).to_document()).entry == entry


def test_samplers_that_learn_are_given_no_points() -> None:
    """But for the known good ones, which come first."""
    entry = {"hidden_dim": 8}
    assert added(a_spec(), enqueue=(entry,), add=2) == [Addition(entry, Given(entry=entry)), Addition(), Addition()]


@pytest.mark.parametrize("build", [lambda: a_spec(**QMC), lambda: a_spec(sampler={"type": "qmc", "scramble": True})])
def test_without_results_a_plan_has_no_end(build: Callable[[], StudySpec]) -> None:
    """For qmc, maxTrials alone ends a study."""
    spec = build()
    found = list(islice(additions(spec, study=STUDY, trials=(), enqueue=(), add=40), 40))
    assert [item.given.number for item in found if item.given] == list(range(40))
