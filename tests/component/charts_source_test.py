"""The charts server's source over a real Postgres, with the role that it has in production: it reads, and cannot write."""

from collections.abc import Iterator
from datetime import UTC, datetime

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.pool import NullPool
from tests.support.builders import a_spec
from tests.support.plans import carry_out
from tests.support.postgres import PostgresServer
from tests.support.tenancy import a_tenancy, worker_url

from tuning_api import naming
from tuning_api.contract import Failure, FailureReason
from tuning_api.status import Phase, StudyStatus
from tuning_operator.charts import source as source_module
from tuning_operator.charts.source import PostgresSource, StudyData
from tuning_operator.errors import DatabaseUnavailable
from tuning_operator.model import Abandon, Clock, Ending, Requeue, StudyKey, TrialsPlan
from tuning_operator.settings import CHARTS_ROLE
from tuning_operator.studies import OptunaStudies

KEY = StudyKey("team-a", "digits")


@pytest.fixture
def studies(postgres: URL) -> OptunaStudies:
    """The operator's gateway, with one open study."""
    studies = OptunaStudies(a_tenancy(postgres))
    studies.open(KEY, a_spec())
    return studies


@pytest.fixture
def source(postgres: URL) -> Iterator[PostgresSource]:
    """The charts server's way into the same database."""
    source = PostgresSource(postgres.set(username=CHARTS_ROLE, password="charts"))
    yield source
    source.close()


def a_worker(postgres: URL, key: StudyKey = KEY) -> optuna.Study:
    """The study as a worker has it."""
    url = worker_url(postgres, key.namespace)
    storage = RDBStorage(url.render_as_string(hide_password=False), skip_table_creation=True)
    return optuna.load_study(study_name=key.name, storage=storage)


def loaded(source: PostgresSource, key: StudyKey = KEY) -> StudyData:
    data = source.load(key.namespace, key.name)
    assert data is not None
    return data


def states(data: StudyData) -> list[TrialState]:
    return [trial.state for trial in data.trials]


def test_a_study_is_read_as_the_operator_left_it(studies: OptunaStudies, source: PostgresSource) -> None:
    """Spec, status and clock come from the database, not from the cluster."""
    clock = Clock(12.5, datetime(2026, 1, 1, tzinfo=UTC))
    studies.save(KEY, clock=clock, status=StudyStatus(phase=Phase.RUNNING, message="0 of 10 trials done"))
    data = loaded(source)
    assert (data.namespace, data.name, data.directions) == ("team-a", "digits", (StudyDirection.MAXIMIZE,))
    assert (data.spec, data.clock) == (a_spec(), clock)
    assert (data.status.phase, data.status.message) == (Phase.RUNNING, "0 of 10 trials done")


def test_trials_are_seen_as_they_run_and_end(studies: OptunaStudies, source: PostgresSource, postgres: URL) -> None:
    """The page is live, though trials that have ended are read once."""
    carry_out(studies, KEY, TrialsPlan(add=2))
    study = a_worker(postgres)
    trial = study.ask()
    trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True)
    assert states(loaded(source)) == [TrialState.RUNNING, TrialState.WAITING]
    trial.report(0.4, 0)
    study.tell(trial, 0.5)
    data = loaded(source)
    assert states(data) == [TrialState.COMPLETE, TrialState.WAITING]
    assert (data.trials[0].value, data.trials[0].intermediate_values) == (0.5, {0: 0.4})


def test_lost_and_withdrawn_trials_do_not_count(studies: OptunaStudies, source: PostgresSource, postgres: URL) -> None:
    """A successor stands for the one, and the other never ran."""
    carry_out(studies, KEY, TrialsPlan(add=2))
    a_worker(postgres).ask()
    record = studies.read(KEY)
    assert record is not None
    running, waiting = record.trials
    carry_out(studies, KEY, TrialsPlan(requeue=(Requeue(running, Ending.CRASHED),), cancel=(waiting,)))
    data = loaded(source)
    assert ([trial.number for trial in data.trials], data.retried) == ([2], 1)


def test_a_failure_is_read_with_its_reason(studies: OptunaStudies, source: PostgresSource, postgres: URL) -> None:
    """It belongs into the table."""
    carry_out(studies, KEY, TrialsPlan(add=1))
    a_worker(postgres).ask()
    record = studies.read(KEY)
    assert record is not None
    failure = Failure(reason=FailureReason.WORKER_LOST, message="3 workers in a row crashed")
    carry_out(studies, KEY, TrialsPlan(abandon=(Abandon(record.trials[0], failure),)))
    assert failure.to_document() in loaded(source).trials[0].user_attrs.values()


ABSENT = {
    "a study of another name": StudyKey("team-a", "glosses"),
    "a namespace without any study": StudyKey("nobody", "digits"),
}


@pytest.mark.parametrize("key", ABSENT.values(), ids=ABSENT)
@pytest.mark.usefixtures("studies")
def test_there_is_no(source: PostgresSource, key: StudyKey) -> None:
    """Absence is an answer, not an error."""
    assert source.load(key.namespace, key.name) is None


def test_a_namespace_that_was_never_granted_is_absent(
    studies: OptunaStudies, source: PostgresSource, postgres: URL
) -> None:
    """Charts were switched on later: its next pass grants it."""
    OptunaStudies(a_tenancy(postgres, charts_password=None)).open(StudyKey("team-b", "digits"), a_spec())
    assert source.load("team-b", "digits") is None
    studies.open(StudyKey("team-b", "digits"), a_spec())
    assert source.load("team-b", "digits") is not None


def test_a_deleted_study_is_gone_and_may_come_back(
    studies: OptunaStudies, source: PostgresSource, postgres: URL
) -> None:
    """A new study of the same name has none of the old one's trials."""
    carry_out(studies, KEY, TrialsPlan(add=1))
    study = a_worker(postgres)
    study.tell(study.ask(), 0.5)
    assert states(loaded(source)) == [TrialState.COMPLETE]
    studies.delete(KEY)
    assert source.load(KEY.namespace, KEY.name) is None
    studies.open(KEY, a_spec())
    assert states(loaded(source)) == []


def test_what_another_version_has_written_leaves_the_trials(studies: OptunaStudies, source: PostgresSource) -> None:
    """A rolling update must not take the page away."""
    carry_out(studies, KEY, TrialsPlan(add=1))
    study = studies._find(KEY)
    assert study is not None
    study.set_user_attr("tuningstudy:spec", {"objectives": "of a later version"})
    study.set_user_attr("tuningstudy:status", {"phase": "Dreaming"})
    data = loaded(source)
    assert (data.spec, data.status, states(data)) == (None, StudyStatus(), [TrialState.WAITING])


def test_few_studies_and_schemas_are_kept_in_memory(
    studies: OptunaStudies, source: PostgresSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever opens many pays in time."""
    monkeypatch.setattr(source_module, "SCHEMAS_KEPT", 1)
    monkeypatch.setattr(source_module, "STUDIES_KEPT", 1)
    twin = StudyKey("team-b", "digits")
    studies.open(twin, a_spec(maxTrials=77))
    budgets = []
    for key in (KEY, twin, KEY, twin):
        spec = loaded(source, key).spec
        budgets.append(spec and spec.max_trials)
    assert budgets == [10, 77, 10, 77]
    assert (len(source._schemas), len(source._studies)) == (1, 1)


ATTACKS = {
    "create a trial": "INSERT INTO trials (number, study_id, state) VALUES (999, 1, 'WAITING')",
    "end a trial": "UPDATE trials SET state = 'FAIL'",
    "change a value": "UPDATE trial_values SET value = 1",
    "change a study's status": "UPDATE study_user_attributes SET value_json = '{}'",
    "delete a study": "DELETE FROM studies",
    "create a table": "CREATE TABLE mine (x int)",
    "drop a table": "DROP TABLE trials",
    "become a namespace": "SET ROLE tuning_team_a",
    "create a role": "CREATE ROLE mine",
}


@pytest.mark.parametrize("statement", ATTACKS.values(), ids=ATTACKS)
def test_a_break_in_could_not(studies: OptunaStudies, postgres: URL, statement: str) -> None:
    """The most exposed part has the least to lose."""
    carry_out(studies, KEY, TrialsPlan(add=1))
    schema = naming.database_schema(KEY.namespace)
    url = postgres.set(username=CHARTS_ROLE, password="charts")
    engine = create_engine(url, poolclass=NullPool, connect_args={"options": f"-csearch_path={schema}"})
    with engine.begin() as connection, pytest.raises(ProgrammingError, match=r"permission denied|must be owner"):
        connection.execute(text(statement))
    record = studies.read(KEY)
    assert record is not None
    assert len(record.trials) == 1


def test_a_database_that_is_away_is_said_and_comes_back(
    studies: OptunaStudies, source: PostgresSource, postgres_server: PostgresServer
) -> None:
    """No restart is needed."""
    carry_out(studies, KEY, TrialsPlan(add=1))
    assert len(loaded(source).trials) == 1
    postgres_server.stop()
    try:
        with pytest.raises(DatabaseUnavailable, match=r"(?i)connection|server"):
            source.load(KEY.namespace, KEY.name)
    finally:
        postgres_server.start()
    assert len(loaded(source).trials) == 1
