"""The two gateways in memory, so that the controller can be interrupted between any two of its steps."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import count

from tests.support.builders import NOW, a_study

from tuning_api.contract import Owner
from tuning_api.spec import StudySpec
from tuning_api.status import Reason, StudyStatus
from tuning_operator import planning
from tuning_operator.model import (
    Clock,
    Ending,
    Record,
    Study,
    StudyKey,
    TakenOver,
    Trial,
    TrialsPlan,
    TrialState,
    Worker,
    WorkerState,
)


class Crash(BaseException):
    """The process ends here; nobody catches it but the test."""


@dataclass
class Fuse:
    """Lets so many writes through, and ends the process at the next one; None: never."""

    left: int | None = None

    def burn(self) -> None:
        """Called before every write."""
        if self.left is None:
            return
        if self.left == 0:
            self.left = None
            raise Crash
        self.left -= 1


@dataclass
class MemoryStudies:
    """`Studies` with one study, and what workers do to its trials."""

    fuse: Fuse
    spec: dict[str, object] | None = None
    clock: Clock = field(default_factory=Clock)
    status: StudyStatus | None = None
    trials: list[Trial] = field(default_factory=list)
    earlier: dict[str, int] = field(default_factory=dict)
    """Other studies, and how many of their trials fit."""
    forgotten: int = 0
    warm_started: dict[str, int] = field(default_factory=dict)
    is_away: Callable[[], None] = lambda: None

    def read(self, _key: StudyKey) -> Record | None:
        """See `Studies`."""
        self.is_away()
        return (
            None
            if self.spec is None
            else Record(self.spec, self.clock, tuple(self.trials), warm_started=dict(self.warm_started))
        )

    def open(self, _key: StudyKey, spec: StudySpec) -> None:
        """See `Studies`."""
        self.fuse.burn()
        self.spec = spec.to_document()

    def take_over(self, _key: StudyKey, _spec: StudySpec, source: str) -> TakenOver | None:
        """See `Studies`."""
        if source not in self.earlier:
            return None
        self.fuse.burn()
        self.warm_started[source] = self.earlier[source]
        return TakenOver(source, taken=self.earlier[source])

    def carry_out(self, key: StudyKey, plan: TrialsPlan, *, spec: StudySpec, trials: tuple[Trial, ...]) -> None:
        """See `Studies`: the same steps in the same order as the real gateway, each of which may be the last."""
        for trial in plan.cancel:
            if self.trials[trial.number].state is TrialState.WAITING:
                self._write(trial, state=TrialState.FAIL, cancelled=True)
        for abandon in plan.abandon:
            self._end(abandon.trial, failure=abandon.failure)
        for requeue in plan.requeue:
            self._end(requeue.trial, requeued=str(requeue.because))
        for lost in (*(item.trial for item in plan.requeue), *plan.successors):
            if self.trials[lost.number].state is TrialState.FAIL:
                self._add(params=lost.params, fixed=lost.fixed | lost.params, given=lost.given, retry_of=lost.number)
        for item in planning.additions(spec, study=key.name, trials=trials, enqueue=plan.enqueue, add=plan.add):
            self._add(fixed=item.params, given=item.given)

    def save(self, _key: StudyKey, *, clock: Clock | None = None, status: StudyStatus | None = None) -> None:
        """See `Studies`."""
        self.fuse.burn()
        self.clock, self.status = clock or self.clock, status or self.status

    def delete(self, _key: StudyKey) -> None:
        """See `Studies`."""
        self.spec, self.trials = None, []

    def forget(self, _key: StudyKey) -> None:
        """See `Studies`; counts how often."""
        self.forgotten += 1

    def claim(self, owner: str) -> bool:
        """A worker takes the oldest waiting trial."""
        waiting = next((trial for trial in self.trials if trial.state is TrialState.WAITING), None)
        if waiting:
            owned = Owner(id=owner, name=owner)
            self.trials[waiting.number] = replace(waiting, state=TrialState.RUNNING, owner=owned, started=NOW)
        return waiting is not None

    def finish(self, owner: str, state: TrialState) -> None:
        """A worker tells how its trial ended."""
        for trial in self.trials:
            if trial.state is TrialState.RUNNING and trial.owner and trial.owner.id == owner:
                values = (0.5,) if state is TrialState.COMPLETE else ()
                self.trials[trial.number] = replace(trial, state=state, ended=NOW, values=values)

    def _end(self, trial: Trial, **mark: object) -> None:
        if self.trials[trial.number].state is TrialState.RUNNING:
            self._write(trial, **mark)
            self._write(trial, state=TrialState.FAIL, ended=NOW)

    def _write(self, trial: Trial, **changes: object) -> None:
        self.fuse.burn()
        self.trials[trial.number] = replace(self.trials[trial.number], **changes)  # type: ignore[arg-type]

    def _add(self, **fields: object) -> None:
        self.fuse.burn()
        number = len(self.trials)
        self.trials.append(Trial(1000 + number, number, TrialState.WAITING, **fields))  # type: ignore[arg-type]


@dataclass
class MemoryExecutor:
    """`Executor` whose workers are names."""

    fuse: Fuse
    spec: StudySpec
    status: StudyStatus = field(default_factory=StudyStatus)
    generation: int = 1
    statuses_written: int = 0
    told: list[tuple[Reason, str]] = field(default_factory=list)
    prepared: list[str] = field(default_factory=list)
    on_write: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self._workers: dict[int, Worker] = {}
        self._identities = count()

    def study(self, _key: StudyKey) -> Study | None:
        """See `Executor`."""
        return replace(a_study(spec=self.spec, status=self.status), generation=self.generation)

    def glance(self, _key: StudyKey) -> Study | None:
        """See `Executor`."""
        return replace(a_study(status=self.status), generation=self.generation, spec=None)

    def workers(self, _study: Study) -> tuple[Worker, ...]:
        """See `Executor`."""
        return tuple(self._workers.values())

    def prepare(self, study: Study) -> None:
        """See `Executor`."""
        self.fuse.burn()
        self.prepared.append(study.key.namespace)

    def start_worker(self, _study: Study, index: int) -> None:
        """See `Executor`: the name follows from the index, so that a second start is none."""
        self.fuse.burn()
        if index not in self._workers:
            owner = f"pod-{next(self._identities)}"
            state = WorkerState.ACTIVE
            self._workers[index] = Worker(
                name=f"digits-{index}", index=index, state=state, running=True, live_owners=frozenset({owner})
            )

    def stop_worker(self, _study: Study, name: str) -> None:
        """See `Executor`."""
        self.fuse.burn()
        self._workers = {index: worker for index, worker in self._workers.items() if worker.name != name}

    def write_status(self, _study: Study, status: StudyStatus) -> None:
        """See `Executor`."""
        self.fuse.burn()
        self.on_write()
        self.status = status
        self.statuses_written += 1

    def tell(self, _study: Study, *, reason: Reason, message: str, is_warning: bool) -> None:  # noqa: ARG002
        """See `Executor`."""
        self.fuse.burn()
        self.told.append((reason, message))

    def owners(self) -> Iterator[str]:
        """The identities that work."""
        for worker in self._workers.values():
            yield from worker.live_owners

    def lose(self, owner: str, ending: Ending) -> None:
        """A worker's process ends."""
        for index, worker in self._workers.items():
            if owner in worker.live_owners:
                state = WorkerState.FAILED if ending is not Ending.INTERRUPTED else WorkerState.SUCCEEDED
                self._workers[index] = replace(
                    worker,
                    state=state,
                    running=False,
                    live_owners=frozenset(),
                    endings={owner: ending},
                    ended=long_ago(),
                )


def long_ago() -> datetime:
    """So long ago that no failing worker is waited for."""
    return NOW.replace(year=2020)


def survive(step: Callable[[], None]) -> None:
    """Take a step in a process that may end in the middle of it."""
    with suppress(Crash):
        step()
