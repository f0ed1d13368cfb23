"""Lines that a person likes to read in `kubectl logs`: time and sentence; what others log, with their name and level."""

import logging
import time
import warnings

import optuna
import stamina.instrumentation
from stamina.instrumentation import RetryDetails
from typing_extensions import override

from tuning_api.printable import printable
from tuning_trial import database

logger = logging.getLogger("tuning_trial")

_CHATTY = ("aiobotocore", "botocore", "lightning", "lightning_fabric", "pytorch_lightning", "torch")
"""Libraries that say at INFO, for every trial, which accelerators there are, which seed was set, and where credentials are."""


def configure() -> None:
    """Send all logs and warnings to standard error; once a process."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Sentences(datefmt="%Y-%m-%dT%H:%M:%SZ"))
    # NB: not by the loggers' levels, which Lightning sets to INFO when it is imported.
    handler.addFilter(_matters)
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
    logging.captureWarnings(capture=True)
    optuna.logging.disable_default_handler()
    optuna.logging.enable_propagation()
    optuna.logging.set_verbosity(logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    stamina.instrumentation.set_on_retry_hooks([_say_that_the_database_is_away])


class _Sentences(logging.Formatter):
    converter = staticmethod(time.gmtime)

    @override
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))

    @override
    def formatMessage(self, record: logging.LogRecord) -> str:
        parts = [
            record.asctime,
            record.levelname if record.levelno != logging.INFO else "",
            "",
            record.message.rstrip(),
        ]
        if record.name != logger.name:
            parts[2] = f"{record.name}:"
        return " ".join(part for part in parts if part)

    @override
    def usesTime(self) -> bool:
        return True


def _matters(record: logging.LogRecord) -> bool:
    return record.levelno > logging.INFO or record.name.partition(".")[0] not in _CHATTY


def _say_that_the_database_is_away(details: RetryDetails) -> None:
    cause = database.describe(details.caused_by)
    logger.warning("the database is away (%s); next try in %.0f s", cause, details.wait_for)
