"""Trains one Lightning model as a configuration describes it."""

import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.utilities.exceptions import MisconfigurationException
from lightning_fabric.utilities.warnings import PossibleUserWarning
from pytorch_lightning.callbacks import Callback, Checkpoint
from pytorch_lightning.cli import ArgsType, LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers.logger import DummyLogger
from typing_extensions import override

from tuning_trial import lightning_parser, locks, outcomes
from tuning_trial.config import with_defaults
from tuning_trial.errors import InvalidConfigError
from tuning_trial.lightning_keeper import KeepWeights
from tuning_trial.outcomes import Completed, Failed, Pruned
from tuning_trial.pruning import ReportAndPrune, last_values
from tuning_trial.resuming import SaveAndResume


def train(
    config: dict[str, Any],
    *,
    parser: LightningArgumentParser,
    seed: int,
    folder: Path,
    callback: ReportAndPrune,
    saver: SaveAndResume | None = None,
    keeper: KeepWeights | None = None,
    limited: Sequence[str] = (),
    is_watched: bool = False,
) -> Completed | Pruned | Failed:
    """Build the model, the data and the trainer of a configuration, and fit.

    Args:
        config: The LightningCLI configuration, with every value in its place.
        parser: From :func:`lightning_parser.build_parser`; used for one trial of this process.
        seed: For `seed_everything`, unless the configuration has its own.
        folder: Where Lightning may write.
        callback: Reports and prunes; it joins the user's own callbacks.
        saver: Saves the training's state, and goes on from it if there is one.
        keeper: Saves the weights of a trial that is complete.
        limited: The metrics that a constraint is about; logged once at least, if only in the last epoch.
        is_watched: Whether to show the progress bar and all advice.

    Raises:
        TrialError: the configuration cannot be built, or the model does not log an objective's metric.
        Exception: whatever the user's code raises.
    """
    # Advice such as "consider increasing num_workers" would come again with every trial, and so would what Lightning 2.6
    # has to change for newer versions of torch.
    if not is_watched:
        warnings.filterwarnings("ignore", category=PossibleUserWarning)
    warnings.filterwarnings("ignore", message=".*treespec, LeafSpec", category=FutureWarning)
    complete = with_defaults(config, seed=seed, folder=folder, is_watched=is_watched)
    if keeper:
        keeper.describe_model(complete)
    ours: list[Callback] = [*([keeper] if keeper else []), callback]
    try:
        trainer = _resume(complete, callbacks=ours, saver=saver, beat=callback.beat) or _fit(
            complete, parser=parser, callbacks=ours, saver=saver, beat=callback.beat
        )
    except MisconfigurationException as error:
        raise InvalidConfigError(_in_one_line("trial.lightning", error)) from error
    if callback.pruned:
        return Pruned()
    result = outcomes.completed(callback.last_values(trainer), last_values(trainer, limited))
    if keeper and isinstance(result, Completed):
        return replace(result, checkpoint=keeper.keep(trainer, result.values[0]))
    return result


def build(config: dict[str, Any]) -> None:
    """Build the model, the data and the trainer, and do no more.

    Raises:
        InvalidConfigError: the configuration cannot be built.
        Exception: whatever the user's code raises.
    """
    try:
        cli = _TrialCLI(config, parser=lightning_parser.build_parser(), first=[], last=[])
    except MisconfigurationException as error:
        raise InvalidConfigError(_in_one_line("trial.lightning", error)) from error
    _refuse_launchers(cli.trainer)


def _resume(
    config: dict[str, Any], *, callbacks: Sequence[Callback], saver: SaveAndResume | None, beat: Callable[[], None]
) -> pl.Trainer | None:
    """Fit on from what was saved; None when there is nothing, or nothing that can be used."""
    while saver is not None and saver.expect_state():
        try:
            # A parser of its own, since that of this process is good for one trial, and may be needed after this one.
            return _fit(config, parser=lightning_parser.build_parser(), callbacks=callbacks, saver=saver, beat=beat)
        except Exception as error:
            if saver.goes_on:
                raise
            saver.give_up(error)
    return None


def _fit(
    config: dict[str, Any],
    *,
    parser: LightningArgumentParser,
    callbacks: Sequence[Callback],
    saver: SaveAndResume | None,
    beat: Callable[[], None],
) -> pl.Trainer:
    cli = _TrialCLI(config, parser=parser, first=[saver] if saver else [], last=callbacks)
    _refuse_launchers(cli.trainer)
    _prepare_data_alone(cli, beat=beat)
    if saver:
        saver.join(cli.trainer)
    checkpoint = saver.file.path if saver and saver.expects_state else None
    # NB: torch would refuse to load all but tensors (weights_only), and callbacks and hyperparameters may be anything.
    # Who can write to the folder of the checkpoints is trusted as the user's code is: it is theirs, and nobody else's.
    cli.trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=checkpoint, weights_only=False)
    return cli.trainer


def _in_one_line(where: str, error: Exception) -> str:
    return f"{where}: {' '.join(str(error).split())}"


class _TrialCLI(LightningCLI):
    """A LightningCLI on a parser that exists, for a configuration that is a mapping, with our callbacks."""

    def __init__(
        self,
        config: dict[str, Any],
        *,
        parser: LightningArgumentParser,
        first: Sequence[Callback],
        last: Sequence[Callback],
    ) -> None:
        self._built = parser
        self._first = first
        self._last = last
        super().__init__(
            save_config_callback=None,
            subclass_mode_model=True,
            subclass_mode_data=True,
            run=False,
            args=config,
        )

    @override
    def setup_parser(
        self, add_subcommands: bool, main_kwargs: dict[str, Any], subparser_kwargs: dict[str, Any]
    ) -> None:
        self.parser = self._built

    @override
    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        assert isinstance(args, dict)  # noqa: S101 - see __init__
        self.config = lightning_parser.parse(parser, args)

    @override
    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except ValueError as error:
            raise _unwrapped(error) from None

    @override
    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Add our callbacks; write no checkpoints unless the configuration asks for them, by flag or by callback."""
        chosen = self.config_init.trainer
        if chosen.logger is None and not chosen.barebones:
            kwargs["logger"] = Silent(chosen.default_root_dir)
            warnings.filterwarnings("ignore", message=".*log_every_n_steps", category=PossibleUserWarning)
            if self.datamodule is not None:
                # NB: Lightning refuses arguments that the model and the data both have, for the logger's sake.
                self.datamodule._log_hyperparams = False  # noqa: SLF001
        given = chosen.callbacks or []
        callbacks = [*self._first, *(given if isinstance(given, list) else [given]), *self._last]
        if chosen.enable_checkpointing is None:
            kwargs["enable_checkpointing"] = any(isinstance(callback, Checkpoint) for callback in callbacks)
        try:
            return super().instantiate_trainer(**kwargs, callbacks=callbacks)
        except Exception as error:
            # An accelerator that is not there, arguments that exclude each other: each has its own type of exception.
            raise InvalidConfigError(_in_one_line("trial.lightning.trainer", error)) from error


def _unwrapped(error: BaseException) -> BaseException:
    """What a constructor raised: jsonargparse wraps it as if a type had not fitted, and again for each object around it."""
    while error.__cause__ is not None and _is_of_parser(error):
        error = error.__cause__
    return error


def _is_of_parser(error: BaseException) -> bool:
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return bool(frames) and str(frames[-1].f_globals.get("__name__")).startswith("jsonargparse")


class Silent(DummyLogger):
    """The logger of a trial whose configuration has none: takes whatever models and callbacks log, and writes nothing.

    Some callbacks (LearningRateMonitor) refuse a Trainer without one, and models use `self.logger.experiment`.
    """

    def __init__(self, folder: str) -> None:
        super().__init__()
        self._folder = folder

    @property
    @override
    def save_dir(self) -> str:
        """Where others put what they write, as without a logger."""
        return self._folder

    @property
    @override
    def name(self) -> str:
        return ""

    @property
    @override
    def version(self) -> str:
        return ""


def _refuse_launchers(trainer: pl.Trainer) -> None:
    """NB: `ddp` starts the program again for each GPU, which would be another worker that claims another trial."""
    if trainer.strategy.launcher is not None:
        mend = "set devices to 1, and parallelism to the number of GPUs"
        if trainer.num_devices * trainer.num_nodes == 1:
            mend = "remove trainer.strategy, there is one device"
        raise InvalidConfigError(
            f"trial.lightning.trainer: {type(trainer.strategy).__name__} starts processes of its own, and a trial is one"
            f" process: {mend}"
        )


def _prepare_data_alone(cli: LightningCLI, *, beat: Callable[[], None]) -> None:
    """Let one trial of this machine prepare its data at a time, as Lightning promises: it may be a download.

    NB: Lightning's promise holds for the processes of one training, and workers are others.
    """
    connector = cli.trainer._data_connector  # noqa: SLF001 - no hook is around prepare_data
    prepare = connector.prepare_data
    owner = type(cli.datamodule or cli.model)

    def alone() -> None:
        with locks.held(f"{owner.__module__}.{owner.__qualname__}", beat=beat):
            prepare()

    connector.prepare_data = alone  # type: ignore[method-assign]
