"""The version before this one, as upgrades meet it: its chart, its operator and its workers (docs/adr/0022)."""

import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path

from cluster import engines, folders, images
from cluster.engines import Image
from cluster.machine import Machine

ARCHIVE = Path(__file__).resolve().parent.parent / "e2e" / "before.tar.xz"
TAG = "before"


@dataclass(frozen=True)
class Before:
    """The version before this one, unpacked."""

    folder: Path

    @property
    def chart(self) -> Path:
        """Its chart."""
        return self.folder / "charts" / "tuningstudy-operator"

    @property
    def values(self) -> dict[str, str]:
        """What makes a release run its images."""
        return {"image.tag": TAG, "trial.image.tag": TAG}


def unpack(folder: Path) -> Before:
    """Unpack it beside the packages of today, on which it runs: so its images take seconds and not minutes."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    shutil.copytree(folders.REPOSITORY / "requirements", folder / "requirements")
    return Before(folder)


def bring(before: Before, machine: Machine) -> None:
    """Build its images from the Dockerfiles of today, and bring them to the node."""
    engine = engines.find_engine()
    for image in (images.OPERATOR, images.TRIAL):
        repository = image.name.rpartition(":")[0]
        old = Image(f"{repository}:{TAG}", before.folder, image.dockerfile)
        images.build(engine, old)
        images.load(engine, old, machine)
