"""The examples as Optuna objectives, and the pruning callback in a study of Optuna's own."""

from pathlib import Path

import optuna
import pytest
import pytorch_lightning as pl
import yaml
from optuna.pruners import MedianPruner
from optuna.trial import FixedTrial, Trial, TrialState
from tests.support.trial_models import Data, Model, Remember

from tuning_api.spec import StudySpec
from tuning_trial import PruningCallback, objective_runner, rehearsal
from tuning_trial.errors import InvalidConfigError, MissingMetricError
from tuning_trial.examples import digits_objective, glosses_objective

SAMPLES = Path(__file__).parents[2] / "manifests" / "samples"
pytestmark = [
    pytest.mark.filterwarnings("ignore::lightning_fabric.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec:FutureWarning"),
]


@pytest.mark.parametrize("sample", ["digits-objective", "glosses-objective"])
def test_a_sample_has_an_objective_that_is_there(sample: str) -> None:
    """As `tuningstudy validate` says."""
    spec = StudySpec.model_validate(yaml.safe_load((SAMPLES / f"{sample}.yaml").read_text())["spec"])
    assert rehearsal.faults(spec) == []


def test_the_digits_are_learned_under_optuna_alone_and_bad_trials_are_pruned() -> None:
    """The function is Optuna's own kind: no part of ours is needed to run it."""
    pruner = MedianPruner(n_startup_trials=3, n_warmup_steps=1)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=1), pruner=pruner)
    study.optimize(digits_objective.objective, n_trials=8)
    assert study.best_value > 0.9
    assert {trial.state for trial in study.trials} == {TrialState.COMPLETE, TrialState.PRUNED}


def test_the_glosses_are_learned_and_go_on_from_what_was_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second call finds the last epoch's checkpoint, and has nothing left to train."""
    monkeypatch.setenv("GLOSSES_LIMIT", "300")
    monkeypatch.setenv(objective_runner.CHECKPOINTS, str(tmp_path))
    monkeypatch.setattr(glosses_objective, "EPOCHS", 2)
    params = {
        "num_layers": 2,
        "hidden_dim": 128,
        "dropout": 0.1,
        "learning_rate": 1e-3,
        "weight_decay": 1e-6,
        "batch_size": 64,
    }
    accuracy = glosses_objective.objective(FixedTrial(params))  # type: ignore[arg-type]
    assert 0 < accuracy < 1
    (file,) = tmp_path.iterdir()
    model = glosses_objective.Classifier.load_from_checkpoint(file)
    assert (model.learning_rate, model.vocab_size) == (1e-3, glosses_objective.VOCABULARY)


def fit(trial: Trial | FixedTrial, *, monitor: str = "val_acc", quality: float = 0.5) -> float:
    trainer = pl.Trainer(
        max_epochs=4,
        accelerator="cpu",
        callbacks=[Remember(), PruningCallback(trial, monitor=monitor)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Model(quality=quality), Data())
    return float(trainer.callback_metrics[monitor])


def test_a_training_that_is_pruned_ends_as_it_always_does() -> None:
    """TrialPruned comes out of fit, after the hooks that end a training; Optuna's callback raises before them."""
    study = optuna.create_study(direction="maximize", pruner=MedianPruner(n_startup_trials=1, n_warmup_steps=1))
    study.optimize(lambda trial: fit(trial, quality=0.9), n_trials=1)
    Remember.seen.clear()
    study.optimize(lambda trial: fit(trial, quality=0.1), n_trials=1)
    good, bad = study.trials
    assert (good.state, good.intermediate_values) == (TrialState.COMPLETE, dict.fromkeys(range(4), pytest.approx(0.9)))
    assert (bad.state, sorted(bad.intermediate_values)) == (TrialState.PRUNED, [0, 1])
    assert Remember.seen == ["train end", "teardown TrainerFn.FITTING"]


def test_several_objectives_are_not_pruned() -> None:
    """Optuna cannot; its own callback ends the training with an error."""
    study = optuna.create_study(directions=["maximize", "minimize"])
    study.optimize(lambda trial: (fit(trial), 1.0), n_trials=1)
    assert study.trials[0].values == [0.5, 1.0]


def test_a_metric_that_the_model_does_not_log_is_an_error() -> None:
    """Optuna's callback warns, and never prunes."""
    words = "the model logged no metric 'val_accuracy'; it logged train_metric, val_acc"
    with pytest.raises(MissingMetricError, match=words):
        fit(FixedTrial({}), monitor="val_accuracy")


def test_processes_that_a_trainer_starts_are_refused() -> None:
    """They would be workers that claim other trials."""
    trainer = pl.Trainer(accelerator="cpu", devices=2, strategy="ddp_spawn", logger=False, enable_checkpointing=False)
    with pytest.raises(InvalidConfigError, match="DDPStrategy starts processes of its own, and a trial is one process"):
        PruningCallback(FixedTrial({}), monitor="val_acc").setup(trainer, Model(), "fit")
