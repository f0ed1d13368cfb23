"""`tuningstudy run`: the operator's controller over a manifest file, until the study has ended.

Whatever stops this process, running it again goes on: what a study knows is in its database, and workers that outlived
the last run are found by their locks.
"""

import gc
import shlex
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path

import optuna
from optuna.storages._cached_storage import _CachedStorage
from sqlalchemy.engine import URL

from tuning_api import manifest
from tuning_api.status import ConditionType, Phase, Reason
from tuning_operator.charts.source import StudyData, read_study
from tuning_operator.charts.wording import counted
from tuning_operator.cli.signals import Signals
from tuning_operator.cli.views import JsonView, PlainView, SilentView, View
from tuning_operator.controller import Controller, Pace
from tuning_operator.errors import DatabaseUnavailable
from tuning_operator.executors.local import LocalExecutor
from tuning_operator.importances import importances
from tuning_operator.local.database import OneDatabase
from tuning_operator.local.errors import BadInputError
from tuning_operator.local.place import Place, choose
from tuning_operator.local.progress import Progress, progress
from tuning_operator.local.resources import Machine
from tuning_operator.metrics import Metrics
from tuning_operator.model import Clock, StudyKey
from tuning_operator.studies import OptunaStudies

SECONDS_BETWEEN_PASSES = 0.5
_OVER = frozenset({Phase.COMPLETE, Phase.FAILED})


class Exit(IntEnum):
    """How the command ends."""

    COMPLETE = 0
    FAILED = 1
    BAD_INPUT = 2
    SUSPENDED = 3
    INTERRUPTED = 130


@dataclass(kw_only=True)
class Run:
    """A study that this process runs."""

    key: StudyKey
    place: Place
    controller: Controller
    executor: LocalExecutor
    studies: OptunaStudies
    rows: _CachedStorage
    view: View
    signals: Signals
    requests_heeded: int = field(default=0)

    def data(self) -> StudyData:
        """The rows as they are now."""
        return read_study(self.rows, namespace=self.key.namespace, study=self.key.name)

    def progress(self) -> Progress:
        """How far the study is."""
        workers = self.executor.status.workers or 0
        return progress(self.data(), status=self.executor.status, workers=workers, now=datetime.now(UTC))


def run(
    file: Path,
    *,
    parallelism: int | None,
    database_url: str | None,
    folder: Path | None,
    as_json: bool,
    with_report: bool,
) -> Exit:
    """Run a study to its end.

    Raises:
        BadInputError: it cannot be run.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    place = choose(file, database=database_url, folder=folder)
    spec, fault = manifest.read_spec(place.document)
    if spec is None:
        raise BadInputError(f"{file}: {fault}")
    place.folder.create()
    view = _view(as_json=as_json)
    database = OneDatabase(place.database)
    with place.folder.held(command=_command()) as last_run, _held(database, place), Signals() as signals, view:
        place.remember()
        this = _wire(place, database, parallelism=parallelism, view=view, signals=signals)
        _stop_the_clock(this, last_run)
        _greet(this)
        _follow(this)
        exit_code = _exit(this)
    if isinstance(view, JsonView):
        view.status(this.executor.status)
    else:
        _conclude(this, exit_code, with_report=with_report)
    return exit_code


def _view(*, as_json: bool) -> View:
    if as_json:
        return JsonView()
    from tuning_operator.cli import live  # noqa: PLC0415 - rich is imported only to be looked at

    return live.LiveView() if live.is_wanted() else PlainView()


@contextmanager
def _held(database: OneDatabase, place: Place) -> Iterator[None]:
    """The database, opened for the first time; what is wrong with it now is the person's to mend."""
    with ExitStack() as stack:
        try:
            database.open(place.key.namespace)
            stack.enter_context(database.held(place.key.name))
        except DatabaseUnavailable as error:
            raise BadInputError(f"{_named(place.database)}: the database cannot be used: {error}") from error
        yield


def _wire(place: Place, database: OneDatabase, *, parallelism: int | None, view: View, signals: Signals) -> Run:
    studies = OptunaStudies(database)
    executor = LocalExecutor(
        place.file,
        folder=place.folder,
        database=place.database,
        machine=Machine.here(parallelism=parallelism),
        listener=view.event,
    )
    return Run(
        key=place.key,
        place=place,
        controller=Controller(
            executor=executor, studies=studies, links=lambda *_: None, metrics=Metrics(), pace=Pace(status_seconds=0)
        ),
        executor=executor,
        studies=studies,
        rows=_CachedStorage(database.open(place.key.namespace)),
        view=view,
        signals=signals,
    )


def _named(database: URL) -> str:
    """A database as a person knows it, without its password."""
    if database.get_backend_name() == "sqlite":
        return str(database.database)
    return database.render_as_string(hide_password=True)


def _stop_the_clock(this: Run, last_run: datetime | None) -> None:
    """A run that was killed could not stop the clock of spec.timeout: it stood still since that run's last sign of life."""
    record = this.studies.read(this.key)
    if record and record.clock.running_since and last_run:
        this.studies.save(this.key, clock=Clock(record.clock.elapsed_at(last_run)))


def _greet(this: Run) -> None:
    record = this.studies.read(this.key)
    ended = sum(trial.is_ended for trial in record.trials) if record else 0
    has_begun = record is not None and bool(record.trials)
    if not has_begun:
        this.view.say(f"running study {this.key.name} in {this.place.folder.path}")
    else:
        so_far = counted(ended, "trial")
        this.view.say(f"going on with study {this.key.name} in {this.place.folder.path}: {so_far} ended before")


# The loop


def _follow(this: Run) -> None:
    is_first = True
    while True:
        _heed(this)
        this.controller.reconcile(this.key)
        this.place.folder.still_run()
        if is_first and (fault := _standstill(this.executor, Reason.INVALID_SPEC)):
            raise BadInputError(fault)
        is_first = False
        gc.enable()  # see `main`
        _show(this)
        if _has_ended(this):
            return
        this.signals.wait(SECONDS_BETWEEN_PASSES)


def _heed(this: Run) -> None:
    """Ctrl-C once: suspend the study, which stops its workers in order. Twice: end them at once."""
    if this.signals.hung_up:
        this.view = SilentView()
    if this.signals.requests == this.requests_heeded:
        return
    this.requests_heeded = this.signals.requests
    if this.requests_heeded == 1:
        this.executor.stopping = True
        this.executor.stop_all()  # also while the database is away, and no pass comes so far
        this.view.say("stopping: running trials save their state and are queued again (Ctrl-C again: at once)")
    else:
        this.view.say("ending all workers at once")
        this.executor.kill_all()


def _standstill(executor: LocalExecutor, reason: Reason) -> str | None:
    """The sentence about why the study does not advance, if this is the reason."""
    condition = executor.status.condition(ConditionType.PROGRESSING)
    return condition.message if condition and condition.reason is reason else None


def _show(this: Run) -> None:
    try:
        this.view.update(this.progress())
    except (DatabaseUnavailable, KeyError):
        return  # the pass has said so
    except OSError:
        this.view = SilentView()  # the terminal, or whoever read us, is gone


def _has_ended(this: Run) -> bool:
    """NB: while the database is away, the phase is that of the last pass that could read it."""
    if _standstill(this.executor, Reason.DATABASE_UNAVAILABLE):
        return this.executor.stopping and not this.executor.has_workers
    phase = this.executor.status.phase
    if phase not in _OVER and phase is not Phase.SUSPENDED:
        return False
    if not this.executor.has_workers:
        return not this.executor.status.workers  # else one more pass writes that they are gone
    this.executor.stop_all()  # idle ones would wait for a while
    return False


def _exit(this: Run) -> Exit:
    if _standstill(this.executor, Reason.DATABASE_UNAVAILABLE):
        return Exit.INTERRUPTED
    match this.executor.status.phase:
        case Phase.COMPLETE:
            return Exit.COMPLETE
        case Phase.FAILED:
            return Exit.FAILED
        case _:
            return Exit.INTERRUPTED if this.executor.stopping else Exit.SUSPENDED


# The end


def _conclude(this: Run, exit_code: Exit, *, with_report: bool) -> None:
    from tuning_operator.cli import results  # noqa: PLC0415 - not before there are any

    if _standstill(this.executor, Reason.DATABASE_UNAVAILABLE):
        results.say(
            "interrupted while the database is away: what has ended is in it, the next run queues the rest again"
        )
        results.say(f"  go on with: {_command()}")
        return
    now = this.progress()
    if exit_code in {Exit.INTERRUPTED, Exit.SUSPENDED}:
        why = "interrupted" if exit_code is Exit.INTERRUPTED else "suspended by its manifest (spec.suspend)"
        results.say(f"{why}: {len(now.ended)} of {now.total} trials have ended, nothing is lost")
        results.say(
            f"  go on with: {_command() if exit_code is Exit.INTERRUPTED else 'spec.suspend: false, and the same'}"
        )
        return
    report = _written_report(this) if with_report else None
    results.conclusion(
        now,
        importances=importances(this.data().trials),
        place=this.place,
        report=report,
        logs=this.place.folder.logs,
    )


def _written_report(this: Run) -> Path:
    from tuning_operator.cli import report  # noqa: PLC0415 - plotly takes a second

    return report.write(this.data(), this.place.folder.report)


def _command() -> str:
    """The command as the person gave it."""
    return shlex.join(["tuningstudy", *sys.argv[1:]])
