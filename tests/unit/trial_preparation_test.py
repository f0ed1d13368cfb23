"""What a worker does with its memory when it has imported."""

import gc
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.builders import a_spec

from tuning_trial import preparation
from tuning_trial.interrupts import Interrupts


@pytest.fixture
def thawed() -> Iterator[None]:
    """This process goes on with its garbage as before."""
    yield
    gc.unfreeze()
    gc.enable()


@pytest.mark.usefixtures("thawed")
@pytest.mark.parametrize("module", ["tests.support.builders", "no.such.module"])
def test_what_was_imported_is_left_alone_by_later_collections(module: str) -> None:
    """A fork would copy all of it; and what comes later is collected as ever, whatever came of the import."""
    gc.unfreeze()
    preparation.prepare(a_spec(trial={"gpus": 0, "objective": f"{module}:objective"}))
    assert gc.get_freeze_count() > 1000
    assert gc.isenabled()


@pytest.mark.usefixtures("thawed")
def test_a_worker_that_does_not_fork_freezes_nothing() -> None:
    """It has imported nothing for trials either."""
    gc.unfreeze()
    before = gc.get_freeze_count()
    spec = a_spec(trial={"gpus": 0, "isolation": "process", "objective": "no.such:objective"})
    assert preparation.prepare(spec) == "process"
    assert gc.get_freeze_count() == before


@pytest.mark.usefixtures("thawed")
def test_a_module_that_ignores_the_ends_of_processes_does_not_keep_the_worker_from_forking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its handlers are replaced before a fork is tried: nobody could wait for one."""
    (tmp_path / "ignores_children.py").write_text("import signal\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with Interrupts() as signals:
        spec = a_spec(trial={"gpus": 0, "objective": "ignores_children:objective"})
        preparation.prepare(spec, has_imported=signals.take_back)
        assert callable(signal.getsignal(signal.SIGCHLD))
