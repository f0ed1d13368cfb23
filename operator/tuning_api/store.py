"""A place for files behind a URI (`trial.checkpoints.uri`): whatever fsspec knows, above all S3.

Both sides reach it here: workers, and the command line that fetches what they left. fsspec and the package of the
protocol are imported when the first file is moved; the operator, which moves none, does without them. Credentials and
endpoints come from the environment (AWS_..., FSSPEC_S3_...), as those packages document it, and never from the URI.

NB: fsspec does its work in a thread that it starts at the first call. A process that is forked later must not have made
one.
"""

import re
import secrets
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path, PurePosixPath
from typing import Any

PATIENCE_SECONDS = 60
"""How long a request may take, besides the time that its bytes need at the slowest rate."""
SLOWEST_RATE = 1_000_000
"""Bytes a second; a store that is slower counts as away, so that no training waits for it without end."""

_REFUSALS = (FileNotFoundError, ImportError, PermissionError, TypeError, ValueError)
_REFUSING_NAMES = frozenset(
    {
        "ClientAuthenticationError",
        "DefaultCredentialsError",
        "NoCredentialsError",
        "ParamValidationError",
        "PartialCredentialsError",
    }
)
"""By their names: the packages of S3, Google and Azure each have their own, and only one of them may be here."""
_PASSING: frozenset[int] = frozenset(
    {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}
)
"""Of the answers that blame the client, those that may be others the next time."""
_LONGEST_WORDS = 300
_LONGEST_NAME, _LONGEST_PART = 1024, 255
"""Characters of a key in S3, and bytes of a file's name in most file systems."""
_NO_NAME = re.compile("[\x00-\x1f\x7f\\\\\ud800-\udfff]")
"""Control characters, and what separates folders on some machines."""


class StoreError(Exception):
    """A store did not do what it was asked; it may do it later."""


class StoreRefusedError(StoreError):
    """A store does not do what it was asked, however often it is: no such bucket, no rights, no package for it."""


Accept = Callable[[Mapping[str, int]], None]
"""Is told the names and sizes in bytes of what would be read."""


def _anything(_: Mapping[str, int]) -> None:
    """Accept all."""


@dataclass(frozen=True)
class Store:
    """What lies below a URI. Names are paths below it, with slashes.

    Raises (all methods):
        StoreRefusedError: it never will, unless a person changes something.
        StoreError: it is away, or has failed; its state is as before.
    """

    uri: str

    def load(self) -> None:
        """Import the protocol's package; nothing is started, and nobody is asked."""
        with self._translated():
            from fsspec import get_filesystem_class  # noqa: PLC0415

            get_filesystem_class(self._protocol)

    def check(self) -> None:
        """Write, read, list and remove a small file: whoever may not do one of these would find out hours later."""
        folder = f".check-{secrets.token_hex(4)}"
        with self._translated():
            system, root = self._open()
            path = f"{root}/{folder}/file"
            _call(system, "pipe_file", path, b"tuningstudy")
            _call(system, "cat_file", path)
            _call(system, "ls", f"{root}/{folder}", detail=False)
            _call(system, "rm", f"{root}/{folder}", recursive=True)

    def put(self, file: Path, name: str) -> None:
        """Write a file of this machine, at once or not at all: who reads meanwhile gets the old one."""
        with self._translated():
            system, root = self._open()
            _call(system, "put_file", str(file), f"{root}/{name}", size=file.stat().st_size)

    def get(self, name: str, file: Path, *, accept: Accept = _anything) -> bool:
        """Read a file to this machine, at once or not at all.

        Args:
            name: The file's name.
            file: Where it goes.
            accept: Is told the size first, and may raise.

        Returns:
            Whether there is one.
        """
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f"{file.name}.{secrets.token_hex(4)}.tmp")
        try:
            with self._translated():
                system, root = self._open()
                try:
                    size = _call(system, "info", f"{root}/{name}").get("size") or 0
                except FileNotFoundError:
                    return False
            accept({name: size})
            with self._translated():
                try:
                    _call(system, "get_file", f"{root}/{name}", str(temporary), size=size)
                except FileNotFoundError:
                    return False
            temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)
        return True

    def get_folder(self, name: str, folder: Path, *, accept: Accept = _anything) -> bool:
        """Read all files below a name, at once or not at all; what was in the folder is gone.

        NB: what objects are called, whoever may write to the bucket decides. They are checked before anything is made,
        and then made in a new folder, in which there is no link that could lead elsewhere.

        Args:
            name: The name.
            folder: Where they go.
            accept: Is told the files and their sizes first, and may raise.

        Returns:
            Whether there were any.

        Raises:
            StoreRefusedError: an object has a name that cannot be a file in the folder.
        """
        sizes = self.files(name)
        if not sizes:
            return False
        accept(sizes)
        temporary = folder.with_name(f".{secrets.token_hex(8)}.tmp")
        temporary.mkdir(parents=True)
        try:
            for file in sizes:
                if not self.get(f"{name}/{file}", temporary / file):
                    raise StoreError(f"{self.uri}: {name}/{file} was removed while it was read")
            if folder.is_dir() and not folder.is_symlink():
                shutil.rmtree(folder)
            temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return True

    def names(self, folder: str) -> list[str]:
        """What lies directly in a folder: files and folders; nothing where there is none."""
        with self._translated():
            system, root = self._open()
            system.invalidate_cache()
            try:
                found = _call(system, "ls", f"{root}/{folder}", detail=False)
            except FileNotFoundError:
                return []
        return [PurePosixPath(path).name for path in found]

    def files(self, folder: str) -> dict[str, int]:
        """The sizes of the files in a folder and below it, by their names relative to it.

        Raises:
            StoreRefusedError: an object has a name that cannot be a file in a folder.
        """
        with self._translated():
            system, root = self._open()
            system.invalidate_cache()
            path = f"{root}/{folder}/"
            found = _call(system, "find", path, detail=True)
        sizes = {
            name.removeprefix(path): int(info.get("size") or 0)
            for name, info in found.items()
            if name.startswith(path) and not _is_mark_of_folder(name, info)
        }
        if fault := fault_of_names(sizes):
            raise StoreRefusedError(f"{self.uri}: {folder} {fault}")
        return sizes

    def remove(self, name: str) -> None:
        """Remove a file, or a folder with all that is in it, if it is there."""
        with self._translated():
            system, root = self._open()
            system.invalidate_cache()
            with suppress(FileNotFoundError):
                _call(system, "rm", f"{root}/{name}", recursive=True)

    @property
    def _protocol(self) -> str:
        return self.uri.partition(":")[0]

    def _open(self) -> tuple[Any, str]:
        from fsspec.core import url_to_fs  # noqa: PLC0415

        system, root = url_to_fs(self.uri.rstrip("/"))
        return system, root.rstrip("/")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except StoreError:
            raise
        except Exception as error:
            kind = StoreRefusedError if _is_refusal(error) else StoreError
            raise kind(f"{self.uri}: {_words(error, protocol=self._protocol)}") from error


def _is_mark_of_folder(name: str, info: Mapping[str, Any]) -> bool:
    """Whether an object stands for a folder that is empty, as consoles make them."""
    return info.get("type") == "directory" or (name.endswith("/") and not info.get("size"))


def fault_of_names(names: Collection[str]) -> str | None:
    """Why objects cannot be files below a folder of this machine, in words; None if they can. Pure."""
    above = {str(parent) for name in names for parent in PurePosixPath(name).parents}
    for name in names:
        if not _is_path_below(name):
            return f"has an object {name[:_LONGEST_WORDS]!r}, which is no name of a file below a folder"
        if name in above:
            return f"has a file and a folder of the same name, {name!r}"
    return None


def _is_path_below(name: str) -> bool:
    """Whether each part is a name, and none leads up or elsewhere on any system."""
    parts = name.split("/")
    return (
        len(name) <= _LONGEST_NAME
        and not _NO_NAME.search(name)
        and all(part not in {"", ".", ".."} and len(part.encode()) <= _LONGEST_PART for part in parts)
    )


def _call(system: Any, method: str, *arguments: Any, size: int = 0, **options: Any) -> Any:
    """Call a file system; all of those that use the network take a time limit."""
    from fsspec.asyn import AsyncFileSystem  # noqa: PLC0415

    if isinstance(system, AsyncFileSystem) and system.async_impl:
        options["timeout"] = PATIENCE_SECONDS + size / SLOWEST_RATE
    return getattr(system, method)(*arguments, **options)


def _is_refusal(error: Exception) -> bool:
    if isinstance(error, _REFUSALS) or type(error).__name__ in _REFUSING_NAMES:
        return True
    # NB: s3fs knows the codes of Amazon, and calls those of other servers an OSError, such as that of an unknown key.
    answer = getattr(error.__cause__, "response", None)
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(answer, dict) else None
    return status in range(400, 500) and status not in _PASSING


def _words(error: Exception, *, protocol: str) -> str:
    if isinstance(error, ImportError):
        return (
            f"this needs a Python package that is not here ({error}); an image with the package can use {protocol}://"
        )
    if isinstance(error, TimeoutError):
        return "no answer"
    said = " ".join(str(error).split())[:_LONGEST_WORDS]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
