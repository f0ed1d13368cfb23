"""The rows that benchmarks insert are those that Optuna would have written."""

from bench.rows import insert_trials
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from sqlalchemy.engine import URL
from tests.support.chart_studies import a_search


def test_inserted_trials_are_read_as_they_were_given(postgres: URL) -> None:
    """All states, parameters of each kind, values, curves and attributes."""
    storage = RDBStorage(postgres.render_as_string(hide_password=False))
    study_id = storage.create_new_study([StudyDirection.MAXIMIZE], "digits")
    given = a_search(60)
    insert_trials(storage, study_id, given)
    read = storage.get_all_trials(study_id)
    for trial, row in zip(given, read, strict=True):
        row._trial_id = trial._trial_id
        assert row == trial
