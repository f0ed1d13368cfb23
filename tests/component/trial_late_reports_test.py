"""A database that is away for minutes: trials train on, and their values arrive when it is back."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import pytest
from optuna.pruners import ThresholdPruner
from optuna.samplers import RandomSampler
from optuna.trial import TrialState
from tests.support.postgres import PostgresServer
from tests.support.trial_worker import TrialStudy, a_spec, a_trial, running, wait_for_file

from tuning_trial import database, late_reports
from tuning_trial.late_reports import LateTrial


@contextmanager
def away(server: PostgresServer) -> Iterator[None]:
    server.stop()
    try:
        yield
    finally:
        server.start()


@pytest.fixture
def trial(postgres_server: PostgresServer) -> LateTrial:
    """A trial that is RUNNING, seen with the worker's role; its pruner wants values of 0.5 at least."""
    study = TrialStudy(postgres_server, a_spec())
    study.add(scenario="is good")
    opened = database.open_study(study.url, study.name, patience=60)
    opened.sampler, opened.pruner = RandomSampler(), ThresholdPruner(lower=0.5)
    storage = database.storage_of(opened)
    storage.set_trial_state_values(study.trials()[0]._trial_id, state=TrialState.RUNNING)
    return LateTrial(opened, study.trials()[0])


def curve(trial: LateTrial) -> dict[int, float]:
    return trial.storage.get_trial(trial._trial_id).intermediate_values


def test_values_arrive_late_and_in_order(
    trial: LateTrial, postgres_server: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Said once when it goes, once when it is back; nothing is pruned meanwhile."""
    caplog.set_level(logging.INFO, logger="tuning_trial")
    trial.report(0.9, 0)
    with away(postgres_server):
        for step in (1, 2, 3):
            trial.report(0.1, step)
            assert not trial.should_prune()
    trial.catch_up()
    assert curve(trial) == {0: 0.9, 1: 0.1, 2: 0.1, 3: 0.1}
    assert trial.should_prune()
    assert caplog.text.count("the training goes on") == 1
    assert "3 values were reported late" in caplog.text


def test_the_next_report_brings_the_late_ones(
    trial: LateTrial, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever looks at the study does not wait for the end of the trial."""
    monkeypatch.setattr(late_reports, "_PAUSE_SECONDS", 0.0)
    with away(postgres_server):
        trial.report(0.1, 0)
    trial.report(0.9, 1)
    assert curve(trial) == {0: 0.1, 1: 0.9}
    assert not trial.should_prune()


def test_a_value_that_is_none_fails_at_once_and_does_not_stay(trial: LateTrial) -> None:
    """As Optuna's own trial says it."""
    with pytest.raises(TypeError, match="supposed to be a float"):
        trial.report("much", 0)  # type: ignore[arg-type]
    trial.report(0.9, 1)
    assert curve(trial) == {1: 0.9}


def test_a_trial_that_was_given_to_another_worker_says_so(trial: LateTrial, postgres_server: PostgresServer) -> None:
    """A late report is where it learns of it."""
    with away(postgres_server):
        trial.report(0.9, 0)
    trial.storage.set_trial_state_values(trial._trial_id, state=TrialState.FAIL)
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        trial.catch_up()


def test_a_training_comes_to_its_end_while_the_database_is_away(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    """It is told when the database is back; nothing waits but the worker, and nothing is failed for it."""
    space = [{"name": "scenario", "type": "categorical", "choices": ["waits"]}]
    study = TrialStudy(postgres_server, a_spec(trial=a_trial(folder=tmp_path), searchSpace=space))
    study.add()
    with running(study.environment(tmp_path), tmp_path) as worker:
        wait_for_file(tmp_path / "waiting")
        with away(postgres_server):
            (tmp_path / "go").touch()
            worker.wait_for("trial 0: epoch 3/3")
        assert worker.exit_code() == 0, worker.log()
    (done,) = study.trials()
    assert (done.state, done.intermediate_values) == (TrialState.COMPLETE, {0: 0.5, 1: 0.5, 2: 0.5})
