"""Trains one Lightning model as a configuration describes it."""

import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.utilities.exceptions import MisconfigurationException
from lightning_fabric.utilities.warnings import PossibleUserWarning
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.cli import ArgsType, LightningArgumentParser, LightningCLI
from typing_extensions import override

from tuning_trial import lightning_parser, outcomes
from tuning_trial.config import with_defaults
from tuning_trial.errors import InvalidConfigError
from tuning_trial.outcomes import Completed, Failed, Pruned
from tuning_trial.pruning import ReportAndPrune


def train(
    config: dict[str, Any], *, parser: LightningArgumentParser, seed: int, folder: Path, callback: ReportAndPrune
) -> Completed | Pruned | Failed:
    """Build the model, the data and the trainer of a configuration, and fit.

    Args:
        config: The LightningCLI configuration, with every value in its place.
        parser: From :func:`lightning_parser.build_parser`; used for one trial of this process.
        seed: For `seed_everything`, unless the configuration has its own.
        folder: Where Lightning may write.
        callback: Reports and prunes; it joins the user's own callbacks.

    Raises:
        TrialError: the configuration cannot be built, or the model does not log an objective's metric.
        Exception: whatever the user's code raises.
    """
    # Advice such as "consider increasing num_workers" would come again with every trial, and so would what Lightning 2.6
    # has to change for newer versions of torch.
    warnings.filterwarnings("ignore", category=PossibleUserWarning)
    warnings.filterwarnings("ignore", message=".*treespec, LeafSpec", category=FutureWarning)
    try:
        cli = _TrialCLI(with_defaults(config, seed=seed, folder=folder), parser=parser, callback=callback)
        _refuse_launchers(cli.trainer)
        cli.trainer.fit(cli.model, datamodule=cli.datamodule)
    except MisconfigurationException as error:
        raise InvalidConfigError(_in_one_line("trial.lightning", error)) from error
    return Pruned() if callback.pruned else outcomes.completed(callback.last_values(cli.trainer))


def _in_one_line(where: str, error: Exception) -> str:
    return f"{where}: {' '.join(str(error).split())}"


class _TrialCLI(LightningCLI):
    """A LightningCLI on a parser that exists, for a configuration that is a mapping, with our callback."""

    def __init__(self, config: dict[str, Any], *, parser: LightningArgumentParser, callback: ReportAndPrune) -> None:
        self._built = parser
        self._callback = callback
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
            # jsonargparse wraps what a constructor of the user raised, as if a type had not fitted.
            raise error.__cause__ or error from None

    @override
    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Add our callback; write no checkpoints unless the configuration asks for them, by flag or by callback."""
        chosen = self.config_init.trainer
        given = chosen.callbacks or []
        callbacks = [*(given if isinstance(given, list) else [given]), self._callback]
        if chosen.enable_checkpointing is None:
            kwargs["enable_checkpointing"] = any(isinstance(callback, Checkpoint) for callback in callbacks)
        try:
            return super().instantiate_trainer(**kwargs, callbacks=callbacks)
        except Exception as error:
            # An accelerator that is not there, arguments that exclude each other: each has its own type of exception.
            raise InvalidConfigError(_in_one_line("trial.lightning.trainer", error)) from error


def _refuse_launchers(trainer: pl.Trainer) -> None:
    """NB: `ddp` starts the program again for each GPU, which would be another worker that claims another trial."""
    if trainer.strategy.launcher is not None:
        raise InvalidConfigError(
            f"trial.lightning.trainer: {type(trainer.strategy).__name__} starts processes of its own, and a trial is one"
            " process: set devices to 1, and parallelism to the number of GPUs"
        )
