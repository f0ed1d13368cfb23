"""Namespaces in one database: whose schema it is, who may log in, and what is taken from all roles."""

from collections.abc import Iterator
from contextlib import nullcontext

import optuna
import pytest
from optuna.storages import RDBStorage
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL, Engine
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.pool import NullPool
from tests.support.builders import a_spec
from tests.support.plans import carry_out
from tests.support.postgres import OPERATOR, PASSWORD, PostgresServer, running_server
from tests.support.tenancy import a_tenancy, worker_url

from tuning_api import naming
from tuning_operator.database import database_errors
from tuning_operator.errors import DatabaseUnavailable
from tuning_operator.model import StudyKey, TrialsPlan
from tuning_operator.studies import OptunaStudies
from tuning_operator.tenancy import Owner

LONG = "customer-acme-production-machine-learning-research-platform-eu"
MIMIC = "customer-acme-production-machine-learning-resea-561b7b26"
"""A namespace that may be called as an earlier version called the schema of the first."""


def connected(url: URL) -> Engine:
    return create_engine(url, poolclass=NullPool)


def run(url: URL, *statements: str) -> None:
    with connected(url).begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def studies_in(url: URL) -> list[str]:
    storage = RDBStorage(url.render_as_string(hide_password=False), skip_table_creation=True)
    return [study.study_name for study in optuna.get_all_study_summaries(storage)]


def refusal(url: URL) -> str:
    """What the server says to who wants to connect."""
    with pytest.raises(OperationalError) as refused:
        connected(url).connect()
    return str(refused.value.orig)


@pytest.fixture
def administrator(postgres_server: PostgresServer, postgres: URL) -> URL:
    """A superuser's way into the database."""
    return postgres_server.url(str(postgres.database))


@pytest.fixture
def unshared() -> Iterator[URL]:
    """A database on a server that no other test has made roles on."""
    with running_server() as server:
        yield server.create_database()


@pytest.fixture
def of_an_earlier_version(unshared: URL) -> str:
    """The long namespace as version 0.1 left it: a study in a schema whose name is cut, which says nothing of its owner."""
    studies = OptunaStudies(a_tenancy(unshared))
    studies.open(StudyKey(LONG, "secret-study"), a_spec())
    carry_out(studies, StudyKey(LONG, "secret-study"), TrialsPlan(add=2))
    now, earlier = naming.database_schema(LONG), naming.earlier_database_schema(LONG)
    run(
        unshared,
        f'COMMENT ON SCHEMA "{now}" IS NULL',
        f'ALTER SCHEMA "{now}" RENAME TO "{earlier}"',
        f'ALTER ROLE "{now}" RENAME TO "{earlier}"',
    )
    return earlier


def test_a_schema_with_a_cut_name_is_moved_with_all_that_is_in_it(unshared: URL, of_an_earlier_version: str) -> None:
    """And its role, so that nothing is left under the name that others may have."""
    record = OptunaStudies(a_tenancy(unshared)).read(StudyKey(LONG, "secret-study"))
    assert record is not None
    assert len(record.trials) == 2
    assert studies_in(worker_url(unshared, LONG)) == ["secret-study"]
    with connected(unshared).connect() as connection:
        left = "SELECT 1 FROM pg_namespace n FULL JOIN pg_roles r ON false WHERE :name IN (nspname, rolname)"
        assert connection.execute(text(left), {"name": of_an_earlier_version}).first() is None


def test_a_namespace_that_is_called_like_a_cut_name_is_not_given_its_schema(
    unshared: URL, of_an_earlier_version: str
) -> None:
    """Until the other one was moved, it waits in words; then it has a schema of its own."""
    with pytest.raises(DatabaseUnavailable, match=f"schema {of_an_earlier_version} may be that of another namespace"):
        a_tenancy(unshared).open(MIMIC)
    assert "password authentication failed" in refusal(worker_url(unshared, MIMIC))
    a_tenancy(unshared).open(LONG)
    a_tenancy(unshared).open(MIMIC)
    assert (studies_in(worker_url(unshared, MIMIC)), studies_in(worker_url(unshared, LONG))) == ([], ["secret-study"])


def test_who_mends_by_hand_can_say_whose_schema_it_is(unshared: URL, of_an_earlier_version: str) -> None:
    """By the comment that the refusal spells out."""
    with pytest.raises(DatabaseUnavailable) as refused:
        a_tenancy(unshared).open(MIMIC)
    run(unshared, str(refused.value).partition("say so by ")[2])
    a_tenancy(unshared).open(MIMIC)
    run(unshared, f"COMMENT ON SCHEMA {of_an_earlier_version} IS '{Owner('other', 'uid').to_comment()}'")
    with pytest.raises(DatabaseUnavailable, match="belongs to namespace other"):
        a_tenancy(unshared).open(MIMIC)


def test_what_was_known_in_a_namespace_that_was_deleted_opens_nothing_in_the_next_one(postgres: URL) -> None:
    """A password is of a namespace's uid, not of its name; the trials of the name are still there."""
    OptunaStudies(a_tenancy(postgres, uid="first")).open(StudyKey("team-a", "digits"), a_spec())
    assert studies_in(worker_url(postgres, uid="first")) == ["digits"]
    a_tenancy(postgres, uid="second").open("team-a")
    assert "password authentication failed" in refusal(worker_url(postgres, uid="first"))
    assert studies_in(worker_url(postgres, uid="second")) == ["digits"]


def test_a_namespace_that_is_made_again_under_a_running_operator_gets_another_password(postgres: URL) -> None:
    """The operator asks for the uid whenever workers start."""
    uids = iter(["first", "first", "second"])
    tenancy = a_tenancy(postgres)
    tenancy._uid_of = lambda _: next(uids)
    tenancy.open("team-a")
    assert tenancy.worker_url("team-a", base=postgres) == worker_url(postgres, uid="first").render_as_string(
        hide_password=False
    )
    url = tenancy.worker_url("team-a", base=postgres)
    assert url == worker_url(postgres, uid="second").render_as_string(hide_password=False)
    assert studies_in(worker_url(postgres, uid="second")) == []
    assert tenancy.uid("team-a") == "second"


DEFAULTS = {
    "of the role": "ALTER ROLE tuning_team_a SET {}",
    "of the role in this database": 'ALTER ROLE tuning_team_a IN DATABASE "{database}" SET {}',
}


@pytest.mark.parametrize("statement", DEFAULTS.values(), ids=DEFAULTS)
@pytest.mark.parametrize("default", ["default_transaction_read_only = on", "statement_timeout = 1", "search_path = ''"])
def test_defaults_that_a_pod_gives_its_role_end_with_the_operators_next_start(
    postgres: URL, statement: str, default: str
) -> None:
    """Every role may set its own; all workers of the namespace would fail for them."""
    a_tenancy(postgres).open("team-a")
    run(worker_url(postgres), statement.format(default, database=postgres.database))
    a_tenancy(postgres).open("team-a")
    with connected(worker_url(postgres)).connect() as connection:
        assert connection.exec_driver_sql("SHOW default_transaction_read_only").scalar() == "off"
        assert connection.exec_driver_sql("SHOW statement_timeout").scalar() == "0"
        assert connection.exec_driver_sql("SHOW search_path").scalar() == "tuning_team_a"


@pytest.fixture
def logging_server(postgres_server: PostgresServer, administrator: URL) -> Iterator[PostgresServer]:
    """A server that logs every statement on roles, as many platforms want it."""
    run(administrator.set(database="postgres"), f"ALTER ROLE {OPERATOR} SET log_statement = 'ddl'")
    yield postgres_server
    run(administrator.set(database="postgres"), f"ALTER ROLE {OPERATOR} RESET log_statement")


@pytest.mark.parametrize("may_create_roles", [True, False])
def test_no_password_is_in_the_servers_log(
    logging_server: PostgresServer, administrator: URL, postgres: URL, *, may_create_roles: bool
) -> None:
    """Neither as a logged statement nor as one that failed."""
    right = "CREATEROLE" if may_create_roles else "NOCREATEROLE"
    run(administrator, f"ALTER ROLE {OPERATOR} {right}")
    expected = nullcontext() if may_create_roles else pytest.raises(DatabaseUnavailable, match="permission denied")
    with expected:
        a_tenancy(postgres, charts_password="charts-secret", uid="logged").open("team-log")
    run(administrator, f"ALTER ROLE {OPERATOR} CREATEROLE")
    log = logging_server.log.read_text()
    assert "SCRAM-SHA-256$" in log
    for secret in ("charts-secret", worker_url(postgres, "team-log", uid="logged").password or ""):
        assert secret not in log


@pytest.mark.parametrize("password", ["Xy#:kQ2-secret", "%s %(kQ2)s %%", "a'b\"c\\d", "ß€"])
def test_a_charts_password_may_have_any_letters(postgres: URL, password: str) -> None:
    """It is sent as a verifier, and the role logs in with it."""
    a_tenancy(postgres, charts_password=password).open("team-a")
    url = postgres.set(username=naming.CHARTS_ROLE, password=password)
    assert studies_in(url.update_query_dict({"options": "-csearch_path=tuning_team_a"})) == []


FAILING = {
    "a value is missing": "SELECT 'a-secret', :word",
    "the server refuses it": "SELECT 'a-secret' FROM none",
}


@pytest.mark.parametrize("statement", FAILING.values(), ids=FAILING)
def test_no_error_quotes_a_statement(postgres: URL, statement: str) -> None:
    """The sentence is written into every study's status, which many may read."""
    with (
        connected(postgres).connect() as connection,
        pytest.raises(DatabaseUnavailable) as refused,
        database_errors(),
    ):
        connection.execute(text(statement))
    assert str(refused.value)
    assert "a-secret" not in str(refused.value)


def test_one_namespace_cannot_take_all_connections(postgres: URL) -> None:
    """Neither the operator nor other namespaces are locked out by a pod that opens as many as it can.

    NB: no other test has this role: the server counts a connection for a moment after its client has closed it.
    """
    a_tenancy(postgres, connections=5).open("crowded")
    a_tenancy(postgres, connections=5).open("team-b")
    with _held(worker_url(postgres, "crowded"), 5):
        assert "too many connections for role" in refusal(worker_url(postgres, "crowded"))
        assert studies_in(worker_url(postgres, "team-b")) == []
        a_tenancy(postgres, connections=5).open("team-c")


def test_by_default_a_namespace_has_half_of_the_servers_connections(postgres: URL) -> None:
    """Of those that no superuser is kept."""
    a_tenancy(postgres).open("team-a")
    with connected(postgres).connect() as connection:
        limit = connection.exec_driver_sql("SELECT rolconnlimit FROM pg_roles WHERE rolname = 'tuning_team_a'").scalar()
        most = int(connection.exec_driver_sql("SHOW max_connections").scalar() or 0)
    assert limit == (most - 3) // 2


class _held:  # noqa: N801 - reads as a verb
    """Connections that are open within it."""

    def __init__(self, url: URL, count: int) -> None:
        self._engine, self._count = connected(url), count

    def __enter__(self) -> None:
        self._connections = [self._engine.connect() for _ in range(self._count)]

    def __exit__(self, *_: object) -> None:
        for connection in self._connections:
            connection.close()


FOR_ALL = {
    "make temporary objects": "CREATE TEMPORARY TABLE mine (x int)",
    "make a temporary type": "CREATE TYPE pg_temp.xid AS ENUM ('mine')",
    "lock what all sessions count": "SELECT pg_advisory_lock(n) FROM generate_series(1, 1000000) AS n",
    "make large objects": "SELECT lo_from_bytea(0, 'mine')",
    "make objects that all may use": "CREATE TABLE public.mine (x int)",
}


@pytest.mark.parametrize("statement", FOR_ALL.values(), ids=FOR_ALL)
def test_where_the_operator_owns_the_server_a_worker_cannot(administrator: URL, statement: str) -> None:
    """As with the chart's own Postgres; PostgreSQL gives all of it to everybody."""
    run(administrator, "GRANT CREATE ON SCHEMA public TO PUBLIC")
    a_tenancy(administrator).open("team-a")
    with pytest.raises(DBAPIError, match="permission denied"):
        run(worker_url(administrator), statement)
    with connected(worker_url(administrator)).connect() as connection:
        assert connection.exec_driver_sql("SHOW temp_file_limit").scalar() == "1GB"
        with pytest.raises(DBAPIError, match="permission denied"):
            connection.exec_driver_sql("SET temp_file_limit = -1")


def test_where_the_database_is_its_own_the_operator_takes_temporary_objects_from_all(postgres: URL) -> None:
    """Without a superuser's rights it can do no more."""
    a_tenancy(postgres).open("team-a")
    with pytest.raises(DBAPIError, match="permission denied"):
        run(worker_url(postgres), FOR_ALL["make temporary objects"])


def test_in_a_database_of_somebody_elses_its_rights_stay_as_they_are(administrator: URL, postgres: URL) -> None:
    """Others may live on them."""
    database = postgres.database
    run(
        administrator, f"ALTER DATABASE {database} OWNER TO admin", f"GRANT CREATE ON DATABASE {database} TO {OPERATOR}"
    )
    a_tenancy(postgres.set(password=PASSWORD)).open("team-a")
    run(worker_url(postgres), FOR_ALL["make temporary objects"])
