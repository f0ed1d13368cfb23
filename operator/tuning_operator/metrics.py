"""Prometheus series. Labels are phases, states and reasons, never names of objects: those would grow without bound."""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Gauge, Histogram, Info
from prometheus_client import Counter as PrometheusCounter

from tuning_api.status import ConditionStatus, ConditionType, Phase, Reason, StudyStatus
from tuning_operator.errors import TuningError
from tuning_operator.model import StudyKey, Trial, TrialState

_AS_ASKED = frozenset({Reason.ENDED, Reason.SUSPENDED})
"""Why a study may stand still without anything being wrong."""


@dataclass(frozen=True)
class _Counted:
    """What one study adds to the series."""

    phase: Phase
    trials: Counter[str]
    workers: int
    stalled: Reason | None


class Metrics:
    """The operator's series; one registry for each instance, so that tests do not meet."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        prefix = "tuningstudy"
        self._studies = Gauge(f"{prefix}_studies", "Studies by phase", ["phase"], registry=self.registry)
        self._trials = Gauge(f"{prefix}_trials", "Trials of all studies by state", ["state"], registry=self.registry)
        self._workers = Gauge(f"{prefix}_workers", "Workers that are running", registry=self.registry)
        self._stalled = Gauge(
            f"{prefix}_stalled_studies", "Studies that do not progress, by reason", ["reason"], registry=self.registry
        )
        self._passes = Histogram(f"{prefix}_pass_seconds", "Time of one pass over a study", registry=self.registry)
        self._errors = PrometheusCounter(
            f"{prefix}_pass_errors", "Passes that ended with an error", ["error"], registry=self.registry
        )
        self.overdue_passes = Gauge(
            f"{prefix}_overdue_passes", "Passes that take too long, and hold a thread", registry=self.registry
        )
        self.last_pass = Gauge(f"{prefix}_last_pass_timestamp_seconds", "End of the last pass", registry=self.registry)
        self.last_round = Gauge(
            f"{prefix}_last_round_timestamp_seconds",
            "When it was last decided which studies get a pass",
            registry=self.registry,
        )
        Info(f"{prefix}_build", "Versions", registry=self.registry).info(
            {name: version(name) for name in ("kopf", "optuna", "kubernetes")}
        )
        self._known: dict[StudyKey, _Counted] = {}
        # NB: counted when somebody asks: to count all studies in each pass would take longer than the pass.
        for phase in Phase:
            self._studies.labels(phase).set_function(partial(self._in_phase, phase))
        for reason in Reason:
            self._stalled.labels(reason).set_function(partial(self._stalled_for, reason))
        for state in TrialState:
            self._trials.labels(state).set_function(partial(self._in_state, state))
        self._workers.set_function(lambda: sum(one.workers for one in self._all()))

    @contextmanager
    def timed_pass(self) -> Iterator[None]:
        """Measure a pass."""
        with self._passes.time():
            yield
        self.last_pass.set_to_current_time()

    def count_error(self, error: Exception) -> None:
        """Count a pass that came to nothing, by its kind in the tree of errors; what is not in it is a mistake of ours."""
        self._errors.labels(type(error).__name__ if isinstance(error, TuningError) else "Bug").inc()

    def observe(self, key: StudyKey, status: StudyStatus, trials: Iterable[Trial] | None = None) -> None:
        """Count a study as it is now.

        Args:
            key: which one.
            status: what is said of it.
            trials: all of them; None where they cannot be read, and are what they were.
        """
        before = self._known.get(key)
        states = before.trials if before else Counter()
        if trials is not None:
            states = Counter(str(trial.state) for trial in trials)
        self._known[key] = _Counted(status.phase or Phase.PENDING, states, status.workers or 0, _stalled(status))

    def forget(self, key: StudyKey) -> None:
        """Stop counting a study that is gone."""
        self._known.pop(key, None)

    def _in_phase(self, phase: Phase) -> int:
        return sum(one.phase is phase for one in self._all())

    def _stalled_for(self, reason: Reason) -> int:
        return sum(one.stalled is reason for one in self._all())

    def _in_state(self, state: TrialState) -> int:
        return sum(one.trials[state] for one in self._all())

    def _all(self) -> list[_Counted]:
        return list(self._known.values())


def _stalled(status: StudyStatus) -> Reason | None:
    """Why nothing moves that should."""
    progressing = status.condition(ConditionType.PROGRESSING)
    if progressing is None or progressing.status is not ConditionStatus.FALSE:
        return None
    has_ended = status.phase in {Phase.COMPLETE, Phase.FAILED}
    return None if has_ended or progressing.reason in _AS_ASKED else progressing.reason
