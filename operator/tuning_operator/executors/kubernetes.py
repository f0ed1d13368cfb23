"""Workers as Jobs: reads TuningStudies, Jobs and pods, and says why a pod does not run in the words of whoever knows."""

from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain
from typing import Any

from sqlalchemy.engine import URL

from tuning_api import manifest, naming
from tuning_api.contract import ExitCode
from tuning_api.spec import GROUP, KIND, VERSION, StudySpec
from tuning_api.status import Reason, StudyStatus, read_status
from tuning_operator.cluster import Cluster
from tuning_operator.decide import pod_templates
from tuning_operator.decide.pod_templates import Restriction
from tuning_operator.errors import Conflict, Refused
from tuning_operator.model import Ending, Study, StudyKey, Trouble, Worker, WorkerState
from tuning_operator.render.job import WorkerDefaults, clashes, worker_job
from tuning_operator.render.secret import worker_secret
from tuning_operator.tenancy import Tenancy

Document = dict[str, Any]

_IMAGE_REASONS = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
    }
)
_OUT_OF_MEMORY = "OOMKilled"
_MOST_DIGITS = 9
"""Of a worker's index: a study has started fewer."""


class KubernetesExecutor:
    """Runs the workers of studies as Jobs."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        tenancy: Tenancy,
        worker_url: URL,
        defaults: WorkerDefaults,
        restriction: Restriction | None = None,
    ) -> None:
        self._cluster = cluster
        self._tenancy = tenancy
        self._worker_url = worker_url
        self._defaults = defaults
        self._restriction = restriction

    def study(self, key: StudyKey) -> Study | None:
        """See `Executor`. A study that is being deleted is gone for the controller."""
        document = self._document(key)
        if document is None:
            return None
        return checked(read_study(document), defaults=self._defaults, restriction=self._restriction)

    def glance(self, key: StudyKey) -> Study | None:
        """See `Executor`."""
        document = self._document(key)
        return _study(document, spec=None, fault=None) if document else None

    def _document(self, key: StudyKey) -> Document | None:
        document = self._cluster.study(key)
        return None if document is None or document["metadata"].get("deletionTimestamp") else document

    def workers(self, study: Study) -> tuple[Worker, ...]:
        """See `Executor`."""
        selector = naming.worker_selector(uid=study.uid)
        namespace = study.key.namespace
        jobs = self._cluster.jobs(namespace, selector=selector)
        pods = self._cluster.pods(namespace, selector=selector)
        return tuple(self._worker(job, pods) for job in jobs) + _orphans(jobs, pods)

    def prepare(self, study: Study) -> None:
        """See `Executor`."""
        namespace = study.key.namespace
        url = self._tenancy.worker_url(namespace, base=self._worker_url)
        secret = worker_secret(namespace=namespace, url=url, certificate=self._defaults.certificate)
        self._cluster.ensure_secret(secret)

    def start_worker(self, study: Study, index: int) -> None:
        """See `Executor`."""
        job = worker_job(study, index=index, defaults=self._defaults)
        try:
            self._cluster.create_job(job)
        except Conflict:
            self._check_owner(study, job["metadata"]["name"])

    def _check_owner(self, study: Study, name: str) -> None:
        """A Job of that name may have been created by an earlier pass that did not live to see it.

        Raises:
            Refused: it is not this study's.
        """
        found = self._cluster.job(study.key.namespace, name)
        if found is None or _is_of(study, found):
            return
        raise Refused(f"there is a Job {name} that does not belong to this study: delete it, or rename it")

    def stop_worker(self, study: Study, name: str) -> None:
        """See `Executor`."""
        self._cluster.delete_job(study.key.namespace, name)

    def write_status(self, study: Study, status: StudyStatus) -> None:
        """See `Executor`."""
        self._cluster.write_status(study.key, version=study.version, status=status.to_document())

    def tell(self, study: Study, *, reason: Reason, message: str, is_warning: bool) -> None:
        """See `Executor`."""
        self._cluster.create_event(_event(study, reason=reason, message=message, is_warning=is_warning))

    def _worker(self, job: Document, pods: list[Document]) -> Worker:
        own = [pod for pod in pods if _is_owned(pod, job)]
        worker = worker_view(job, own)
        if own or worker.state is not WorkerState.ACTIVE or worker.trouble:
            return worker
        return _with_creation_trouble(worker, self._cluster.events(_namespace(job), kind="Job", name=worker.name))


def read_study(document: Document) -> Study:
    """A TuningStudy as a value; a spec that cannot be read becomes a fault in words, never an exception."""
    spec, fault = manifest.read_spec(document)
    return _study(document, spec=spec, fault=fault)


def _study(document: Document, *, spec: StudySpec | None, fault: str | None) -> Study:
    metadata = document["metadata"]
    return Study(
        key=StudyKey(metadata["namespace"], metadata["name"]),
        uid=metadata["uid"],
        generation=metadata["generation"],
        spec=spec,
        fault=fault,
        status=read_status(document.get("status")),
        version=metadata.get("resourceVersion", ""),
    )


def checked(study: Study, *, defaults: WorkerDefaults, restriction: Restriction | None) -> Study:
    """The study; if its podTemplate fits no worker, or asks for more than it may, one without a spec but with why not."""
    template = study.spec.trial.pod_template if study.spec else None
    if not template:
        return study
    excess = pod_templates.faults(template, restriction) if restriction else ()
    fault = next(chain(excess, clashes(worker_job(study, index=0, defaults=defaults))), None)
    return replace(study, spec=None, fault=fault) if fault else study


def worker_view(job: Document, pods: list[Document]) -> Worker:
    """A Job and its pods as a worker."""
    status, metadata = job.get("status", {}), job["metadata"]
    live = [pod for pod in pods if _phase(pod) not in {"Succeeded", "Failed"}]
    state, ended, trouble = _job_state(status)
    newest = max(pods, key=lambda pod: pod["metadata"]["creationTimestamp"], default=None)
    if state is WorkerState.FAILED and newest:
        trouble = _last_words(newest) or trouble
    if state is WorkerState.ACTIVE:
        trouble = _queued(job) or next((found for pod in live if (found := _pod_trouble(pod))), None)
    return Worker(
        name=metadata["name"],
        index=_index(metadata),
        state=state,
        stopping="deletionTimestamp" in metadata,
        running=any(_phase(pod) == "Running" for pod in live),
        live_owners=frozenset(pod["metadata"]["uid"] for pod in live),
        endings={pod["metadata"]["uid"]: _ending(pod) for pod in pods if pod not in live},
        trouble=trouble,
        ended=ended,
    )


def _index(metadata: Document) -> int:
    """A worker's slot. NB: whoever may write Jobs can write the annotation, too."""
    text = str((metadata.get("annotations") or {}).get(naming.ANNOTATION_WORKER_INDEX, 0))
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS else 0


def _is_of(study: Study, job: Document) -> bool:
    return any(owner.get("uid") == study.uid for owner in job["metadata"].get("ownerReferences") or [])


def _orphans(jobs: list[Document], pods: list[Document]) -> tuple[Worker, ...]:
    """Pods that outlive their Job for as long as they take to stop: they still write to the database."""
    left = [pod for pod in pods if not any(_is_owned(pod, job) for job in jobs)]
    return tuple(
        Worker(
            name=pod["metadata"]["name"],
            index=-1,
            state=WorkerState.ACTIVE,
            stopping=True,
            running=_phase(pod) == "Running",
            live_owners=frozenset({pod["metadata"]["uid"]}),
        )
        for pod in left
        if _phase(pod) not in {"Succeeded", "Failed"}
    )


def _is_owned(pod: Document, job: Document) -> bool:
    return any(owner["uid"] == job["metadata"]["uid"] for owner in pod["metadata"].get("ownerReferences", []))


def _job_state(status: Document) -> tuple[WorkerState, datetime | None, Trouble | None]:
    for condition in status.get("conditions", []):
        if condition["status"] != "True":
            continue
        ended = _time(condition.get("lastTransitionTime"))
        if condition["type"] == "Complete":
            return WorkerState.SUCCEEDED, ended, None
        if condition["type"] == "Failed":
            words = condition.get("message") or condition.get("reason") or "the Job failed"
            return WorkerState.FAILED, ended, Trouble(Reason.WORKERS_FAILING, words)
    return WorkerState.ACTIVE, None, None


def _queued(job: Document) -> Trouble | None:
    queue = job["metadata"].get("labels", {}).get(naming.LABEL_KUEUE_QUEUE)
    if not queue or not job["spec"].get("suspend"):
        return None
    return Trouble(Reason.QUEUED_BY_KUEUE, f"the workers wait for Kueue to admit them from LocalQueue {queue}")


def _pod_trouble(pod: Document) -> Trouble | None:
    for condition in pod.get("status", {}).get("conditions", []):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            words = condition.get("message") or condition.get("reason", "no node fits")
            return Trouble(Reason.POD_UNSCHEDULABLE, f"pod {_name(pod)} cannot be scheduled: {words}")
    for container in pod.get("status", {}).get("containerStatuses", []):
        waiting = container.get("state", {}).get("waiting")
        if not waiting or waiting.get("reason") in {"ContainerCreating", "PodInitializing"}:
            continue
        words = waiting.get("message") or waiting.get("reason", "")
        if waiting.get("reason") in _IMAGE_REASONS:
            return Trouble(Reason.IMAGE_PULL, f"image {container['image']} cannot be pulled: {words}")
        return Trouble(Reason.WORKERS_FAILING, f"pod {_name(pod)} does not start: {waiting.get('reason')}: {words}")
    return None


def _with_creation_trouble(worker: Worker, events: list[Document]) -> Worker:
    """A Job without a pod: the Job controller says why in an event, for instance that a quota is used up."""
    failures = [str(event.get("message", "")) for event in events if event.get("reason") == "FailedCreate"]
    if not failures:
        return worker
    reason = Reason.QUOTA_EXCEEDED if "exceeded quota" in failures[-1] else Reason.WORKERS_FAILING
    return replace(worker, trouble=Trouble(reason, f"Job {worker.name} cannot create its pod: {failures[-1]}"))


def _terminated(pod: Document) -> Document | None:
    statuses = pod.get("status", {}).get("containerStatuses", [])
    return next((item["state"]["terminated"] for item in statuses if "terminated" in item.get("state", {})), None)


def _ending(pod: Document) -> Ending:
    """NB: 137 alone is ambiguous (SIGKILL after the grace period is 137 too); only the reason says out of memory."""
    disrupted = any(
        condition["type"] == "DisruptionTarget" and condition["status"] == "True"
        for condition in pod.get("status", {}).get("conditions", [])
    )
    terminated = _terminated(pod)
    if terminated and terminated.get("reason") == _OUT_OF_MEMORY:
        return Ending.OUT_OF_MEMORY
    if disrupted or "deletionTimestamp" in pod["metadata"] or terminated is None:
        return Ending.INTERRUPTED
    return Ending.INTERRUPTED if terminated["exitCode"] in {0, ExitCode.INTERRUPTED} else Ending.CRASHED


def _last_words(pod: Document) -> Trouble | None:
    terminated = _terminated(pod)
    if terminated is None:
        return None
    if terminated.get("reason") == _OUT_OF_MEMORY:
        advice = "raise the memory limit of container trial in trial.podTemplate"
        return Trouble(Reason.WORKERS_FAILING, f"pod {_name(pod)} was killed for its memory (OOMKilled): {advice}")
    lines = [line for line in terminated.get("message", "").strip().splitlines() if line.strip()]
    words = lines[-1] if lines else terminated.get("reason", "")
    return Trouble(Reason.WORKERS_FAILING, f"pod {_name(pod)} ended with exit code {terminated['exitCode']}: {words}")


def _event(study: Study, *, reason: Reason, message: str, is_warning: bool) -> Document:
    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": f"{study.key.name}.", "namespace": study.key.namespace},
        "involvedObject": {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": KIND,
            "namespace": study.key.namespace,
            "name": study.key.name,
            "uid": study.uid,
        },
        "type": "Warning" if is_warning else "Normal",
        "reason": str(reason),
        "message": message[:1024],
        "source": {"component": naming.MANAGED_BY},
        "reportingComponent": naming.MANAGED_BY,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }


def _phase(pod: Document) -> str:
    return str(pod.get("status", {}).get("phase", "Pending"))


def _name(pod: Document) -> str:
    return str(pod["metadata"]["name"])


def _namespace(document: Document) -> str:
    return str(document["metadata"]["namespace"])


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
