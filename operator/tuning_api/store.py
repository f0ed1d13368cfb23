"""A place for files behind a URI (`trial.checkpoints.uri`): whatever fsspec knows, above all S3.

Both sides reach it here: workers, and the command line that fetches what they left. fsspec and the package of the
protocol are imported when the first file is moved; the operator, which moves none, does without them. Credentials and
endpoints come from the environment (AWS_..., FSSPEC_S3_...), as those packages document it, and never from the URI.

NB: fsspec does its work in a thread that it starts at the first call. A process that is forked later must not have made
one.
"""

import secrets
from collections.abc import Iterator
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


class StoreError(Exception):
    """A store did not do what it was asked; it may do it later."""


class StoreRefusedError(StoreError):
    """A store does not do what it was asked, however often it is: no such bucket, no rights, no package for it."""


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

    def get(self, name: str, file: Path) -> bool:
        """Read a file to this machine, at once or not at all.

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
                    _call(system, "get_file", f"{root}/{name}", str(temporary), size=size)
                except FileNotFoundError:
                    return False
            temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)
        return True

    def get_folder(self, name: str, folder: Path) -> bool:
        """Read all files below a name.

        Returns:
            Whether there were any.
        """
        files = self.files(name)
        for file in files:
            self.get(f"{name}/{file}", folder / file)
        return bool(files)

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

    def files(self, folder: str) -> list[str]:
        """The files in a folder and below it, relative to it."""
        with self._translated():
            system, root = self._open()
            system.invalidate_cache()
            path = f"{root}/{folder}/"
            found = [found.removeprefix(path) for found in _call(system, "find", path) if found.startswith(path)]
        # NB: what an object is called may be anything, and becomes a path on this machine.
        return [name for name in found if name and not name.startswith("/") and ".." not in name.split("/")]

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
