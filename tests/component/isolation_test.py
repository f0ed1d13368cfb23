"""What user code in a trial's pod can try, and what refuses it: the attack table of docs/security.md, row by row.

The code has what the pod has: the namespace's way into the database, the network, and no Kubernetes token.
"""

import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import optuna
import pytest
from cluster.control_plane import ControlPlane
from cluster.kubectl import Kubectl
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL, Engine
from sqlalchemy.exc import DBAPIError, IntegrityError, ProgrammingError
from tests.support.builders import a_manifest, a_spec, a_study
from tests.support.operator_process import SYSTEM_NAMESPACE, service_account_kubeconfig
from tests.support.plans import carry_out
from tests.support.postgres import PostgresServer
from tests.support.tenancy import a_tenancy, worker_url

from tuning_api import contract, naming
from tuning_operator import rights
from tuning_operator.model import StudyKey, TrialsPlan
from tuning_operator.render.job import WorkerDefaults, worker_job
from tuning_operator.studies import OptunaStudies

KEY = StudyKey("team-a", "digits")
THEIRS = StudyKey("team-b", "theirs")
ENDED, RUNNING, WAITING = 0, 1, 2
"""Numbers of the trials that are under attack."""


class Victim:
    """A study with a trial that has ended, one that another pod runs, and one that waits; and an attacker's way in."""

    def __init__(self, database: URL) -> None:
        self.database = database
        self.studies = OptunaStudies(a_tenancy(database))
        self.studies.open(THEIRS, a_spec())
        self.studies.open(KEY, a_spec())
        carry_out(self.studies, KEY, TrialsPlan(add=3))
        url = worker_url(database, KEY.namespace)
        self.storage = RDBStorage(url.render_as_string(hide_password=False), skip_table_creation=True)
        self.study = optuna.load_study(study_name=KEY.name, storage=self.storage)
        self.study.tell(self._run(), 0.5)
        self._run()

    @property
    def engine(self) -> Engine:
        """The attacker's connections."""
        return self.storage.engine

    def attack(self, statement: str) -> int:
        """Send a statement; how many rows it changed."""
        with self.engine.begin() as connection:
            return connection.execute(text(statement)).rowcount

    def contents(self) -> dict[str, list[tuple[Any, ...]]]:
        """All rows of all tables of all namespaces, as the database's owner sees them."""
        engine = create_engine(self.database)
        with engine.connect() as connection:
            names = connection.execute(
                text("SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname LIKE 'tuning%'")
            ).scalars()
            found = {name: [*connection.execute(text(f"SELECT * FROM {name}"))] for name in sorted(names)}
        engine.dispose()
        return {name: sorted(map(tuple, rows), key=repr) for name, rows in found.items()}

    def _run(self) -> optuna.Trial:
        trial = self.study.ask()
        trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True)
        trial.report(0.1, 0)
        trial.set_user_attr(contract.OWNER_ATTRIBUTE, {"id": f"pod-{trial.number}", "name": "worker"})
        return trial


@pytest.fixture
def victim(postgres: URL) -> Victim:
    """A study to attack."""
    return Victim(postgres)


@pytest.fixture(scope="module")
def untouched(postgres_server: PostgresServer) -> Victim:
    """A study to attack in vain: one for many attacks, since each proves that it has changed nothing."""
    return Victim(postgres_server.create_database())


_OF = "(SELECT trial_id FROM trials WHERE number = {})"
_ENDED, _RUNNING, _WAITING = (_OF.format(number) for number in (ENDED, RUNNING, WAITING))
_VALUE = "INSERT INTO trial_values (trial_id, objective, value, value_type)"
_ATTRIBUTE = "INSERT INTO trial_user_attributes (trial_id, key, value_json)"

REFUSED = {
    # another namespace
    "read another team's studies": "SELECT * FROM tuning_team_b.studies",
    "read another team's trials": "SELECT * FROM tuning_team_b.trial_params",
    "write into another team's schema": "INSERT INTO tuning_team_b.studies (study_name) VALUES ('mine')",
    "become another team": "SET ROLE tuning_team_b",
    "become the operator": "SET ROLE tuningstudy_operator",
    "become the charts server": "SET ROLE tuningstudy_charts",
    "become somebody who may read all": "SET ROLE pg_read_all_data",
    "change another team's password": "ALTER ROLE tuning_team_b PASSWORD 'mine'",
    "create a role": "CREATE ROLE mine",
    "give itself rights": "ALTER ROLE tuning_team_a CREATEROLE",
    "read a file of the server": "SELECT pg_read_file('/etc/passwd')",
    "run a program on the server": "COPY trials TO PROGRAM 'cat'",
    # the budget
    "create a trial": "INSERT INTO trials (number, study_id, state) VALUES (999, 1, 'WAITING')",
    "queue a trial again": f"UPDATE trials SET state = 'WAITING' WHERE trial_id = {_RUNNING}",
    "have its trial not counted": f"{_ATTRIBUTE} VALUES ({_RUNNING}, 'tuningstudy:cancelled', 'true')",
    "have its trial repeated for ever": f"{_ATTRIBUTE} VALUES ({_RUNNING}, 'tuningstudy:requeued', '\"Crashed\"')",
    "pass its trial off as another study's": f"{_ATTRIBUTE} VALUES ({_RUNNING}, 'tuningstudy:copiedFrom', '{{}}')",
    "use up the numbers of trials": "SELECT nextval('trials_trial_id_seq')",
    # the study
    "change the study's spec": "UPDATE study_user_attributes SET value_json = '{}'",
    "rename the study": "UPDATE studies SET study_name = 'mine'",
    "turn the objective round": "UPDATE study_directions SET direction = 'MINIMIZE'",
    "write a study's attribute": "INSERT INTO study_user_attributes (study_id, key, value_json) VALUES (1, 'x', '1')",
    "claim another version of Optuna": "UPDATE version_info SET schema_version = 99",
    # another trial's result
    "change a result": f"UPDATE trial_values SET value = 1 WHERE trial_id = {_ENDED}",
    "add a result": f"{_VALUE} VALUES ({_ENDED}, 1, 1, 'FINITE')",
    "replace a result": f"{_VALUE} VALUES ({_ENDED}, 0, 1, 'FINITE')"
    " ON CONFLICT (trial_id, objective) DO UPDATE SET value = 1",
    "give a result to a trial that waits": f"{_VALUE} VALUES ({_WAITING}, 0, 1, 'FINITE')",
    "fail a trial that is complete": f"UPDATE trials SET state = 'FAIL' WHERE trial_id = {_ENDED}",
    "run a trial once more": f"UPDATE trials SET state = 'RUNNING' WHERE trial_id = {_ENDED}",
    "change a trial's times": f"UPDATE trials SET datetime_complete = now() WHERE trial_id = {_ENDED}",
    "change an ended trial's parameters": f"UPDATE trial_params SET param_value = 0 WHERE trial_id = {_ENDED}",
    "change a running trial's parameters": f"UPDATE trial_params SET param_value = 0 WHERE trial_id = {_RUNNING}",
    "change a learning curve": f"UPDATE trial_intermediate_values SET intermediate_value = 9 WHERE trial_id = {_ENDED}",
    "lengthen a learning curve": "INSERT INTO trial_intermediate_values"
    f" (trial_id, step, intermediate_value, intermediate_value_type) VALUES ({_ENDED}, 9, 9, 'FINITE')",
    "change an ended trial's attribute": f"UPDATE trial_user_attributes SET value_json = '1' WHERE trial_id = {_ENDED}",
    "write an ended trial's attribute": f"{_ATTRIBUTE} VALUES ({_ENDED}, 'x', '1')",
    "declare a trial infeasible": "INSERT INTO trial_system_attributes (trial_id, key, value_json)"
    f" VALUES ({_ENDED}, 'constraints', '[1]')",
    "move a result to another trial": f"UPDATE trial_values SET trial_id = {_RUNNING} WHERE trial_id = {_ENDED}",
    "exchange two trials": "UPDATE trials SET number = 1 - number WHERE number < 2",
    "move a trial to another study": f"UPDATE trials SET study_id = 2 WHERE trial_id = {_RUNNING}",
    "take a running trial away from its owner": "UPDATE trial_user_attributes SET value_json = '{}'"
    f" WHERE trial_id = {_RUNNING} AND key = 'tuningstudy:owner'",
    # the tables and their rules
    "delete trials": "DELETE FROM trials",
    "delete a result": f"DELETE FROM trial_values WHERE trial_id = {_ENDED}",
    "empty a table": "TRUNCATE trial_values",
    "drop a table": "DROP TABLE trials CASCADE",
    "drop the schema": "DROP SCHEMA tuning_team_a CASCADE",
    "create a table": "CREATE TABLE mine (x int)",
    "add a column": "ALTER TABLE trials ADD COLUMN x int",
    "switch a rule off": "ALTER TABLE trial_values DISABLE TRIGGER ALL",
    "drop a rule": "DROP TRIGGER only_while_it_runs ON trial_values",
    "rewrite a rule": "CREATE OR REPLACE FUNCTION only_while_it_runs() RETURNS trigger LANGUAGE sql AS ''",
    "pass for a replica": "SET session_replication_role = replica",
    "pass by the rules for rows": f"SET row_security = off; UPDATE trial_values SET value = 1 WHERE trial_id = {_ENDED}",
}


@pytest.mark.parametrize("statement", REFUSED.values(), ids=REFUSED)
def test_the_database_refuses_to(untouched: Victim, statement: str) -> None:
    """With an error, and with nothing changed in any table of any namespace."""
    before = untouched.contents()
    with pytest.raises(DBAPIError, match=r"permission denied|must be (owner|a member)|does not run") as caught:
        untouched.attack(statement)
    assert isinstance(caught.value, ProgrammingError | IntegrityError)
    assert untouched.contents() == before


def _tell(victim: Victim) -> None:
    victim.storage.set_trial_state_values(_trial_id(victim, ENDED), state=TrialState.COMPLETE, values=[1.0])


BY_OPTUNA: dict[str, Callable[[Victim], object]] = {
    "ask for a trial when none waits": lambda victim: [victim.study.ask() for _ in range(2)],
    "tell once more": _tell,
    "enqueue a point": lambda victim: victim.study.enqueue_trial({"learning_rate": 0.01}),
    "write an attribute of the study": lambda victim: victim.study.set_user_attr("x", 1),
    "delete the study": lambda victim: optuna.delete_study(study_name=KEY.name, storage=victim.storage),
    "create a study": lambda victim: optuna.create_study(study_name="mine", storage=victim.storage),
    "run a whole study": lambda victim: victim.study.optimize(lambda _: 1.0, n_trials=2),
}


def _trial_id(victim: Victim, number: int) -> int:
    return victim.study.get_trials(deepcopy=False)[number]._trial_id


@pytest.mark.parametrize("attack", BY_OPTUNA.values(), ids=BY_OPTUNA)
def test_optuna_itself_cannot(victim: Victim, attack: Callable[[Victim], object]) -> None:
    """The study's own library, as user code has it at hand, gets no further than SQL: three trials stay three."""
    with pytest.raises((optuna.exceptions.StorageInternalError, optuna.exceptions.UpdateFinishedTrialError)):
        attack(victim)
    trials = victim.study.get_trials()
    assert (len(trials), trials[ENDED].value) == (3, 0.5)
    assert [study.study_name for study in optuna.get_all_study_summaries(victim.storage)] == [KEY.name]


@pytest.fixture
def open_database(victim: Victim, postgres_server: PostgresServer) -> Victim:
    """A victim in a database that gives everybody what PostgreSQL does by default, and did before version 15."""
    admin = create_engine(postgres_server.url(victim.database.database or ""))
    with admin.begin() as connection:
        connection.exec_driver_sql("GRANT CREATE ON SCHEMA public TO PUBLIC")
        connection.exec_driver_sql(f"GRANT TEMPORARY ON DATABASE {victim.database.database} TO PUBLIC")
    admin.dispose()
    return victim


def test_operators_that_an_attacker_makes_do_not_get_round_the_rules(open_database: Victim) -> None:
    """In a database whose `public` is open to all, as before PostgreSQL 15, and with a search path of the attacker's."""
    open_database.attack(
        "CREATE FUNCTION public.always(tuning_team_a.trialstate, tuning_team_a.trialstate) RETURNS boolean"
        " LANGUAGE sql IMMUTABLE AS 'SELECT true';"
        "CREATE OPERATOR public.= (FUNCTION = public.always, LEFTARG = tuning_team_a.trialstate,"
        " RIGHTARG = tuning_team_a.trialstate)"
    )
    with pytest.raises(IntegrityError, match="does not run"):
        open_database.attack(
            "SET search_path = public, tuning_team_a, pg_catalog;"
            f"UPDATE trial_values SET value = 1 WHERE trial_id = {_ENDED}"
        )


_TYPE_OF_MY_OWN = f"""
CREATE TYPE pg_temp.xid AS ENUM ('mine');
CREATE FUNCTION pg_temp.in8(xid8) RETURNS pg_temp.xid LANGUAGE sql IMMUTABLE AS $$ SELECT 'mine'::pg_temp.xid $$;
CREATE FUNCTION pg_temp.out(pg_temp.xid) RETURNS pg_catalog.xid LANGUAGE sql STABLE
  AS $$ SELECT xmin FROM tuning_team_a.trials WHERE trial_id = {_ENDED.replace("trials", "tuning_team_a.trials")} $$;
CREATE CAST (xid8 AS pg_temp.xid) WITH FUNCTION pg_temp.in8(xid8);
CREATE CAST (pg_temp.xid AS pg_catalog.xid) WITH FUNCTION pg_temp.out(pg_temp.xid) AS IMPLICIT;
"""


@pytest.mark.parametrize(
    "name",
    [
        "change a result",
        "add a result",
        "change a learning curve",
        "lengthen a learning curve",
        "change an ended trial's attribute",
        "write an ended trial's attribute",
        "declare a trial infeasible",
    ],
)
def test_types_that_an_attacker_makes_do_not_get_round_the_rules(open_database: Victim, name: str) -> None:
    """Temporary types stand before PostgreSQL's own where a search path does not say otherwise."""
    before = open_database.contents()
    with open_database.engine.connect() as connection:
        connection.exec_driver_sql(_TYPE_OF_MY_OWN)
        with pytest.raises(DBAPIError, match=r"does not run|permission denied"):
            connection.execute(text(REFUSED[name]))
    assert open_database.contents() == before


_OPERATORS_OF_MY_OWN = """
CREATE FUNCTION public.never({one}, {other}) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT false';
CREATE OPERATOR public.= (FUNCTION = public.never, LEFTARG = {one}, RIGHTARG = {other});
CREATE OPERATOR public.<> (FUNCTION = public.never, LEFTARG = {one}, RIGHTARG = {other});
"""


@pytest.mark.parametrize(
    "name",
    ["have its trial not counted", "fail a trial that is complete", "queue a trial again", "run a trial once more"],
)
def test_operators_that_wait_for_the_operators_next_start_are_not_kept_in_its_rules(
    open_database: Victim, name: str
) -> None:
    """A rule is read when it is made: by a search path on which nobody else can put anything."""
    for one, other in (
        ("tuning_team_a.trialstate", "tuning_team_a.trialstate"),
        ("varchar", "varchar"),
        ("varchar", "text"),
        ("name", "text"),
    ):
        open_database.attack(_OPERATORS_OF_MY_OWN.format(one=one, other=other))
    a_tenancy(open_database.database).open(KEY.namespace)
    before = open_database.contents()
    with pytest.raises(DBAPIError, match=r"permission denied|does not run"):
        open_database.attack(REFUSED[name])
    assert open_database.contents() == before


def test_a_result_cannot_be_changed_while_it_is_told(victim: Victim) -> None:
    """A write that was begun while the trial ran holds its end up, and so cannot come after it."""
    trial_id = _trial_id(victim, RUNNING)
    with victim.engine.connect() as attacker, create_engine(victim.database).connect() as operator:
        attacker.execute(text(f"{_ATTRIBUTE} VALUES ({trial_id}, 'x', '1')"))
        operator.execute(text("SET search_path = tuning_team_a; SET lock_timeout = 1"))
        with pytest.raises(DBAPIError, match="lock timeout"):
            operator.execute(text(f"UPDATE trials SET state = 'FAIL' WHERE trial_id = {trial_id}"))


def test_a_worker_that_was_replaced_in_the_middle_of_a_write_is_not_in_the_way(
    victim: Victim, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looked while the trial ran and writes when that has ended: Optuna passes over it, and the next call says so."""
    trial_id = _trial_id(victim, RUNNING)
    operators = a_tenancy(victim.database, charts_password=None).open(KEY.namespace)
    really = victim.storage.check_trial_is_updatable

    def replaced_meanwhile(trial: int, state: TrialState) -> None:
        really(trial, state)
        operators.set_trial_state_values(trial_id, state=TrialState.FAIL)

    with monkeypatch.context() as patch:
        patch.setattr(victim.storage, "check_trial_is_updatable", replaced_meanwhile)
        victim.storage.set_trial_user_attr(trial_id, "late", 1)
    assert "late" not in victim.study.get_trials()[RUNNING].user_attrs
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        victim.storage.set_trial_user_attr(trial_id, "later", 1)


def test_the_operator_may_do_all_that_workers_may_not(victim: Victim) -> None:
    """The rules bind the worker's role alone: a person who mends the database by hand is free."""
    with create_engine(victim.database).begin() as connection:
        connection.execute(text("SET search_path = tuning_team_a"))
        assert connection.execute(text(f"UPDATE trial_values SET value = 1 WHERE trial_id = {_ENDED}")).rowcount == 1


def test_a_database_of_an_earlier_version_gets_the_rules_with_the_next_start(victim: Victim) -> None:
    """What was granted by the table is taken back, and what was done may be done again."""
    schema = naming.database_schema(KEY.namespace)
    engine = create_engine(victim.database)
    with engine.begin() as connection:
        connection.execute(text(f"SET search_path = {schema}"))
        connection.execute(text("DROP TRIGGER only_while_it_runs ON trial_values"))
        connection.execute(text("DROP TRIGGER keep_ended_trials ON trials"))
        connection.execute(text(f"GRANT INSERT, UPDATE ON trials, trial_values TO {schema}"))
        connection.execute(text(f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA {schema} TO {schema}"))
    assert victim.attack(REFUSED["change a result"]) == 1
    for _ in range(2):
        a_tenancy(victim.database).open(KEY.namespace)
    for name in ("change a result", "create a trial", "exchange two trials", "use up the numbers of trials"):
        with pytest.raises(DBAPIError, match=r"permission denied|does not run"):
            victim.attack(REFUSED[name])


def test_every_table_of_optuna_is_either_ruled_or_read_only(victim: Victim) -> None:
    """A table that a newer Optuna adds is the worker's to read until somebody decides otherwise."""
    with victim.engine.connect() as connection:
        writable = connection.execute(
            text(
                "SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r'"
                " AND has_any_column_privilege(oid, 'INSERT, UPDATE')"
            )
        ).scalars()
        assert {*writable} == {"trials", *rights._PARTS}


# Kubernetes


FORBIDDEN = [
    "/api/v1/namespaces/{system}/secrets",
    "/api/v1/namespaces/{system}/secrets/tuningstudy-operator",
    "/api/v1/namespaces/{own}/secrets",
    "/api/v1/namespaces/{own}/secrets/tuningstudy-worker",
    "/api/v1/namespaces/{own}/pods",
    "/apis/tuningstudy.io/v1alpha1/namespaces/{own}/tuningstudies",
    "/apis/tuningstudy.io/v1alpha1/tuningstudies",
    "/apis/batch/v1/namespaces/{own}/jobs",
    "/api/v1/nodes",
]


def test_the_kubernetes_api_tells_a_trial_nothing(kubectl: Kubectl, namespace: str) -> None:
    """Without a token as with the default one, should a cluster hand it out all the same."""
    server = kubectl("config", "view", "--raw", "-o", "jsonpath={.clusters[0].cluster.server}")
    token = kubectl("create", "token", "default", "-n", namespace).strip()
    urls = [server + path.format(system=SYSTEM_NAMESPACE, own=namespace) for path in FORBIDDEN]
    answers = {(url, bearer): _status(url, bearer) for url in urls for bearer in (None, token)}
    assert {*answers.values()} <= {401, 403}, answers


def _status(url: str, token: str | None) -> int:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - https
    unverified = ssl._create_unverified_context()  # noqa: S323 - what is asked is whether it answers
    try:
        with urllib.request.urlopen(request, context=unverified, timeout=10) as answer:  # noqa: S310
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        refused.close()
        return refused.code


def test_a_pod_has_neither_a_token_nor_the_charts_key() -> None:
    """All that its containers get of ours is the namespace's own Secret, whatever podTemplate says."""
    template = {"spec": {"automountServiceAccountToken": True, "serviceAccountName": "default"}}
    document = a_manifest(trial=a_spec().trial.to_document() | {"podTemplate": template})["spec"]
    defaults = WorkerDefaults(image="trial:1")
    job = worker_job(a_study(spec=a_spec(**document)), index=0, defaults=defaults)
    pod = job["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    secrets = [
        entry["valueFrom"]["secretKeyRef"]["name"]
        for entry in pod["containers"][0]["env"]
        if "secretKeyRef" in entry.get("valueFrom", {})
    ]
    assert secrets == [naming.WORKER_SECRET]
    assert json.dumps(job).count("secret") == json.dumps(job).count("secretKeyRef")


def test_the_operator_reads_one_secret_of_a_namespace_and_no_other(
    control_plane: ControlPlane, kubectl: Kubectl, namespace: str
) -> None:
    """So that whoever gets into the operator through a manifest finds no other team's secrets."""
    operator = Kubectl(service_account_kubeconfig(control_plane, kubectl))
    for name in (naming.WORKER_SECRET, "theirs"):
        kubectl("create", "secret", "generic", name, "-n", namespace, "--from-literal=key=value")
    assert operator.run("get", "secret", naming.WORKER_SECRET, "-n", namespace).returncode == 0
    for arguments in (("get", "secret", "theirs"), ("get", "secrets"), ("get", "configmaps")):
        said = operator.run(*arguments, "-n", namespace)
        assert (said.returncode, "forbidden" in said.stderr) == (1, True)
