"""What is drawn: the trials of a study that count, seen as a chart needs them."""

import math
from collections import Counter
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from tuning_operator.importances import importances


def first_value(trial: FrozenTrial) -> float:
    """The value of a complete trial under the first objective."""
    return float(trial.values[0]) if trial.values else math.nan


@dataclass(frozen=True)
class Subject:
    """The trials, and what they were judged by."""

    trials: tuple[FrozenTrial, ...]
    directions: tuple[StudyDirection, ...]
    metric: str
    now: datetime
    """Up to when trials have run that still run."""

    @property
    def is_maximized(self) -> bool:
        """Whether larger is better."""
        return self.directions[0] is StudyDirection.MAXIMIZE

    @cached_property
    def complete(self) -> tuple[FrozenTrial, ...]:
        """Trials with a finite value: infinite ones cannot be drawn."""
        complete = (trial for trial in self.trials if trial.state is TrialState.COMPLETE)
        return tuple(trial for trial in complete if math.isfinite(first_value(trial)))

    @cached_property
    def ranked(self) -> tuple[FrozenTrial, ...]:
        """Complete trials from best to worst; of equals the earlier one first."""
        sign = -1 if self.is_maximized else 1
        return tuple(sorted(self.complete, key=lambda trial: (sign * first_value(trial), trial.number)))

    @cached_property
    def params(self) -> tuple[str, ...]:
        """Names of the parameters of complete trials, as first met."""
        return tuple(dict.fromkeys(name for trial in self.complete for name in trial.params))

    @cached_property
    def importances(self) -> dict[str, float]:
        """Share of each parameter in what makes trials differ; empty while that cannot be told."""
        return importances(self.complete)

    @property
    def is_flat(self) -> bool:
        """Whether all complete trials have the same value."""
        return len({first_value(trial) for trial in self.complete}) <= 1

    def sample(self, most: int) -> "Subject":
        """The complete trials, or the best half and an even choice of the others, in their order."""
        if len(self.complete) <= most:
            return replace(self, trials=self.complete)
        best = self.ranked[: most // 2]
        others = sorted(self.ranked[most // 2 :], key=lambda trial: trial.number)
        room = most - len(best)
        chosen = [*best, *(others[at * len(others) // room] for at in range(room))]
        return replace(self, trials=tuple(sorted(chosen, key=lambda trial: trial.number)))

    def why_nothing_is_complete(self) -> str:
        """What to say where there is no value to show."""
        count = Counter(trial.state for trial in self.trials)
        if count[TrialState.COMPLETE]:
            return "No complete trial has a finite value."
        ended = [f"{count[state]} {word}" for state, word in _BAD_ENDINGS.items() if count[state]]
        running = [f"{count[TrialState.RUNNING]} running"] if count[TrialState.RUNNING] else []
        if ended or running:
            return f"No trial has completed: {', '.join([*ended, *running])}."
        return "No trial has run yet."


_BAD_ENDINGS = {TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
