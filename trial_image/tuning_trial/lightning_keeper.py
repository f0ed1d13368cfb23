"""The Lightning callback that saves the weights of a complete trial, so that the study's best are kept."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from typing_extensions import override

from tuning_api.spec import class_paths
from tuning_trial.checkpoints import CheckpointFile
from tuning_trial.log import logger

_ARGUMENTS = pl.LightningModule.CHECKPOINT_HYPER_PARAMS_KEY
_INSTANTIATOR = {"_instantiator": "pytorch_lightning.cli.instantiate_module"}
"""What LightningCLI writes for arguments that are objects themselves; to load them needs jsonargparse."""


class KeepWeights(Callback):
    """Saves a checkpoint that `LightningModule.load_from_checkpoint` and `Trainer.fit(ckpt_path=...)` take.

    It has the weights of the last epoch, which gave the trial its value; where the configuration has a ModelCheckpoint,
    those of its best. The model's arguments are in it, whether or not the model calls `save_hyperparameters`.
    """

    def __init__(
        self,
        file: CheckpointFile,
        *,
        number: int,
        is_wanted: Callable[[float], bool],
        name: str,
    ) -> None:
        """Prepare for one trial.

        Args:
            file: The trial's files.
            number: The trial's.
            is_wanted: Whether a trial of a value may be among the study's best.
            name: What log lines call the trial.
        """
        self._file = file
        self._path = file.final(number)
        self._is_wanted = is_wanted
        self._name = name
        self._arguments: dict[str, Any] = {}

    def describe_model(self, config: dict[str, Any]) -> None:
        """Take the model's arguments from the trial's configuration."""
        model = config.get("model")
        arguments = dict(model.get("init_args") or {}) if isinstance(model, dict) else {}
        self._arguments = arguments | (_INSTANTIATOR if list(class_paths(arguments)) else {})

    @override
    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the model's arguments, unless the model has saved them."""
        checkpoint.setdefault(_ARGUMENTS, dict(self._arguments))

    def keep(self, trainer: pl.Trainer, value: float) -> str | None:
        """Save, after the training; a complete trial is not failed for it.

        Args:
            trainer: Has trained.
            value: The trial's.

        Returns:
            The path below the place of the checkpoints, or None when nothing was saved.
        """
        if not self._is_wanted(value):
            return None
        try:
            self._file.write(lambda path: _save(trainer, path), path=self._path)
        except Exception as error:  # noqa: BLE001 - a full disk, or a user's object that cannot be pickled
            logger.warning("%s: cannot keep its weights (%s: %s)", self._name, type(error).__name__, error)
            return None
        return self._file.relative(self._path)


def _save(trainer: pl.Trainer, path: Path) -> None:
    best = getattr(trainer.checkpoint_callback, "best_model_path", "")
    if best and Path(best).is_file():
        shutil.copyfile(best, path)
    else:
        trainer.save_checkpoint(path, weights_only=False)
