"""Whole searches on a real Postgres: the controller adds trials, a worker with its namespace's own role runs them."""

from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState
from tests.support import search_objectives
from tests.support.postgres import PostgresServer
from tests.support.trial_worker import TrialStudy, a_spec, run, running

from tuning_api import space
from tuning_api.contract import GIVEN_ATTRIBUTE
from tuning_api.spec import StudySpec
from tuning_api.status import Reason
from tuning_operator.model import Verdict
from tuning_operator.planning import additions
from tuning_trial.search import build_sampler, suggest, trial_seed

RATE = {"name": "rate", "type": "float", "low": 0.1, "high": 0.9, "step": 0.2}
LAYERS = {"name": "layers", "type": "int", "low": 1, "high": 3}
OPTIMIZER = {"name": "optimizer", "type": "categorical", "choices": ["sgd", "adam"]}
MOMENTUM = {"name": "momentum", "type": "float", "low": 0, "high": 0.8, "step": 0.4}
FLAT = [RATE, LAYERS, OPTIMIZER]
CONDITIONAL = [*FLAT, MOMENTUM | {"when": {"parameter": "optimizer", "in": ["sgd"]}}]
TWO = [{"metric": "small", "direction": "minimize"}, {"metric": "large", "direction": "maximize"}]


def a_search(sampler: dict[str, Any], *, objective: str = "hilly", **changes: Any) -> StudySpec:
    defaults: dict[str, Any] = {
        "objectives": [{"metric": "score", "direction": "minimize"}],
        "searchSpace": CONDITIONAL,
        "sampler": {"seed": 5} | sampler,
        "maxTrials": 9,
        "parallelism": 8,
        "trial": {"gpus": 0, "objective": f"{search_objectives.__name__}:{objective}"},
    }
    return a_spec(**defaults | changes)


def searched(server: PostgresServer, spec: StudySpec, folder: Path) -> tuple[TrialStudy, Reason]:
    """A study from its first pass to its end."""
    study = TrialStudy(server, spec)
    return study, go_on(study, spec, folder)


def go_on(study: TrialStudy, spec: StudySpec, folder: Path) -> Reason:
    """Passes and workers by turns, until the study is complete."""
    for _ in range(spec.max_trials + 1):
        outcome = study.control(spec).outcome
        if outcome.verdict is not Verdict.RUN:
            return outcome.reason
        exit_code, log = run(study.environment(folder), folder)
        assert exit_code == 0, log
    raise AssertionError("the study did not end")


def ended(study: TrialStudy) -> list[FrozenTrial]:
    """Trials that were not withdrawn."""
    trials = [trial for trial in study.trials() if "tuningstudy:cancelled" not in trial.user_attrs]
    failures = [trial.user_attrs.get("tuningstudy:failure") for trial in trials if trial.state is TrialState.FAIL]
    assert failures == []
    return trials


MATRIX: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "tpe and median": ({"type": "tpe", "nStartupTrials": 4}, {"type": "median", "nStartupTrials": 2}, {}),
    "random and percentile": ({"type": "random"}, {"type": "percentile", "percentile": 50, "nStartupTrials": 2}, {}),
    "cmaes and successive halving": (
        {"type": "cmaes", "populationSize": 4},
        {"type": "successiveHalving"},
        {"searchSpace": FLAT},
    ),
    "gp and none": ({"type": "gp", "nStartupTrials": 2}, {"type": "none"}, {"maxTrials": 3}),
    "nsga2 and threshold": ({"type": "nsga2", "populationSize": 4}, {"type": "threshold", "upper": 5}, {}),
    "nsga2 and two objectives": (
        {"type": "nsga2", "populationSize": 4},
        {"type": "none"},
        {"objectives": TWO, "objective": "two_values"},
    ),
    "nsga3 and two objectives": (
        {"type": "nsga3", "populationSize": 4},
        {"type": "none"},
        {"objectives": TWO, "objective": "two_values"},
    ),
    "tpe and hyperband": ({"type": "tpe", "nStartupTrials": 4}, {"type": "hyperband", "maxResource": 4}, {}),
    "grid and patient": (
        {"type": "grid"},
        {"type": "patient", "patience": 1, "wrapped": {"type": "median", "nStartupTrials": 2}},
        {"searchSpace": FLAT},
    ),
    "qmc and wilcoxon": ({"type": "qmc"}, {"type": "wilcoxon"}, {"searchSpace": FLAT}),
    "bruteforce and median": ({"type": "bruteforce"}, {"type": "median", "nStartupTrials": 2}, {}),
}


@pytest.mark.parametrize(("sampler", "pruner", "changes"), MATRIX.values(), ids=MATRIX)
def test_samplers_and_pruners_search_together(
    sampler: dict[str, Any],
    pruner: dict[str, Any],
    changes: dict[str, Any],
    postgres_server: PostgresServer,
    tmp_path: Path,
) -> None:
    """To the exact budget, within the bounds and conditions, and without a right to write to the study."""
    spec = a_search(sampler, pruner=pruner, **changes)
    study, reason = searched(postgres_server, spec, tmp_path)
    trials = ended(study)
    assert (len(trials), reason) == (spec.max_trials, Reason.BUDGET_SPENT)
    assert all(space.is_point(spec.search_space, trial.params) for trial in trials)
    if sampler["type"] in {"grid", "bruteforce", "qmc"}:
        plan = additions(spec, study=study.name, trials=(), enqueue=(), add=spec.max_trials)
        assert [trial.params for trial in trials] == [item.params for item in plan]


@pytest.mark.parametrize(
    "sampler",
    [{"type": "random"}, {"type": "tpe", "nStartupTrials": 3}, {"type": "tpe", "nStartupTrials": 3, "group": False}],
    ids=str,
)
def test_one_worker_draws_what_plain_optuna_draws(
    sampler: dict[str, Any], postgres_server: PostgresServer, tmp_path: Path
) -> None:
    """Parameter by parameter: what is between the spec and Optuna changes nothing."""
    spec = a_search(sampler, pruner={"type": "none"})
    study, _ = searched(postgres_server, spec, tmp_path)
    plain = optuna.create_study()
    for number in range(spec.max_trials):
        plain.sampler = build_sampler(spec.resolved_sampler, seed=trial_seed(5, number), conditional=True)
        plain.optimize(lambda trial: search_objectives.score(suggest(trial, spec.search_space)), n_trials=1)
    assert [trial.params for trial in ended(study)] == [trial.params for trial in plain.trials]


def test_a_space_is_searched_to_its_end_once(postgres_server: PostgresServer, tmp_path: Path) -> None:
    """Known good points are of it; and a wider space goes on with what is new."""
    good = {"rate": 0.5, "layers": 2, "optimizer": "adam"}
    rate, layers = RATE | {"step": 0.4}, LAYERS | {"high": 2}
    space_of_12 = {"searchSpace": [rate, layers, OPTIMIZER], "enqueue": [good, {"layers": 1}]}
    spec = a_search({"type": "grid"}, maxTrials=90, **space_of_12)
    study, reason = searched(postgres_server, spec, tmp_path)
    points = Counter(space.identity(trial.params) for trial in ended(study))
    assert (len(points), points.total(), reason) == (12, 12, Reason.SEARCH_SPACE_EXHAUSTED)
    assert ended(study)[0].params == good
    wider = a_search({"type": "grid"}, searchSpace=[rate, LAYERS, OPTIMIZER], maxTrials=90)
    assert go_on(study, wider, tmp_path) is Reason.SEARCH_SPACE_EXHAUSTED
    points = Counter(space.identity(trial.params) for trial in ended(study))
    assert (len(points), points.total()) == (18, 18)


def test_workers_side_by_side_never_take_the_same_point(postgres_server: PostgresServer, tmp_path: Path) -> None:
    """With Optuna's own sampler in each they do (optuna/optuna#5489), and the last one raises (optuna/optuna#4121)."""
    spec = a_search({"type": "bruteforce"}, maxTrials=16, maxFailedTrials=16, parallelism=8, pruner={"type": "none"})
    study = TrialStudy(postgres_server, spec)
    study.control(spec)
    with running(study.environment(tmp_path), tmp_path) as one, running(study.environment(tmp_path), tmp_path) as other:
        assert [one.exit_code(), other.exit_code()] == [0, 0], one.log() + other.log()
    points = Counter(space.identity(trial.params) for trial in ended(study))
    assert (len(points), points.total()) == (16, 16)


def test_known_good_points_are_tried_first_once_and_also_when_they_come_later(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    """Not again by another operator, which has only the rows."""
    first, later = {"rate": 0.3, "optimizer": "adam"}, {"layers": 2}
    spec = a_search({"type": "random"}, enqueue=[first], maxTrials=30, parallelism=2, pruner={"type": "none"})
    study = TrialStudy(postgres_server, spec)
    study.control(spec)
    appended = spec.model_copy(update={"enqueue": [first, later]})
    study.control(appended)  # makes room
    study.control(appended)
    run(study.environment(tmp_path), tmp_path)
    given = [trial for trial in ended(study) if GIVEN_ATTRIBUTE in trial.user_attrs]
    assert [trial.user_attrs[GIVEN_ATTRIBUTE]["entry"] for trial in given] == [first, later]
    assert [trial.params.items() >= entry.items() for trial, entry in zip(given, [first, later], strict=True)] == [
        True,
        True,
    ]
    others = [trial for trial in ended(study) if trial not in given]
    assert max(trial.datetime_start for trial in given if trial.datetime_start) < min(
        trial.datetime_start for trial in others if trial.datetime_start
    )
    assert study.control(appended).trials.enqueue == ()


def test_bounds_that_narrow_are_followed_by_trials_that_wait(postgres_server: PostgresServer, tmp_path: Path) -> None:
    """Planned ones are withdrawn and planned anew; what began before is as it was."""
    spec = a_search({"type": "qmc"}, searchSpace=FLAT, maxTrials=12, parallelism=3, pruner={"type": "none"})
    study = TrialStudy(postgres_server, spec)
    study.control(spec)
    run(study.environment(tmp_path), tmp_path)
    study.control(spec)
    narrow = a_search(
        {"type": "qmc"},
        searchSpace=[RATE | {"low": 0.3, "high": 0.5}, LAYERS, OPTIMIZER],
        maxTrials=12,
        pruner={"type": "none"},
    )
    assert go_on(study, narrow, tmp_path) is Reason.BUDGET_SPENT
    trials = ended(study)
    assert len(trials) == 12
    assert all(0.3 <= trial.params["rate"] <= 0.5 for trial in trials[6:])


def test_a_trial_that_is_lost_before_it_has_chosen_keeps_its_point(postgres_server: PostgresServer) -> None:
    """Its successor has no parameters to copy, but those that it was given."""
    spec = a_search({"type": "grid"}, searchSpace=FLAT, parallelism=1)
    study = TrialStudy(postgres_server, spec)
    study.control(spec)
    lost = study.trials()[0]
    study.optuna._storage.set_trial_state_values(lost._trial_id, state=TrialState.RUNNING)
    number = study.requeue(0)
    successor = study.trials()[number]
    assert successor.system_attrs["fixed_params"] == lost.system_attrs["fixed_params"]
    assert successor.user_attrs[GIVEN_ATTRIBUTE] == lost.user_attrs[GIVEN_ATTRIBUTE]
