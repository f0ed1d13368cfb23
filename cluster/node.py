"""One node with containers, Services and DNS, and the control plane it belongs to: what `python -m cluster up` starts.

The node (containerd, kubelet, kube-proxy, CoreDNS) runs in the namespaces of machine.py, the control plane beside them
on the host. The cluster is made to be thrown away: `down` deletes all that was in it, and `up` over a damaged one begins
anew. Only images survive, for they are slow to make.
"""

import json
import os
import shutil
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import yaml

from cluster import binaries, folders, images, prerequisites
from cluster.binaries import say
from cluster.control_plane import SERVICE_RANGE, ControlPlane, RealNode
from cluster.kubectl import Kubectl
from cluster.layers import NODE_SOCKET
from cluster.machine import CGROUP, HOST_ADDRESS, NODE_ADDRESS, Machine
from cluster.processes import Processes
from cluster.waiting import wait_until

NAME = "tuningstudy"
POD_RANGE = "10.213.0.0/16"
GPUS = 8
"""How many GPUs the node claims to have. It has none: they let the scheduler place pods that ask for nvidia.com/gpu, so
that quotas, limits and waiting can be tested. No container gets a device."""
VOLUMES = 40
"""How many volumes there are. Each is used once, for the data in a released volume belongs to its claim."""
VOLUME_SIZE = "20Gi"
STORAGE_CLASS = "local"


class Node:
    """The one node and its control plane, recorded in the state folder, so that any process can find and end them."""

    def __init__(self) -> None:
        self.directory = folders.state()
        self.machine = Machine(self.directory)
        self.plane = ControlPlane(
            self.directory / "control-plane",
            scheduler=True,
            address=HOST_ADDRESS,
            node=RealNode(NAME, NODE_ADDRESS),
            outlives_us=True,
        )
        self._processes = Processes(self.directory / "node", die_with_parent=False)

    @property
    def kubeconfig(self) -> Path:
        """For an administrator."""
        return self.plane.kubeconfig

    def exists(self) -> bool:
        """Whether anything of a cluster is there, whole or damaged."""
        return self.directory.exists()

    def is_whole(self) -> bool:
        """Whether all parts run."""
        return self.machine.is_running() and not self.parts_that_ended()

    def parts_that_ended(self) -> list[str]:
        """The parts that should run and do not."""
        parts = ("containerd", "kubelet", "kube-proxy", "coredns")
        return [*self.plane.parts_that_ended(), *(part for part in parts if self._processes.find(part) is None)]

    def start(self) -> None:
        """Start everything anew and return when pods can run.

        Raises:
            PrerequisiteError: Something is missing on this machine.
            BuildError: A program can neither be found nor built.
            ProcessEndedError: A part ended; the message has the end of its log.
            TimeoutError: A part did not get ready in time.
        """
        prerequisites.install(prerequisites.NODE_PACKAGES)
        for program in binaries.CLUSTER_PROGRAMS:
            program.ensure()
        self.stop()
        self.directory.mkdir(parents=True)
        self.machine.start(routes=[POD_RANGE, SERVICE_RANGE])
        say("Starting the control plane: etcd, API server, controllers, scheduler.")
        self.plane.start()
        say("Starting the node: containerd, kubelet, kube-proxy, DNS.")
        self._start_containerd()
        images.load_pause(self.machine)
        self._start_kubelet()
        self._start_proxy()
        self._start_dns()
        self._apply(*_storage(self.directory / "volumes"))
        self._wait_until_ready()
        self._claim_gpus()

    def stop(self) -> None:
        """End everything and delete all but the images; nothing happens if there is nothing."""
        self.machine.stop()
        self._processes.stop_all(patience=0)
        self.plane.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def kubectl(self) -> Kubectl:
        """For an administrator."""
        return Kubectl(self.kubeconfig)

    def log(self, part: str) -> Path:
        """The log of one part, such as "kubelet"."""
        return self._processes.log(part)

    def _start_containerd(self) -> None:
        # NB: containers of earlier runs are still in its store. The kubelet removes them, as it does after a power cut.
        settings, network = self.directory / "containerd.toml", self.directory / "cni"
        network.mkdir()
        (network / "pods.conflist").write_text(json.dumps(_pod_network()))
        settings.write_text(_containerd_settings(root=folders.images() / "containerd", network=network))
        self._start("containerd", "containerd", f"--config={settings}")

        def answers() -> bool:
            self._processes.check_alive("containerd")
            return self.machine.succeeds("ctr", f"--address={NODE_SOCKET}", "version")

        wait_until(answers, timeout=60, waiting_for=f"containerd (its log is {self.log('containerd')})", interval=0.2)

    def _start_kubelet(self) -> None:
        settings = self.directory / "kubelet.yaml"
        settings.write_text(yaml.safe_dump(_kubelet_settings(self.directory)))
        self._start(
            "kubelet",
            binaries.KUBERNETES.ensure() / "kubelet",
            f"--config={settings}",
            f"--kubeconfig={self.plane.kubeconfig_of('kubelet')}",
            f"--root-dir={self.directory / 'kubelet'}",
            f"--hostname-override={NAME}",
            f"--node-ip={NODE_ADDRESS}",
        )

    def _start_proxy(self) -> None:
        self._start(
            "kube-proxy",
            binaries.KUBERNETES.ensure() / "kube-proxy",
            f"--kubeconfig={self.plane.kubeconfig_of('proxy')}",
            f"--hostname-override={NAME}",
            "--proxy-mode=iptables",
            f"--cluster-cidr={POD_RANGE}",
            # These would be settings of the whole host, or files that only its own network namespace has.
            "--conntrack-max-per-core=0",
            "--conntrack-tcp-timeout-established=0s",
            "--conntrack-tcp-timeout-close-wait=0s",
        )

    def _start_dns(self) -> None:
        self._apply(*_DNS_PERMISSIONS)
        settings = self.directory / "Corefile"
        settings.write_text(_dns_settings(self.plane.kubeconfig_of("dns")))
        self._start("coredns", binaries.COREDNS.ensure() / "coredns", f"-conf={settings}")

    def _start(self, name: str, *command: str | Path) -> None:
        # NB: the PATH of a root shell made by `su` may lack the sbin folders, where iptables and runc are.
        path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])
        self._processes.start(name, self.machine.command(*command), environment={"PATH": path})

    def _apply(self, *documents: dict[str, Any]) -> None:
        documents_in_one = {"apiVersion": "v1", "kind": "List", "items": list(documents)}
        self.kubectl("apply", "--filename=-", stdin=json.dumps(documents_in_one))

    def _wait_until_ready(self) -> None:
        """Return when the node takes pods and names resolve."""
        ready = "--output=jsonpath={.items[*].status.conditions[?(@.type=='Ready')].status}"

        def is_ready() -> bool:
            for part in ("kubelet", "kube-proxy", "coredns"):
                self._processes.check_alive(part)
            return self.kubectl("get", "nodes", ready) == "True" and _answers(
                f"http://{NODE_ADDRESS}:{_DNS_READY_PORT}/ready"
            )

        wait_until(
            is_ready, timeout=90, waiting_for=f"the node (logs are in {self.log('kubelet').parent})", interval=0.3
        )

    def _claim_gpus(self) -> None:
        patch = [
            {"op": "add", "path": f"/status/{where}/nvidia.com~1gpu", "value": str(GPUS)}
            for where in ("capacity", "allocatable")
        ]
        self.kubectl("patch", "node", NAME, "--subresource=status", "--type=json", f"--patch={json.dumps(patch)}")


_DNS_READY_PORT = 8181

_DNS_PERMISSIONS = (
    {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "system:coredns"},
        "rules": [
            {"apiGroups": [""], "resources": ["services", "namespaces", "pods"], "verbs": ["list", "watch"]},
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
        ],
    },
    {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "system:coredns"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:coredns"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "system:coredns"}],
    },
)


def _dns_settings(kubeconfig: Path) -> str:
    """CoreDNS' Corefile: names of the cluster only, for pods reach nothing beyond the host; and no cache, for speed."""
    return f""".:53 {{
    bind {NODE_ADDRESS}
    errors
    ready {NODE_ADDRESS}:{_DNS_READY_PORT}
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {kubeconfig}
        pods insecure
        ttl 1
    }}
}}
"""


def _pod_network() -> dict[str, Any]:
    """The CNI configuration.

    Pods are joined point to point and not by a bridge: traffic between them is then always routed, so that the answers
    of a Service pass the rules that its requests passed, without the kernel module br_netfilter.
    """
    address = {"type": "host-local", "dataDir": "/run/cni", "ranges": [[{"subnet": POD_RANGE}]]}
    pods = {"type": "ptp", "ipam": {**address, "routes": [{"dst": "0.0.0.0/0"}]}}
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "0.4.0", "name": "pods", "plugins": [pods, ports]}


def _containerd_settings(*, root: Path, network: Path) -> str:
    return f"""version = 2
root = "{root}"
state = "/run/containerd-state"

[grpc]
address = "{NODE_SOCKET}"

[plugins."io.containerd.internal.v1.opt"]
path = "/run/containerd-opt"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{images.PAUSE_NAME}"
# A process in a container or a sandbox may not lower its OOM score, and AppArmor cannot load profiles there.
restrict_oom_score_adj = true
disable_apparmor = true

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{network}"

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
"""


def _kubelet_settings(directory: Path) -> dict[str, Any]:
    pki = directory / "control-plane" / "pki"
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE_ADDRESS,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(pki / "kubelet.crt"),
        "tlsPrivateKeyFile": str(pki / "kubelet.key"),
        "containerRuntimeEndpoint": f"unix://{NODE_SOCKET}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{CGROUP}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "enforceNodeAllocatable": [],
        "clusterDNS": [NODE_ADDRESS],
        "clusterDomain": "cluster.local",
        "resolvConf": "",  # the host's name servers are out of reach
        "podLogsDir": str(directory / "pod-logs"),
        # Images cannot be pulled again, so the kubelet must not remove them when the disk fills.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "500Mi"},
        "volumeStatsAggPeriod": "0s",
    }


def _storage(folder: Path) -> list[dict[str, Any]]:
    """A default StorageClass and volumes in it, made beforehand, for there is no provisioner.

    Local volumes and not hostPath: the kubelet gives them to a pod's fsGroup, as it does with the disks of a cloud.
    """
    storage_class = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": STORAGE_CLASS, "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer",
    }
    here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [NAME]}
    volumes = []
    for number in range(VOLUMES):
        path = folder / f"{number:02}"
        path.mkdir(parents=True)
        specification = {
            "capacity": {"storage": VOLUME_SIZE},
            "accessModes": ["ReadWriteOnce", "ReadWriteMany", "ReadOnlyMany"],
            "storageClassName": STORAGE_CLASS,
            "local": {"path": str(path)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
        }
        volumes.append(
            {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": path.name}, "spec": specification}
        )
    return [storage_class, *volumes]


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):  # noqa: S310
            return True
    except (urllib.error.URLError, OSError):
        return False
