"""The Lightning callback that saves a trial's state and lets another process go on from it.

Lightning can save and resume, but not without a trace: saved at the end of an epoch, a checkpoint misses what comes
after (schedulers that follow a metric, other callbacks); resumed in the middle of one, a data loader starts anew. So the
state is saved where an epoch begins, and the epoch that is resumed begins as any other: with the random numbers, the
metrics and the curve that were there, so that the training gives the same weights as if nothing had happened.

A trial that is asked to stop saves the middle of its epoch too, in a second file, and goes on there if that is sure to give
the same weights (:mod:`tuning_trial.middle`); else at the epoch's start, of which the first file is.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loops.fetchers import _DataFetcher
from pytorch_lightning.utilities.exceptions import SIGTERMException
from typing_extensions import override

from tuning_trial import middle, randomness, unsaved
from tuning_trial.checkpoints import CheckpointFile
from tuning_trial.errors import UnusableCheckpointError
from tuning_trial.log import logger
from tuning_trial.middle import EpochLoop
from tuning_trial.pruning import ReportAndPrune

_KEY = "tuningstudy"
"""Our part of a checkpoint; the user's own checkpoints do not have it."""
_MIDDLE = "middle"
"""The key of our part that only the middle of an epoch has."""


class SaveAndResume(Callback):
    """Saves the state at the start of each epoch but the first, and wherever it is when it is asked to stop.

    It has to be the first callback, so that what the others do at the start of an epoch they do after it was saved, and
    do again after it was resumed.

    NB: whether an epoch is resumed or begun, Lightning's loops ask their attribute `restarting`; with it, they would skip
    the epoch, whose batches they count as done, or take the batches from a loader with other random numbers. It is set for
    the inner loop by itself: with max_steps the outer one's cannot be unset, and would be passed on.
    """

    def __init__(
        self, file: CheckpointFile, *, report: ReportAndPrune, name: str, beat: Callable[[], None] = lambda: None
    ) -> None:
        """Prepare for one trial.

        Args:
            file: Where to save, and where to go on from if it is there.
            report: Its curve is part of the state.
            name: What log lines call the trial.
            beat: Called for each batch that is skipped, which is a sign of life.
        """
        self.file = file
        self.expects_state = False
        self._report = report
        self._name = name
        self._beat = beat
        self._has_resumed = False
        self._expects_middle = False
        self._can_use_state = True
        self._ours: dict[str, Any] = {}
        self._is_catching_up = False
        self._saved_epochs = 0
        self._cannot_save = False
        self._loaded: dict[str, Any] | None = None
        self._attributes: unsaved.Fingerprints | None = None

    def join(self, trainer: pl.Trainer) -> None:
        """Put our loop in the place of Lightning's, before the trainer fits."""
        self._loop = EpochLoop(trainer.fit_loop.epoch_loop, has_begun=lambda data: self._catch_up(trainer, data))
        trainer.fit_loop.epoch_loop = self._loop

    def expect_state(self) -> bool:
        """Whether the next fit goes on from what was saved."""
        self.expects_state = self._can_use_state and self.file.path.exists()
        self._expects_middle = self._can_use_state and self.file.middle.exists()
        return self.expects_state or self._expects_middle

    @property
    def goes_on(self) -> bool:
        """Whether all that was saved has been taken up: what is raised now is the training's own."""
        return not self._expects_middle and (self._has_resumed or not self.expects_state)

    def give_up(self, error: Exception) -> None:
        """The next fit starts from further back, since going on failed before it began."""
        why = " ".join(str(error).split()) or type(error).__name__
        self._loaded = None
        self._has_resumed = False
        if self._expects_middle:
            self.file.discard_middle()
            logger.warning("%s: cannot go on in the middle of its epoch (%s); it goes on at its start", self._name, why)
            return
        self._can_use_state = self.expects_state = False
        logger.warning("%s: cannot go on from its checkpoint (%s); it starts from the beginning", self._name, why)

    @override
    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add what Lightning leaves out."""
        if self._ours:
            checkpoint[_KEY] = self._ours

    @override
    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep our part for the moment when everything else is in its place."""
        if self.expects_state and not self._is_catching_up and _KEY in checkpoint:
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
        self._attributes = None
        if self._loaded is not None:
            randomness.restore(self._loaded["random"], trainer)
            self._loaded = None
            trainer.fit_loop.epoch_loop.restarting = False
            trainer.fit_loop.on_iteration_done()
        elif trainer.current_epoch:
            self._save_start(trainer)

    @override
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Look at what the epoch finds, to know what its batches change."""
        if self._attributes is None:
            self._attributes = unsaved.fingerprints(trainer)

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Save when the worker is asked to stop: a batch has ended, and the validation after it."""
        if not isinstance(exception, SIGTERMException):
            return
        epochs = trainer.fit_loop.epoch_progress.total
        if epochs.completed != epochs.ready:
            self._stop_in_the_middle(trainer)
            return
        # After the last one nothing is left to train, and a fit without training skips the hooks that end one.
        if trainer.current_epoch > self._saved_epochs and not trainer.fit_loop.done:
            self._save_start(trainer)
        logger.info("%s: stopped after epoch %d; it will go on %s", self._name, epochs.completed, self._where())

    def _stop_in_the_middle(self, trainer: pl.Trainer) -> None:
        batches = self._loop.batch_progress.current.completed
        stopped = f"stopped in epoch {trainer.current_epoch + 1}, after {batches} batches"
        why = middle.obstacle(trainer)
        if why is None and (name := unsaved.changed(self._attributes or {}, unsaved.fingerprints(trainer))):
            why = f"{name} may have changed since the epoch began, and no checkpoint has it"
        if why is not None:
            logger.info("%s: %s; it will go on %s: %s", self._name, stopped, self._where(), why)
        elif self._save(trainer, self.file.middle):
            logger.info("%s: %s; it will go on there", self._name, stopped)
        else:
            logger.info("%s: %s; it will go on %s", self._name, stopped, self._where())

    def _where(self) -> str:
        return f"after epoch {self._saved_epochs}" if self._saved_epochs else "from the beginning"

    def _resume(self, trainer: pl.Trainer) -> None:
        if not self.expects_state or self._has_resumed or self._loaded is None:
            return
        self._has_resumed = True
        self._saved_epochs = trainer.current_epoch
        # Whatever asks before the next validation finds the last one's: schedulers, callbacks, the trial's own result.
        trainer.callback_metrics.update(self._loaded["metrics"])
        logger.info("%s: goes on after epoch %d, from its checkpoint", self._name, trainer.current_epoch)
        self._report.go_on(trainer, self._loaded["report"])

    def _catch_up(self, trainer: pl.Trainer, data: _DataFetcher) -> None:
        """In the first epoch of this process: go on in its middle, if that was saved.

        Raises:
            UnusableCheckpointError: it is not sure that the training would go on as it would have.
        """
        if not self._expects_middle:
            return
        checkpoint: dict[str, Any] = trainer.strategy.load_checkpoint(self.file.middle, weights_only=False)
        ours = checkpoint[_KEY]
        state = ours[_MIDDLE]
        # NB: it may be that of an earlier epoch, when a process was killed between two files.
        if ours["identity"] == self.file.identity and state["epoch"] == trainer.current_epoch:
            batches = state["batches"]
            if why := middle.skip(self._loop, data, batches, order=state["order"], beat=self._beat):
                raise UnusableCheckpointError(why)
            self._is_catching_up = True
            try:
                middle.restore(state, checkpoint, trainer, self._loop)
            finally:
                self._is_catching_up = False
            trainer.callback_metrics.update(ours["metrics"])
            self._report.go_on(trainer, ours["report"])
            logger.info("%s: goes on in epoch %d, after %d batches", self._name, trainer.current_epoch + 1, batches)
            self._attributes = unsaved.fingerprints(trainer)
            randomness.restore(ours["random"], trainer)
        self._expects_middle = False

    def _save_start(self, trainer: pl.Trainer) -> None:
        if self._save(trainer, self.file.path):
            self._saved_epochs = trainer.current_epoch
            self.file.discard_middle()

    def _save(self, trainer: pl.Trainer, path: Path) -> bool:
        """Save, or say why not: a trial is not failed for it, since it may well come to its end without."""
        started = time.monotonic()
        try:
            self._ours = self._describe(trainer)
            if path == self.file.middle:
                self._ours[_MIDDLE] = middle.capture(trainer, self._loop)
            self.file.write(lambda path: trainer.save_checkpoint(path, weights_only=False), path=path)
        except Exception as error:  # noqa: BLE001 - a full disk, or a user's object that cannot be pickled
            if not self._cannot_save:
                logger.warning("%s: cannot save its state (%s: %s)", self._name, type(error).__name__, error)
            self._cannot_save = True
            return False
        finally:
            self._ours = {}
        self._cannot_save = False
        logger.debug("%s: saved epoch %d in %.3f s", self._name, trainer.current_epoch, time.monotonic() - started)
        return True

    def _describe(self, trainer: pl.Trainer) -> dict[str, Any]:
        return {
            "identity": self.file.identity,
            "random": randomness.capture(trainer),
            "metrics": {name: value.detach().cpu() for name, value in trainer.callback_metrics.items()},
            "report": self._report.position(),
        }
