"""What a worker may write about its trial: how large, how many, and in which words it is refused."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import Trial, TrialState
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DataError
from tests.support.postgres import PostgresServer
from tests.support.trial_worker import TrialStudy, a_spec

from tuning_api import row_limits as limits
from tuning_api.contract import EPOCHS_ATTRIBUTE, FAILURE_ATTRIBUTE, OWNER_ATTRIBUTE, Owner
from tuning_trial import database, settings, transactions, worker
from tuning_trial.interrupts import Interrupts
from tuning_trial.outcomes import Completed, Failed

_INTO_ATTRIBUTES = "INSERT INTO trial_user_attributes (trial_id, key, value_json)"
_INTO_SYSTEM = "INSERT INTO trial_system_attributes (trial_id, key, value_json)"
_INTO_PARAMS = "INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json)"
_INTO_REPORTS = "INSERT INTO trial_intermediate_values (trial_id, step, intermediate_value, intermediate_value_type)"
_INTO_VALUES = "INSERT INTO trial_values (trial_id, objective, value, value_type)"


class Running:
    """A trial that runs, and the worker's way into its database."""

    def __init__(self, server: PostgresServer) -> None:
        self.study = TrialStudy(server, a_spec())
        self.study.add(2)
        (self.trial_id, self.other_id) = (trial._trial_id for trial in self.study.trials())
        self.engine = create_engine(self.study.url)
        self.send(f"UPDATE trials SET state = 'RUNNING' WHERE trial_id = {self.trial_id}")

    def send(self, statement: str) -> int:
        """With the worker's role; how many rows it changed."""
        with self.engine.begin() as connection:
            return connection.execute(text(statement.replace("$TRIAL", str(self.trial_id)))).rowcount

    def count(self, table: str) -> int:
        """Rows of the trial."""
        with self.engine.connect() as connection:
            found = connection.execute(text(f"SELECT count(*) FROM {table} WHERE trial_id = {self.trial_id}"))
            return int(found.scalar_one())


@pytest.fixture
def running(postgres_server: PostgresServer) -> Iterator[Running]:
    """A trial that has written nothing."""
    running = Running(postgres_server)
    yield running
    running.engine.dispose()


MANY = limits.MOST_ROWS
REFUSED = {
    "an attribute of forty megabytes": (
        f"{_INTO_ATTRIBUTES} VALUES ($TRIAL, 'predictions', repeat('1', 40000000))",
        "trial attribute predictions has 40000000 bytes, and may have 65536: save it as a file in ${trial.dir}/checkpoints",
    ),
    "an attribute of Optuna's that is too long": (
        f"{_INTO_SYSTEM} VALUES ($TRIAL, 'cma:optimizer:0', repeat('1', 65537))",
        "trial attribute of Optuna's cma:optimizer:0 has 65537 bytes",
    ),
    "bytes that are fewer letters": (
        f"{_INTO_ATTRIBUTES} VALUES ($TRIAL, 'x', repeat('é', 40000))",
        "trial attribute x has 80000 bytes",
    ),
    "an attribute that becomes too long": (
        (
            f"{_INTO_ATTRIBUTES} VALUES ($TRIAL, 'x', '1');"
            "UPDATE trial_user_attributes SET value_json = repeat('1', 65537) WHERE trial_id = $TRIAL"
        ),
        "trial attribute x has 65537 bytes",
    ),
    "an attribute that becomes too long in another way": (
        (
            f"{_INTO_ATTRIBUTES} VALUES ($TRIAL, 'x', '1') ON CONFLICT DO NOTHING;"
            f"{_INTO_ATTRIBUTES} VALUES ($TRIAL, 'x', '1') ON CONFLICT (trial_id, key)"
            " DO UPDATE SET value_json = repeat('1', 65537)"
        ),
        "trial attribute x has 65537 bytes",
    ),
    "an owner that is too long": (
        f"{_INTO_ATTRIBUTES} VALUES ($TRIAL, '{OWNER_ATTRIBUTE}', repeat('1', 65537))",
        "has 65537 bytes",
    ),
    "an attribute without a name": (f"{_INTO_ATTRIBUTES} VALUES ($TRIAL, NULL, '1')", "the name of each"),
    "an attribute without a value": (f"{_INTO_ATTRIBUTES} VALUES ($TRIAL, 'x', NULL)", "the name of each"),
    "a name that is too long": (
        f"{_INTO_ATTRIBUTES} VALUES ($TRIAL, repeat('é', 257), '1')",
        "the name of each trial attribute may have 512 bytes",
    ),
    "too many attributes at once": (
        f"{_INTO_ATTRIBUTES} SELECT $TRIAL, 'x' || i, '1' FROM generate_series(1, {MANY + 1}) AS i",
        f"a trial may have {MANY} trial attributes with {limits.MOST_BYTES} bytes in all",
    ),
    "too many attributes one by one": (
        f"DO $$ BEGIN FOR i IN 1..{MANY + 1} LOOP {_INTO_ATTRIBUTES} VALUES ($TRIAL, 'x' || i, '1'); END LOOP; END $$",
        f"a trial may have {MANY} trial attributes",
    ),
    "too many bytes in all": (
        f"{_INTO_ATTRIBUTES} SELECT $TRIAL, 'x' || i, repeat('1', 60000) FROM generate_series(1, 18) AS i",
        f"with {limits.MOST_BYTES} bytes in all",
    ),
    "many bytes, a little each": (
        (
            f"{_INTO_SYSTEM} SELECT $TRIAL, 'x' || i, '1' FROM generate_series(1, 900) AS i;"
            "UPDATE trial_system_attributes SET value_json = repeat('1', 2000) WHERE trial_id = $TRIAL"
        ),
        f"with {limits.MOST_BYTES} bytes in all",
    ),
    "a distribution that is too long": (
        f"{_INTO_PARAMS} VALUES ($TRIAL, 'x', 1, repeat('1', 65537))",
        "parameter x has 65537 bytes",
    ),
    "too many parameters": (
        f"{_INTO_PARAMS} SELECT $TRIAL, 'x' || i, 1, '{{}}' FROM generate_series(1, {MANY + 1}) AS i",
        f"a trial may have {MANY} parameters",
    ),
    "two million reports": (
        f"{_INTO_REPORTS} SELECT $TRIAL, i, 1, 'FINITE' FROM generate_series(1, 2000000) AS i",
        "a trial may have 10000 reports: report once an epoch, or every so many batches",
    ),
    "reports far away": (
        f"{_INTO_REPORTS} SELECT $TRIAL, i, 1, 'FINITE' FROM generate_series(100000, 111000) AS i",
        "a trial may have 10000 reports",
    ),
    "reports before the first": (
        f"{_INTO_REPORTS} SELECT $TRIAL, -i, 1, 'FINITE' FROM generate_series(1, 11000) AS i",
        "a trial may have 10000 reports",
    ),
    "results of objectives that no study has": (
        f"{_INTO_VALUES} SELECT $TRIAL, i, 1, 'FINITE' FROM generate_series(1, 99) AS i",
        "a trial may have 16 values",
    ),
}


@pytest.mark.parametrize("attack", REFUSED)
def test_more_than_a_trial_may_write_is_refused_in_words(running: Running, attack: str) -> None:
    """And as an error that Optuna raises, and for which nobody waits."""
    statement, words = REFUSED[attack]
    with pytest.raises(DataError) as caught:
        running.send(statement)
    assert words in str(caught.value.orig)
    assert not database.is_away(caught.value)


def test_rules_are_not_evaded_by_what_a_worker_makes_itself(running: Running, postgres_server: PostgresServer) -> None:
    """Functions, operators and types of its own, found first or last; where it may make them, as in a shared database."""
    database = str(running.engine.url.database)
    with create_engine(postgres_server.url(database)).begin() as administrator:
        administrator.execute(text(f"GRANT TEMPORARY ON DATABASE {database} TO PUBLIC"))
    running.send(
        "CREATE FUNCTION pg_temp.octet_length(text) RETURNS integer LANGUAGE sql AS 'SELECT 1';"
        "CREATE FUNCTION pg_temp.always(integer, integer) RETURNS boolean LANGUAGE sql AS 'SELECT false';"
        "CREATE OPERATOR pg_temp.> (FUNCTION = pg_temp.always, LEFTARG = integer, RIGHTARG = integer);"
        "SET search_path = pg_temp, pg_catalog"
    )
    with pytest.raises(DataError, match="has 65537 bytes"):
        running.send(
            f"SET search_path = pg_temp, pg_catalog, tuning_team_a;"
            f"{_INTO_ATTRIBUTES} VALUES ($TRIAL, 'x', repeat('1', 65537))"
        )


def test_several_connections_write_no_more_than_one(running: Running) -> None:
    """The second waits for the first, and then counts what that has written."""
    half = f"{_INTO_ATTRIBUTES} SELECT {running.trial_id}, '%' || i, '1' FROM generate_series(1, {MANY * 2 // 3}) AS i"
    with running.engine.connect() as first, running.engine.connect() as second:
        first.execute(text(half.replace("%", "a")))
        second.execute(text("SET lock_timeout = 200"))
        with pytest.raises(Exception, match="lock timeout"):
            second.execute(text(half.replace("%", "b")))
        second.rollback()
        first.commit()
        with pytest.raises(DataError, match="a trial may have"):
            second.execute(text(half.replace("%", "b")))


def test_what_may_be_written_is_written(running: Running) -> None:
    """As much as is allowed, and over it as often as one likes."""
    running.send(f"{_INTO_ATTRIBUTES} SELECT $TRIAL, 'x' || i, '1' FROM generate_series(1, {MANY}) AS i")
    for _ in range(2):
        running.send(
            f"{_INTO_ATTRIBUTES} VALUES ($TRIAL, 'x1', repeat('1', {limits.LONGEST_TEXT}))"
            " ON CONFLICT (trial_id, key) DO UPDATE SET value_json = excluded.value_json"
        )
    running.send(f"{_INTO_REPORTS} SELECT $TRIAL, i, 1, 'FINITE' FROM generate_series(0, 9999) AS i")
    assert (running.count("trial_user_attributes"), running.count("trial_intermediate_values")) == (MANY, 10_000)


def test_a_trial_that_has_written_all_that_it_may_can_end(running: Running) -> None:
    """What its worker notes is not counted."""
    running.send(f"{_INTO_ATTRIBUTES} SELECT $TRIAL, 'x' || i, '1' FROM generate_series(1, {MANY}) AS i")
    for key in (EPOCHS_ATTRIBUTE, FAILURE_ATTRIBUTE):
        running.send(f"{_INTO_ATTRIBUTES} VALUES ($TRIAL, '{key}', '3')")


def test_reports_of_a_trial_that_has_many_take_no_longer(
    running: Running, record_property: Callable[[str, object], None]
) -> None:
    """Each by itself, as trials report: those within the limit are not counted, those beyond are, ten thousand at most."""

    def took(first: int, last: int) -> float:
        started = time.perf_counter()
        running.send(
            f"DO $$ BEGIN FOR i IN {first}..{last} LOOP"
            f" {_INTO_REPORTS} VALUES ($TRIAL, i, 1, 'FINITE'); END LOOP; END $$"
        )
        return (time.perf_counter() - started) / (last - first + 1)

    few = took(0, 499)
    running.send(f"{_INTO_REPORTS} SELECT $TRIAL, i, 1, 'FINITE' FROM generate_series(500, 8999) AS i")
    many, far = took(9000, 9499), took(20_000, 20_199)
    for name, seconds in {"first": few, "after nine thousand": many, "beyond the limit": far}.items():
        record_property(name, f"{seconds * 1e6:.0f} us")
    assert many < 5 * few + 0.001
    assert far < 0.05


@pytest.fixture(params=["postgres", "sqlite"])
def optunas(request: pytest.FixtureRequest, postgres_server: PostgresServer, tmp_path: Path) -> Trial:
    """A trial as an objective has it, in a cluster and on a laptop."""
    if request.param == "postgres":
        running = Running(postgres_server)
        running.engine.dispose()
        url, name, trial_id = running.study.url, running.study.name, running.trial_id
    else:
        url, name = f"sqlite:///{tmp_path / 'study.db'}", "digits"
        trial_id = optuna.create_study(study_name=name, storage=url).ask()._trial_id
    study = database.open_study(url, name, patience=5)
    study.get_trials(deepcopy=False)
    assert study.get_trials(deepcopy=False)[0].state is TrialState.RUNNING
    return Trial(study, trial_id)


def test_an_objective_is_told_the_same_words_everywhere(optunas: Trial) -> None:
    """Where it asks too much, and at once; what it asks after that is done."""
    with pytest.raises(
        limits.RowRefusedError, match=r"trial attribute predictions has \d+ bytes, and may have 65536: save"
    ):
        optunas.set_user_attr("predictions", [0.5] * 20_000)
    with pytest.raises(limits.RowRefusedError, match="parameter choice has"):
        optunas.suggest_categorical("choice", ["x" * 70_000, "y"])
    with pytest.raises(limits.RowRefusedError, match="the name of each trial attribute"):
        optunas.set_user_attr("é" * 257, 1)
    optunas.set_user_attr("predictions", 0.5)
    storage: Any = optunas.storage
    with storage._backend.engine.begin() as connection:
        connection.execute(
            text(_INTO_REPORTS + " VALUES (:trial, :step, 1, 'FINITE')"),
            [{"trial": optunas._trial_id, "step": step} for step in range(limits.MOST_REPORTS)],
        )
        connection.execute(
            text(_INTO_ATTRIBUTES + " VALUES (:trial, :key, '1')"),
            [{"trial": optunas._trial_id, "key": f"x{number}"} for number in range(limits.MOST_ROWS - 1)],
        )
    with pytest.raises(limits.RowRefusedError, match="a trial may have 10000 reports: report once an epoch"):
        optunas.report(0.5, 50_000)
    with pytest.raises(limits.RowRefusedError, match="a trial may have 1000 trial attributes"):
        optunas.set_user_attr("one more", 1)
    optunas.set_user_attr("predictions", 0.7)
    assert optunas.user_attrs["predictions"] == 0.7


def test_a_result_that_does_not_fit_beside_all_else_fails_its_trial_and_not_its_worker(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    """The trial has filled Optuna's attributes, and its constraints would be more of them."""
    study = TrialStudy(postgres_server, a_spec())
    study.add()
    opened = database.open_study(study.url, study.name, patience=5)
    storage = database.storage_of(opened)
    claimed = transactions.claim(
        storage.engine, study_id=opened._study_id, owner=Owner(id="uid", name="worker"), now=lambda: datetime.now(UTC)
    )
    assert claimed is not None
    own = opened.get_trials(deepcopy=False)[0]
    with storage.engine.begin() as connection:
        connection.execute(
            text(f"{_INTO_SYSTEM} SELECT {claimed.trial_id}, 'x' || i, '1' FROM generate_series(1, {MANY}) AS i")
        )
    environment = settings.read(study.environment(tmp_path))
    at_work = worker._Worker(
        settings=environment, signals=Interrupts(), study=opened, storage=storage, isolation="fork", grace=1.0
    )
    spec = a_spec(constraints=[{"metric": "latency", "upper": 1.0}])
    outcome, _ = worker._end(at_work, own, Completed((0.5,), limited={"latency": 0.5}), None, spec=spec)
    assert isinstance(outcome, Failed)
    (ended,) = study.trials()
    assert ended.state is TrialState.FAIL
    assert "a trial may have 1000" in ended.user_attrs[FAILURE_ATTRIBUTE]["message"]
    storage.engine.dispose()
