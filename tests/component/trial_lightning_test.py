"""Lightning as a trial runs it: configurations, refusals in words, reports and pruning; without a database."""

import multiprocessing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pytorch_lightning.trainer.states import TrainerFn
from tests.support import trial_models

from tuning_trial import lightning_parser, lightning_runner
from tuning_trial.errors import InvalidConfigError, MissingMetricError
from tuning_trial.outcomes import Completed, Failed, Progress, Pruned
from tuning_trial.pruning import ReportAndPrune

pytestmark = [
    pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning"),
]
MODULE = "tests.support.trial_models"


def a_config(*, model: str = "Model", trainer: dict[str, Any] | None = None, **init_args: Any) -> dict[str, Any]:
    return {
        "model": {"class_path": f"{MODULE}.{model}", "init_args": init_args},
        "data": {"class_path": f"{MODULE}.Data"},
        "trainer": {"max_epochs": 3, "accelerator": "cpu"} | (trainer or {}),
    }


class Study:
    """Takes reports, and prunes from a given step on."""

    def __init__(self, *, prune_from: int | None = None, metrics: Sequence[str] = ("val_acc",)) -> None:
        self.reports: list[tuple[int, float]] = []
        self.progress: list[Progress] = []
        self._prune_from = prune_from
        self.callback = ReportAndPrune(
            metrics=metrics,
            judge=self._judge if len(metrics) == 1 else None,
            tell_progress=self.progress.append,
            name="trial 1",
        )

    def _judge(self, value: float, step: int) -> bool:
        self.reports.append((step, round(value, 6)))
        return self._prune_from is not None and step >= self._prune_from

    def run(self, config: dict[str, Any], folder: Path, *, seed: int = 1) -> Completed | Pruned | Failed:
        parser = lightning_parser.build_parser()
        return lightning_runner.train(config, parser=parser, seed=seed, folder=folder, callback=self.callback)


def test_a_training_reports_every_epoch_and_ends_with_its_last_value(tmp_path: Path) -> None:
    """Steps are epochs, counted from 0; Lightning's sanity check before the training is none."""
    study = Study()
    assert study.run(a_config(quality=0.75), tmp_path) == Completed((0.75,))
    assert study.reports == [(0, 0.75), (1, 0.75), (2, 0.75)]
    assert study.progress == [Progress(1, 3), Progress(2, 3), Progress(3, 3)]


def test_a_pruned_training_ends_after_its_epoch_as_any_training_does(tmp_path: Path) -> None:
    """The user's own hooks run, unlike with an exception from within a hook."""
    callback = {"class_path": f"{MODULE}.Remember"}
    study = Study(prune_from=1)
    assert study.run(a_config(trainer={"max_epochs": 5, "callbacks": [callback]}), tmp_path) == Pruned()
    assert study.reports == [(0, 0.5), (1, 0.5)]
    assert study.progress[-1] == Progress(2, 5)
    assert trial_models.Remember.seen[-2:] == ["train end", f"teardown {TrainerFn.FITTING}"]


@pytest.mark.parametrize(
    ("trainer", "prune_from", "epochs"),
    [
        ({"max_epochs": 3}, 2, 3),
        ({"max_epochs": 5, "min_epochs": 4}, 0, 4),
        ({"max_epochs": 5, "min_steps": 5}, 0, 3),
    ],
    ids=["in the last epoch", "before min_epochs", "before min_steps"],
)
def test_no_trial_is_pruned_when_nothing_would_be_saved(
    trainer: dict[str, Any], prune_from: int, epochs: int, tmp_path: Path
) -> None:
    """A trial that is trained to its end has a value; Lightning trains min_epochs and min_steps in any case."""
    study = Study(prune_from=prune_from)
    result = study.run(a_config(trainer=trainer), tmp_path)
    assert study.progress[-1].epochs == epochs
    assert result == (Completed((0.5,)) if epochs == trainer["max_epochs"] else Pruned())


@pytest.mark.parametrize(
    ("trainer", "prune_from", "reports", "result"),
    [
        ({"max_epochs": 1, "val_check_interval": 0.5}, 0, 1, Pruned()),
        ({"max_epochs": 1, "val_check_interval": 0.5}, 1, 2, Completed((0.5,))),
        ({"max_epochs": -1, "max_steps": 4}, 0, 1, Pruned()),
        ({"max_epochs": -1, "max_steps": 4}, 1, 2, Completed((0.5,))),
        ({"max_epochs": -1, "max_steps": 2}, 0, 1, Completed((0.5,))),
        ({"max_epochs": 2, "min_epochs": 1, "val_check_interval": 0.5}, 0, 2, Pruned()),
    ],
)
def test_a_training_is_pruned_at_each_report_but_its_last(
    trainer: dict[str, Any], prune_from: int, reports: int, result: Pruned | Completed, tmp_path: Path
) -> None:
    """In a single epoch too, and whatever ends the training: there are two batches in an epoch."""
    study = Study(prune_from=prune_from)
    assert study.run(a_config(trainer=trainer), tmp_path) == result
    assert len(study.reports) == reports


def test_a_training_that_ends_by_itself_is_not_pruned_any_more(tmp_path: Path) -> None:
    """Its value would be lost and nothing saved: max_time, the model or a callback has stopped it at this validation."""
    study = Study(prune_from=1)
    config = a_config(trainer={"max_epochs": 9, "callbacks": [{"class_path": f"{MODULE}.StopInTheSecondEpoch"}]})
    assert study.run(config, tmp_path) == Completed((0.5,))
    assert len(study.reports) == 2


@pytest.mark.parametrize(
    ("trainer", "steps"),
    [
        ({"max_epochs": 4, "check_val_every_n_epoch": 2}, [0, 1]),
        ({"max_epochs": 2, "val_check_interval": 0.5}, [0, 1, 2, 3]),
        ({"max_epochs": 2, "num_sanity_val_steps": 0}, [0, 1]),
    ],
)
def test_a_step_is_a_validation_run(trainer: dict[str, Any], steps: list[int], tmp_path: Path) -> None:
    """Each report has a step of its own: Optuna drops a second one."""
    study = Study()
    study.run(a_config(trainer=trainer), tmp_path)
    assert [step for step, _ in study.reports] == steps


def test_a_metric_of_the_training_is_reported_at_the_end_of_its_epoch(tmp_path: Path) -> None:
    """It does not exist yet when the first epoch is validated, and is the last epoch's when the second is."""
    study = Study(metrics=["train_metric"])
    assert study.run(a_config(quality=0.5), tmp_path) == Completed((0.25,))
    assert study.reports == [(0, 0.25), (1, 0.25), (2, 0.25)]


@pytest.mark.parametrize("first", [0, 2])
@pytest.mark.parametrize("where", ["step", "epoch end", "validation"])
def test_the_last_report_is_the_value_of_the_trial_wherever_the_metric_is_logged(
    where: str, first: int, tmp_path: Path
) -> None:
    """The mean of an epoch, and not its last batch; of the epoch that has ended, and not of the one before it."""
    study = Study(metrics=["metric"])
    config = a_config(model="Logging", where=where, first=first, trainer={"max_epochs": 4})
    if first:
        # Whether a later epoch would log it cannot be known.
        with pytest.raises(MissingMetricError):
            study.run(config, tmp_path)
        return
    assert study.run(config, tmp_path) == Completed((3.0,))
    assert study.reports == [(0, 0.0), (1, 1.0), (2, 2.0), (3, 3.0)]


def test_a_model_without_validation_can_be_tuned_too(tmp_path: Path) -> None:
    """On a metric of the training."""
    study = Study(metrics=["train_metric"], prune_from=1)
    assert study.run(a_config(trainer={"limit_val_batches": 0}), tmp_path) == Pruned()


def test_several_objectives_are_returned_in_their_order_and_never_pruned(tmp_path: Path) -> None:
    """Optuna prunes one objective only."""
    study = Study(metrics=["train_metric", "val_acc"])
    assert study.run(a_config(quality=0.5), tmp_path) == Completed((0.25, 0.5))
    assert study.reports == []


@pytest.mark.parametrize("trainer", [{"max_epochs": 1}, {"max_epochs": 50}, {"limit_val_batches": 0}])
def test_a_metric_that_is_never_logged_fails_early_and_names_those_that_are(
    trainer: dict[str, Any], tmp_path: Path
) -> None:
    """A misspelt metric would never prune, and the study would end without a single value."""
    study = Study(metrics=["val_accuracy"])
    with pytest.raises(MissingMetricError, match=r"no metric 'val_accuracy'; it logged .*train_metric"):
        study.run(a_config(trainer=trainer), tmp_path)
    assert len(study.progress) == 1


def test_a_metric_may_come_late_when_validation_does(tmp_path: Path) -> None:
    """Only a validation that did not log it is a fault."""
    study = Study()
    result = study.run(a_config(trainer={"max_epochs": 4, "check_val_every_n_epoch": 4}), tmp_path)
    assert result == Completed((0.5,))


@pytest.mark.parametrize(
    "callbacks", [[], [{"class_path": "LearningRateMonitor"}], [{"class_path": "DeviceStatsMonitor"}]]
)
def test_models_and_callbacks_that_want_a_logger_have_one(callbacks: list[dict[str, Any]], tmp_path: Path) -> None:
    """It writes nothing, and no argument is refused for its sake."""
    config = a_config(model="UsesItsLogger", trainer={"callbacks": callbacks})
    config["data"] = {"class_path": f"{MODULE}.SavesItsArguments"}
    assert Study().run(config, tmp_path) == Completed((0.5,))
    assert list(tmp_path.iterdir()) == []


def test_one_trial_prepares_its_data_at_a_time(tmp_path: Path) -> None:
    """Workers of one machine would download side by side, and read what is half there."""
    notes = tmp_path / "notes"
    config = a_config()
    config["data"] = {"class_path": f"{MODULE}.DownloadsSlowly", "init_args": {"notes": str(notes)}}
    context = multiprocessing.get_context("fork")
    trials = [context.Process(target=lambda: Study().run(config, tmp_path)) for _ in range(3)]
    for trial in trials:
        trial.start()
    for trial in trials:
        trial.join()
    assert notes.read_text().split() == ["begins", "ends"] * 3


def test_nothing_is_written_unless_asked_for(tmp_path: Path) -> None:
    """No logs and no checkpoints fill the scratch folder."""
    Study().run(a_config(), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "trainer",
    [
        {"enable_checkpointing": True},
        {"callbacks": {"class_path": "ModelCheckpoint"}},
        {"callbacks": [{"class_path": "pytorch_lightning.callbacks.ModelCheckpoint"}]},
    ],
)
def test_checkpoints_that_are_asked_for_go_to_the_trials_folder(trainer: dict[str, Any], tmp_path: Path) -> None:
    """By flag or by callback; Lightning refuses the callback without the flag."""
    Study().run(a_config(trainer=trainer), tmp_path)
    assert [file.suffix for file in tmp_path.rglob("*") if file.is_file()] == [".ckpt"]


def test_one_seed_gives_one_training(tmp_path: Path) -> None:
    """Weights are drawn after seeding."""
    weights = []
    for seed in (1, 1, 2):
        trial_models.Model.built.clear()
        Study().run(a_config(), tmp_path, seed=seed)
        weights.append(trial_models.Model.built[0])
    assert weights[0] == weights[1] != weights[2]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            {"model": {"init_args": {"widht": 3}}},
            (
                "trial.lightning.model.init_args has no argument 'widht' of tests.support.trial_models.Model"
                " (did you mean 'width'?)"
            ),
        ),
        (
            {"model": {"init_args": {"width": "wide"}}},
            "trial.lightning.model.init_args.width must be of type int, and is 'wide'",
        ),
        (
            {"model": {"class_path": f"{MODULE}.Modell"}},
            "trial.lightning.model.class_path: tests.support.trial_models has no Modell (did you mean 'Model'?)",
        ),
        ({"model": {"class_path": "no_such.Model"}}, "trial.lightning.model.class_path: there is no module 'no_such"),
        ({"model": {"class_path": f"{MODULE}.Data"}}, "Data is no LightningModule"),
        ({"model": None}, "trial.lightning needs model"),
        (
            {"model": {"class_path": f"{MODULE}.Scenario"}},
            "trial.lightning.model.init_args needs scenario of tests.support.trial_models.Scenario",
        ),
        (
            {
                "model": {
                    "class_path": f"{MODULE}.Composed",
                    "init_args": {"part": {"class_path": f"{MODULE}.Part", "init_args": {"sise": 1}}},
                }
            },
            (
                "trial.lightning.model.init_args.part.init_args has no argument 'sise'"
                " of tests.support.trial_models.Part (did you mean 'size'?)"
            ),
        ),
        (
            {"optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1, "momentun": 1}}},
            "trial.lightning.optimizer.init_args has no argument 'momentun' of torch.optim.SGD (did you mean 'momentum'?)",
        ),
        (
            {"trainer": {"max_epoch": 3}},
            "trial.lightning.trainer has no argument 'max_epoch' (did you mean 'max_epochs'?)",
        ),
        ({"trainer": {"max_epochs": "many"}}, "trial.lightning.trainer.max_epochs"),
        (
            {"trainer": {"callbacks": [{"class_path": "EarlyStopping", "init_args": {"monitr": "x"}}]}},
            (
                "trial.lightning.trainer.callbacks.init_args has no argument 'monitr'"
                " of pytorch_lightning.callbacks.EarlyStopping (did you mean 'monitor'?)"
            ),
        ),
        ({"modle": {"class_path": "x"}}, "trial.lightning has no argument 'modle' (did you mean 'model'?)"),
        ({"trainer": {"strategy": "ddp_fork", "devices": 2}}, "DDPStrategy starts processes of its own"),
        ({"trainer": {"accelerator": "abacus"}}, "trial.lightning.trainer: You selected an invalid accelerator name"),
    ],
)
def test_a_configuration_that_cannot_be_built_is_refused_in_one_sentence(
    change: dict[str, Any], complaint: str, tmp_path: Path
) -> None:
    """With the key and the nearest right name, instead of sixty lines of usage."""
    config = a_config()
    for key, value in change.items():
        config[key] = {**config.get(key, {}), **value} if value is not None else None
    with pytest.raises(InvalidConfigError) as caught:
        Study().run(config, tmp_path)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_module_that_cannot_be_imported_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake in the user's file, not in the configuration."""
    (tmp_path / "broken_model.py").write_text("import torch\nwidth = undefined_name\n")
    monkeypatch.syspath_prepend(tmp_path)
    config = a_config() | {"model": {"class_path": "broken_model.Net"}}
    with pytest.raises(InvalidConfigError) as caught:
        Study().run(config, tmp_path)
    expected = r"trial.lightning.model: importing it raised NameError: name 'undefined_name' is not defined"
    assert str(caught.value) == f"{expected} ({tmp_path}/broken_model.py:2)"


def test_what_a_constructor_raises_is_the_users_own_exception(tmp_path: Path) -> None:
    """As jsonargparse has it, a type did not fit."""
    with pytest.raises(ValueError, match=r"^width must be positive$"):
        Study().run(a_config(model="Raises"), tmp_path)
