"""Reports that may be late: a trial trains on while the database is away, and what it reported is sent when it is back.

Only the reports are: nothing is pruned meanwhile, and whatever else a trial asks of the database waits for it. What is
late is not lost with the process: a checkpoint has the curve, and whoever goes on from it reports it again.
"""

import copy
import json
import threading
import time
from collections.abc import Callable
from typing import Any, Self

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    distribution_to_json,
    json_to_distribution,
)
from optuna.trial import FrozenTrial, Trial
from typing_extensions import override

from tuning_trial import database
from tuning_trial.log import logger

_PAUSE_SECONDS = 5.0
"""Between two tries. NB: where packets are dropped, and not refused, a try takes as long as connecting may: 10 s."""


def _do_nothing() -> None:
    """What a copy in another process does for each report, beside reporting."""


def _has_containers(distribution: BaseDistribution) -> bool:
    return isinstance(distribution, CategoricalDistribution) and any(
        isinstance(choice, list | tuple | dict) for choice in distribution.choices
    )


class LateTrial(Trial):
    """Optuna's trial, whose `report` and `should_prune` do not wait for a database that is away."""

    def __init__(self, study: optuna.Study, known: FrozenTrial, *, beat: Callable[[], None] = _do_nothing) -> None:
        """Take a claimed trial.

        Args:
            study: Has the storage.
            known: The trial as the worker knows it.
            beat: Called for each report, which is a sign of life whether or not it arrives.
        """
        knowing = copy.copy(study)
        knowing._storage = database.Knowing(study._storage, known)  # type: ignore[assignment]  # noqa: SLF001
        super().__init__(knowing, known._trial_id)  # noqa: SLF001 - there is no public way
        self.study, self.storage = study, study._storage  # noqa: SLF001
        self.after_report: Callable[[], object] = _do_nothing
        """Called after each report, whether or not it is late."""
        self._beat = beat
        self._late: list[tuple[Any, Any]] = []
        self._try_again_at = 0.0
        self._sending = threading.RLock()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A copy is of the same trial, and reports for it; scikit-learn copies whatever an estimator holds."""
        copied = copy.copy(self)
        memo[id(self)] = copied
        copied._cached_frozen_trial = copy.deepcopy(self._cached_frozen_trial, memo)  # noqa: SLF001
        return copied

    def __copy__(self) -> Self:
        """NB: Python's own would go by `__getstate__`, which is for another process."""
        copied = object.__new__(type(self))
        vars(copied).update(vars(self))
        return copied

    def __getstate__(self) -> dict[str, Any]:
        """For another process: it reports by itself, and only the trial's own one gives signs of life."""
        return {name: value for name, value in vars(self).items() if name not in {"_beat", "after_report", "_sending"}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """In another process."""
        vars(self).update(state, _beat=_do_nothing, after_report=_do_nothing, _sending=threading.RLock())

    @override
    def _suggest(self, name: str, distribution: BaseDistribution) -> Any:
        """Suggest as Optuna does, but compare with earlier trials as the database has them: JSON has no tuples."""
        if not _has_containers(distribution):
            return super()._suggest(name, distribution)
        known = json_to_distribution(distribution_to_json(distribution))
        value = json.loads(json.dumps(super()._suggest(name, known)))
        chosen = distribution.to_external_repr(known.to_internal_repr(value))
        self._cached_frozen_trial.params[name] = chosen
        return chosen

    @override
    def report(self, value: float, step: int) -> None:
        """Report now, or as soon as the database is back.

        Raises:
            UpdateFinishedTrialError: the controller gave the trial to another worker.
        """
        with self._sending:
            self._beat()
            self._late.append((value, step))
            if time.monotonic() >= self._try_again_at:
                self._try_to_send()
            self.after_report()

    @override
    def should_prune(self) -> bool:
        """What the pruner says; no, while what it would judge has not arrived."""
        if self._late:
            return False
        try:
            with database.at_once(self.storage):
                return super().should_prune()
        except Exception as error:
            if not database.is_away(error):
                raise
            self._put_off(error)
            return False

    def catch_up(self) -> None:
        """Send what is late, and wait for the database as any other call does; for the end of a training."""
        self._send()

    def _try_to_send(self) -> None:
        try:
            with database.at_once(self.storage):
                self._send()
        except Exception as error:
            if not database.is_away(error):
                raise
            self._put_off(error)

    def _send(self) -> None:
        count = len(self._late)
        while self._late:
            try:
                super().report(*self._late[0])
            except Exception as error:
                if not database.is_away(error):
                    self._late.pop(0)  # what it refuses now, such as a value that is no number, it always will
                raise
            self._late.pop(0)
        if self._try_again_at and count:
            logger.info("the database is back: %d values were reported late", count)
        self._try_again_at = 0.0

    def _put_off(self, error: Exception) -> None:
        if not self._try_again_at:
            why = database.describe(error)
            logger.warning("the database is away (%s); the training goes on, its values are reported later", why)
        self._try_again_at = time.monotonic() + _PAUSE_SECONDS
