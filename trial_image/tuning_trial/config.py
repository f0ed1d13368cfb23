"""A trial's configuration as a function of the study's and of the trial's parameters. No library, no file, no clock."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from tuning_api import substitution
from tuning_api.schema import Scalar
from tuning_api.substitution import SubstitutionError
from tuning_trial.errors import InvalidConfigError

_ARGUMENTS_OF_FIT = ("ckpt_path", "weights_only")
"""`LightningCLI fit --print_config` writes these; as null they mean nothing, and without the subcommand they are refused."""


def substitute(config: dict[str, Any], values: Mapping[str, Scalar], *, absent: Collection[str] = ()) -> dict[str, Any]:
    """See `tuning_api.substitution.substitute`.

    Raises:
        InvalidConfigError: a name has no value and is not absent, or an absent one is part of a longer string.
    """
    try:
        return substitution.substitute(config, values, absent=absent)
    except SubstitutionError as error:
        raise InvalidConfigError(str(error)) from error


def with_defaults(config: Mapping[str, Any], *, seed: int, folder: Path, is_watched: bool = False) -> dict[str, Any]:
    """Fill in what suits a trial, where the person did not choose.

    No progress bar and no model summary: nobody looks at them, and the root file system is read-only. What is written all
    the same goes to the trial's folder. Which logger there is, and whether checkpoints are written, is decided when the
    Trainer is made (`lightning_runner`).

    Args:
        config: The trial's configuration.
        seed: For `seed_everything`.
        folder: Where Lightning may write.
        is_watched: Whether a person looks at the progress bar and the model summary after all.

    Raises:
        InvalidConfigError: `trainer` is not a mapping.
    """
    trainer = config.get("trainer") or {}
    if not isinstance(trainer, dict):
        # NB: LightningCLI 2.6 ignores it in silence.
        raise InvalidConfigError("trial.lightning.trainer must be a mapping of the Trainer's arguments")
    defaults: dict[str, Any] = {"default_root_dir": str(folder)}
    if not is_watched:
        defaults |= {"enable_progress_bar": False, "enable_model_summary": False}
    chosen = {key: value for key, value in trainer.items() if not (key in defaults and value is None)}
    kept = {key: value for key, value in config.items() if not (key in _ARGUMENTS_OF_FIT and value is None)}
    return {"seed_everything": seed} | kept | {"trainer": defaults | chosen}
