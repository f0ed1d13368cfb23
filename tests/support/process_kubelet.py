"""A small kubelet for tests: it runs each pod's container as a local process, so that whole-system tests take seconds.

It speaks to a real API server as a kubelet does (binds, reports, stops with grace, deletes), and the real Job controller
reacts to it. It stands beside the tests on a real kubelet and does not replace them: there are no images, no cgroups and
no network of the pods' own.

A process that has torch imported already forks for each pod that runs a worker: a pod then starts in milliseconds.
"""

import base64
import contextlib
import json
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kubernetes import config
from kubernetes.client import ApiClient

Document = dict[str, Any]

NODE = "process-node"
POLL_SECONDS = 0.1
LAST_LINES = 2048
LONGEST_GRACE = 10.0
_REASONS = {0: "Completed"}


@dataclass
class _Running:
    """A pod's process."""

    pid: int
    wait: Callable[[], int | None]
    log: Path
    stopped_at: float | None = None
    killed: bool = False
    oom: bool = False


@dataclass
class ProcessKubelet:
    """Runs the pods of a control plane.

    Attributes:
        kubeconfig: an administrator's.
        directory: logs and the pods' volumes.
        gpus: GPUs that the node advertises; pods that ask for more than are free stay Pending.
        unpullable: images that cannot be pulled.
        overrides: environment variables that every container gets, such as a database's address as processes see it.
    """

    kubeconfig: Path
    directory: Path
    gpus: int = 8
    unpullable: frozenset[str] = frozenset()
    overrides: dict[str, str] = field(default_factory=dict)

    def __enter__(self) -> Self:
        configuration = ApiClient().configuration
        config.load_kube_config(config_file=str(self.kubeconfig), client_configuration=configuration)
        self._client = ApiClient(configuration)
        self._running: dict[str, _Running] = {}
        self._ended: dict[str, Document] = {}
        self._stop = threading.Event()
        self._zygote = _Zygote()
        self.directory.mkdir(parents=True, exist_ok=True)
        self._call("POST", "/api/v1/nodes", {"kind": "Node", "metadata": {"name": NODE}}, conflict_ok=True)
        self._thread = threading.Thread(target=self._run, name="kubelet", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(30)
        for process in self._running.values():
            _signal(process.pid, signal.SIGKILL)
        self._zygote.close()
        self._client.rest_client.pool_manager.clear()  # or its connections are closed by whatever collects garbage next

    @property
    def running(self) -> tuple[str, ...]:
        """UIDs of the pods whose processes run."""
        return tuple(sorted(self._running))

    def kill(self, uid: str, number: signal.Signals = signal.SIGKILL, *, oom: bool = False) -> None:
        """Send a signal to a pod's process; `oom` makes the kubelet report what the kernel's killer does."""
        process = self._running[uid]
        process.oom = oom
        _signal(process.pid, number)

    def logs(self, uid: str) -> str:
        """What a pod has printed."""
        return (self.directory / uid / "log").read_text(errors="replace")

    def _run(self) -> None:
        """Level-triggered, like a kubelet's sync loop: look at all pods, bring each one step further."""
        while not self._stop.wait(POLL_SECONDS):
            try:
                pods = self._call("GET", "/api/v1/pods")["items"]
            except OSError:
                continue  # the API server is away; processes go on
            for pod in pods:
                with contextlib.suppress(OSError):
                    self._sync(pod)

    def _sync(self, pod: Document) -> None:
        """NB: what is not reported now, since the API server is away, is reported in a later round."""
        uid, phase = pod["metadata"]["uid"], pod.get("status", {}).get("phase", "Pending")
        process = self._running.get(uid)
        if process is not None and (code := process.wait()) is not None:
            self._ended[uid] = _ended(pod, process, code)
            del self._running[uid]
            process = None
        if uid in self._ended and phase not in {"Succeeded", "Failed"}:
            self._report(pod, self._ended[uid])
        elif "deletionTimestamp" in pod["metadata"]:
            self._terminate(pod, process)
        elif process is None and phase == "Pending" and uid not in self._ended:
            self._start(pod)
        elif process is not None and phase == "Pending":
            self._report(pod, _started(pod["spec"]["containers"][0]))

    def _terminate(self, pod: Document, process: _Running | None) -> None:
        if process is None:
            path = f"{_path(pod)}?gracePeriodSeconds=0"
            self._call("DELETE", path, missing_ok=True)
            return
        grace = min(pod["metadata"].get("deletionGracePeriodSeconds", 30), LONGEST_GRACE)
        if process.stopped_at is None:
            process.stopped_at = time.monotonic()
            _signal(process.pid, signal.SIGTERM)
        elif time.monotonic() > process.stopped_at + grace and not process.killed:
            process.killed = True
            _signal(process.pid, signal.SIGKILL)

    def _start(self, pod: Document) -> None:
        container = pod["spec"]["containers"][0]
        if trouble := self._trouble(pod, container):
            self._report(pod, trouble)
            return
        if not pod["spec"].get("nodeName"):
            target = {"apiVersion": "v1", "kind": "Node", "name": NODE}
            self._call("POST", f"{_path(pod)}/binding", {"metadata": {"name": _name(pod)}, "target": target})
        uid = pod["metadata"]["uid"]
        folder = self.directory / uid
        folder.mkdir(parents=True, exist_ok=True)
        environment = self._environment(pod, container, folder)
        command = [*container.get("command", []), *container.get("args", [])]
        self._running[uid] = self._spawn(command, environment, folder)
        self._report(pod, _started(container))

    def _spawn(self, command: list[str], environment: dict[str, str], folder: Path) -> _Running:
        log = folder / "log"
        if command[:3] == ["python", "-m", "tuning_trial"]:
            pid = self._zygote.fork("tuning_trial", environment, log, folder)
            return _Running(pid, lambda: self._zygote.status(pid), log)
        command = [sys.executable if part == "python" else part for part in command]
        with log.open("ab") as output:
            process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, cwd=folder)
        return _Running(process.pid, process.poll, log)

    def _trouble(self, pod: Document, container: Document) -> Document | None:
        if container["image"] in self.unpullable:
            words = f'failed to pull and unpack image "{container["image"]}": not found'
            waiting = {"reason": "ImagePullBackOff", "message": words}
            return {"phase": "Pending", "containerStatuses": [_status(container, {"waiting": waiting})]}
        wanted = sum(_gpus(item) for item in pod["spec"]["containers"])
        taken = sum(_gpus(item) for other in self._bound() for item in other["spec"]["containers"])
        if wanted + taken <= self.gpus:
            return None
        words = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": words}
        return {"phase": "Pending", "conditions": [condition]}

    def _bound(self) -> list[Document]:
        pods = self._call("GET", f"/api/v1/pods?fieldSelector=spec.nodeName%3D{NODE}")["items"]
        return [pod for pod in pods if pod["status"].get("phase") not in {"Succeeded", "Failed"}]

    def _environment(self, pod: Document, container: Document, folder: Path) -> dict[str, str]:
        """The container's environment; paths into its volumes become paths on this machine."""
        paths = {mount["mountPath"]: self._volume(pod, mount["name"], folder) for mount in container["volumeMounts"]}
        environment = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        environment["PYTHONPATH"] = os.pathsep.join(sys.path)
        for item in container.get("env", []):
            value = self._value(pod, item)
            if item["name"] == "PYTHONPATH":
                folders = [_outside(folder, paths) for folder in value.split(os.pathsep)]
                value = os.pathsep.join([*folders, environment["PYTHONPATH"]])
            environment[item["name"]] = _outside(value, paths)
        return environment | self.overrides

    def _value(self, pod: Document, item: Document) -> str:
        source = item.get("valueFrom")
        if source is None:
            return str(item.get("value", ""))
        if field_path := source.get("fieldRef", {}).get("fieldPath"):
            part, _, key = field_path.partition(".")
            return str(pod[part][key])
        if "resourceFieldRef" in source:
            return "1"  # there is no limit here, and tests share the machine
        kind, reference = (
            ("secrets", source["secretKeyRef"])
            if "secretKeyRef" in source
            else ("configmaps", source["configMapKeyRef"])
        )
        found = self._call("GET", f"/api/v1/namespaces/{_namespace(pod)}/{kind}/{reference['name']}")
        text: str = found["data"][reference["key"]]
        return base64.b64decode(text).decode() if kind == "secrets" else text

    def _volume(self, pod: Document, name: str, folder: Path) -> Path:
        volume = next(item for item in pod["spec"]["volumes"] if item["name"] == name)
        claim = volume.get("persistentVolumeClaim")
        place = self.directory / "claims" / claim["claimName"] if claim else folder / "volumes" / name
        place.mkdir(parents=True, exist_ok=True)
        if "configMap" in volume:
            path = f"/api/v1/namespaces/{_namespace(pod)}/configmaps/{volume['configMap']['name']}"
            config_map = self._call("GET", path)
            for file, text in config_map.get("data", {}).items():
                (place / file).write_text(text)
            for file, encoded in config_map.get("binaryData", {}).items():
                (place / file).write_bytes(base64.b64decode(encoded))
        return place

    def _report(self, pod: Document, status: Document) -> None:
        if all(pod.get("status", {}).get(key) == value for key, value in status.items()):
            return
        self._call("PATCH", f"{_path(pod)}/status", {"status": status}, missing_ok=True)

    def _call(
        self,
        method: str,
        path: str,
        body: Document | None = None,
        *,
        missing_ok: bool = False,
        conflict_ok: bool = False,
    ) -> Document:
        """One request; any refusal is an OSError, and the next round tries again."""
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        route, _, query = path.partition("?")
        pairs = [tuple(part.split("=", 1)) for part in query.replace("%3D", "=").split("&") if part]
        request = self._client.param_serialize(
            method,
            route,
            query_params=pairs,
            header_params={"Accept": "application/json", "Content-Type": kind},
            body=body,
            auth_settings=["BearerToken"],
        )
        try:
            response = self._client.call_api(*request, _request_timeout=10)
            document: Document = json.loads(response.read())
        except Exception as error:
            raise OSError(str(error)) from error
        allowed = ({404} if missing_ok else set()) | ({409} if conflict_ok else set())
        if response.status >= 400 and response.status not in allowed:
            raise OSError(f"{method} {path}: {document.get('message')}")
        return document


def _outside(value: str, paths: dict[str, Path]) -> str:
    """A path into a volume as this machine has it; any other value as it is."""
    for inside, outside in sorted(paths.items(), key=lambda path: -len(path[0])):
        if value == inside or value.startswith(inside + "/"):
            return str(outside) + value[len(inside) :]
    return value


def _started(container: Document) -> Document:
    now = _now()
    return {
        "phase": "Running",
        "startTime": now,
        "conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"}],
        "containerStatuses": [_status(container, {"running": {"startedAt": now}}, ready=True)],
    }


def _ended(pod: Document, process: _Running, code: int) -> Document:
    """What kubelet reports of a container that ended; negative codes are signals."""
    shown = 128 - code if code < 0 else code
    reason = "OOMKilled" if process.oom else _REASONS.get(shown, "Error")
    container = pod["spec"]["containers"][0]
    terminated: Document = {"exitCode": shown, "reason": reason, "finishedAt": _now(), "startedAt": _now()}
    if shown and container.get("terminationMessagePolicy") == "FallbackToLogsOnError":
        terminated["message"] = process.log.read_text(errors="replace")[-LAST_LINES:]
    return {
        "phase": "Failed" if shown else "Succeeded",
        "containerStatuses": [_status(container, {"terminated": terminated})],
        "conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "False"}],
    }


def _status(container: Document, state: Document, *, ready: bool = False) -> Document:
    return {
        "name": container["name"],
        "image": container["image"],
        "imageID": "",
        "ready": ready,
        "restartCount": 0,
        "state": state,
    }


def _gpus(container: Document) -> int:
    return int(container.get("resources", {}).get("limits", {}).get("nvidia.com/gpu", 0))


def _path(pod: Document) -> str:
    return f"/api/v1/namespaces/{_namespace(pod)}/pods/{_name(pod)}"


def _namespace(pod: Document) -> str:
    return str(pod["metadata"]["namespace"])


def _name(pod: Document) -> str:
    return str(pod["metadata"]["name"])


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


class _Zygote:
    """A process with torch and Lightning imported that forks another one for each worker."""

    def __init__(self) -> None:
        ours, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=_zygote, args=(theirs,), daemon=False)
        self._process.start()
        theirs.close()
        self._pipe = ours
        self._lock = threading.Lock()

    def fork(self, module: str, environment: dict[str, str], log: Path, folder: Path) -> int:
        """Run a module in a fork; the process's id."""
        return int(self._ask(("fork", module, environment, str(log), str(folder))))

    def status(self, pid: int) -> int | None:
        """The exit code of a fork, negative for a signal; None while it runs."""
        code = self._ask(("status", pid))
        return None if code is None else int(code)

    def close(self) -> None:
        """End it; its forks were ended before."""
        with contextlib.suppress(OSError, EOFError):
            self._pipe.send(None)
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()

    def _ask(self, question: tuple[Any, ...]) -> Any:
        with self._lock:
            self._pipe.send(question)
            return self._pipe.recv()


def _zygote(pipe: Connection) -> None:
    import pytorch_lightning  # noqa: F401, PLC0415

    from tuning_trial import lightning_runner  # noqa: F401, PLC0415

    while (question := pipe.recv()) is not None:
        if question[0] == "fork":
            pid = os.fork()
            if pid == 0:
                _become(pipe, *question[1:])
            pipe.send(pid)
            continue
        pid, status = os.waitpid(question[1], os.WNOHANG)
        pipe.send(os.waitstatus_to_exitcode(status) if pid else None)


def _become(pipe: Connection, module: str, environment: dict[str, str], log: str, folder: str) -> None:
    """Be the container's process: its environment, its output, its exit code, its death."""
    pipe.close()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.path[:0] = [part for part in environment.get("PYTHONPATH", "").split(os.pathsep) if part not in sys.path]
    tempfile.tempdir = None
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    sys.stdout = os.fdopen(1, "w", buffering=1)
    sys.stderr = os.fdopen(2, "w", buffering=1)
    sys.argv = [module]
    code = 1
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:  # noqa: BLE001 - printed as the interpreter would
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
