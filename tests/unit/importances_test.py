"""Which parameters matter: told from an even choice where there are very many trials."""

import optuna
import pytest
from optuna.trial import TrialState
from tests.support.chart_studies import a_search

from tuning_operator import importances as module
from tuning_operator.importances import importances


def test_of_very_many_trials_an_even_choice_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes no longer for ten thousand, and names the same parameter first."""
    trials = [trial for trial in a_search(400) if trial.state is TrialState.COMPLETE]
    of_all = importances(trials)
    looked_at: list[int] = []
    really = optuna.Study.add_trials

    def counted(study: optuna.Study, added: object) -> None:
        looked_at.append(len(given := list(added)))  # type: ignore[call-overload]
        really(study, given)

    monkeypatch.setattr(optuna.Study, "add_trials", counted)
    monkeypatch.setattr(module, "MOST_TRIALS", 150)
    of_some = importances(trials)
    assert looked_at == [150]
    assert len(trials) > 150
    assert max(of_some, key=lambda name: of_some[name]) == max(of_all, key=lambda name: of_all[name])
    assert of_some.keys() == of_all.keys()
