"""Rows that one namespace keeps locked: its own passes wait for them, and no other's."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL
from tests.support.builders import a_spec
from tests.support.fakes import Fuse, MemoryExecutor
from tests.support.tenancy import a_tenancy

from tuning_operator.controller import Controller, Pace
from tuning_operator.handlers import SingleFlight, _safely
from tuning_operator.metrics import Metrics
from tuning_operator.model import Study, StudyKey
from tuning_operator.studies import OptunaStudies
from tuning_operator.turns import Turns

VICTIM = StudyKey("victim", "digits")
MALLORYS = [StudyKey("mallory", f"digits-{number}") for number in range(60)]


class Executor(MemoryExecutor):
    """An executor of many studies, all of the same spec, whose workers are never started."""

    def study(self, key: StudyKey) -> Study:
        """See `Executor`."""
        found = super().study(key)
        assert found is not None
        return replace(found, key=key)


@contextmanager
def locked(database: URL, schema: str) -> Iterator[None]:
    """One transaction that idles, and holds all rows of a namespace's studies."""
    engine = create_engine(database)
    with engine.connect() as connection:
        connection.execute(text(f'SELECT * FROM "{schema}".studies FOR UPDATE'))
        yield
    engine.dispose()


def test_another_namespaces_pass_takes_as_long_as_alone(postgres: URL) -> None:
    """Sixty passes that each wait for a lock would otherwise hold all threads, for ten times as long as one waits."""
    studies = OptunaStudies(a_tenancy(postgres))
    metrics, spec = Metrics(), a_spec()
    controller = Controller(
        executor=Executor(Fuse(), spec), studies=studies, links=lambda *_: None, metrics=metrics, pace=Pace(3600)
    )
    for key in (*MALLORYS, VICTIM):
        studies.open(key, spec)

    async def scenario() -> tuple[float, float, int]:
        turns = Turns()
        flight = SingleFlight(_safely(controller.reconcile, metrics), turns=turns)
        begun = time.monotonic()
        await flight.run(StudyKey(VICTIM.namespace, "another"))
        alone = time.monotonic() - begun
        with locked(postgres, "tuning_mallory"):
            for key in MALLORYS:
                flight.ask(key)
            await asyncio.sleep(0)
            begun = time.monotonic()
            await flight.run(VICTIM)
            behind = time.monotonic() - begun
            held = len(flight._running)
        await asyncio.to_thread(turns.close, 30)
        return alone, behind, held

    alone, behind, held = asyncio.run(scenario())
    assert behind < alone + 1
    assert held > len(MALLORYS) // 2, "they wait still"
