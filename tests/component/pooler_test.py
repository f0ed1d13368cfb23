"""Workers behind a PgBouncer that lends a connection for a transaction: docs/operations.md says how to have that."""

from contextlib import ExitStack
from pathlib import Path

from optuna.trial import TrialState
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool
from tests.support.pooler import pooled
from tests.support.postgres import PostgresServer
from tests.support.trial_worker import TrialStudy, a_spec, running

from tuning_api import contract

CONNECTIONS = 2
WORKERS = 5
TRIALS = 30


def test_five_workers_share_two_connections(postgres_server: PostgresServer, tmp_path: Path) -> None:
    """Every trial is claimed once, reports each of its epochs, and ends; with a sampler that reads the others."""
    study = TrialStudy(postgres_server, a_spec(maxTrials=TRIALS, sampler={"type": "tpe"}))
    study.add(TRIALS)
    with pooled(study.url, connections=CONNECTIONS) as url, ExitStack() as stack:
        workers = [
            stack.enter_context(running(environment_of(study, url, tmp_path, number), tmp_path))
            for number in range(WORKERS)
        ]
        assert [(worker.exit_code(), worker.log()) for worker in workers if worker.exit_code()] == []
        assert connections_of(study.url, postgres_server.url()) <= CONNECTIONS
    trials = study.trials()
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * TRIALS
    assert all(len(trial.intermediate_values) == 3 for trial in trials)
    owners = [contract.Owner.model_validate(trial.user_attrs[contract.OWNER_ATTRIBUTE]).name for trial in trials]
    assert len(set(owners)) > 1


def environment_of(study: TrialStudy, url: str, folder: Path, number: int) -> dict[str, str]:
    """A worker's, that knows only the pooler."""
    changes = {contract.Env.DATABASE_URL: url, contract.Env.WORKER_NAME: f"worker-{number}"}
    return study.environment(folder / str(number), **changes)


def connections_of(url: str, admin: URL) -> int:
    """How many connections to Postgres a worker's role has; the pooler keeps those that it has had to open."""
    engine = create_engine(admin, poolclass=NullPool)
    with engine.connect() as connection:
        query = text("SELECT count(*) FROM pg_stat_activity WHERE usename = :role")
        return int(connection.execute(query, {"role": make_url(url).username}).scalar_one())
