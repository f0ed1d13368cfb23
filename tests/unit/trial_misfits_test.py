"""What samplers learn from trials that ran out of memory."""

from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from tuning_api.contract import FAILURE_ATTRIBUTE, REQUEUED_ATTRIBUTE
from tuning_api.search import Pruner, Sampler
from tuning_trial import misfits
from tuning_trial.pruners import build_pruner
from tuning_trial.samplers import build_sampler
from tuning_trial.search import trial_seed

MISFIT = {FAILURE_ATTRIBUTE: {"reason": "OutOfMemory", "message": "CUDA out of memory"}}
LARGEST = 0.5
"""What fits; the objective is best just beyond, where a sampler that looks away from failures would go."""


def searched(
    sampler: dict[str, Any], *, learns: bool, trials: int, objectives: int = 1, pruner: dict[str, Any] | None = None
) -> list[FrozenTrial]:
    study = optuna.create_study(
        directions=["maximize"] * objectives, pruner=build_pruner(Pruner.model_validate(pruner or {"type": "none"}))
    )
    for number in range(trials):
        study.sampler = build_sampler(
            Sampler.model_validate(sampler), seed=trial_seed(7, number), conditional=False, learns_what_fits=learns
        )
        trial = study.ask()
        width, depth = trial.suggest_float("width", 0, 1), trial.suggest_float("depth", 0, 1)
        if width > LARGEST:
            trial.set_user_attr(FAILURE_ATTRIBUTE, MISFIT[FAILURE_ATTRIBUTE])
            study.tell(trial, state=TrialState.FAIL)
        else:
            study.tell(trial, [width - (depth - 0.3) ** 2] * objectives)
    return study.get_trials()


def misfits_of(trials: list[FrozenTrial]) -> int:
    """Of the later half of the trials."""
    return sum(trial.state is TrialState.FAIL for trial in trials[len(trials) // 2 :])


@pytest.mark.parametrize(
    ("sampler", "objectives"),
    [
        ({"type": "tpe"}, 1),
        ({"type": "tpe", "multivariate": True, "group": True}, 2),
        ({"type": "cmaes", "populationSize": 6}, 1),
        ({"type": "gp"}, 1),
    ],
    ids=lambda value: value.get("type") if isinstance(value, dict) else str(value),
)
def test_a_sampler_stays_away_from_what_does_not_fit(sampler: dict[str, Any], objectives: int) -> None:
    """Though the best that it knows lies at the edge of it."""
    trials = 24 if sampler["type"] == "gp" else 80
    learned = searched(sampler, learns=True, trials=trials, objectives=objectives)
    others = searched(sampler, learns=False, trials=trials, objectives=objectives)
    assert misfits_of(learned) < misfits_of(others)


def test_a_bracket_of_hyperband_learns_too() -> None:
    """Its sampler sees a part of the trials, by a study of Optuna's own that can be neither copied nor changed."""
    pruner = {"type": "hyperband", "maxResource": 9}
    learned = searched({"type": "tpe"}, learns=True, trials=80, pruner=pruner)
    assert misfits_of(learned) < misfits_of(searched({"type": "tpe"}, learns=False, trials=80, pruner=pruner))


@pytest.mark.parametrize("kind", ["nsga2", "nsga3"])
def test_a_generation_is_full_with_what_does_not_fit(kind: str) -> None:
    """Its parents fit in any case; but where failures do not count, a generation takes twice as many trials."""
    sampler = {"type": kind, "populationSize": 8}
    generations = [
        max(value for name, value in trials[-1].system_attrs.items() if name.endswith(":generation"))
        for trials in (searched(sampler, learns=learns, trials=80, objectives=2) for learns in (True, False))
    ]
    assert generations[0] > generations[1]


def a_trial(number: int, values: list[float] | None, **attributes: Any) -> FrozenTrial:
    trial = create_trial(
        state=TrialState.COMPLETE if values else TrialState.FAIL,
        values=values,
        params={"width": 0.5},
        distributions={"width": FloatDistribution(0, 1)},
        user_attrs=attributes,
    )
    trial.number = number
    return trial


DIRECTIONS = [optuna.study.StudyDirection.MINIMIZE, optuna.study.StudyDirection.MAXIMIZE]


def test_a_misfit_is_the_worst_and_breaks_a_constraint_and_its_row_stays_as_it_is() -> None:
    """Of each objective the worst value; constraints of the spec are taken to be as they are on the whole."""
    trials = [a_trial(0, [1.0, 5.0]), a_trial(1, [3.0, 2.0]), a_trial(2, None, **MISFIT)]
    for trial, latency in zip(trials, (-1.0, -3.0), strict=False):
        trial.set_constraint("latency", latency)
    seen = misfits.as_infeasible(trials, DIRECTIONS)
    assert (seen[2].state, seen[2].values) == (TrialState.COMPLETE, [3.0, 2.0])
    assert seen[2].constraints == {"latency": -2.0, misfits.CONSTRAINT: 1.0}
    assert [list(trial.constraints) for trial in seen] == [["latency", misfits.CONSTRAINT]] * 3
    assert (trials[2].state, trials[2].constraints) == (TrialState.FAIL, {})
    assert trials[0].constraints == {"latency": -1.0}


@pytest.mark.parametrize(
    "trials",
    [
        [a_trial(0, [1.0, 1.0])],
        [a_trial(0, None, **MISFIT)],
        [a_trial(0, [1.0, 1.0]), a_trial(1, None)],
        [a_trial(0, [1.0, 1.0]), a_trial(1, None, **MISFIT, **{REQUEUED_ATTRIBUTE: "Interrupted"})],
        [a_trial(0, [1.0, 1.0]), a_trial(1, None, **{FAILURE_ATTRIBUTE: {"reason": "Error"}})],
        [a_trial(0, [1.0, 1.0]), a_trial(1, None, **{FAILURE_ATTRIBUTE: ["OutOfMemory"]})],
    ],
    ids=["no failure", "nothing to compare with", "no reason", "lost its worker", "another reason", "garbage"],
)
def test_without_misfits_a_sampler_sees_the_trials_themselves(trials: list[FrozenTrial]) -> None:
    """So that a search is Optuna's own to the last digit."""
    assert misfits.as_infeasible(trials, DIRECTIONS) is trials
