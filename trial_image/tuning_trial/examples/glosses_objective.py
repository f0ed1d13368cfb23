"""The glosses example as an Optuna objective: the code chooses its parameters, and builds its model, data and Trainer.

An epoch takes minutes on a CPU. There, set the environment variable GLOSSES_LIMIT to some thousands of glosses.
"""

import os
from pathlib import Path

import optuna
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from tuning_trial import PruningCallback
from tuning_trial.examples.glosses import GlossData, TransformerClassifier

EPOCHS = 20
VOCABULARY = 50_000


class Classifier(TransformerClassifier):
    """The Transformer, with an optimizer of its own."""

    def __init__(
        self, *, num_layers: int, embedding_dim: int, dropout: float, learning_rate: float, weight_decay: float
    ) -> None:
        """Build the layers; the arguments are saved with the weights."""
        super().__init__(VOCABULARY, num_layers, embedding_dim, dropout)
        self.save_hyperparameters()
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW; fused, its step over an embedding of 50,000 words is not most of the time."""
        return torch.optim.AdamW(self.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay, fused=True)


def objective(trial: optuna.Trial) -> float:
    """The accuracy on the held-out glosses after the last epoch."""
    model = Classifier(
        num_layers=trial.suggest_int("num_layers", 2, 8),
        embedding_dim=trial.suggest_categorical("hidden_dim", [128, 256, 512]),
        dropout=trial.suggest_float("dropout", 0.1, 0.5),
        learning_rate=trial.suggest_float("learning_rate", 1e-5, 1e-2, log=True),
        weight_decay=trial.suggest_float("weight_decay", 1e-6, 1e-3, log=True),
    )
    limit = os.environ.get("GLOSSES_LIMIT")
    data = GlossData(
        batch_size=trial.suggest_categorical("batch_size", [16, 32, 64, 128]),
        vocab_size=VOCABULARY,
        limit=int(limit) if limit else None,
    )
    # What is saved here is there again when the trial was interrupted, and stays if it is one of the best (checkpoints.keep).
    folder = Path(os.environ.get("TUNING_TRIAL_CHECKPOINTS", "checkpoints"))
    trainer = pl.Trainer(
        max_epochs=EPOCHS,
        callbacks=[
            PruningCallback(trial, monitor="val_acc"),
            ModelCheckpoint(folder, filename="last", enable_version_counter=False),
        ],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    last = folder / "last.ckpt"
    trainer.fit(model, data, ckpt_path=last if last.exists() else None)
    return float(trainer.callback_metrics["val_acc"])
