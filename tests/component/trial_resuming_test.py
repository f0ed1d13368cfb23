"""A training that was interrupted and goes on from its checkpoint, compared with one that was not; without a database."""

import dataclasses
import logging
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from pytorch_lightning.utilities.exceptions import SIGTERMException
from tests.support.trial_models import Learner

from tuning_trial import lightning_parser, lightning_runner
from tuning_trial.checkpoints import CheckpointFile
from tuning_trial.outcomes import Completed, Failed, Progress, Pruned
from tuning_trial.pruning import ReportAndPrune
from tuning_trial.resuming import SaveAndResume

pytestmark = [
    pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),
    pytest.mark.filterwarnings("ignore:Found `dataloader_iter` argument"),
]
MODULE = "tests.support.trial_models"


class KilledError(Exception):
    """Ends a training as if its process were gone."""


@dataclasses.dataclass
class Attempt:
    """One process that works on a trial."""

    result: Completed | Pruned | Failed | None
    curve: dict[int, float]
    progress: list[Progress]
    weights: list[float]
    means: list[dict[str, float]]


class Trial:
    """A trial, and the file in which it saves its state."""

    def __init__(
        self,
        folder: Path,
        *,
        model: str = "Learner",
        trainer: dict[str, Any] | None = None,
        data: Any = None,
        **init_args: Any,
    ) -> None:
        self.file = CheckpointFile(path=folder / "saved" / "trial-0.ckpt", identity="this one")
        self._folder = folder / "scratch"
        self._config = {
            "model": {"class_path": f"{MODULE}.{model}", "init_args": init_args},
            "data": {"class_path": f"{MODULE}.Points", "init_args": data or {}},
            "trainer": {"max_epochs": 5, "accelerator": "cpu"} | (trainer or {}),
        }

    def run(
        self,
        monkeypatch: pytest.MonkeyPatch,
        *,
        killed_before: tuple[int, int] | None = None,
        do: Callable[[Learner], None] | None = None,
        **changes: Any,
    ) -> Attempt:
        """Train on from where the last attempt was; to the end, or to an epoch and a batch."""

        def act(model: Learner, index: int) -> None:
            if (model.current_epoch, index) != killed_before:
                return
            if do is None:
                raise KilledError
            do(model)

        monkeypatch.setattr(Learner, "do", staticmethod(act))
        Learner.means.clear()
        Learner.batches.clear()
        curve: dict[int, float] = {}
        progress: list[Progress] = []

        def judge(value: float, step: int) -> bool:
            curve[step] = value
            return False

        report = ReportAndPrune(metrics=["val_loss"], judge=judge, tell_progress=progress.append, name="trial 0")
        try:
            result = lightning_runner.train(
                self._config | changes,
                parser=lightning_parser.build_parser(),
                seed=3,
                folder=self._folder,
                callback=report,
                saver=SaveAndResume(self.file, report=report, name="trial 0"),
            )
        except (KilledError, SIGTERMException):
            result = None
        return Attempt(result, curve, progress, list(Learner.weights), list(Learner.means))


_SETTINGS: list[dict[str, Any]] = [
    {},
    {"scheduler": "each step"},
    {"scheduler": "each epoch", "data": {"num_workers": 2}},
    {"data": {"own_generator": True}},
    {"trainer": {"val_check_interval": 0.5}},
    {"scheduler": "each epoch", "trainer": {"check_val_every_n_epoch": 2}},
    {"trainer": {"accumulate_grad_batches": 3, "reload_dataloaders_every_n_epochs": 1}},
    {"trainer": {"callbacks": [{"class_path": "EarlyStopping", "init_args": {"monitor": "val_loss", "patience": 2}}]}},
    {"trainer": {"enable_checkpointing": True}},
    {"trainer": {"max_epochs": -1, "max_steps": 40}},
]


@pytest.mark.parametrize("setting", _SETTINGS, ids=str)
def test_a_training_that_goes_on_gives_the_same_weights_as_one_that_was_never_interrupted(
    setting: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Optimizer, schedulers, callbacks, random numbers, metrics, curve: whatever the next epoch depends on."""
    whole = Trial(tmp_path / "whole", **setting).run(monkeypatch)
    broken = Trial(tmp_path / "broken", **setting)
    for killed_before in ((1, 5), (3, 0)):
        assert broken.run(monkeypatch, killed_before=killed_before).result is None
    last = broken.run(monkeypatch)
    assert last.weights == whole.weights
    assert (last.result, last.curve) == (whole.result, whole.curve)
    # The first progress is that of the attempts before.
    assert [item.epochs for item in last.progress] == [3, 4, 5]


def test_a_training_without_validation_in_its_last_epoch_keeps_its_last_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The metric is that of an epoch which another process trained."""
    trial = Trial(tmp_path, scheduler="each epoch", trainer={"check_val_every_n_epoch": 2})
    trial.run(monkeypatch, killed_before=(4, 1))
    last = trial.run(monkeypatch)
    assert sorted(last.curve) == [0, 1]
    assert last.result == Completed((last.curve[1],))


def _stop(model: Learner) -> None:
    model.trainer._signal_connector.received_sigterm = True


def _assert_goes_on_exactly(
    setting: dict[str, Any], stops: Sequence[tuple[int, int]], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Trial(folder / "whole", **setting).run(monkeypatch)
    broken = Trial(folder / "broken", **setting)
    trained = []
    for stop in stops:
        assert broken.run(monkeypatch, killed_before=stop, do=_stop).result is None
        trained.append(Learner.batches[:])
    last = broken.run(monkeypatch)
    assert (last.result, last.curve, last.weights) == (whole.result, whole.curve, whole.weights)
    assert last.means == whole.means[-len(last.means) :]
    # Each batch was trained once.
    assert [*chain(*trained), *Learner.batches] == [(epoch, batch) for epoch in range(5) for batch in range(8)]


@pytest.mark.parametrize(
    "setting",
    [
        *_SETTINGS,
        {"model": "LoggingLearner"},
        {"model": "LoggingLearner", "trainer": {"accumulate_grad_batches": 3}, "data": {"num_workers": 2}},
        {"model": "ManualLearner"},
        {"data": {"augments": True}},
        {"data": {"order": "own sampler"}},
        {"data": {"order": "stream"}},
        {"data": {"order": "stream of workers"}},
        {
            "trainer": {
                "callbacks": [{"class_path": "GradientAccumulationScheduler", "init_args": {"scheduling": {2: 3}}}]
            }
        },
    ],
    ids=str,
)
def test_a_training_that_is_asked_to_stop_goes_on_at_the_next_batch(
    setting: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the first epoch and in a later one, twice in the same; and no value differs in its last bit."""
    _assert_goes_on_exactly(setting, [(0, 2), (2, 3), (2, 6), (3, 0)], tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        (
            {"model": "KeepsLosses"},
            "after epoch 2: KeepsLosses.losses may have changed since the epoch began, and no ch",
        ),
        (
            {"data": {"order": "drawn while it runs"}},
            "(the order of its data is drawn while the epoch runs); it goes on at",
        ),
        ({"model": "TakesBatches"}, "after epoch 2: its training_step takes batches from the data loader by itself"),
        (
            {"trainer": {"callbacks": [{"class_path": f"{MODULE}.Counts"}]}},
            "after epoch 2: Counts.batches may have changed since the epoch began",
        ),
    ],
    ids=["keeps losses", "draws its order", "takes batches", "a callback that counts"],
)
def test_a_training_whose_middle_cannot_be_put_back_goes_on_at_its_epochs_start(
    setting: dict[str, Any],
    why: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Half of a mean, or other data, would be another value; and a person reads what the reason is."""
    caplog.set_level(logging.INFO)
    whole = Trial(tmp_path / "whole", **setting).run(monkeypatch)
    broken = Trial(tmp_path / "broken", **setting)
    assert broken.run(monkeypatch, killed_before=(2, 3), do=_stop).result is None
    last = broken.run(monkeypatch)
    assert (last.result, last.curve, last.weights) == (whole.result, whole.curve, whole.weights)
    assert last.means == whole.means[2:]
    assert Learner.batches[0] == (2, 0)
    assert why in caplog.text


def test_a_training_that_is_asked_to_stop_after_a_last_batch_goes_on_with_the_next_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An epoch that ends is not lost, except the last one, whose end is done again."""
    whole = Trial(tmp_path / "whole").run(monkeypatch)
    for stop, first in (((2, 7), (3, 0)), ((4, 7), (4, 0))):
        trial = Trial(tmp_path / f"stopped-{stop}")
        assert trial.run(monkeypatch, killed_before=stop, do=_stop).result is None
        last = trial.run(monkeypatch)
        assert (last.result, last.curve, last.weights) == (whole.result, whole.curve, whole.weights)
        assert Learner.batches[0] == first


def test_a_process_that_is_killed_after_it_went_on_in_the_middle_loses_what_it_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else: the middle stays until a later epoch has begun, and one of an earlier epoch is not used."""
    whole = Trial(tmp_path / "whole").run(monkeypatch)
    broken = Trial(tmp_path / "broken")
    broken.run(monkeypatch, killed_before=(1, 4), do=_stop)
    broken.run(monkeypatch, killed_before=(1, 7))
    middle = broken.file.middle.read_bytes()
    broken.run(monkeypatch, killed_before=(2, 2))
    assert Learner.batches[0] == (1, 5)
    assert not broken.file.middle.exists()
    broken.file.middle.write_bytes(middle)
    last = broken.run(monkeypatch)
    assert Learner.batches[0] == (2, 0)
    assert (last.result, last.curve, last.weights) == (whole.result, whole.curve, whole.weights)


def test_data_that_has_become_less_does_not_end_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A data loader that has no more batches to skip would look like the end of all epochs."""
    trial = Trial(tmp_path)
    trial.run(monkeypatch, killed_before=(3, 4), do=_stop)
    last = trial.run(monkeypatch, trainer={"max_epochs": 5, "accelerator": "cpu", "limit_train_batches": 2})
    assert "cannot go on in the middle of its epoch (the epoch has 2 batches now)" in caplog.text
    assert Learner.batches == [(3, 0), (3, 1), (4, 0), (4, 1)]
    assert isinstance(last.result, Completed)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _replace_by_text(path: Path) -> None:
    path.write_text("not a checkpoint")


@pytest.mark.parametrize("damage", [_truncate, _replace_by_text])
def test_a_damaged_middle_costs_the_epoch_and_nothing_else(
    damage: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Beside it is the state of the epoch's start."""
    whole = Trial(tmp_path / "whole").run(monkeypatch)
    trial = Trial(tmp_path / "broken")
    trial.run(monkeypatch, killed_before=(3, 2), do=_stop)
    damage(trial.file.middle)
    last = trial.run(monkeypatch)
    assert (last.result, last.curve, last.weights) == (whole.result, whole.curve, whole.weights)
    assert Learner.batches[0] == (3, 0)
    (said,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert said.startswith("trial 0: cannot go on in the middle of its epoch (")
    assert said.endswith("); it goes on at its start")


@pytest.mark.parametrize("damage", [_truncate, _empty, _replace_by_text])
def test_a_damaged_checkpoint_costs_epochs_and_not_the_trial(
    damage: Callable[[Path], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is said in a sentence, and the training starts from its beginning."""
    whole = Trial(tmp_path / "whole").run(monkeypatch)
    trial = Trial(tmp_path / "broken")
    trial.run(monkeypatch, killed_before=(3, 0))
    damage(trial.file.path)
    last = trial.run(monkeypatch)
    assert (last.result, last.curve, last.weights) == (whole.result, whole.curve, whole.weights)
    assert last.progress[0].epochs == 1
    (said,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert said.startswith("trial 0: cannot go on from its checkpoint (")
    assert said.endswith("); it starts from the beginning")


def test_a_checkpoint_of_something_else_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A study of the same name may have been there before."""
    trial = Trial(tmp_path)
    trial.run(monkeypatch, killed_before=(3, 0))
    trial.file = dataclasses.replace(trial.file, identity="another one")
    last = trial.run(monkeypatch)
    assert last.progress[0].epochs == 1
    assert "cannot go on from its checkpoint (it belongs to something else)" in caplog.text


def test_a_model_that_was_changed_meanwhile_starts_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its weights no longer fit; the trial is not failed for it."""
    trial = Trial(tmp_path)
    trial.run(monkeypatch, killed_before=(3, 0))
    model = {"class_path": f"{MODULE}.Model", "init_args": {}}
    with pytest.raises(Exception, match="val_loss"):  # which this model does not log; it did train, though
        trial.run(monkeypatch, model=model, data={"class_path": f"{MODULE}.Data"})
    assert "cannot go on from its checkpoint (Error(s) in loading state_dict for Model" in caplog.text


def test_a_state_that_cannot_be_saved_is_said_once_and_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The disk is full, or an object cannot be pickled."""
    trial = Trial(tmp_path)
    trial.file.path.parent.touch()
    assert isinstance(trial.run(monkeypatch).result, Completed)
    assert caplog.text.count("trial 0: cannot save its state (") == 1


def test_the_users_own_checkpoints_have_nothing_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are loaded elsewhere, where this package is not."""
    torch = pytest.importorskip("torch")
    Trial(tmp_path, trainer={"enable_checkpointing": True}).run(monkeypatch)
    (file,) = (tmp_path / "scratch").rglob("*.ckpt")
    checkpoint = torch.load(file, weights_only=True)
    assert "tuningstudy" not in checkpoint
    assert [name for name in checkpoint["callbacks"] if "ModelCheckpoint" not in name] == []
