"""A trial that is copied, sent to other processes and used by threads, as under `study.optimize`; without a worker."""

import copy
import multiprocessing
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from tuning_api.contract import Failure, FailureReason
from tuning_trial import database, objective_runner, outcomes
from tuning_trial.late_reports import LateTrial

pytestmark = pytest.mark.filterwarnings("ignore:Choices for a categorical distribution:UserWarning")
CHOICES: list[Any] = [
    [(64,), (64, 64), (128, 64, 32)],
    [[64], [64, 64]],
    [{"width": 1}, {"width": (1, 2)}, None],
    [("adam", (0.9, 0.99)), "sgd", 3],
]


class Study:
    """A study on SQLite, and its trials as an objective gets them."""

    def __init__(self, folder: Path) -> None:
        self.url = f"sqlite:///{folder / 'study.db'}"
        optuna.create_study(storage=self.url, study_name="s")
        self.beats = 0
        self._worker = database.open_study(self.url, "s")

    def trial(self, seed: int = 1) -> LateTrial:
        number = optuna.load_study(storage=self.url, study_name="s").ask().number
        known = self._worker.get_trials(deepcopy=True)[number]
        sampler = optuna.samplers.RandomSampler(seed=seed)
        pruner = optuna.pruners.NopPruner()
        return objective_runner.trial_of(self._worker, known, sampler=sampler, pruner=pruner, beat=self._beat)

    def _beat(self) -> None:
        self.beats += 1

    def stored(self, number: int) -> FrozenTrial:
        return optuna.load_study(storage=self.url, study_name="s").trials[number]

    def complete(self, trial: LateTrial) -> None:
        self._worker._storage.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [0.0])

    def close(self) -> None:
        database.storage_of(self._worker).engine.dispose()


@pytest.fixture
def study(tmp_path: Path) -> Iterator[Study]:
    found = Study(tmp_path)
    yield found
    found.close()


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy])
def test_a_copy_reports_for_the_same_trial(how: Any, study: Study) -> None:
    """And gives signs of life, and sees what was suggested."""
    trial = study.trial()
    x = trial.suggest_float("x", 0, 1)
    copied = how({"holds": trial})["holds"]
    copied.report(0.5, 0)
    trial.report(0.25, 1)
    assert copied.suggest_float("x", 0, 1) == x
    assert study.stored(0).intermediate_values == {0: 0.5, 1: 0.25}
    assert study.beats == 2


def _report(trial: LateTrial) -> None:
    trial.report(0.5, 0)
    trial.set_user_attr("params", trial.params)


def test_another_process_reports_for_the_trial(study: Study) -> None:
    """As joblib's do; they connect by themselves."""
    trial = study.trial()
    trial.suggest_float("x", 0, 1)
    assert pickle.loads(pickle.dumps(trial)).params == trial.params  # noqa: S301 - our own
    process = multiprocessing.get_context("spawn").Process(target=_report, args=(trial,))
    process.start()
    process.join()
    assert process.exitcode == 0
    stored = study.stored(0)
    assert (stored.intermediate_values, stored.user_attrs) == ({0: 0.5}, {"params": trial.params})


def test_threads_lose_no_report(study: Study) -> None:
    """Each has steps of its own."""
    trial = study.trial()
    threads = [
        threading.Thread(target=lambda first=first: [trial.report(0.5, step) for step in range(first, 40, 4)])  # type: ignore[misc]
        for first in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(study.stored(0).intermediate_values) == list(range(40))


@pytest.mark.parametrize("choices", CHOICES)
def test_choices_that_json_has_otherwise_are_the_same_for_every_trial(choices: list[Any], study: Study) -> None:
    """The code gets its own objects, and the database has no others than before."""
    for seed in range(4):
        trial = study.trial(seed)
        chosen = trial.suggest_categorical("layers", choices)
        assert any(chosen is choice for choice in choices)
        assert trial.suggest_categorical("layers", choices) is chosen
        assert trial.params == {"layers": chosen}
        study.complete(trial)


def test_other_choices_are_refused_as_ever(study: Study) -> None:
    """Optuna's rule."""
    study.trial().suggest_categorical("layers", [(1,), (2,)])
    with pytest.raises(ValueError, match="does not support dynamic value space"):
        study.trial().suggest_categorical("layers", [(1,), (3,)])


@pytest.mark.parametrize("text", [b"caf\xe9.png".decode("utf-8", "surrogateescape"), "a\x00b\x1b[31m", "one\r\ntwo"])
def test_what_an_exception_says_can_be_written_anywhere(text: str) -> None:
    """In JSON, in UTF-8, and in one line; conditions and events have it."""
    failure = outcomes.failure_of(ValueError(f"cannot decode {text}"))
    assert Failure.model_validate_json(failure.model_dump_json()) == failure
    assert failure.message.isprintable()
    assert Failure(reason=FailureReason.ERROR, message=text).message.isprintable()
