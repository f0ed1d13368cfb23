"""How often the kernel killed a process of this container for its memory.

A process that is killed with SIGKILL cannot say why; the kernel counts in the container's memory cgroup. Kubernetes
reports OOMKilled only when the container's first process dies, and ours survives.

NB: on cgroup v2 the kubelet since 1.28 sets `memory.oom.group`, and the kernel then ends the whole container at once,
worker included (kubernetes/kubernetes#117793), unless the node has `singleProcessOOMKill`. The controller sees that one.
"""

import re
from pathlib import Path

_COUNTER = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


def oom_kills(root: Path = Path("/")) -> int | None:
    """Processes killed so far, or None where there is no such counter (no cgroup, another operating system)."""
    for file in _candidates(root):
        try:
            if found := _COUNTER.search(file.read_text()):
                return int(found[1])
        except OSError:
            continue
    return None


def _candidates(root: Path) -> list[Path]:
    """Where the counter may be. Inside a container the group is mounted as if it were the root of the tree."""
    mount = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    groups = {controllers: path.lstrip("/") for _, controllers, path in (line.split(":", 2) for line in lines)}
    unified, memory = groups.get("", ""), groups.get("memory", "")
    return [
        mount / unified / "memory.events",
        mount / "memory.events",
        mount / "memory" / memory / "memory.oom_control",
        mount / "memory/memory.oom_control",
    ]
