"""The Lightning callback that saves a trial's state and lets another process go on from it.

Lightning can save and resume, but not without a trace: saved at the end of an epoch, a checkpoint misses what comes
after (schedulers that follow a metric, other callbacks); resumed in the middle of one, a data loader starts anew. So the
state is saved where an epoch begins, and the epoch that is resumed begins as any other: with the random numbers, the
metrics and the curve that were there, so that the training gives the same weights as if nothing had happened.
"""

import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities.exceptions import SIGTERMException
from typing_extensions import override

from tuning_trial import randomness
from tuning_trial.checkpoints import CheckpointFile
from tuning_trial.errors import UnusableCheckpointError
from tuning_trial.log import logger
from tuning_trial.pruning import ReportAndPrune

_KEY = "tuningstudy"
"""Our part of a checkpoint; the user's own checkpoints do not have it."""


class SaveAndResume(Callback):
    """Saves the state at the start of each epoch but the first, and between two when it is asked to stop.

    It has to be the first callback, so that what the others do at the start of an epoch they do after it was saved, and
    do again after it was resumed.

    NB: whether an epoch is resumed or begun, Lightning's loops ask their attribute `restarting`; with it, they would skip
    the epoch, whose batches they count as done, or take the batches from a loader with other random numbers.
    """

    def __init__(self, file: CheckpointFile, *, report: ReportAndPrune, name: str) -> None:
        """Prepare for one trial.

        Args:
            file: Where to save, and where to go on from if it is there.
            report: Its curve is part of the state.
            name: What log lines call the trial.
        """
        self.has_resumed = False
        self.file = file
        self._report = report
        self._name = name
        self._is_saving = False
        self._saved_epochs = 0
        self._cannot_save = False
        self._loaded: dict[str, Any] | None = None
        self.expects_state = False

    def expect_state(self) -> None:
        """The next fit goes on from the file."""
        self.expects_state = True

    def give_up(self, error: Exception) -> None:
        """The next fit starts from the beginning, since going on failed before it began."""
        self.expects_state = False
        self._loaded = None
        why = " ".join(str(error).split()) or type(error).__name__
        logger.warning("%s: cannot go on from its checkpoint (%s); it starts from the beginning", self._name, why)

    @override
    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add what Lightning leaves out."""
        if not self._is_saving:
            return
        checkpoint[_KEY] = {
            "identity": self.file.identity,
            "random": randomness.capture(trainer),
            "metrics": {name: value.detach().cpu() for name, value in trainer.callback_metrics.items()},
            "report": self._report.position(),
        }

    @override
    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep our part for the moment when everything else is in its place."""
        if self.expects_state and _KEY in checkpoint:
            self._loaded = checkpoint[_KEY]

    @override
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuse what is not ours."""
        if not self.expects_state:
            return
        if self._loaded is None or self._loaded["identity"] != self.file.identity:
            raise UnusableCheckpointError("it belongs to something else")

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Go on: the state is complete."""
        self._resume(trainer)

    @override
    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save, or begin the epoch that was saved."""
        if self._loaded is not None:
            randomness.restore(self._loaded["random"], trainer)
            self._loaded = None
            trainer.fit_loop.restarting = False
            trainer.fit_loop.on_iteration_done()
        elif trainer.current_epoch:
            self._save(trainer)

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Save what is complete when the worker is asked to stop; in the middle of an epoch nothing is.

        NB: a checkpoint from the middle would lack the gradients that were accumulated, the means of the metrics that the
        training logs, and the place in the data: Lightning saves none of them.
        """
        if not isinstance(exception, SIGTERMException):
            return
        epochs = trainer.fit_loop.epoch_progress.total
        is_between_epochs = epochs.completed == epochs.ready and trainer.current_epoch > self._saved_epochs
        # After the last one nothing is left to train, and a fit without training skips the hooks that end one.
        if is_between_epochs and not trainer.fit_loop.done:
            self._save(trainer)
        where = f"after epoch {self._saved_epochs}" if self._saved_epochs else "from the beginning"
        logger.info("%s: stopped in epoch %d; it will go on %s", self._name, epochs.ready, where)

    def _resume(self, trainer: pl.Trainer) -> None:
        if not self.expects_state or self.has_resumed or self._loaded is None:
            return
        self.has_resumed = True
        self._saved_epochs = trainer.current_epoch
        # Whatever asks before the next validation finds the last one's: schedulers, callbacks, the trial's own result.
        trainer.callback_metrics.update(self._loaded["metrics"])
        logger.info("%s: goes on after epoch %d, from its checkpoint", self._name, trainer.current_epoch)
        self._report.go_on(trainer, self._loaded["report"])

    def _save(self, trainer: pl.Trainer) -> None:
        """Save; a trial is not failed for it, since it may well come to its end without."""
        started = time.monotonic()
        self._is_saving = True
        try:
            self.file.write(lambda path: trainer.save_checkpoint(path, weights_only=False))
        except Exception as error:  # noqa: BLE001 - a full disk, or a user's object that cannot be pickled
            if not self._cannot_save:
                logger.warning("%s: cannot save its state (%s: %s)", self._name, type(error).__name__, error)
            self._cannot_save = True
        else:
            self._saved_epochs = trainer.current_epoch
            self._cannot_save = False
            logger.debug("%s: saved epoch %d in %.3f s", self._name, trainer.current_epoch, time.monotonic() - started)
        finally:
            self._is_saving = False
