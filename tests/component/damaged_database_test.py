"""A database whose contents somebody has damaged by hand: the controller says so in words, or mends it, and comes to rest."""

import re

import optuna
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL
from tests.support.builders import a_spec
from tests.support.fakes import Fuse, MemoryExecutor
from tests.support.plans import carry_out
from tests.support.tenancy import a_tenancy

from tuning_api import contract
from tuning_api.status import Charts, Condition, ConditionType, Reason
from tuning_operator.controller import Controller, Pace
from tuning_operator.metrics import Metrics
from tuning_operator.model import StudyKey, TrialsPlan
from tuning_operator.studies import OptunaStudies

KEY = StudyKey("research", "digits")


class System:
    """A study with three trials: one complete, one that runs, one that waits."""

    def __init__(self, database: URL) -> None:
        self.database = database
        self.executor = MemoryExecutor(Fuse(), a_spec(parallelism=1))
        self.restart()

    def restart(self) -> None:
        """A new operator, which remembers nothing."""
        self.studies = OptunaStudies(a_tenancy(self.database))
        self.controller = Controller(
            executor=self.executor,
            studies=self.studies,
            links=lambda *_: Charts(report="https://charts.example/"),
            metrics=Metrics(),
            pace=Pace(0),
        )

    def begin(self) -> None:
        """Run it for a while."""
        self.studies.open(KEY, self.executor.spec)
        carry_out(self.studies, KEY, TrialsPlan(add=3))
        study = self.storage_of(KEY.name)
        trial = study.ask()
        study.tell(trial, trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True))
        study.ask().suggest_float("learning_rate", 1e-4, 1e-1, log=True)
        self.controller.reconcile(KEY)

    def storage_of(self, name: str) -> optuna.Study:
        """A study, with the operator's rights."""
        return optuna.load_study(study_name=name, storage=self.studies._storage(KEY.namespace))

    def damage(self, statement: str) -> None:
        """Change the tables behind the operator's back."""
        engine = create_engine(self.database)
        with engine.begin() as connection:
            connection.execute(text("SET search_path = tuning_research"))
            connection.execute(text(statement))
        engine.dispose()

    def verdict(self) -> Condition:
        """What the status says after some passes, the last of which wrote nothing new."""
        for _ in range(4):
            self.controller.reconcile(KEY)
        written = self.executor.statuses_written
        self.controller.reconcile(KEY)
        assert self.executor.statuses_written == written
        found = self.executor.status.condition(ConditionType.PROGRESSING)
        assert found is not None
        return found


@pytest.fixture
def system(postgres: URL) -> System:
    """A study that runs."""
    system = System(postgres)
    system.begin()
    return system


_SPEC, _CLOCK = contract.SPEC_ATTRIBUTE, contract.CLOCK_ATTRIBUTE
_GONE = "DELETE FROM {} WHERE trial_id IN (SELECT trial_id FROM trials WHERE number = {})"
_STUDY = ("study_user_attributes", "study_system_attributes", "study_directions")
_PARTS = (
    "trial_params",
    "trial_values",
    "trial_intermediate_values",
    "trial_user_attributes",
    "trial_system_attributes",
)

DAMAGE = {
    "the study is gone": ";".join(f"DELETE FROM {table}" for table in (*_PARTS, "trials", *_STUDY, "studies")),
    "the spec is gone": f"DELETE FROM study_user_attributes WHERE key = '{_SPEC}'",
    "the spec is no spec": f"UPDATE study_user_attributes SET value_json = '[1]' WHERE key = '{_SPEC}'",
    "the spec is half a spec": f"UPDATE study_user_attributes SET value_json = '{{}}' WHERE key = '{_SPEC}'",
    "the clock is no clock": f"UPDATE study_user_attributes SET value_json = '\"noon\"' WHERE key = '{_CLOCK}'",
    "the clock has stopped short": "UPDATE study_user_attributes SET value_json = '{\"runningSince\": 1}'"
    f" WHERE key = '{_CLOCK}'",
    "an attribute is no JSON": "UPDATE study_user_attributes SET value_json = '{'",
    "the directions are gone": "DELETE FROM study_directions",
    "the direction is another": "UPDATE study_directions SET direction = 'MINIMIZE'",
    "a waiting trial is gone": _GONE.format("trial_user_attributes", 2) + ";DELETE FROM trials WHERE number = 2",
    "a complete trial has no value": _GONE.format("trial_values", 0),
    "a complete trial has no parameter": _GONE.format("trial_params", 0),
    "a complete trial has no times": "UPDATE trials SET datetime_start = NULL, datetime_complete = NULL",
    "two trials have one number": "UPDATE trials SET number = 0",
    "a trial has no number": "UPDATE trials SET number = NULL WHERE number = 1",
    "a running trial has no owner": _GONE.format("trial_user_attributes", 1),
    "a trial's attribute is no JSON": "INSERT INTO trial_user_attributes (trial_id, key, value_json)"
    " SELECT trial_id, 'x', '{' FROM trials",
    "a distribution is no JSON": "UPDATE trial_params SET distribution_json = '{'",
    "a distribution is unknown": """UPDATE trial_params SET distribution_json = '{"name": "Gamma", "attributes": {}}'""",
    "a value is infinite": "UPDATE trial_values SET value = NULL, value_type = 'INF_POS'",
    "a value is out of its bounds": "UPDATE trial_params SET param_value = 1e9",
    "a table is gone": "DROP TABLE trial_values",
    "all tables are gone": "DROP SCHEMA tuning_research CASCADE",
    "a newer Optuna was here": "UPDATE version_info SET schema_version = 99",
    "a newer Optuna changed the tables": "UPDATE alembic_version SET version_num = 'v9.0.0.a'",
    "nobody knows which Optuna": "DELETE FROM version_info",
}


SAID = {
    "the study is gone": "TrialsRunning 0 of 10",
    "the spec is gone": "InvalidSpec .*not made by a TuningStudy",
    "the spec is no spec": "InvalidSpec .*not made by a TuningStudy",
    "the spec is half a spec": "InvalidSpec .*not made by a TuningStudy",
    "the clock is no clock": "TrialsRunning",
    "the clock has stopped short": "TrialsRunning",
    "an attribute is no JSON": "DatabaseUnavailable rows of study digits .* cannot be read",
    "the directions are gone": "InvalidSpec .*looks for nothing|TrialsRunning",
    "the direction is another": "InvalidSpec .*looks for minimize, and spec.objectives for maximize|TrialsRunning",
    "a trial has no number": "rows of study digits .* cannot be read|TrialsRunning",
    "a newer Optuna was here": "no longer compatible with the table schema|TrialsRunning",
    "a newer Optuna changed the tables": "no longer compatible with the table schema|TrialsRunning",
}
"""Where it is not mended: the words. What was read before the damage may be in memory and count until a restart."""


@pytest.mark.parametrize("restarted", [False, True], ids=["seen while it runs", "seen after a restart"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_said_in_words_or_mended(system: System, damage: str, *, restarted: bool) -> None:
    """Never an exception, never a mistake of the operator's own, and no pass that writes for ever."""
    system.damage(DAMAGE[damage])
    if restarted:
        system.restart()
    said = system.verdict()
    assert re.search(SAID.get(damage, "TrialsRunning"), f"{said.reason} {said.message}")


def test_a_study_of_somebody_elses_is_left_alone(postgres: URL) -> None:
    """Made with Optuna itself, under the same name: neither its trials nor its directions become ours."""
    system = System(postgres)
    storage = system.studies._storage(KEY.namespace)
    theirs = optuna.create_study(study_name=KEY.name, storage=storage, direction="maximize")
    theirs.tell(theirs.ask(), 1.0)
    said = system.verdict()
    assert said.reason is Reason.INVALID_SPEC
    assert "not made by a TuningStudy" in said.message
    assert (len(theirs.get_trials()), contract.SPEC_ATTRIBUTE in theirs.user_attrs) == (1, False)
