"""Trials that the operator adds are those that Optuna would have added; on Postgres and on SQLite."""

import threading
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.engine import URL
from tests.support.chart_studies import a_search

from tuning_operator import additions
from tuning_operator.local.database import sqlite_url

THREADS = 8
TRIALS = 25


def a_study(url: URL) -> optuna.Study:
    """Optuna's own storage, which knows nothing of us."""
    return optuna.create_study(storage=url.render_as_string(hide_password=False), direction="maximize")


@pytest.fixture(params=["postgres", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> URL:
    """An empty database."""
    if request.param == "sqlite":
        return sqlite_url(tmp_path / "study.db")
    server: URL = request.getfixturevalue("postgres")
    return server


def add(study: optuna.Study, *trials: FrozenTrial) -> None:
    """In a transaction of its own."""
    with engine_of(study).begin() as connection:
        additions.add(connection, study._study_id, trials)


def engine_of(study: optuna.Study) -> Any:
    return study._storage._backend.engine  # type: ignore[attr-defined]


def without_id(trial: FrozenTrial) -> FrozenTrial:
    trial._trial_id = -1
    return trial


def test_trials_are_read_as_they_were_given(url: URL) -> None:
    """All states, parameters of each kind, values, curves and attributes, and times in the zone of who reads."""
    study, given = a_study(url), a_search(60)
    add(study, *given)
    assert list(map(without_id, study.get_trials())) == list(map(without_id, given))


@pytest.mark.parametrize(
    "trial",
    [
        pytest.param(create_trial(state=TrialState.WAITING), id="waiting"),
        pytest.param(
            create_trial(state=TrialState.WAITING, system_attrs={"fixed_params": {"x": 1}}, user_attrs={"a": [1, {}]}),
            id="waiting with parameters and attributes",
        ),
        pytest.param(
            create_trial(
                values=[float("inf")],
                params={"width": 8},
                distributions={"width": CategoricalDistribution([8, 16])},
                intermediate_values={0: 0.5, 3: float("nan")},
            ),
            id="complete",
        ),
        pytest.param(create_trial(state=TrialState.PRUNED, intermediate_values={0: 0.5}), id="pruned"),
    ],
)
def test_a_trial_is_what_optuna_makes_of_it(url: URL, trial: FrozenTrial) -> None:
    """The same, but for its number."""
    study = a_study(url)
    study.add_trial(trial)
    add(study, trial)
    theirs, ours = map(without_id, study.get_trials())
    assert ours.number == 1
    ours.number = theirs.number
    assert repr(ours) == repr(theirs)  # NaN is not equal to itself


def test_numbers_go_on_behind_those_of_optuna_and_optunas_behind_ours(url: URL) -> None:
    """A study of its own counts for itself, whatever others the database holds."""
    study, other = a_study(url), a_study(url)
    waiting = create_trial(state=TrialState.WAITING)
    add(other, *[waiting] * 3)
    study.add_trial(waiting)
    add(study, waiting, waiting)
    study.add_trial(waiting)
    add(study)
    assert [trial.number for trial in study.get_trials()] == [0, 1, 2, 3]


def test_ids_are_in_the_order_of_numbers(url: URL) -> None:
    """Trials are claimed in that order."""
    study = a_study(url)
    add(study, *[create_trial(state=TrialState.WAITING)] * 2_500)  # more than one statement takes
    trials = study.get_trials(deepcopy=False)
    assert [trial.number for trial in trials] == list(range(2_500))
    assert sorted(trials, key=lambda trial: trial._trial_id) == trials


def test_nothing_is_added_to_a_study_that_is_gone(url: URL) -> None:
    """As Optuna's storage says it."""
    study = a_study(url)
    optuna.delete_study(study_name=study.study_name, storage=study._storage)
    with pytest.raises(KeyError):
        add(study, create_trial(state=TrialState.WAITING))


def test_those_who_add_at_the_same_time_get_numbers_of_their_own(postgres: URL) -> None:
    """Optuna's rule: one at a time (NB: SQLite has no lock for it, and there a study has one controller)."""
    study = a_study(postgres)
    start = threading.Barrier(THREADS)

    def add_some() -> None:
        mine = optuna.load_study(study_name=study.study_name, storage=postgres.render_as_string(hide_password=False))
        start.wait()
        for _ in range(TRIALS):
            add(mine, create_trial(state=TrialState.WAITING), create_trial(state=TrialState.WAITING))

    threads = [threading.Thread(target=add_some) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [trial.number for trial in study.get_trials(deepcopy=False)] == list(range(2 * THREADS * TRIALS))
