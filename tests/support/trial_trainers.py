"""An objective with a Lightning Trainer in it."""

import os
from pathlib import Path

import pytorch_lightning as pl
from optuna import Trial
from pytorch_lightning.callbacks import ModelCheckpoint
from tests.support.trial_models import Data, Learner, Model, Points

from tuning_trial import PruningCallback

EPOCHS = 5


def prunes(trial: Trial) -> float:
    """Reports `quality` after each of six epochs."""
    model = Model(quality=trial.suggest_float("quality", 0, 1))
    trainer = pl.Trainer(
        max_epochs=6,
        accelerator="cpu",
        callbacks=[PruningCallback(trial, monitor="val_acc")],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, Data())
    return float(trainer.callback_metrics["val_acc"])


def goes_on(trial: Trial) -> float:
    """Saves each epoch, goes on from what is there, and waits where `waits_before` says."""
    waits_before = trial.suggest_categorical("waits_before", ["never", "epoch 3 batch 2"])
    model = Learner(folder=os.environ["FOLDER"], number=trial.number, waits_before=waits_before)
    folder = Path(os.environ["TUNING_TRIAL_CHECKPOINTS"])
    trainer = pl.Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        callbacks=[
            PruningCallback(trial, monitor="val_loss"),
            ModelCheckpoint(folder, filename="last", enable_version_counter=False),
        ],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    last = folder / "last.ckpt"
    trial.set_user_attr("went on", last.exists())
    trainer.fit(model, Points(), ckpt_path=last if last.exists() else None)
    return float(trainer.callback_metrics["val_loss"])
