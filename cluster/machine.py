"""A machine inside the machine: namespaces of network, mounts and processes in which the node runs.

Not a container (it sees the same files), but enough that nothing of a node touches the host: its iptables rules, pod
networks, volume mounts, container shims and pods exist only in here. When its first process dies, by `down` or by
SIGKILL, the kernel ends all processes and removes all of that. So there is nothing to clean up, and no leftover of a
killed run can meet the next one, nor Docker or another Kubernetes on the same host.

A virtual cable joins the two, 10.212.0.1 (host) and 10.212.0.2 (node). The host reaches pods and Services by their own
addresses through it. Pods reach servers of the host at 10.212.0.1, and nothing beyond the host.
"""

import json
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from cluster import binaries
from cluster.processes import Process, identify
from cluster.waiting import wait_until

LINK = "tuningstudy"
HOST_ADDRESS = "10.212.0.1"
NODE_ADDRESS = "10.212.0.2"
CGROUP = "tuningstudy"
"""The cgroup below which all pods are; cgroups are the one thing that outlives the namespaces."""
PRIVATE_FOLDERS = ("/run", "/var/log", "/var/lib/kubelet", "/var/lib/cni")
"""Folders whose paths are fixed in kubelet, containerd or CNI: memory file systems that nobody outside sees."""


class MachineError(RuntimeError):
    """The namespaces cannot be made; the message says why."""


class Machine:
    """The namespaces, held by one process that waits for its end and reaps orphans meanwhile."""

    def __init__(self, directory: Path) -> None:
        self._record = directory / "machine.json"
        self._log = directory / "machine.log"
        self._holder: subprocess.Popen[bytes] | None = None

    def is_running(self) -> bool:
        """Whether it exists, started by us or by an earlier run."""
        return self._init() is not None

    def command(self, *command: str | Path) -> list[str]:
        """The command line that runs `command` in here.

        NB: its process waits outside for the one inside; it ends with that one, but killing it alone ends nothing.
        """
        init = self._init()
        if init is None:
            raise MachineError("The node is not running: start it with `python -m cluster up`.")
        return ["nsenter", f"--target={init.pid}", "--net", "--mount", "--pid", "--", *map(str, command)]

    def run(self, *command: str | Path) -> str:
        """Run a command in here and return what it prints."""
        return _run(self.command(*command))

    def succeeds(self, *command: str | Path) -> bool:
        """Run a command in here and say whether it ended well."""
        return subprocess.run(self.command(*command), capture_output=True, check=False).returncode == 0

    def start(self, *, routes: Sequence[str]) -> None:
        """Make the namespaces and the cable.

        Args:
            routes: The networks that the host shall reach through the cable, such as "10.96.0.0/16".

        Raises:
            MachineError: We are not root, or a cluster with another state folder runs.
        """
        self.stop()
        if Path(f"/sys/class/net/{LINK}").exists():
            raise MachineError(
                f"The network interface {LINK} exists already, but no cluster is recorded here: another one, with "
                "another XDG_STATE_HOME, seems to run. Stop it with its own `down`."
            )
        for folder in PRIVATE_FOLDERS:
            Path(folder).mkdir(parents=True, exist_ok=True)
        self._record.parent.mkdir(parents=True, exist_ok=True)
        self._unshare()
        self.run("sh", "-euc", _INSIDE)
        self._connect(routes)
        for hierarchy in _cgroup_hierarchies():
            (hierarchy / CGROUP).mkdir(exist_ok=True)

    def stop(self) -> None:
        """End everything in here and wait until it is gone; nothing happens if it does not run."""
        if init := self._init():
            init.kill()
            wait_until(lambda: not init.is_alive(), timeout=60, waiting_for="the node's processes to end")
            # The kernel takes networks down in the background.
            gone = Path(f"/sys/class/net/{LINK}")
            wait_until(lambda: not gone.exists(), timeout=60, waiting_for=f"the network interface {LINK} to vanish")
        if self._holder:
            self._holder.wait()  # it ends with the first process inside; nobody else can reap it
            self._holder = None
        self._record.unlink(missing_ok=True)
        for hierarchy in _cgroup_hierarchies():
            _remove_cgroup(hierarchy / CGROUP)
        for folder in ("/var/lib/kubelet", "/var/lib/cni"):  # where a Kubernetes of the host keeps files, they stay
            _remove_if_empty(Path(folder))

    def _unshare(self) -> None:
        flags = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private"]
        with self._log.open("wb") as log:
            self._holder = holder = subprocess.Popen(
                ["unshare", *flags, binaries.PAUSE.ensure() / "pause"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

        def started() -> Process | None:
            if holder.poll() is not None:
                raise MachineError(f"Cannot make namespaces: {self._log.read_text().strip()}")
            children = Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text().split()
            init = identify(int(children[0])) if children else None
            return init if init and Path(f"/proc/{init.pid}/comm").read_text().strip() == "pause" else None

        init = wait_until(started, timeout=10, waiting_for="the namespaces")
        self._record.write_text(json.dumps(asdict(init)))

    def _connect(self, routes: Sequence[str]) -> None:
        init = self._init()
        assert init is not None  # noqa: S101
        for command in (
            f"ip link add {LINK} type veth peer name eth0 netns {init.pid}",
            f"ip address add {HOST_ADDRESS}/30 dev {LINK}",
            f"ip link set {LINK} up",
        ):
            _run(shlex.split(command))
        for command in (
            f"ip address add {NODE_ADDRESS}/30 dev eth0",
            "ip link set lo up",
            "ip link set eth0 up",
            f"ip route add default via {HOST_ADDRESS}",
        ):
            self.run(*shlex.split(command))
        for network in routes:
            _run(["ip", "route", "add", network, "via", NODE_ADDRESS])

    def _init(self) -> Process | None:
        try:
            process = Process(**json.loads(self._record.read_text()))
        except FileNotFoundError:
            return None
        return process if process.is_alive() else None


# The kubelet wants mounts that propagate to its containers: shared, but within these namespaces only. IPv4 forwarding
# is a setting of the network namespace, so the host's stays as it is.
_INSIDE = "\n".join(
    [
        "mount --make-rshared /",
        *(f"mount -t tmpfs tmpfs {folder}" for folder in PRIVATE_FOLDERS),
        "echo 1 > /proc/sys/net/ipv4/ip_forward",
    ]
)


def _cgroup_hierarchies() -> list[Path]:
    """One folder on a machine with cgroup v2, one for each controller with v1."""
    root = Path("/sys/fs/cgroup")
    if (root / "cgroup.controllers").exists():
        return [root]
    return [folder for folder in root.iterdir() if (folder / "cgroup.procs").exists()]


def _remove_cgroup(folder: Path) -> None:
    if not folder.exists():
        return
    for child in folder.iterdir():
        if child.is_dir():
            _remove_cgroup(child)
    folder.rmdir()


def _remove_if_empty(folder: Path) -> None:
    if folder.exists() and not any(folder.iterdir()):
        folder.rmdir()


def _run(command: Sequence[str]) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise MachineError(f"`{shlex.join(command)}` failed: {result.stderr.strip() or result.stdout.strip()}")
    return result.stdout
