"""What is drawn: the trials of a study that count, seen as a chart needs them."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from tuning_api.search import Direction
from tuning_operator import feasibility
from tuning_operator.decide.front import front
from tuning_operator.importances import Importances, importances, judged


def first_value(trial: FrozenTrial) -> float:
    """The value of a complete trial under the first objective."""
    return value_of(trial, 0)


def value_of(trial: FrozenTrial, objective: int) -> float:
    """The value of a complete trial under one of the objectives."""
    values = trial.values or []
    return float(values[objective]) if objective < len(values) else math.nan


@dataclass(frozen=True)
class Subject:
    """The trials, and what they were judged by."""

    trials: tuple[FrozenTrial, ...]
    directions: tuple[StudyDirection, ...]
    metrics: tuple[str, ...]
    """A name for each objective."""
    now: datetime
    """Up to when trials have run that still run."""

    @property
    def metric(self) -> str:
        """The first objective."""
        return self.metrics[0]

    @property
    def has_front(self) -> bool:
        """Whether the best are a Pareto front."""
        return len(self.directions) > 1

    def is_maximized(self, objective: int = 0) -> bool:
        """Whether larger is better."""
        return self.directions[objective] is StudyDirection.MAXIMIZE

    @cached_property
    def complete(self) -> tuple[FrozenTrial, ...]:
        """Trials with finite values: infinite ones cannot be drawn."""
        complete = (trial for trial in self.trials if trial.state is TrialState.COMPLETE)
        return tuple(trial for trial in complete if all(map(math.isfinite, self.values(trial))))

    def values(self, trial: FrozenTrial) -> tuple[float, ...]:
        """A complete trial's values, one for each objective."""
        return tuple(value_of(trial, objective) for objective in range(len(self.directions)))

    @cached_property
    def infeasible(self) -> tuple[FrozenTrial, ...]:
        """Complete trials that break a constraint."""
        return tuple(trial for trial in self.complete if feasibility.broken(trial))

    @cached_property
    def feasible(self) -> tuple[FrozenTrial, ...]:
        """Complete trials that break none."""
        broken = {trial.number for trial in self.infeasible}
        return tuple(trial for trial in self.complete if trial.number not in broken)

    @cached_property
    def best(self) -> tuple[FrozenTrial, ...]:
        """The best trial, of equals the first; of several objectives the Pareto front, from the best of the first one on."""
        directions = [Direction[direction.name] for direction in self.directions]
        found = [self.feasible[place] for place in front([self.values(trial) for trial in self.feasible], directions)]
        return tuple(found if self.has_front else found[:1])

    @cached_property
    def ranked(self) -> tuple[FrozenTrial, ...]:
        """Complete trials: the best, then others by the first objective; what breaks a constraint comes last."""
        best = {trial.number for trial in self.best}
        others = self._by_value([trial for trial in self.feasible if trial.number not in best])
        return (*self.best, *others, *self._by_value(self.infeasible))

    def _by_value(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        sign = -1 if self.is_maximized() else 1
        return sorted(trials, key=lambda trial: (sign * first_value(trial), trial.number))

    @cached_property
    def params(self) -> tuple[str, ...]:
        """Names of the parameters of complete trials, as first met."""
        return tuple(dict.fromkeys(name for trial in self.complete for name in trial.params))

    @cached_property
    def importances(self) -> Importances:
        """Share of each parameter in what makes trials differ."""
        return importances(self.trials)

    @cached_property
    def judged(self) -> tuple[float, ...]:
        """The values that importances are told by."""
        return tuple(value for _, value in judged(self.trials))

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

    def why_nothing_is_best(self) -> str:
        """What to say where there is no best trial."""
        if self.infeasible:
            return f"None of the {len(self.infeasible)} complete trials is feasible: each breaks a constraint."
        return self.why_nothing_is_complete()


_BAD_ENDINGS = {TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
