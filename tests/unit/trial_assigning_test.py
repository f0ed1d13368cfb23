"""What a worker does between two trials, where it may fail by itself."""

import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState, create_trial
from tests.support.builders import a_spec

from tuning_api.contract import FailureReason
from tuning_trial import unsaved, worker
from tuning_trial.interrupts import Interrupts
from tuning_trial.lineage import Lineage
from tuning_trial.outcomes import Failed


def assign(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> Any:
    def choose(*_arguments: object, **_options: object) -> None:
        raise error

    monkeypatch.setattr(worker, "_choose", choose)
    settings = SimpleNamespace(scratch=Path("/scratch"), study="digits")
    line = Lineage(first=0, seed=1, identity="")
    own = create_trial(state=TrialState.WAITING)
    own.number = 0
    return worker._assign(
        SimpleNamespace(settings=settings),
        own,
        a_spec(),
        trials=[own],
        line=line,
        checkpoint=None,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OverflowError("Range exceeds valid bounds"), "OverflowError: Range exceeds valid bounds"),
        (ValueError("'x' not in (1, 2)"), "'x' not in (1, 2)"),
        (MemoryError(), "MemoryError: "),
    ],
)
def test_a_sampler_that_raises_fails_its_trial_and_not_the_worker(
    error: Exception, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three workers would die of each trial, without a cause."""
    found = assign(monkeypatch, error)
    assert isinstance(found, Failed)
    assert found.failure.reason is FailureReason.INVALID_CONFIG
    assert found.failure.message == f"the parameters cannot be chosen: {message}"


def test_a_database_that_is_away_is_no_fault_of_the_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker leaves, and the trial is queued again."""
    with pytest.raises(StorageInternalError):
        assign(monkeypatch, StorageInternalError("away"))


def test_an_import_that_takes_the_signals_gives_them_back() -> None:
    """A worker that hears no SIGTERM is killed with its trial."""
    with Interrupts() as signals:
        for number in (signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.SIG_IGN)
        signals.take_back()
        os.kill(os.getpid(), signal.SIGTERM)
        signals.pause(10)
        assert signals.requested


def test_a_large_attribute_is_not_looked_at_for_long() -> None:
    """It counts as one of which nothing can be told; the epoch is begun again then."""
    words = {f"word-{number}": number for number in range(1_000_000)}
    assert unsaved._fingerprint(words, set(), until=time.monotonic() + 0.01) is None
    assert unsaved._fingerprint([1, 2], set(), until=time.monotonic() + 60) is not None
