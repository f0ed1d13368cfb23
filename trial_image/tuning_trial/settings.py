"""What a worker is told by its environment; all else it reads from the database."""

import math
import os
import socket
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tuning_api.contract import Env, Owner
from tuning_api.store import Store
from tuning_trial.checkpoints import Bucket, Place
from tuning_trial.errors import MisconfiguredError

DEFAULT_IDLE_SECONDS = 10.0
_RANK = "LOCAL_RANK"
"""Set by Lightning's `ddp` for the programs that it starts: one for each device but the first."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The environment of a worker, checked."""

    database_url: str = field(repr=False)
    study: str
    owner: Owner
    scratch: Path
    checkpoints: Place | None = None
    idle_seconds: float = DEFAULT_IDLE_SECONDS


def read(environment: Mapping[str, str]) -> Settings:
    """Read :class:`tuning_api.contract.Env`.

    Raises:
        MisconfiguredError: a variable is missing or makes no sense; the message names it.
    """
    if environment.get(_RANK, "0") != "0":
        raise MisconfiguredError(
            f"{_RANK} is {environment[_RANK]}: a Trainer with several devices started this program again, which would claim"
            " another trial; set its devices to 1, and parallelism to the number of GPUs"
        )
    return Settings(
        database_url=_required(environment, Env.DATABASE_URL, "the SQLAlchemy URL of the study's database"),
        study=_required(environment, Env.STUDY, "the name of the study"),
        owner=Owner(
            id=_required(environment, Env.WORKER_ID, "an identity that no other worker has or had"),
            name=environment.get(Env.WORKER_NAME) or socket.gethostname(),
        ),
        scratch=_writable_folder(Env.SCRATCH, environment.get(Env.SCRATCH) or tempfile.gettempdir()),
        checkpoints=_place(text) if (text := environment.get(Env.CHECKPOINTS)) else None,
        idle_seconds=_seconds(environment.get(Env.IDLE_SECONDS) or str(DEFAULT_IDLE_SECONDS)),
    )


def _required(environment: Mapping[str, str], name: Env, meaning: str) -> str:
    if value := environment.get(name):
        return value
    raise MisconfiguredError(f"{name} is not set: it must be {meaning}")


def _place(text: str) -> Place:
    return Bucket(Store(text)) if "://" in text else _writable_folder(Env.CHECKPOINTS, text)


def _writable_folder(name: Env, text: str) -> Path:
    folder = Path(text)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MisconfiguredError(f"{name} is {folder}, which cannot be made: {error.strerror}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise MisconfiguredError(f"{name} is {folder}, which this user cannot write to")
    return folder


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not (0 <= seconds < math.inf):
        raise MisconfiguredError(f"{Env.IDLE_SECONDS} is {text!r}, and must be a number of seconds, such as 10")
    return seconds
