"""The studies gateway over a real Postgres: rows change as planned, and roles may do what they need and no more."""

import gc
import time
import weakref
from datetime import UTC, datetime

import optuna
import pytest
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import TrialState as OptunaState
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import OperationalError, ProgrammingError
from tests.support.builders import a_spec
from tests.support.plans import carry_out
from tests.support.postgres import PostgresServer
from tests.support.tenancy import a_tenancy, worker_url

from tuning_api import contract, naming
from tuning_api.contract import Failure, FailureReason
from tuning_api.status import Phase, StudyStatus
from tuning_operator import studies as gateway_module
from tuning_operator.database import connect_arguments
from tuning_operator.errors import DatabaseUnavailable
from tuning_operator.model import Abandon, Clock, Ending, Pulse, Requeue, StudyKey, TrialsPlan, TrialState
from tuning_operator.studies import OptunaStudies

KEY = StudyKey("team-a", "digits")


def gateway(url: URL) -> OptunaStudies:
    return OptunaStudies(a_tenancy(url))


@pytest.fixture
def studies(postgres: URL) -> OptunaStudies:
    """A gateway with one open study."""
    studies = gateway(postgres)
    studies.open(KEY, a_spec())
    return studies


def worker_storage(postgres: URL, namespace: str = "team-a") -> RDBStorage:
    """The database as a worker of a namespace sees it."""
    url = worker_url(postgres, namespace)
    return RDBStorage(url.render_as_string(hide_password=False), skip_table_creation=True)


def states(studies: OptunaStudies) -> list[TrialState]:
    record = studies.read(KEY)
    assert record is not None
    return [trial.state for trial in record.trials]


def test_a_study_that_nobody_opened_does_not_exist(postgres: URL) -> None:
    """Reading makes nothing."""
    assert gateway(postgres).read(KEY) is None


def test_an_open_study_holds_its_spec_and_follows_it(studies: OptunaStudies) -> None:
    """Workers read the spec from the database before each trial."""
    studies.open(KEY, a_spec(maxTrials=77))
    record = studies.read(KEY)
    assert record is not None
    assert record.stored_spec is not None
    assert (record.stored_spec["maxTrials"], record.trials) == (77, ())


def test_pulses_of_studies_in_several_namespaces_are_read_at_once(studies: OptunaStudies, postgres: URL) -> None:
    """One statement over all schemas; a study without rows has a pulse as well, and one that nobody has read has none."""
    other, unread = StudyKey("team-b", "digits"), StudyKey("team-b", "unread")
    studies.open(other, a_spec())
    carry_out(studies, KEY, TrialsPlan(add=3))
    study = optuna.load_study(study_name=KEY.name, storage=worker_storage(postgres))
    study.tell(study.ask(), 0.5)
    study.ask()
    assert studies.pulses([KEY, other, unread]) == {KEY: Pulse(waiting=1, running=1, complete=1), other: Pulse()}
    assert studies.pulses([]) == {}


@pytest.mark.parametrize(
    "statement", ["DROP SCHEMA tuning_mallory CASCADE", "LOCK TABLE tuning_mallory.trials"], ids=["gone", "locked"]
)
def test_pulses_of_a_namespace_that_cannot_be_read_take_no_other_with_them(
    studies: OptunaStudies, postgres: URL, statement: str
) -> None:
    """It is left out, and then not asked for a while, so that it costs the others no time."""
    slow = StudyKey("mallory", "digits")
    studies.open(slow, a_spec())
    carry_out(studies, KEY, TrialsPlan(add=3))
    engine = create_engine(postgres)
    with engine.begin() as connection:
        connection.execute(text(statement))
        if "DROP" in statement:
            connection.commit()
        assert studies.pulses([slow, KEY]) == {KEY: Pulse(waiting=3)}
        begun = time.monotonic()
        assert studies.pulses([slow, KEY]) == {KEY: Pulse(waiting=3)}
        assert time.monotonic() - begun < 1
    engine.dispose()


def test_rows_that_are_forgotten_take_no_memory_and_are_read_anew(studies: OptunaStudies) -> None:
    """Optuna keeps what it has read for as long as somebody holds the study."""
    carry_out(studies, KEY, TrialsPlan(add=3))
    before = studies.read(KEY)
    rows = weakref.ref(studies._studies[KEY].get_trials(deepcopy=False)[0])
    studies.forget(KEY)
    gc.collect()
    assert rows() is None
    assert studies.read(KEY) == before


def test_waiting_trials_are_added_and_withdrawn(studies: OptunaStudies) -> None:
    """The buffer, and a budget that was lowered."""
    carry_out(studies, KEY, TrialsPlan(add=3))
    record = studies.read(KEY)
    assert record is not None
    carry_out(studies, KEY, TrialsPlan(cancel=record.trials[2:]))
    after = studies.read(KEY)
    assert after is not None
    assert [trial.state for trial in after.trials] == [TrialState.WAITING, TrialState.WAITING, TrialState.FAIL]
    assert (after.trials[2].cancelled, after.trials[2].is_ended) == (True, False)


def test_a_lost_trial_is_continued_with_its_parameters(studies: OptunaStudies, postgres: URL) -> None:
    """Mark, fail, continue; doing it twice adds no second successor."""
    carry_out(studies, KEY, TrialsPlan(add=1))
    study = optuna.load_study(study_name=KEY.name, storage=worker_storage(postgres))
    trial = study.ask()
    rate = trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True)
    record = studies.read(KEY)
    assert record is not None
    carry_out(studies, KEY, TrialsPlan(requeue=(Requeue(record.trials[0], Ending.CRASHED),)))
    after = studies.read(KEY)
    assert after is not None
    lost, successor = after.trials
    assert (lost.is_lost, lost.requeued, successor.retry_of) == (True, "Crashed", 0)
    again = optuna.load_study(study_name=KEY.name, storage=worker_storage(postgres)).ask()
    assert rate == again.suggest_float("learning_rate", 1e-4, 1e-1, log=True)


def test_a_trial_that_ended_after_all_keeps_its_result(studies: OptunaStudies, postgres: URL) -> None:
    """The worker was only thought dead: no successor, no second count."""
    carry_out(studies, KEY, TrialsPlan(add=1))
    study = optuna.load_study(study_name=KEY.name, storage=worker_storage(postgres))
    trial = study.ask()
    record = studies.read(KEY)
    assert record is not None
    study.tell(trial, 0.9)
    carry_out(studies, KEY, TrialsPlan(requeue=(Requeue(record.trials[0], Ending.INTERRUPTED),)))
    assert states(studies) == [TrialState.COMPLETE]


RUBBISH = {
    contract.OWNER_ATTRIBUTE: ["nobody"],
    contract.FAILURE_ATTRIBUTE: {"reason": "Because"},
    contract.RETRY_OF_ATTRIBUTE: {"a": 1},
    contract.REQUEUED_ATTRIBUTE: 7,
    contract.EPOCHS_ATTRIBUTE: "many",
    contract.MAX_EPOCHS_ATTRIBUTE: None,
}


def test_rubbish_that_user_code_wrote_does_not_stop_the_controller(studies: OptunaStudies, postgres: URL) -> None:
    """By an earlier version's rights any attribute of a trial; what cannot be read counts as not written."""
    carry_out(studies, KEY, TrialsPlan(add=1))
    trial = optuna.load_study(study_name=KEY.name, storage=worker_storage(postgres)).ask()
    operators = a_tenancy(postgres, charts_password=None).open(KEY.namespace)
    for name, value in RUBBISH.items():
        operators.set_trial_user_attr(trial._trial_id, name, value)
    record = studies.read(KEY)
    assert record is not None
    (read,) = record.trials
    assert (read.owner, read.failure, read.retry_of, read.requeued, read.epochs) == (None, None, None, None, None)


def test_a_late_write_of_a_replaced_worker_is_refused(studies: OptunaStudies, postgres: URL) -> None:
    """Optuna's own fence: ended trials are immutable."""
    carry_out(studies, KEY, TrialsPlan(add=1))
    trial = optuna.load_study(study_name=KEY.name, storage=worker_storage(postgres)).ask()
    record = studies.read(KEY)
    assert record is not None
    carry_out(studies, KEY, TrialsPlan(requeue=(Requeue(record.trials[0], Ending.INTERRUPTED),)))
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        trial.report(0.5, 1)


def test_an_abandoned_trial_says_why(studies: OptunaStudies, postgres: URL) -> None:
    """A failure is read back as it was written."""
    carry_out(studies, KEY, TrialsPlan(add=1))
    optuna.load_study(study_name=KEY.name, storage=worker_storage(postgres)).ask()
    record = studies.read(KEY)
    assert record is not None
    failure = Failure(reason=FailureReason.WORKER_LOST, message="3 workers in a row crashed")
    carry_out(studies, KEY, TrialsPlan(abandon=(Abandon(record.trials[0], failure),)))
    after = studies.read(KEY)
    assert after is not None
    assert (failure, True) == (after.trials[0].failure, after.trials[0].is_ended)


def test_clock_and_status_outlive_the_gateway(studies: OptunaStudies, postgres: URL) -> None:
    """A restarted operator goes on where the first one was."""
    clock = Clock(12.5, datetime(2026, 1, 1, tzinfo=UTC))
    studies.save(KEY, clock=clock, status=StudyStatus(phase=Phase.RUNNING))
    record = gateway(postgres).read(KEY)
    assert record is not None
    assert clock == record.clock


def test_deleting_leaves_nothing_and_other_studies_alone(studies: OptunaStudies) -> None:
    """DeletionPolicy Delete."""
    other = StudyKey("team-a", "other")
    studies.open(other, a_spec())
    for key in (KEY, other):
        carry_out(studies, key, TrialsPlan(add=2))
    studies.delete(KEY)
    kept = studies.read(other)
    assert studies.read(KEY) is None
    assert kept is not None
    assert len(kept.trials) == 2
    studies.delete(KEY)  # twice is fine


def test_namesakes_in_two_namespaces_are_strangers(studies: OptunaStudies) -> None:
    """Two schemas, two studies."""
    twin = StudyKey("team-b", "digits")
    studies.open(twin, a_spec())
    carry_out(studies, twin, TrialsPlan(add=1))
    record = studies.read(twin)
    assert record is not None
    assert (len(record.trials), len(states(studies))) == (1, 0)


def test_asking_an_empty_queue_creates_no_trial(studies: OptunaStudies, postgres: URL) -> None:
    """Not even Optuna's own ask() can exceed the budget."""
    study = optuna.load_study(study_name=KEY.name, storage=worker_storage(postgres))
    with pytest.raises(StorageInternalError):
        study.ask()
    assert states(studies) == []


def test_a_worker_can_do_its_work(studies: OptunaStudies, postgres: URL) -> None:
    """Claim, suggest, report, tell: with TPE, under the least privileges."""
    carry_out(studies, KEY, TrialsPlan(add=12))
    study = optuna.load_study(
        study_name=KEY.name, storage=worker_storage(postgres), pruner=optuna.pruners.MedianPruner()
    )
    for _ in range(12):
        trial = study.ask()
        value = trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True)
        trial.report(value, 0)
        trial.should_prune()
        study.tell(trial, value)
    assert {TrialState.COMPLETE} == set(states(studies))
    record = studies.read(KEY)
    assert record is not None
    assert {"learning_rate"} == set(record.importances)
    assert OptunaState.COMPLETE.name == "COMPLETE"


def test_importances_are_told_again_when_half_as_many_more_are_complete_and_at_the_end(
    studies: OptunaStudies, postgres: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They take as long as all else of a pass."""
    told: list[int] = []

    def shares(trials: list[optuna.trial.FrozenTrial]) -> dict[str, float]:
        told.append(len(trials))
        return {}

    monkeypatch.setattr(gateway_module, "shares", shares)
    study = optuna.load_study(study_name=KEY.name, storage=worker_storage(postgres))
    carry_out(studies, KEY, TrialsPlan(add=25))
    for _ in range(24):
        study.tell(study.ask(), 0.5)
        studies.read(KEY)
        studies.read(KEY)
    assert len(told) == 6  # 1, 2, 4, 7, 11, 17
    study.tell(study.ask(), 0.5)
    studies.read(KEY)
    studies.read(KEY)
    assert len(told) == 7


@pytest.mark.usefixtures("studies")
def test_the_charts_role_may_only_read(postgres: URL) -> None:
    """The most exposed part has the least to lose."""
    url = postgres.set(username="tuningstudy_charts", password="charts")
    engine = create_engine(url, connect_args=connect_arguments(naming.database_schema("team-a")))
    with engine.begin() as connection:
        assert connection.execute(text("SELECT study_name FROM studies")).scalars().all() == ["digits"]
    with engine.begin() as connection, pytest.raises(ProgrammingError, match="permission denied"):
        connection.execute(text("UPDATE trials SET state = 'FAIL'"))


def test_a_wrong_password_is_refused(studies: OptunaStudies, postgres: URL) -> None:
    """Passwords are checked at all: the tests above would prove nothing otherwise."""
    assert studies.read(KEY) is not None
    url = postgres.set(username="tuning_team_a", password="wrong")
    with pytest.raises(OperationalError, match="password authentication failed"), create_engine(url).connect():
        raise AssertionError


def test_a_database_that_is_away_is_said_in_its_own_words_and_comes_back(
    studies: OptunaStudies, postgres_server: PostgresServer
) -> None:
    """One verdict for every way a connection can die; no restart needed afterwards."""
    postgres_server.stop()
    try:
        with pytest.raises(DatabaseUnavailable, match=r"(?i)connection|server"):
            studies.read(KEY)
    finally:
        postgres_server.start()
    assert states(studies) == []


def test_an_operator_that_may_not_create_roles_is_told_so(postgres: URL) -> None:
    """CloudNativePG's application user has no CREATEROLE by default."""
    admin = create_engine(postgres)
    with admin.begin() as connection:
        connection.execute(text("CREATE ROLE plain_user LOGIN PASSWORD 'x'"))
    plain = make_url(postgres.set(username="plain_user", password="x"))
    with pytest.raises(DatabaseUnavailable, match=r"permission denied to create role"):
        gateway(plain).read(StudyKey("never-seen", "digits"))
