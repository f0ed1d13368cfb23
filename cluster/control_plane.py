"""A Kubernetes control plane as child processes: etcd, the API server, the controllers and, if asked for, a scheduler.

No root, no containers, ready in a few seconds: enough for all tests that need a true API server (validation, watches,
RBAC, server-side apply, finalizers, owner references, the Job controller) but no containers. node.py adds a kubelet.

    with ControlPlane(tmp_path) as plane:
        subprocess.run(["kubectl", "--kubeconfig", plane.kubeconfig, "get", "namespaces"], check=True)

It differs from a cluster for work only where that makes it faster or smaller: etcd does not wait for the disk, nothing
elects a leader, and where no node is real the controller that judges nodes by their heartbeats is off.
"""

import csv
import secrets
import shutil
import socket
import ssl
import types
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import yaml

from cluster import binaries
from cluster.certificates import CertificateAuthority, write_key_pair
from cluster.processes import Processes
from cluster.waiting import wait_until

SERVICE_RANGE = "10.211.0.0/16"
KUBERNETES_SERVICE_ADDRESS = "10.211.0.1"
"""The first address of the range is always the API server's own Service."""
START_TIMEOUT = 90.0
"""Seconds; it takes 5 to 8 on two free cores."""
ISSUER = "https://kubernetes.default.svc"


@dataclass(frozen=True)
class RealNode:
    """A node with a kubelet, which may sign in to the API server."""

    name: str
    address: str
    """Where the API server reaches the kubelet, for logs and exec."""


class ControlPlane:
    """A running control plane, and the files by which one reaches it."""

    kubeconfig: Path
    """For an administrator (group system:masters). Its token stays valid when the API server restarts."""
    server: str
    """URL of the API server; its port is chosen anew for each start of the control plane."""
    audit_log: Path
    """JSON lines, one event per finished request with verb, user, userAgent, objectRef and responseStatus, no bodies.

    NB: a watch has two events, stages ResponseStarted and ResponseComplete, with the same auditID.
    """

    def __init__(
        self,
        directory: Path,
        *,
        scheduler: bool = False,
        address: str = "127.0.0.1",
        node: RealNode | None = None,
        outlives_us: bool = False,
    ) -> None:
        """Describe a control plane; nothing starts yet.

        Args:
            directory: Holds database, certificates, logs. What an earlier control plane left there is deleted at the start.
            scheduler: Whether to run kube-scheduler. Without it pods wait until a test binds them.
            address: Where the API server listens; pods cannot reach it on a loopback address.
            node: The one real node. None where no kubelet runs.
            outlives_us: False: all of it ends when the thread that started it ends, even by SIGKILL. True: it runs
                until some process calls `stop` on the same directory.
        """
        self.directory = directory
        self.kubeconfig = directory / "kubeconfig"
        self.audit_log = directory / "audit.log"
        self.server = ""
        self._scheduler = scheduler
        self._address = address
        self._node = node
        self._processes = Processes(directory, die_with_parent=not outlives_us)
        self._apiserver: list[str | Path] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start everything with an empty database and return when the API answers and the controllers work.

        Raises:
            ProcessEndedError: A part ended; the message has the end of its log.
            TimeoutError: A part did not get ready in time.
            BuildError: The programs are neither cached nor can they be built here.
        """
        programs = binaries.KUBERNETES.ensure()
        self.stop()
        self._remove_earlier_files()
        etcd_port, peer_port, api_port = _free_ports(3)
        self.server = f"https://{self._address}:{api_port}"
        self._write_files()
        try:
            self._start_etcd(programs, port=etcd_port, peer_port=peer_port)
            self._apiserver = self._apiserver_command(programs, etcd_port=etcd_port)
            self.start_apiserver()
            self._start_controllers(programs)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End everything, also what another process started in this directory. The directory stays, for its logs."""
        self._processes.stop_all(patience=0)  # the API server alone would take 5 s, and nothing is worth saving

    def stop_apiserver(self) -> None:
        """Take the API away, as a crash does: connections break, and new ones are refused until `start_apiserver`."""
        self._processes.stop("kube-apiserver", patience=0)

    def start_apiserver(self) -> None:
        """Bring the API back at the same address, with all that it held, and return when it is ready."""
        self._processes.start("kube-apiserver", self._apiserver)
        self._wait("kube-apiserver", "/readyz")

    def log(self, part: str) -> Path:
        """The log of "etcd", "kube-apiserver", "kube-controller-manager" or "kube-scheduler"."""
        return self._processes.log(part)

    def parts_that_ended(self) -> list[str]:
        """The parts that should run and do not."""
        parts = ["etcd", "kube-apiserver", "kube-controller-manager", *(["kube-scheduler"] if self._scheduler else [])]
        return [part for part in parts if self._processes.find(part) is None]

    def kubeconfig_of(self, user: str) -> Path:
        """The kubeconfig of "admin" or another user that has one."""
        return self.kubeconfig if user == "admin" else self.directory / f"{user}.kubeconfig"

    def write_kubeconfig(self, user: str, *, token: str) -> Path:
        """Write a kubeconfig for a bearer token, for example a service account's, and return its path."""
        path = self.kubeconfig_of(user)
        cluster = {"server": self.server, "certificate-authority": str(self._pki / "ca.crt")}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "tuningstudy", "cluster": cluster}],
            "users": [{"name": user, "user": {"token": token}}],
            "contexts": [{"name": "tuningstudy", "context": {"cluster": "tuningstudy", "user": user}}],
            "current-context": "tuningstudy",
        }
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump(config, sort_keys=False))
        return path

    @property
    def _pki(self) -> Path:
        return self.directory / "pki"

    def _remove_earlier_files(self) -> None:
        for folder in ("etcd", "pki", "logs"):
            shutil.rmtree(self.directory / folder, ignore_errors=True)
        self.audit_log.unlink(missing_ok=True)
        self.directory.mkdir(parents=True, exist_ok=True)

    def _write_files(self) -> None:
        """Certificates, tokens with their kubeconfigs, and the audit policy."""
        authority = CertificateAuthority(self._pki)
        names = ["localhost", "127.0.0.1", self._address, KUBERNETES_SERVICE_ADDRESS]
        names += ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"]
        authority.issue("apiserver", common_name="kube-apiserver", addresses=dict.fromkeys(names))
        authority.issue("kubelet-client", common_name="kube-apiserver-kubelet-client", groups=["system:masters"])
        if self._node:
            names = [self._node.name, self._node.address]
            authority.issue("kubelet", common_name=f"system:node:{self._node.name}", addresses=names)
        write_key_pair(self._pki, "service-account")

        users = {"admin": ("admin", "system:masters")}
        users["controller-manager"] = ("system:kube-controller-manager", "")
        users["scheduler"] = ("system:kube-scheduler", "")
        if self._node:
            users["kubelet"] = (f"system:node:{self._node.name}", "system:nodes")
            users["proxy"] = ("system:kube-proxy", "")
            users["dns"] = ("system:coredns", "")
        tokens = self._pki / "tokens.csv"
        tokens.touch(mode=0o600)
        with tokens.open("w", newline="") as file:
            writer = csv.writer(file)
            for user, (name, group) in users.items():
                token = secrets.token_urlsafe(32)
                writer.writerow([token, name, user, group])
                self.write_kubeconfig(user, token=token)

        policy = {
            "apiVersion": "audit.k8s.io/v1",
            "kind": "Policy",
            "omitStages": ["RequestReceived"],
            "rules": [{"level": "Metadata"}],
        }
        (self.directory / "audit-policy.yaml").write_text(yaml.safe_dump(policy))

    def _start_etcd(self, programs: Path, *, port: int, peer_port: int) -> None:
        client, peer = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer_port}"
        arguments = {
            "data-dir": self.directory / "etcd",
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"default={peer}",
            "unsafe-no-fsync": "true",
            "log-level": "warn",
        }
        self._processes.start("etcd", [programs / "etcd", *_flags(arguments)])

    def _apiserver_command(self, programs: Path, *, etcd_port: int) -> list[str | Path]:
        pki = self._pki
        arguments = {
            "etcd-servers": f"http://127.0.0.1:{etcd_port}",
            "bind-address": self._address,
            "secure-port": self.server.rpartition(":")[2],
            "tls-cert-file": pki / "apiserver.crt",
            "tls-private-key-file": pki / "apiserver.key",
            "client-ca-file": pki / "ca.crt",
            "token-auth-file": pki / "tokens.csv",
            "authorization-mode": "Node,RBAC",
            "enable-admission-plugins": "NodeRestriction",
            "service-cluster-ip-range": SERVICE_RANGE,
            "service-account-issuer": ISSUER,
            "service-account-key-file": pki / "service-account.pub",
            "service-account-signing-key-file": pki / "service-account.key",
            "audit-policy-file": self.directory / "audit-policy.yaml",
            "audit-log-path": self.audit_log,
            "audit-log-maxsize": 10_000,  # MB: no rotation, so that readers see one file
            "profiling": "false",
        }
        if self._node:
            arguments |= {
                "advertise-address": self._address,
                "kubelet-client-certificate": pki / "kubelet-client.crt",
                "kubelet-client-key": pki / "kubelet-client.key",
                "kubelet-certificate-authority": pki / "ca.crt",
                # NB: the default asks for the node's name first, which no DNS server here knows: no logs, no exec.
                "kubelet-preferred-address-types": "InternalIP",
            }
        else:
            arguments["endpoint-reconciler-type"] = "none"  # no endpoint of a Service may be a loopback address
        return [programs / "kube-apiserver", *_flags(arguments)]

    def _start_controllers(self, programs: Path) -> None:
        arguments = {
            "kubeconfig": self.kubeconfig_of("controller-manager"),
            "service-account-private-key-file": self._pki / "service-account.key",
            "root-ca-file": self._pki / "ca.crt",
            "use-service-account-credentials": "true",
            "leader-elect": "false",
            "secure-port": 0,
            # Nobody sends heartbeats for a node that a test invents, and its pods would be evicted after 5 minutes.
            "controllers": "*" if self._node else "*,-node-lifecycle-controller",
        }
        self._processes.start("kube-controller-manager", [programs / "kube-controller-manager", *_flags(arguments)])
        if self._scheduler:
            scheduling = {
                "kubeconfig": self.kubeconfig_of("scheduler"),
                "leader-elect": "false",
                "secure-port": 0,
            }
            self._processes.start("kube-scheduler", [programs / "kube-scheduler", *_flags(scheduling)])
        # No pod is admitted to a namespace before the controllers have made its default service account.
        self._wait("kube-controller-manager", "/api/v1/namespaces/default/serviceaccounts/default")

    def _wait(self, part: str, path: str) -> None:
        """Return when the API answers `path` with success, or raise when `part` has ended."""

        def answers() -> bool:
            self._processes.check_alive(part)
            self._processes.check_alive("etcd")
            return self._get(path)

        wait_until(answers, timeout=START_TIMEOUT, waiting_for=f"{part} (its log is {self.log(part)})")

    def _get(self, path: str) -> bool:
        token = yaml.safe_load(self.kubeconfig.read_text())["users"][0]["user"]["token"]
        request = urllib.request.Request(self.server + path, headers={"Authorization": f"Bearer {token}"})  # noqa: S310
        context = ssl.create_default_context(cafile=str(self._pki / "ca.crt"))
        try:
            with urllib.request.urlopen(request, timeout=5, context=context):  # noqa: S310
                return True
        except (urllib.error.URLError, OSError):
            return False


def _flags(arguments: Mapping[str, object]) -> list[str]:
    return [f"--{name}={value}" for name, value in arguments.items()]


def _free_ports(number: int) -> Sequence[int]:
    """Ports that nothing listens on now. All are held until all are found, so that they differ."""
    sockets = [socket.socket() for _ in range(number)]
    try:
        for each in sockets:
            each.bind(("", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
