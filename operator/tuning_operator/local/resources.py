"""What this machine has, and how workers share it."""

import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tuning_operator.local.errors import BadInputError

VISIBLE = "CUDA_VISIBLE_DEVICES"
THREADS = "OMP_NUM_THREADS"
_DRIVER = Path("/proc/driver/nvidia/gpus")


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What workers share, and what the person chose for them on the command line."""

    cores: int
    gpus: tuple[str, ...] = ()
    parallelism: int | None = None
    environment: Mapping[str, str]

    @classmethod
    def here(cls, *, parallelism: int | None = None) -> "Machine":
        """This machine, as it is seen from this process."""
        environment = dict(os.environ)
        return cls(cores=cores(), gpus=gpus(environment), parallelism=parallelism, environment=environment)


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def gpus(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The GPUs that this process may use, by what `CUDA_VISIBLE_DEVICES` calls them. torch is not needed to know."""
    if (visible := environment.get(VISIBLE)) is not None:
        return _listed(visible)
    return tuple(str(number) for number in range(_installed()))


def _listed(visible: str) -> tuple[str, ...]:
    """NB: CUDA ignores what follows the first device that does not exist; -1 is the usual way to say none."""
    names = [name.strip() for name in visible.split(",")]
    end = next((place for place, name in enumerate(names) if name in {"", "-1"}), len(names))
    return tuple(names[:end])


def _installed() -> int:
    try:
        answer = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return len(list(_DRIVER.iterdir())) if _DRIVER.is_dir() else 0
    return sum(line.startswith("GPU ") for line in answer.stdout.splitlines())


def workers_at_once(*, parallelism: int, chosen: int | None, gpus: int, gpus_each: int) -> int:
    """How many workers run: what the person chose on the command line, or what the manifest says and the GPUs allow.

    Args:
        parallelism: spec.parallelism.
        chosen: --parallelism.
        gpus: GPUs of this machine.
        gpus_each: spec.trial.gpus.

    Raises:
        BadInputError: not even one worker gets its GPUs.
    """
    if gpus and gpus_each > gpus:
        raise BadInputError(f"a worker needs {gpus_each} GPUs and this machine has {gpus}: lower spec.trial.gpus")
    if chosen is not None:
        return chosen
    return min(parallelism, gpus // gpus_each) if gpus and gpus_each else parallelism


def share_of_gpus(gpus: Sequence[str], taken: Iterable[str], *, wanted: int) -> tuple[str, ...]:
    """The GPUs of one more worker: those that the fewest use."""
    users = list(taken)
    return tuple(sorted(gpus, key=lambda name: (users.count(name), gpus.index(name)))[:wanted])


def threads(*, cores: int, workers: int) -> int:
    """Threads of one worker, such that all of them do not have more than there are cores."""
    return max(1, cores // max(1, workers))
