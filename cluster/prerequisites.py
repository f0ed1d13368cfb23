"""What a machine must have: checked before anything starts, and said in words with the remedy.

Each check returns None where all is well, or else the reason why not, as a clause that ends a sentence.
"""

import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from cluster import binaries, folders
from cluster.binaries import locked, say
from cluster.machine import PRIVATE_FOLDERS

NODE_PACKAGES = {
    "containerd": "containerd",
    "runc": "runc",
    "/usr/lib/cni/ptp": "containernetworking-plugins",
    "iptables": "iptables",
    "ip": "iproute2",
    "conntrack": "conntrack",
    "mount": "mount",
    "unshare": "util-linux",
}
"""What the node runs, each with the Debian package that has it."""

BUILD_PACKAGES = {"buildah": "buildah", "debootstrap": "debootstrap", "skopeo": "skopeo"}
"""What builds images where neither docker nor podman is there."""

BROWSER_PACKAGES = {"chromium": "chromium", "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf": "fonts-dejavu-core"}
"""What shows the studies' pages to tests."""

POOLER_PACKAGES = {"/usr/sbin/pgbouncer": "pgbouncer"}
"""What stands between workers and Postgres in a test."""

SPACE = 30
"""GB for everything at its largest: the trial image with CUDA PyTorch (5.8 GB) is unpacked by buildah and by
containerd, and its packed layers and downloads are kept, so that a rebuild is quick."""
SPACE_WHEN_CACHED = 8
"""GB for containers, volumes and new layers of code once the images are there."""


class PrerequisiteError(RuntimeError):
    """This machine lacks something; the message says what and how to get it."""


def reason_against_control_plane() -> str | None:
    """Why no control plane can run here, or None."""
    if platform.system() != "Linux":
        return "it needs Linux"
    if shutil.which("setpriv") is None:
        return "the program setpriv is missing (package util-linux)"
    if not binaries.KUBERNETES.is_cached():
        return binaries.reason_it_cannot_build()
    return None


def reason_against_node() -> str | None:
    """Why no node can run here, or None."""
    if reason := reason_against_control_plane():
        return reason
    if os.geteuid() != 0:
        return "it needs root, to make containers"
    missing = missing_packages(NODE_PACKAGES)
    if missing and shutil.which("apt-get") is None:
        return f"it needs {', '.join(missing)}, and this is no Debian where apt-get could install them"
    for folder in (folders.cache(), folders.state()):
        if any(folder.is_relative_to(private) for private in PRIVATE_FOLDERS):
            return f"{folder} is in a folder that the node replaces by its own: set XDG_CACHE_HOME and XDG_STATE_HOME"
    return reason_against_space()


def reason_against_browser() -> str | None:
    """Why no page can be looked at here, or None."""
    return _reason_against_installing(BROWSER_PACKAGES)


def reason_against_pooler() -> str | None:
    """Why no pooler can run here, or None."""
    return _reason_against_installing(POOLER_PACKAGES)


def _reason_against_installing(packages: Mapping[str, str]) -> str | None:
    missing = missing_packages(packages)
    if missing and (os.geteuid() != 0 or shutil.which("apt-get") is None):
        return f"it needs {', '.join(missing)}: apt-get install {' '.join(missing)}"
    return None


def reason_against_space() -> str | None:
    """Why the disk is too small, or None."""
    needed = SPACE_WHEN_CACHED if (folders.cache() / "images").exists() else SPACE
    existing = next(folder for folder in (folders.cache(), *folders.cache().parents) if folder.exists())
    free = shutil.disk_usage(existing).free / 1e9
    if free < needed:
        return f"{existing} has {free:.0f} GB of free disk and {needed} GB are needed"
    return None


def install(packages: Mapping[str, str]) -> None:
    """Install what is missing of a table like NODE_PACKAGES, from Debian's package lists.

    Raises:
        PrerequisiteError: We are not root, or apt-get failed; its output stands above the message.
    """
    if not missing_packages(packages):
        return
    # One at a time, as tests side by side ask: apt-get waits for its own locks or not, as it likes.
    with locked(folders.cache() / "packages.lock", waiting_for="another installation of packages"):
        if missing := missing_packages(packages):
            _install(missing)


def missing_packages(packages: Mapping[str, str]) -> list[str]:
    """The Debian packages that are not there, of a table like NODE_PACKAGES."""
    return [package for program, package in packages.items() if not _is_there(program)]


def _install(missing: Sequence[str]) -> None:
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *missing]
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise PrerequisiteError(f"Missing: {', '.join(missing)}. On Debian, as root: {' '.join(command)}")
    say(f"Installing {', '.join(missing)}.")
    if not _apt(command):
        _apt(["apt-get", "update"])  # the lists may be absent or name versions that are gone
        if not _apt(command):
            raise PrerequisiteError(f"`{' '.join(command)}` failed; what it said stands above.")


def _apt(command: Sequence[str]) -> bool:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    result = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if result.returncode != 0:
        say(result.stdout[-2000:])
    return result.returncode == 0


def _is_there(program: str) -> bool:
    # NB: the PATH of a root shell made by `su` may lack the sbin folders, where ip and iptables are.
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])
    return Path(program).exists() if program.startswith("/") else shutil.which(program, path=path) is not None
