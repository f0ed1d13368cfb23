"""A folder of a person's own modules as a ConfigMap (spec.trial.code).

The folder travels as one zip archive, since a ConfigMap's keys cannot name sub-folders, and Python imports from a zip on
its path (docs/adr/0013). The same files make the same bytes, and so the same ConfigMap.
"""

import base64
import copy
import errno
import io
import os
import zipfile
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tuning_api import files, naming
from tuning_api.schema import Document
from tuning_api.spec import GROUP, KIND, VERSION, Trial, class_paths
from tuning_operator.local.errors import BadInputError

MOST_BYTES = 1 << 20
"""What a ConfigMap holds (core/v1 MaxSecretSize, which ConfigMaps share)."""
MOST_FILES = 1000
"""More are not one person's model, but a home directory."""
MOST_ITEMS = 100_000
"""All that is looked at; a folder with data beside the code may have many files."""
MOST_LEVELS = 50
LARGEST_SOURCE = 16 << 20
"""Bytes of all modules together; code packs to a quarter or so, and a ConfigMap takes 1 MiB."""
LARGEST_SHOWN = 5
_ENVIRONMENT_MARK = "pyvenv.cfg"
_LONG_AGO = (1980, 1, 1, 0, 0, 0)
_READABLE = 0o644 << 16
_FOLDER = 0o40755 << 16


@dataclass(frozen=True)
class SourceFile:
    """A module, named from the folder that is put on PYTHONPATH."""

    name: str
    content: bytes


@dataclass(frozen=True)
class Folder:
    """The code of a folder."""

    path: Path
    files: tuple[SourceFile, ...]
    others: int
    """Files that are no code and stay behind, hidden ones not counted."""

    @property
    def modules(self) -> frozenset[str]:
        """The names that can be imported from it."""
        return frozenset(PurePosixPath(file.name).parts[0].removesuffix(".py") for file in self.files)


# Which code


def named_modules(trial: Trial) -> tuple[str, ...]:
    """The modules and packages, by their first name, that a trial's class paths and its objective name."""
    names = list(class_paths(trial.lightning))
    if trial.objective:
        names.append(trial.objective.replace(":", "."))
    return tuple(dict.fromkeys(name.partition(".")[0] for name in names))


def read_folder(path: Path) -> Folder:
    """All code below a folder, but for hidden files, caches, and virtual environments.

    NB: the folder may be somebody else's work, and its code runs where it can send what it reads. A link is followed
    only to a module that is taken along by itself: it may lead to what a person keeps elsewhere, or hides here.

    Raises:
        BadInputError: there is no such folder, it holds far more than a model, or a module in it is none.
    """
    if not path.is_dir():
        raise BadInputError(f"{path}: there is no such folder")
    found = list(_files(path))
    modules = [file for file in found if file.suffix == ".py"]
    if len(modules) > MOST_FILES:
        raise BadInputError(f"{path}: has more than {MOST_FILES} modules: name the folder of your model by --code")
    taken = {Path(os.path.realpath(file)) for file in modules if not file.is_symlink()}
    sources: list[SourceFile] = []
    left = LARGEST_SOURCE
    for file in modules:
        content = _content(file, taken, folder=path, most=left)
        left -= len(content)
        sources.append(SourceFile(_name(file, path), content))
    return Folder(path, tuple(sorted(sources, key=lambda source: source.name)), len(found) - len(modules))


def _files(path: Path) -> Iterator[Path]:
    try:
        for file in files.walk(path, most=MOST_ITEMS, levels=MOST_LEVELS, enters=_is_of_the_person):
            if not file.name.startswith("."):
                yield file
    except OSError as error:
        raise BadInputError(
            f"{error.filename or path}: {error.strerror}: name the folder of your model by --code"
        ) from error


def _is_of_the_person(folder: Path) -> bool:
    """NB: a folder that may not be read has no code of the person's, such as that of a database beside it."""
    is_hidden = folder.name.startswith(".")
    is_readable = os.access(folder, os.R_OK | os.X_OK)
    return is_readable and not is_hidden and folder.name != "__pycache__" and not (folder / _ENVIRONMENT_MARK).exists()


def _content(file: Path, taken: Set[Path], *, folder: Path, most: int) -> bytes:
    try:
        real = Path(os.path.realpath(file, strict=True))
        if file.is_symlink() and real not in taken and real.is_file():
            words = "is a link to a file that is not taken along by itself: copy that one there, or remove the link"
            raise BadInputError(f"{file}: {words}")
        return files.read(real, most=most)
    except OSError as error:
        if error.errno == errno.EFBIG:
            words = (
                f"the modules of {folder} have more than {size_in_words(LARGEST_SOURCE)}: name a smaller one by --code"
            )
            raise BadInputError(f"{file}: {words}") from None
        raise BadInputError(f"{file}: cannot be read: {error.strerror}") from error


def _name(file: Path, folder: Path) -> str:
    name = file.relative_to(folder).as_posix()
    if not name.isprintable():
        raise BadInputError(f"{folder}: the name {name!r} cannot be written: rename that module")
    return name


# From code to a ConfigMap


def archive(folder: Folder) -> bytes:
    """A zip archive that Python imports from; the same files make the same bytes.

    Raises:
        BadInputError: a ConfigMap cannot hold it.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        # NB: before 3.13 zipimport finds a package without __init__.py only by an entry of its folder.
        for name in _folders(source.name for source in folder.files):
            file.writestr(_entry(name, _FOLDER), b"")
        for source in folder.files:
            file.writestr(_entry(source.name, _READABLE), source.content)
    packed = buffer.getvalue()
    if len(packed) > MOST_BYTES - len(naming.CODE_ARCHIVE):
        raise BadInputError(_too_large(folder, len(packed)))
    return packed


def _folders(names: Iterable[str]) -> list[str]:
    parents = {str(parent) for name in names for parent in PurePosixPath(name).parents}
    return sorted(f"{parent}/" for parent in parents - {"."})


def _entry(name: str, mode: int) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, date_time=_LONG_AGO)
    entry.create_system = 3  # Unix, wherever this runs: the archive's bytes are its name
    entry.external_attr = mode
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry


def _too_large(folder: Folder, size: int) -> str:
    largest = sorted(folder.files, key=lambda file: -len(file.content))[:LARGEST_SHOWN]
    names = ", ".join(f"{file.name} ({size_in_words(len(file.content))})" for file in largest)
    return (
        f"{folder.path}: the code is {size_in_words(size)} packed, and a ConfigMap holds 1 MiB; the largest files are"
        f" {names}: name a smaller folder by --code, or build an image with the code and set spec.trial.image"
    )


def size_in_words(size: int) -> str:
    """A number of bytes."""
    if size < 1 << 10:
        return f"{size} B"
    return f"{size / (1 << 10):.1f} KiB" if size < 1 << 20 else f"{size / (1 << 20):.1f} MiB"


def config_map(packed: bytes, *, study: str, namespace: str, uid: str | None) -> Document:
    """The ConfigMap of a study's code.

    Args:
        packed: the archive.
        study: the study's name.
        namespace: the study's namespace.
        uid: of the study, which the ConfigMap is deleted with; None while there is no study yet.
    """
    metadata: Document = {
        "name": naming.code_config_map(study=study, archive=packed),
        "namespace": namespace,
        "labels": {naming.LABEL_STUDY: study},
    }
    if uid:
        owner = {"apiVersion": f"{GROUP}/{VERSION}", "kind": KIND, "name": study, "uid": uid}
        metadata["ownerReferences"] = [owner]
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata,
        "immutable": True,
        "binaryData": {naming.CODE_ARCHIVE: base64.b64encode(packed).decode()},
    }


def with_code(study: Document, config_map_name: str) -> Document:
    """A study's manifest that takes its code from a ConfigMap; nothing else of it changes."""
    changed = copy.deepcopy(study)
    changed["spec"]["trial"]["code"] = {"configMapName": config_map_name}
    return changed
