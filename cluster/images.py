"""The images of this project, and how they get to the node or to a registry.

The project's two images are built from the Dockerfiles that users build from. Where docker or podman works, all is as
users know it. Without them, registries are seldom in reach either: there a Debian with Python 3.11, made by debootstrap,
takes the place of the base image, and nothing is needed but a Debian mirror and PyPI.
"""

import hashlib
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from cluster import binaries, folders
from cluster.binaries import locked, say
from cluster.engines import Buildah, Engine, Image, find_engine
from cluster.layers import ImageError
from cluster.machine import Machine

SUITE = "bookworm"
"""The Debian whose Python is 3.11, the version that the project is written for."""
BASE_PACKAGES = ("ca-certificates", "python3", "python3-pip", "python3-venv", "python-is-python3")
HERE = Path(__file__).parent

OPERATOR = Image("localhost/tuningstudy-operator:dev", folders.REPOSITORY, folders.REPOSITORY / "operator/Dockerfile")
TRIAL = Image("localhost/tuningstudy-trial:dev", folders.REPOSITORY, folders.REPOSITORY / "trial_image/Dockerfile")
POSTGRES = Image("localhost/postgres:dev", HERE / "postgres", HERE / "postgres/Dockerfile")
"""For charts with a database of their own, where docker.io/postgres cannot be pulled: the node pulls nothing."""
PAUSE_NAME = "localhost/pause:dev"


def build(engine: Engine, image: Image, *, base: str | None = None) -> str:
    """Build one image and return its id, which follows from its content.

    Args:
        engine: Does it.
        image: Which one.
        base: Its BASE_IMAGE. None: our own Debian with buildah, else what the Dockerfile says.

    Raises:
        ImageError: The Dockerfile is absent or a step failed; its output stands above the message.
    """
    if not image.dockerfile.exists():
        raise ImageError(f"{image.dockerfile} does not exist, so {image.name} cannot be built.")
    if base is None and image.has_base and isinstance(engine, Buildah):
        base = base_image(engine)
    started = time.monotonic()
    image_id = engine.build(image, base=base)
    say(f"Built {image.name} with {engine.name} in {time.monotonic() - started:.1f} s.")
    return image_id


def bring_all(machine: Machine) -> dict[Image, str]:
    """Build all images with the engine that works here, and bring them to the node; quick when nothing changed.

    Returns:
        The id of each.
    """
    engine, ids = find_engine(), {}
    for image in (OPERATOR, TRIAL, POSTGRES):
        ids[image] = build(engine, image)
        load(engine, image, machine)
    return ids


def load(engine: Engine, image: Image, machine: Machine) -> None:
    """Bring one image to the node. Pods that start from then on use it, and it survives `down`."""
    started = time.monotonic()
    engine.load(image, machine)
    say(f"Brought {image.name} to the cluster in {time.monotonic() - started:.1f} s.")


def name_in(registry: str, image: Image) -> str:
    """The name of an image in a registry such as "ghcr.io/me"."""
    return f"{registry.rstrip('/')}/{image.name.removeprefix('localhost/')}"


def load_pause(machine: Machine) -> None:
    """Build the image that holds a pod's namespaces and bring it to the node."""
    image = Image(PAUSE_NAME, binaries.PAUSE.ensure(), HERE / "pause/Dockerfile", has_base=False)
    engine = Buildah()
    engine.build(image, base=None)
    engine.load(image, machine)


def base_image(engine: Buildah) -> str:
    """Our stand-in for python:3.11-slim: its name, after making it if it is absent; about a minute."""
    recipe = [SUITE, *BASE_PACKAGES, (HERE / "base/Dockerfile").read_text()]
    name = f"localhost/python:3.11-{SUITE}-{hashlib.sha256(repr(recipe).encode()).hexdigest()[:8]}"
    with locked(folders.images() / "base.lock", waiting_for="another build of the base image"):
        if not engine.has(name):
            say(f"Making the base image from Debian {SUITE}: about a minute.")
            with tempfile.TemporaryDirectory(dir=folders.images()) as context:
                _make_system(Path(context) / "system.tar")
                engine.build(Image(name, Path(context), HERE / "base/Dockerfile", has_base=False), base=None)
    return name


def _make_system(archive: Path) -> None:
    """Write a minimal Debian with Python to `archive`, open for `pip install` as python:3.11-slim is."""
    log = folders.images() / "debootstrap.log"
    # In mounts of its own, so that nothing stays mounted below a folder that we delete.
    debootstrap = ["unshare", "--mount", "--propagation", "private", "debootstrap", "--variant=minbase"]
    script = """
        target=$1 archive=$2; shift 2
        "$@"
        rm -rf "$target"/usr/lib/python3*/EXTERNALLY-MANAGED "$target"/var/cache/apt/* "$target"/var/lib/apt/lists/*
        tar --directory "$target" --numeric-owner --exclude='./dev/*' --create --file "$archive" .
    """
    with tempfile.TemporaryDirectory(dir=folders.images()) as target, log.open("wb") as output:
        make = [*debootstrap, f"--include={','.join(BASE_PACKAGES)}", SUITE, target, *_mirror()]
        command: list[str | Path] = ["sh", "-euc", script, "make-system", target, archive, *make]
        if subprocess.run(command, stdout=output, stderr=output, check=False).returncode != 0:
            raise ImageError(f"debootstrap failed; the end of its log {log}:\n{log.read_text()[-1000:]}")


def _mirror() -> list[str]:
    """The Debian mirror that this machine uses, if it is a Debian of that suite."""
    if shutil.which("apt-get") is None:
        return []
    command = ["apt-get", "indextargets", "--format", "$(ORIGIN) $(RELEASE) $(REPO_URI)", "Created-By: Packages"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [line.split()[2] for line in lines if line.startswith(f"Debian {SUITE} ")][:1]
