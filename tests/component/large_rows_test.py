"""Rows of before the limits, or written by hand: who reads the study needs neither their memory nor their sense."""

import json
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import pairwise

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL
from tests.support.builders import a_spec
from tests.support.plans import carry_out
from tests.support.tenancy import a_tenancy, worker_url

from tuning_api.contract import OWNER_ATTRIBUTE, TRIAL_ATTRIBUTES
from tuning_api.rows import EVERYTHING
from tuning_operator import rights
from tuning_operator.charts.figures import render
from tuning_operator.charts.source import WANTED, PostgresSource
from tuning_operator.charts.summary import subject, summary
from tuning_operator.charts.trials import trials_json
from tuning_operator.model import StudyKey, TrialsPlan
from tuning_operator.settings import CHARTS_ROLE
from tuning_operator.studies import OptunaStudies
from tuning_trial import database, search

KEY, THEIRS = StudyKey("team-a", "digits"), StudyKey("team-b", "theirs")
MEGABYTE = 1024 * 1024
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Readers:
    """A study with two trials, one of which runs, and all who read it."""

    def __init__(self, postgres: URL) -> None:
        self.postgres = postgres
        self.restart()
        for key in (KEY, THEIRS):
            self.studies.open(key, a_spec())
            carry_out(self.studies, key, TrialsPlan(add=3))
        self.url = worker_url(postgres, KEY.namespace).render_as_string(hide_password=False)
        study = self.worker()
        trial = study.ask()
        trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True)
        study.tell(trial, 0.5)
        self.trial_id = study.ask()._trial_id
        self.send(
            f"INSERT INTO trial_user_attributes (trial_id, key, value_json) VALUES ({self.trial_id},"
            f' \'{OWNER_ATTRIBUTE}\', \'{{"id": "pod", "name": "worker"}}\')'
        )

    def restart(self) -> None:
        """A new operator, which remembers nothing."""
        self.studies = OptunaStudies(a_tenancy(self.postgres))

    def send(self, statement: str) -> None:
        """As the owner of the database, whom no rule binds."""
        engine = create_engine(self.postgres)
        with engine.begin() as connection:
            connection.execute(text("SET search_path = tuning_team_a"))
            connection.execute(text(statement.replace("$TRIAL", str(self.trial_id))))
        engine.dispose()

    def operator(self) -> None:
        """A pass reads the study, and then another namespace's."""
        self.restart()
        record = self.studies.read(KEY)
        assert record is not None
        assert [trial.state for trial in record.trials] == ["COMPLETE", "RUNNING", "WAITING"]
        assert record.trials[1].owner is not None
        theirs = self.studies.read(THEIRS)
        assert theirs is not None
        assert len(theirs.trials) == 3

    def charts(self) -> None:
        """A page with its figures, and the trials for the command line."""
        source = PostgresSource(self.postgres.set(username=CHARTS_ROLE, password="charts"))
        data = source.load(KEY.namespace, KEY.name)
        source.close()
        assert data is not None
        drawn = subject(data, now=NOW)
        assert summary(data, drawn, now=NOW).ended == 1
        render(drawn)
        assert json.loads(trials_json(data, now=NOW))["name"] == KEY.name

    def worker(self) -> optuna.Study:
        """The study as a worker has it."""
        return database.open_study(self.url, KEY.name, patience=5)

    def trials(self) -> list[FrozenTrial]:
        """What a sampler learns from, and an objective may read."""
        study = self.worker()
        trials = study.get_trials(deepcopy=False)
        own = trials[2]
        for kind in ("tpe", "cmaes"):
            spec = a_spec(sampler={"type": kind, "nStartupTrials": 1})
            study.sampler = search.build_sampler(spec.resolved_sampler, seed=1, conditional=False)
            assert search.suggest_within(study, own, spec.search_space, trials=trials).params
        database.storage_of(study).engine.dispose()
        return trials

    def workers(self) -> None:
        """See `trials`."""
        assert len(self.trials()) == 3


@pytest.fixture
def readers(postgres: URL) -> Iterator[Readers]:
    """A study before anything large is written."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    readers = Readers(postgres)
    for read in (readers.operator, readers.charts, readers.workers):
        read()  # so that imports are not counted
    return readers


_INTO = "INSERT INTO {} (trial_id, key, value_json)"
_USER, _SYSTEM = _INTO.format("trial_user_attributes"), _INTO.format("trial_system_attributes")
_FAR = "FROM generate_series(1, {}) AS i"
_PARAMS = "INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json)"
_REPORTS = "INSERT INTO trial_intermediate_values (trial_id, step, intermediate_value, intermediate_value_type)"
_CHOICE = """'{"name": "CategoricalDistribution", "attributes": {"choices": ["' || %s || '"]}}'"""
_LONG, _MANY = _CHOICE % "repeat('1', 10000000)", _CHOICE % "i || repeat('1', 60000)"
_OURS = [name for name in TRIAL_ATTRIBUTES if name not in {*rights.OPERATORS_ATTRIBUTES} or name.endswith("retryOf")]
LARGE = {
    "ten attributes of ten megabytes": f"{_USER} SELECT $TRIAL, 'x' || i, to_json(repeat('1', 10000000)) {_FAR.format(10)}",
    "ten of Optuna's": f"{_SYSTEM} SELECT $TRIAL, 'constraints:' || i, to_json(repeat('1', 10000000)) {_FAR.format(10)}",
    "our own": "".join(
        f"{_USER} VALUES ($TRIAL, '{name}', to_json(repeat('1', 10000000))) ON CONFLICT DO NOTHING;" for name in _OURS
    ),
    "a hundred thousand attributes": f"{_USER} SELECT $TRIAL, 'x' || i, '1' {_FAR.format(100_000)}",
    "a thousand attributes of sixty thousand bytes": (
        f"{_USER} SELECT $TRIAL, 'x' || i, to_json(repeat('1', 60000)) {_FAR.format(1000)}"
    ),
    "four hundred thousand reports": f"{_REPORTS} SELECT $TRIAL, i, i, 'FINITE' {_FAR.format(400_000)}",
    "a parameter with ten million letters": f"{_PARAMS} SELECT $TRIAL, 'x', 0, {_LONG}",
    "a thousand parameters of sixty thousand letters": (
        f"{_PARAMS} SELECT $TRIAL, 'x' || i, 0, {_MANY} {_FAR.format(1000)}"
    ),
}
READERS = {"operator": Readers.operator, "charts": Readers.charts, "workers": Readers.workers}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("large", LARGE)
def test_large_rows_do_not_take_the_memory_of_those_who_read(readers: Readers, large: str, reader: str) -> None:
    """At most 16 MB of Python's own memory, where each of these took 30 MB or more."""
    readers.send(LARGE[large])
    read: Callable[[Readers], None] = READERS[reader]
    tracemalloc.start()
    read(readers)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 * MEGABYTE


def test_a_curve_with_too_many_steps_is_read_as_an_even_choice(readers: Readers) -> None:
    """From its beginning to its last step, which is what a pruned trial is worth."""
    readers.send(LARGE["four hundred thousand reports"])
    steps = list(readers.trials()[1].intermediate_values)
    assert steps[-1] == 400_000
    assert len(steps) == EVERYTHING.most_reports
    assert {later - earlier for earlier, later in pairwise(steps)} == {40}
    source = PostgresSource(readers.postgres.set(username=CHARTS_ROLE, password="charts"))
    data = source.load(KEY.namespace, KEY.name)
    source.close()
    assert data is not None
    assert len(data.trials[1].intermediate_values) == WANTED.most_reports


def test_what_is_left_out_is_said_once(readers: Readers, caplog: pytest.LogCaptureFixture) -> None:
    """With the trial, the name and the reason."""
    readers.send(f"{_USER} VALUES ($TRIAL, 'predictions', to_json(repeat('1', 100000)))")
    study = readers.worker()
    for _ in range(3):
        study.get_trials(deepcopy=False)
    (line,) = (record.getMessage() for record in caplog.records if record.name == "tuning_api.rows")
    assert f"trial {readers.trial_id} in the database: attribute 'predictions' is left out: it is larger than" in line


GARBAGE = {
    "not JSON": "{",
    "empty": "",
    "deep": "[" * 100_000,
    "deep and closed": "[" * 10_000 + "]" * 10_000,
    "a long integer": "9" * 5000,
    "an integer that is no float": "1" + "0" * 400,
    "NaN": "NaN",
    "infinity": "-Infinity",
    "null": "null",
    "half a letter": '"\\ud800"',
    "a list": "[1, [2]]",
    "an object": '{"id": {"a": 1}, "name": [], "entry": 3}',
    "a number": "-1",
    "a text": '"text"',
    "true": "true",
}
NAMES = [
    *(name for name in TRIAL_ATTRIBUTES if name != OWNER_ATTRIBUTE),
    *("fixed_params", "constraints", "constraints:loss", "completed_rung_0", "cma:optimizer:0", "cma:generation"),
    *("nsga2:generation", "nsga2:parents:1", "x_for_tell", "grid_id", "search_space", "any"),
]


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_in_an_attribute_stops_nobody(readers: Readers, garbage: str) -> None:
    """Of the trial that runs and of the one that is complete: operator, charts and workers go on."""
    value = GARBAGE[garbage].replace("'", "''")
    keys = ", ".join(f"('{name}')" for name in NAMES)
    for into in (_USER, _SYSTEM):
        readers.send(
            f"{into} SELECT trial_id, key, '{value}' FROM trials, (VALUES {keys}) AS of(key)"
            " WHERE study_id = (SELECT study_id FROM trials WHERE trial_id = $TRIAL) AND state::text IN ('RUNNING', 'COMPLETE')"
            " AND key NOT IN ('tuningstudy:copiedFrom', 'tuningstudy:cancelled', 'tuningstudy:requeued') ON CONFLICT DO NOTHING"
        )
    for read in READERS.values():
        read(readers)


DISTRIBUTIONS = {
    **GARBAGE,
    "an unknown kind": '{"name": "Gamma", "attributes": {}}',
    "no attributes": '{"name": "FloatDistribution"}',
    "other attributes": '{"name": "FloatDistribution", "attributes": {"low": "a", "high": []}}',
    "choices of anything": '{"name": "CategoricalDistribution", "attributes": {"choices": [{"a": [1]}, null, NaN]}}',
    "choices of half letters": '{"name": "CategoricalDistribution", "attributes": {"choices": ["\\ud800"]}}',
    "no choices": '{"name": "CategoricalDistribution", "attributes": {"choices": []}}',
    "integers that are no floats": (
        '{"name": "IntDistribution", "attributes": {"low": 1, "high": 1%s, "log": false, "step": 1}}' % ("0" * 400)
    ),
    "a step of nothing": '{"name": "IntDistribution", "attributes": {"low": 1, "high": 9, "log": false, "step": 0}}',
    "bounds without an end": (
        '{"name": "FloatDistribution", "attributes": {"low": -Infinity, "high": NaN, "log": false, "step": null}}'
    ),
}


@pytest.mark.filterwarnings("ignore::UserWarning")  # of Optuna's, about steps and bounds
@pytest.mark.parametrize("value", ["0", "'NaN'", "'Infinity'", "1e300", "-7", "NULL"])
def test_garbage_in_a_parameter_stops_nobody(readers: Readers, value: str) -> None:
    """Neither its distribution nor its value has to be one; of other parameters, and then of the space's own."""
    escaped = {name: garbage.replace("'", "''") for name, garbage in DISTRIBUTIONS.items()}
    others = ", ".join(f"('{name}', '{garbage}')" for name, garbage in escaped.items())
    readers.send(
        f"{_PARAMS} SELECT trial_id, name, {value}, garbage FROM trials, (VALUES {others}) AS of(name, garbage)"
        " WHERE state::text IN ('RUNNING', 'COMPLETE')"
    )
    for name in ("not JSON", "an unknown kind", "choices of anything", "a step of nothing"):
        readers.send(
            f"UPDATE trial_params SET distribution_json = '{escaped[name]}', param_value = {value}"
            " WHERE param_name = 'learning_rate'"
        )
        for read in READERS.values():
            read(readers)


def test_a_complete_trial_with_results_of_other_objectives_stops_nobody(readers: Readers) -> None:
    """Nor one without any, or with not a number."""
    for change in (
        "INSERT INTO trial_values (trial_id, objective, value, value_type) SELECT trial_id, 1, 1, 'FINITE' FROM trial_values",
        "DELETE FROM trial_values WHERE objective = 1",
        "UPDATE trial_values SET value = 'NaN'",
        "UPDATE trial_values SET value = NULL",
        "DELETE FROM trial_values",
    ):
        readers.send(change)
        for read in READERS.values():
            read(readers)
    assert TrialState.COMPLETE in {trial.state for trial in readers.trials()}
