"""Files that other people have named or made."""

import os
import re
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tuning_api import files


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)


KINDS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a pipe": (os.mkfifo, "it is a pipe, not a file"),
    "a socket": (a_socket, "it is a socket, not a file"),
    "a device without an end": (lambda path: path.symlink_to("/dev/zero"), "it is a device, not a file"),
    "a folder": (Path.mkdir, "Is a directory"),
    "a file that says it is empty": (lambda path: path.symlink_to("/proc/self/maps"), "it has more than 10 bytes"),
    "a large file": (lambda path: path.write_bytes(b"x" * 11), "it has more than 10 bytes"),
    "a larger file than memory": (lambda path: (path.touch(), os.truncate(path, 1 << 42)), "it has more than 10 bytes"),
    "a link to itself": (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
}


@pytest.mark.parametrize(("make", "words"), KINDS.values(), ids=KINDS)
def test_only_regular_files_are_read(
    make: Callable[[Path], object], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others hang, or have no end."""
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "x")
    with pytest.raises(OSError, match=re.escape(words)):
        files.read(tmp_path / "x", most=10)


def test_a_file_of_the_size_is_read(tmp_path: Path) -> None:
    """Also past a link, which a person has named."""
    (tmp_path / "x").write_bytes(b"x" * 10)
    (tmp_path / "link").symlink_to("x")
    assert files.read(tmp_path / "link", most=10) == b"x" * 10


def test_a_name_with_a_nul_is_an_error_of_a_file(tmp_path: Path) -> None:
    """Python's own is a ValueError, which nobody expects of a file."""
    for read in (lambda path: files.read(path, most=1), lambda path: files.resolved_below(path, tmp_path)):
        with pytest.raises(OSError, match="NUL"):
            read(tmp_path / "a\0b")


OUTSIDE = ["../out", "/etc/passwd", "link", "folder/x", "in/../../out", "out/../../out"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_path_stays_below_its_folder(name: str, tmp_path: Path) -> None:
    """Dots, absolute names, and links on the way or at its end."""
    below = tmp_path / "below"
    (below / "in").mkdir(parents=True)
    (below / "out").mkdir()
    (tmp_path / "out").touch()
    (tmp_path / "x").touch()
    (below / "link").symlink_to("../out")
    (below / "folder").symlink_to("..")
    (below / "in" / "file").touch()
    (below / "inner").symlink_to("in/file")
    assert files.resolved_below(below / "inner", below) == below / "in" / "file"
    with pytest.raises(OSError, match="it leads out of"):
        files.resolved_below(below / name, below)
