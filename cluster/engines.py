"""The programs that build images: docker, podman, or buildah as root where neither works."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cluster import folders, layers, prerequisites
from cluster.binaries import locked
from cluster.layers import ImageError
from cluster.machine import Machine


@dataclass(frozen=True)
class Image:
    """One image and what it is made from."""

    name: str
    context: Path
    dockerfile: Path
    has_base: bool = True
    """Whether its Dockerfile takes the argument BASE_IMAGE."""


class Engine(Protocol):
    """A program that builds images."""

    name: str

    def build(self, image: Image, *, base: str | None) -> str:
        """Build an image under its name; quick when nothing changed, for the engine keeps the result of each step.

        Args:
            image: Which one.
            base: Its BASE_IMAGE. None: what the Dockerfile says.

        Returns:
            Its id, which follows from its content.
        """

    def tag(self, image: Image, *, name: str) -> None:
        """Give an image one more name."""

    def push(self, name: str) -> None:
        """Push an image to the registry that is part of its name."""

    def load(self, image: Image, machine: Machine) -> None:
        """Bring an image to the node."""


def find_engine() -> Engine:
    """The engine that works here: docker, else podman, else buildah, which is installed if it is missing.

    Raises:
        PrerequisiteError: None works and buildah cannot be installed.
    """
    for name in ("docker", "podman"):
        if _works(name):
            return Docker(name)
    return Buildah()


def reason_against_building() -> str | None:
    """Why no image can be built here, or None."""
    if _works("docker") or _works("podman"):
        return None
    if os.geteuid() != 0:
        return "neither docker nor podman works, and buildah needs root"
    missing = prerequisites.missing_packages(prerequisites.BUILD_PACKAGES)
    if missing and shutil.which("apt-get") is None:
        return f"neither docker nor podman works, and {', '.join(missing)} cannot be installed without apt-get"
    return prerequisites.reason_against_space()


def _works(engine: str) -> bool:
    """Whether an engine is there and can build: the client of docker alone cannot."""
    if shutil.which(engine) is None:
        return False
    return subprocess.run([engine, "info"], capture_output=True, check=False).returncode == 0


class Docker:
    """docker, or podman, whose commands are the same."""

    def __init__(self, name: str) -> None:
        self.name = name

    def build(self, image: Image, *, base: str | None) -> str:
        """As Engine.build."""
        with _id_file() as file:
            names: list[str | Path] = ["--tag", image.name, "--file", image.dockerfile, "--iidfile", file]
            _show([self.name, "build", *names, *_base_argument(base), image.context])
            return file.read_text().strip()

    def tag(self, image: Image, *, name: str) -> None:
        """As Engine.tag."""
        _show([self.name, "tag", image.name, name])

    def push(self, name: str) -> None:
        """As Engine.push."""
        _show([self.name, "push", name])

    def load(self, image: Image, machine: Machine) -> None:
        """As Engine.load; the whole image is moved each time."""
        with subprocess.Popen([self.name, "save", image.name], stdout=subprocess.PIPE) as saving:
            importing = layers.start_import(machine, stdin=saving.stdout)
        if importing.wait() != 0 or saving.returncode != 0:
            raise ImageError(f"Cannot bring {image.name} to the node; the reason stands above.")


class Buildah:
    """buildah as root, with its own store in the cache, in chroots: so it also works inside a container."""

    name = "buildah"

    def __init__(self) -> None:
        prerequisites.install(prerequisites.BUILD_PACKAGES)
        self._folder = folders.images()
        self._store = self._folder / "buildah"

    def build(self, image: Image, *, base: str | None) -> str:
        """As Engine.build; steps may use `RUN --mount=type=cache`, which is kept in our cache folder."""
        # A machine behind a proxy of its own has that proxy's authority there. NB: "O", so that steps may write to the
        # folder (Debian's ssl-cert does) without writing to ours; it stays out of the image.
        authorities = ["--volume", "/etc/ssl/certs:/etc/ssl/certs:O"] if image.has_base else []
        options = ["--layers", "--format", "oci", *authorities, *_base_argument(base)]
        with self._buildah() as buildah, _id_file() as file:
            names: list[str | Path] = ["--tag", image.name, "--file", image.dockerfile, "--iidfile", file]
            try:
                _show([*buildah, "build", *options, *names, image.context])
            except ImageError:
                _run([*buildah, "rm", "--all"])  # the container of a step that failed stays otherwise
                raise
            return file.read_text().strip()

    def tag(self, image: Image, *, name: str) -> None:
        """As Engine.tag."""
        with self._buildah() as buildah:
            _run([*buildah, "tag", image.name, name])

    def push(self, name: str) -> None:
        """As Engine.push."""
        with self._buildah() as buildah:
            _show([*buildah, "push", name, f"docker://{name}"])

    def load(self, image: Image, machine: Machine) -> None:
        """As Engine.load; only layers that the node lacks are moved, and they stay uncompressed."""
        layout = self._folder / "layers"
        with self._buildah():
            self._copy_to(layout, image.name)
            try:
                layers.move(layout, image.name, machine)
            except ImageError:
                # The node lacks layers that were moved to it once: someone deleted its folder. Move them all again.
                shutil.rmtree(layout)
                self._copy_to(layout, image.name)
                layers.move(layout, image.name, machine)

    def has(self, name: str) -> bool:
        """Whether an image is in the store."""
        with self._buildah() as buildah:
            command = [*buildah, "inspect", "--type", "image", name]
            return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def _copy_to(self, layout: Path, name: str) -> None:
        """Write an image to a folder in the OCI layout, but for layers that are there already."""
        layout.mkdir(exist_ok=True)
        # NB: not `buildah push`, which compresses every layer, again each time.
        options = ["--insecure-policy", "--dest-oci-accept-uncompressed-layers"]
        with tempfile.TemporaryDirectory() as mounts:
            source = f"containers-storage:[overlay@{self._store}+{mounts}]{name}"
            _run([*_ALONE, "skopeo", "copy", *options, source, f"oci:{layout}:{name}"])

    @contextmanager
    def _buildah(self) -> Iterator[list[str | Path]]:
        """The command to which a subcommand is added; one user at a time.

        What it mounts, and its notes on that, vanish with each command, also when that is killed.
        """
        # It holds the cache mounts too, so it is no folder that a restart of the machine empties.
        temporary = self._folder / "temporary"
        temporary.mkdir(exist_ok=True)
        settings = {"STORAGE_DRIVER": "overlay", "BUILDAH_ISOLATION": "chroot", "TMPDIR": str(temporary)}
        environment = ["env", *(f"{name}={value}" for name, value in settings.items())]
        waiting = locked(self._folder / "buildah.lock", waiting_for="another build of images")
        with waiting, tempfile.TemporaryDirectory() as mounts:
            yield [*_ALONE, *environment, "buildah", "--root", self._store, "--runroot", mounts]


_ALONE = ["unshare", "--mount", "--propagation", "private"]


@contextmanager
def _id_file() -> Iterator[Path]:
    """A file into which an engine writes an image's id."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "id"


def _base_argument(base: str | None) -> list[str]:
    return ["--build-arg", f"BASE_IMAGE={base}"] if base else []


def _show(command: Sequence[str | Path]) -> None:
    """Run a command whose output is for the person who waits, on the error stream as all progress."""
    if subprocess.run(command, stdout=sys.stderr, check=False).returncode != 0:
        raise ImageError(f"`{_short(command)}` failed; what it said stands above.")


def _run(command: Sequence[str | Path]) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise ImageError(f"`{_short(command)}` failed: {result.stderr.strip()}")


def _short(command: Sequence[str | Path]) -> str:
    """The command without what stands before the engine's own name."""
    words = [str(word) for word in command]
    start = next(at for at, word in enumerate(words) if word in {"docker", "podman", "buildah", "skopeo"})
    return " ".join(words[start:])
