"""The operator as a process of its own, as the chart runs it: with a service account's rights and no more."""

import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import yaml
from cluster import binaries
from cluster.control_plane import ControlPlane
from cluster.kubectl import Kubectl
from sqlalchemy.engine import URL
from tests.support.ports import free_port
from tests.support.tenancy import PASSWORD_KEY, SIGNING_KEY
from tests.support.wait import wait_until

ROOT = Path(__file__).resolve().parent.parent.parent
SYSTEM_NAMESPACE = "tuningstudy-system"
CHARTS_PASSWORD = "test-charts-password"
_NOT_IN_THE_IMAGE = ("sklearn", "torch", "pytorch_lightning")


def as_in_the_image(directory: Path) -> dict[str, str]:
    """The environment of a process that has no settings of ours, and lacks what only the worker's side brings.

    Optuna imports scikit-learn wherever it is installed.

    Args:
        directory: Where that can be said to Python, and to all processes that it starts.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for package in _NOT_IN_THE_IMAGE:
        (directory / f"{package}.py").write_text('raise ImportError("it is not in the image of the operator")\n')
    path = os.pathsep.join(filter(None, (str(directory), os.environ.get("PYTHONPATH"))))
    return {name: value for name, value in os.environ.items() if not name.startswith("TUNING_")} | {"PYTHONPATH": path}


def service_account_kubeconfig(
    plane: ControlPlane, kubectl: Kubectl, *, release: str = "tuningstudy-operator", restricted: bool = False
) -> Path:
    """A kubeconfig with the rights that the chart gives the operator, and its policies: what is tested is what is shipped.

    Args:
        plane: Where.
        kubectl: An administrator's.
        release: The chart's; another one has another account, and so policies of its own.
        restricted: Whether podTemplates are.
    """
    helm = binaries.HELM.ensure() / "helm"
    command = [str(helm), "template", release, str(ROOT / "charts" / "tuningstudy-operator")]
    command += ["--namespace", SYSTEM_NAMESPACE]
    for part in ("rbac", "policies", *(["podpolicy"] if restricted else [])):
        command += ["--show-only", f"templates/operator/{part}.yaml"]
    if restricted:
        command += ["--set", "podTemplates=restricted"]
    rendered = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    kubectl.run("create", "namespace", SYSTEM_NAMESPACE)
    kubectl("apply", "-f", "-", stdin=rendered)
    account = next(item for item in yaml.safe_load_all(rendered) if item["kind"] == "ServiceAccount")
    token = kubectl("create", "token", account["metadata"]["name"], "-n", SYSTEM_NAMESPACE, "--duration=2h").strip()
    return plane.write_kubeconfig(release, token=token)


@dataclass
class OperatorProcess:
    """`python -m tuning_operator run`."""

    kubeconfig: Path
    database: URL
    directory: Path
    settings: dict[str, str] = field(default_factory=dict)
    start_seconds: float = 180
    """How long it may take until it watches."""

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def log(self) -> str:
        """What the operator has printed."""
        return (self.directory / "operator.log").read_text()

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process is there."""
        return self.exit_code() is None

    def exit_code(self) -> int | None:
        """How it ended, if it has."""
        return self._process.poll()

    def start(self) -> None:
        """Start it and wait until it watches."""
        self.launch()
        what = f"the operator watches; its log ends with {self.log[-1500:]}"
        wait_until(self._answers, bool, seconds=self.start_seconds, what=what)

    def launch(self) -> None:
        """Start it, whether or not it can do anything."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self._port, metrics_port = free_port(), free_port()
        environment = {
            **as_in_the_image(self.directory / "absent"),
            "KUBECONFIG": str(self.kubeconfig),
            "TUNING_DATABASE_URL": self.database.render_as_string(hide_password=False),
            "TUNING_SIGNING_KEY": SIGNING_KEY,
            "TUNING_PASSWORD_KEY": PASSWORD_KEY,
            "TUNING_CHARTS_DATABASE_PASSWORD": CHARTS_PASSWORD,
            "TUNING_TRIAL_IMAGE": "tuningstudy-trial:test",
            "TUNING_CHARTS_URL": "https://charts.example",
            "TUNING_PROBE_PORT": str(self._port),
            "TUNING_METRICS_PORT": str(metrics_port),
            "TUNING_RESYNC_SECONDS": "1",
            "TUNING_STATUS_SECONDS": "2",
            **self.settings,
        }
        command = [sys.executable, "-m", "tuning_operator", "run"]
        with (self.directory / "operator.log").open("a") as log:
            self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def stop(self) -> int:
        """Ask it to stop, and return its exit code."""
        self._process.terminate()
        return self._process.wait(40)

    def kill(self) -> None:
        """End it as a lost node does."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(10)

    def metrics(self) -> str:
        """What Prometheus would read."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=5) as answer:
            text: str = answer.read().decode()
            return text

    def _answers(self) -> bool:
        if self._process.poll() is not None:
            raise AssertionError(f"the operator ended: {self.log[-3000:]}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/readyz", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False
