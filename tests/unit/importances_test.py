"""Which parameters matter: what makes good trials differ from others."""

import optuna
import pytest
from optuna.study import StudyDirection
from optuna.trial import TrialState
from tests.support.chart_studies import a_finished_trial, a_search

from tuning_operator.importances import importances

MAXIMIZE, MINIMIZE = StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE


@pytest.mark.parametrize("direction", [MAXIMIZE, MINIMIZE])
def test_they_are_those_that_optuna_tells(direction: StudyDirection) -> None:
    """A parameter may decide which trials are bad, and have no say in which are good."""
    trials = [trial for trial in a_search(200) if trial.state is TrialState.COMPLETE]
    study = optuna.create_study(direction=direction)
    study.add_trials(trials)
    assert importances(trials, direction) == pytest.approx(optuna.importance.get_param_importances(study))
    assert importances(trials, MAXIMIZE) != pytest.approx(importances(trials, MINIMIZE), abs=0.05)


def test_of_several_objectives_they_are_those_of_the_first() -> None:
    trials = [trial for trial in a_search(80) if trial.state is TrialState.COMPLETE]
    both = [a_finished_trial(trial.number, params=trial.params) for trial in trials]
    for trial, with_two in zip(trials, both, strict=True):
        with_two.values = [*trial.values, -trial.values[0]]
    assert importances(both, MAXIMIZE) == importances(trials, MAXIMIZE)
