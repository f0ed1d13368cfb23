"""Workers as processes of this machine: reads the manifest from its file, and keeps the status beside the study."""

import hashlib
import json
import uuid
from collections.abc import Callable
from pathlib import Path

from sqlalchemy.engine import URL

from tuning_api import manifest
from tuning_api.contract import Env, ExitCode
from tuning_api.manifest import ManifestError
from tuning_api.spec import Checkpoints, StudySpec, Trial
from tuning_api.status import Reason, StudyStatus, read_status
from tuning_operator.local import interpreter, resources
from tuning_operator.local.errors import BadInputError
from tuning_operator.local.folder import StudyFolder, read_json, write_json
from tuning_operator.local.processes import Identity, Process, Processes, new_identity
from tuning_operator.local.resources import Machine
from tuning_operator.model import Ending, Study, StudyKey, Trouble, Worker, WorkerState

IDLE_SECONDS = 10
_LAST_BYTES = 4096

Listener = Callable[[Reason, str, bool], None]
"""Takes transitions: reason, sentence, and whether it is a warning."""


class LocalExecutor:
    """Runs the workers of one study as processes.

    Attributes:
        stopping: the person asked to stop: the study is suspended, whatever its manifest says.
    """

    def __init__(
        self, file: Path, *, folder: StudyFolder, database: URL, machine: Machine, listener: Listener | None = None
    ) -> None:
        self.stopping = False
        self._file = file
        self._folder = folder
        self._database = database
        self._machine = machine
        self._listener = listener
        self._status = read_status(read_json(folder.status))
        self._processes = Processes(folder.workers, folder.logs)

    def study(self, key: StudyKey) -> Study:
        """See `Executor`. The file is read anew each time, so that an edit takes effect while the study runs."""
        spec, fault = self._read(key)
        generation = self._generation(spec)
        try:
            spec = self._adapted(spec) if spec else None
        except BadInputError as error:
            spec, fault = None, str(error)
        return Study(
            key=key,
            uid=str(uuid.uuid5(uuid.NAMESPACE_URL, self._folder.path.as_uri())),
            generation=generation,
            spec=spec,
            fault=fault,
            status=self._status,
        )

    def glance(self, key: StudyKey) -> Study:
        """See `Executor`. There is one study, and its author waits for it."""
        return self.study(key)

    def workers(self, study: Study) -> tuple[Worker, ...]:  # noqa: ARG002 - a folder is one study's
        """See `Executor`."""
        return tuple(self._worker(process) for process in self._processes.all())

    def prepare(self, study: Study) -> None:
        """See `Executor`: the URL travels in the environment of each worker."""

    def start_worker(self, study: Study, index: int) -> None:
        """See `Executor`."""
        if study.spec is None:
            return
        used = [gpu for process in self._processes.all() if process.is_alive for gpu in process.identity.gpus]
        gpus = resources.share_of_gpus(self._machine.gpus, used, wanted=study.spec.trial.gpus)
        identity = new_identity(study.key.name, index, gpus=gpus)
        environment = worker_environment(
            self._machine,
            identity=identity,
            study=study.key.name,
            database=self._database,
            folder=self._folder,
            code=self._file.absolute().parent,
            workers=study.spec.parallelism,
            checkpoints=study.spec.trial.checkpoints.place if study.spec.trial.checkpoints else None,
        )
        self._processes.start(
            identity, interpreter.COMMAND, environment=environment, folder=self._file.absolute().parent
        )

    def stop_worker(self, study: Study, name: str) -> None:  # noqa: ARG002
        """See `Executor`."""
        self._processes.stop(name)

    def write_status(self, study: Study, status: StudyStatus) -> None:  # noqa: ARG002
        """See `Executor`."""
        self._status = status
        write_json(self._folder.status, status.to_document())

    def tell(self, study: Study, *, reason: Reason, message: str, is_warning: bool) -> None:  # noqa: ARG002
        """See `Executor`."""
        if self._listener:
            self._listener(reason, message, is_warning)

    @property
    def status(self) -> StudyStatus:
        """The status as it was last written."""
        return self._status

    @property
    def has_workers(self) -> bool:
        """Whether any worker may still write to the database."""
        return any(process.is_alive for process in self._processes.all())

    def stop_all(self) -> None:
        """Ask all workers to stop."""
        for process in self._processes.all():
            self._processes.stop(process.identity.name)

    def kill_all(self) -> None:
        """End all workers at once; their trials are queued again by the next pass."""
        for process in self._processes.all():
            if process.is_alive:
                self._processes.kill(process.identity.name)

    def _read(self, key: StudyKey) -> tuple[StudySpec | None, str | None]:
        """NB: an editor may be in the middle of a save: then the study goes on as it was, and says so."""
        try:
            document = manifest.load(self._file)
        except ManifestError as error:
            return None, str(error)
        if (name := manifest.name_of(document)) != key.name:
            return None, f"{self._file}: metadata.name is {name} now, and this is a run of {key.name}"
        return manifest.read_spec(document)

    def _adapted(self, spec: StudySpec) -> StudySpec:
        """The spec on this machine, and after Ctrl-C."""
        workers = resources.workers_at_once(
            parallelism=spec.parallelism,
            chosen=self._machine.parallelism,
            gpus=len(self._machine.gpus),
            gpus_each=spec.trial.gpus,
        )
        changes = {"parallelism": workers, "suspend": spec.suspend or self.stopping, "trial": self._trial(spec.trial)}
        return spec.model_copy(update=changes)

    def _trial(self, trial: Trial) -> Trial:
        """A claim is the study's folder here."""
        if trial.checkpoints is None or trial.checkpoints.uri:
            return trial
        here = Checkpoints(uri=self._folder.checkpoints.absolute().as_uri(), keep=trial.checkpoints.keep)
        return trial.model_copy(update={"checkpoints": here})

    def _generation(self, spec: StudySpec | None) -> int:
        """Grows whenever the spec is another one, as the API server's does; a file that cannot be read changes nothing."""
        record = read_json(self._folder.record)
        generation = int(record.get("generation", 0))
        if spec is None:
            return generation
        digest = hashlib.sha256(json.dumps(spec.to_document(), sort_keys=True).encode()).hexdigest()
        if digest != record.get("digest"):
            generation += 1
            write_json(self._folder.record, record | {"generation": generation, "digest": digest})
        return generation

    def _worker(self, process: Process) -> Worker:
        code = process.exit_code
        is_failure = code is not None and not _is_in_order(process)
        return worker_view(process, last_words=self._last_words(process.identity.name) if is_failure else "")

    def _last_words(self, name: str) -> str:
        with self._processes.log(name).open("rb") as file:
            file.seek(max(0, self._processes.log(name).stat().st_size - _LAST_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


def worker_view(process: Process, *, last_words: str) -> Worker:
    """A process as a worker."""
    identity = process.identity
    if process.is_alive:
        return Worker(
            name=identity.name,
            index=identity.index,
            state=WorkerState.ACTIVE,
            stopping=process.kill_at is not None,
            running=True,
            live_owners=frozenset({identity.id}),
        )
    is_in_order, code = _is_in_order(process), process.exit_code or 0
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return Worker(
        name=identity.name,
        index=identity.index,
        state=WorkerState.SUCCEEDED if is_in_order else WorkerState.FAILED,
        endings={identity.id: Ending.INTERRUPTED if is_in_order else Ending.CRASHED},
        trouble=None if is_in_order else Trouble(Reason.WORKERS_FAILING, f"worker {identity.name} {how}: {last_words}"),
        ended=process.ended,
    )


def _is_in_order(process: Process) -> bool:
    """Whether a worker ended as it should: nothing was left, or it was asked to; how an adopted one ended is not known."""
    was_asked = process.kill_at is not None
    return was_asked or process.exit_code in {None, ExitCode.NOTHING_LEFT, ExitCode.INTERRUPTED}


def worker_environment(
    machine: Machine,
    *,
    identity: Identity,
    study: str,
    database: URL,
    folder: StudyFolder,
    code: Path,
    workers: int,
    checkpoints: str | None = None,
) -> dict[str, str]:
    """The environment of a worker: the person's own, the contract's, and its share of the machine."""
    inherited = machine.environment
    threads = resources.threads(cores=machine.cores, workers=workers)
    own = {
        Env.DATABASE_URL.value: database.render_as_string(hide_password=False),
        Env.STUDY.value: study,
        Env.WORKER_ID.value: identity.id,
        Env.WORKER_NAME.value: identity.name,
        Env.SCRATCH.value: str(folder.scratch / identity.name),
        Env.CHECKPOINTS.value: checkpoints or str(folder.checkpoints),
        Env.IDLE_SECONDS.value: str(IDLE_SECONDS),
        resources.THREADS: inherited.get(resources.THREADS) or str(threads),
    }
    if machine.gpus:
        own[resources.VISIBLE] = ",".join(identity.gpus)
    return interpreter.environment(code, inherited) | own
