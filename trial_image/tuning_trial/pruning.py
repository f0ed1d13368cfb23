"""The Lightning callbacks that report a trial's metric and stop the training when the pruner says so.

Optuna's own callback needs the `lightning` package, only warns when the metric does not exist (so that a misspelt one
never prunes), and raises from inside a hook, which skips the hooks of the user that should end a training.
"""

from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import Any

import pytorch_lightning as pl
from optuna.exceptions import TrialPruned
from optuna.trial import BaseTrial
from pytorch_lightning.callbacks import Callback, Checkpoint
from typing_extensions import override

from tuning_trial.errors import InvalidConfigError, MissingMetricError
from tuning_trial.log import logger
from tuning_trial.outcomes import Progress

Judge = Callable[[float, int], bool]
"""Reports a value at a step, and answers whether the trial should stop."""


class _LoggedIn(Enum):
    VALIDATION = auto()
    TRAINING = auto()


class ReportAndPrune(Callback):
    """Reports after each validation, and prunes by `trainer.should_stop`, so that the training ends as it always does.

    A step is a validation run, counted from 0; the sanity check before the training does not count. With one validation
    an epoch, Lightning's default, a step is an epoch, and `nWarmupSteps: 10` spares the first ten. With
    `check_val_every_n_epoch: 2` it spares ten validations, which are twenty epochs; with `val_check_interval: 0.5` five.

    A metric that the training logs (`train_loss`) is reported at the end of each training epoch instead, where Lightning has
    its mean. It is the training's if it was there before a validation began.

    A trial is not pruned at its last report, since nothing would be saved and its value would be lost, nor before
    `min_epochs` and `min_steps`, which Lightning trains in any case.
    """

    def __init__(
        self,
        *,
        metrics: Sequence[str],
        judge: Judge | None,
        tell_progress: Callable[[Progress], None],
        name: str,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare for one trial.

        Args:
            metrics: The objectives' metrics.
            judge: Reports and asks the pruner; None with several objectives, which Optuna cannot prune.
            tell_progress: Takes how far the training is, after each epoch.
            name: What log lines call the trial.
            beat: Called after each batch, of the training and of a validation.
        """
        self.pruned = False
        self._metrics = metrics
        self._judge = judge
        self._tell_progress = tell_progress
        self._name = name
        self.beat = beat
        self._step = 0
        self._logged_in: _LoggedIn | None = None
        self._has_validated = False
        self._was_there = False
        self._curve: dict[int, float] = {}

    def position(self) -> dict[str, Any]:
        """Where the reports are, for whoever goes on with this trial."""
        return {
            "curve": self._curve,
            "step": self._step,
            "logged_in": self._logged_in and self._logged_in.name,
            "has_validated": self._has_validated,
        }

    def go_on(self, trainer: pl.Trainer, position: dict[str, Any]) -> None:
        """Take up a position, and report again what was reported up to there: to Optuna this is another trial.

        The pruner is asked each time, as it was the first time: some keep what they answered. Its answers are not
        followed, since the training went on after them.
        """
        self._step = position["step"]
        self._logged_in = _LoggedIn[name] if (name := position["logged_in"]) else None
        self._has_validated = position["has_validated"]
        known, self._curve = self._curve, dict(position["curve"])
        if self._judge is not None:
            for step, value in self._curve.items():
                if step not in known:
                    self._judge(value, step)
        self._tell_progress(Progress(epochs=trainer.current_epoch, max_epochs=_max_epochs(trainer)))

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Have the ends of epochs told, and as the last callback."""
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        if not any(isinstance(callback, _EpochEnd) and callback.report is self for callback in callbacks):
            callbacks.append(_EpochEnd(self))

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Give a sign of life."""
        self.beat()

    @override
    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Give a sign of life; the sanity check before the training counts as well."""
        self.beat()

    @override
    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look which metrics the training has logged."""
        self._was_there = self._are_logged(trainer)

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report what was validated."""
        if trainer.sanity_checking:
            return
        self._has_validated = True
        if self._logged_in is None and self._are_logged(trainer):
            self._logged_in = _LoggedIn.TRAINING if self._was_there else _LoggedIn.VALIDATION
        if self._logged_in is _LoggedIn.VALIDATION:
            self._report(trainer, may_stop=_trains_to_another_validation(trainer))

    def end_epoch(self, trainer: pl.Trainer) -> None:
        """Report what the training logs, and tell how far it is."""
        if self._logged_in is None and self._are_logged(trainer):
            self._logged_in = _LoggedIn.TRAINING
        if self._logged_in is _LoggedIn.TRAINING:
            self._report(trainer, may_stop=_trains_on(trainer, epochs=trainer.current_epoch + 1))
        self._tell_progress(Progress(epochs=trainer.current_epoch + 1, max_epochs=_max_epochs(trainer)))

    @override
    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuse a metric that a whole epoch with its validation did not log: it would never prune."""
        if trainer.current_epoch and self._logged_in is None and (self._has_validated or not trainer.enable_validation):
            self.last_values(trainer)

    def last_values(self, trainer: pl.Trainer) -> dict[str, float]:
        """The last value of each metric.

        Raises:
            MissingMetricError: one was never logged; the message names those that were.
        """
        return last_values(trainer, self._metrics)

    def _are_logged(self, trainer: pl.Trainer) -> bool:
        return all(metric in trainer.callback_metrics for metric in self._metrics)

    def _report(self, trainer: pl.Trainer, *, may_stop: bool) -> None:
        values = self.last_values(trainer)
        shown = ", ".join(f"{metric}={value:.6g}" for metric, value in values.items())
        epochs = _max_epochs(trainer)
        logger.info("%s: epoch %d%s, %s", self._name, trainer.current_epoch + 1, f"/{epochs}" if epochs else "", shown)
        if self._judge is not None and not self.pruned:
            value = next(iter(values.values()))
            self._curve[self._step] = value
            should_prune = self._judge(value, self._step)
            if should_prune and may_stop:
                self.pruned = trainer.should_stop = True
        self._step += 1


class _EpochEnd(Checkpoint):
    """Tells a callback when an epoch has ended, after the model's own `on_train_epoch_end`, which may log the metric.

    NB: Lightning calls only those callbacks there that are an EarlyStopping or a Checkpoint (`_FitLoop.on_advance_end`). It
    looks for checkpoints when a Trainer is made, which is before this one joins it.
    """

    def __init__(self, report: ReportAndPrune) -> None:
        self.report = report

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.report.end_epoch(trainer)

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Leave: a later `trainer.test(ckpt_path="best")` asks all checkpoints."""
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        trainer.callbacks = [callback for callback in callbacks if callback is not self]  # type: ignore[attr-defined]


class PruningCallback(ReportAndPrune):
    """For a Trainer in an Optuna objective: reports a metric, and ends `trainer.fit` by `optuna.TrialPruned`.

        trainer = pl.Trainer(max_epochs=20, callbacks=[PruningCallback(trial, monitor="val_acc")])

    It takes the arguments of Optuna's `PyTorchLightningPruningCallback`, which needs the `lightning` package. A step is a
    validation run, see :class:`ReportAndPrune`; of several objectives none is reported, since Optuna prunes one only.
    """

    def __init__(self, trial: BaseTrial, monitor: str) -> None:
        """Prepare for one trial.

        Args:
            trial: What the objective was given; an `optuna.trial.FixedTrial` does as well, and is never pruned.
            monitor: The metric's name, as logged with `self.log`.
        """
        study = getattr(trial, "study", None)
        can_prune = study is None or len(study.directions) == 1
        super().__init__(
            metrics=[monitor],
            judge=judge_of(trial) if can_prune else None,
            tell_progress=lambda _: None,
            name=f"trial {trial.number}",
        )
        self._position: dict[str, Any] | None = None

    @override
    def state_dict(self) -> dict[str, Any]:
        """Where the reports are, for every checkpoint of the Trainer."""
        return self.position()

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """A Trainer goes on from a checkpoint (`ckpt_path`)."""
        self._position = state_dict

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report again what was reported up to the checkpoint: the trial that was interrupted was another one."""
        if self._position is not None:
            self.go_on(trainer, self._position)
            self._position = None

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuse a strategy that starts processes, as trials of trial.lightning do.

        NB: Lightning calls this when it has started them already; `settings.read` ends those that are workers again.
        """
        if trainer.strategy.launcher is not None:
            raise InvalidConfigError(
                f"{type(trainer.strategy).__name__} starts processes of its own, and a trial is one process: set devices to"
                " 1, and parallelism to the number of GPUs"
            )
        super().setup(trainer, pl_module, stage)

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Let the objective know, now that the training has ended as it always does.

        Raises:
            TrialPruned: the pruner stopped the training.
        """
        if self.pruned and stage == "fit":
            raise TrialPruned(f"pruned at step {self._step - 1}")


def judge_of(trial: BaseTrial) -> Judge:
    """Reports to a trial, and asks its pruner."""

    def report_and_ask(value: float, step: int) -> bool:
        trial.report(value, step)
        return trial.should_prune()

    return report_and_ask


def last_values(trainer: pl.Trainer, metrics: Sequence[str]) -> dict[str, float]:
    """The last value of each of these metrics.

    Raises:
        MissingMetricError: one was never logged; the message names those that were.
    """
    logged = trainer.callback_metrics
    for metric in metrics:
        if metric not in logged:
            known = ", ".join(sorted(logged)) or "none"
            raise MissingMetricError(f"the model logged no metric {metric!r}; it logged {known}")
    return {metric: float(logged[metric]) for metric in metrics}


def _max_epochs(trainer: pl.Trainer) -> int | None:
    return trainer.max_epochs if trainer.max_epochs is not None and trainer.max_epochs > 0 else None


def _trains_to_another_validation(trainer: pl.Trainer) -> bool:
    """Whether another validation would come if nobody stopped the training after this one."""
    progress = trainer.fit_loop.epoch_loop.batch_progress
    left = trainer.num_training_batches - progress.current.ready
    if left > 0 and trainer.current_epoch + 1 == _max_epochs(trainer):
        # NB: val_check_batch is None where validations come by the clock (val_check_interval: "00:15:00").
        return left >= (trainer.val_check_batch or 1) and _trains_on(trainer, epochs=trainer.current_epoch)
    return _trains_on(trainer, epochs=trainer.current_epoch + (left <= 0))


def _trains_on(trainer: pl.Trainer, *, epochs: int) -> bool:
    """Whether training goes on by itself, and could be stopped, after so many epochs.

    NB: `should_stop` is set already where an EarlyStopping, a Timer (`max_time`) or the model has ended the training.
    """
    is_over = epochs == _max_epochs(trainer) or 0 <= trainer.max_steps <= trainer.global_step or trainer.should_stop
    return not is_over and epochs >= (trainer.min_epochs or 0) and trainer.global_step >= (trainer.min_steps or 0)
