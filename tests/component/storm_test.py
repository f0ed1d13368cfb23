"""A short storm: all that can happen to a study at once, and nothing is lost. The long one is `make storm`."""

import random
from pathlib import Path

import pytest
from cluster.control_plane import ControlPlane
from tests.storm.storm import Size, Storm
from tests.support.postgres import PostgresServer

SIZE = Size(
    seed=random.SystemRandom().randrange(10_000),
    seconds=25,
    calm_seconds=150,
    trials=16,
    workers=4,
    gap=2.5,
    epoch_seconds=0.4,
)


@pytest.mark.filterwarnings("ignore:.*is experimental:optuna.exceptions.ExperimentalWarning")
def test_nothing_is_lost_in_a_storm(
    control_plane: ControlPlane, postgres_server: PostgresServer, namespace: str, tmp_path: Path
) -> None:
    """The budget is exact, every trial goes on at its last checkpoint, and the status says what the database says."""
    said: list[str] = []
    storm = Storm(
        SIZE, plane=control_plane, postgres=postgres_server, folder=tmp_path, namespace=namespace, say=said.append
    )
    report = storm.run()
    assert report.violations == [], f"seed {SIZE.seed}: {said}"
    assert (report.ended, report.stuck) == (SIZE.trials, 0)
    assert report.killed, f"seed {SIZE.seed}: no worker was killed, the storm was none: {said}"
