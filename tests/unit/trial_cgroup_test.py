"""The kernel's count of processes killed for their memory, wherever a container or a host shows it."""

from pathlib import Path

import pytest

from tuning_trial.cgroup import oom_kills

V2 = "low 0\nhigh 12\nmax 40\noom 2\noom_kill 2\noom_group_kill 0\n"
V1 = "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"


@pytest.mark.parametrize(
    ("group", "file", "text"),
    [
        ("0::/\n", "memory.events", V2),
        ("0::/kubepods.slice/pod1.scope\n", "kubepods.slice/pod1.scope/memory.events", V2),
        ("4:memory:/kubepods/pod1/c1\n1:cpu:/kubepods/pod1/c1\n0::/\n", "memory/memory.oom_control", V1),
        ("4:memory:/user/session\n0::/\n", "memory/user/session/memory.oom_control", V1),
    ],
    ids=["v2 container", "v2 host", "v1 container, which sees the host's path", "v1 host"],
)
def test_the_counter_is_found(tmp_path: Path, group: str, file: str, text: str) -> None:
    """oom_kill, and not oom, which also counts when nothing was killed."""
    counter = tmp_path / "sys/fs/cgroup" / file
    counter.parent.mkdir(parents=True)
    counter.write_text(text)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(group)
    assert oom_kills(tmp_path) == 2


def test_without_a_counter_nothing_is_claimed(tmp_path: Path) -> None:
    """On a laptop a killed process is Crashed, which is all that is known."""
    assert oom_kills(tmp_path) is None
