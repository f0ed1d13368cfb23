"""Prometheus series. Labels are phases, states and reasons, never names of objects: those would grow without bound."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Gauge, Histogram, Info
from prometheus_client import Counter as PrometheusCounter

from tuning_api.status import Phase, StudyStatus
from tuning_operator.model import Snapshot, StudyKey


class Metrics:
    """The operator's series; one registry for each instance, so that tests do not meet."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        prefix = "tuningstudy"
        self._studies = Gauge(f"{prefix}_studies", "Studies by phase", ["phase"], registry=self.registry)
        self._trials = Gauge(f"{prefix}_trials", "Trials of all studies by state", ["state"], registry=self.registry)
        self._workers = Gauge(f"{prefix}_workers", "Workers that are running", registry=self.registry)
        self._passes = Histogram(f"{prefix}_pass_seconds", "Time of one pass over a study", registry=self.registry)
        self.errors = PrometheusCounter(
            f"{prefix}_pass_errors", "Passes that ended with an error", ["error"], registry=self.registry
        )
        self.last_pass = Gauge(f"{prefix}_last_pass_timestamp_seconds", "End of the last pass", registry=self.registry)
        Info(f"{prefix}_build", "Versions", registry=self.registry).info(
            {name: version(name) for name in ("kopf", "optuna", "kubernetes")}
        )
        self._known: dict[StudyKey, tuple[Phase, Counter[str], int]] = {}
        self._lock = threading.Lock()

    @contextmanager
    def timed_pass(self) -> Iterator[None]:
        """Measure a pass."""
        with self._passes.time():
            yield
        self.last_pass.set_to_current_time()

    def observe(self, key: StudyKey, snapshot: Snapshot, status: StudyStatus) -> None:
        """Count a study as it is now."""
        states = Counter(str(trial.state) for trial in snapshot.record.trials)
        with self._lock:
            self._known[key] = status.phase or Phase.PENDING, states, status.workers or 0
            self._publish()

    def forget(self, key: StudyKey) -> None:
        """Stop counting a study that is gone."""
        with self._lock:
            if self._known.pop(key, None):
                self._publish()

    def _publish(self) -> None:
        for phase in Phase:
            self._studies.labels(phase).set(sum(known[0] is phase for known in self._known.values()))
        states: Counter[str] = sum((known[1] for known in self._known.values()), Counter())
        for state in ("WAITING", "RUNNING", "COMPLETE", "PRUNED", "FAIL"):
            self._trials.labels(state).set(states[state])
        self._workers.set(sum(known[2] for known in self._known.values()))
