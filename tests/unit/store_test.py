"""What objects of a bucket become on the machine of who fetches them: nothing outside of the folder, and all or nothing."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given
from hypothesis import strategies as st

from tuning_api.store import Store, StoreError, StoreRefusedError, fault_of_names

STORE = Store("memory://bucket/prefix")
FOLDER = "digits/trial-1.files"


@pytest.fixture(autouse=True)
def bucket() -> Iterator[dict[str, object]]:
    """The objects of fsspec's own store in memory, whose keys may be anything, as those of S3."""
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    yield MemoryFileSystem.store
    MemoryFileSystem.store.clear()


def put(*names: str) -> None:
    """NB: not by the file system's methods, which refuse some of the names that other stores take."""
    system = MemoryFileSystem()
    system.pipe_file("/example", b"content")
    example = MemoryFileSystem.store.pop("/example")
    MemoryFileSystem.store.update({f"/bucket/prefix/{FOLDER}/{name}": example for name in names})


HOSTILE: dict[str, tuple[str, ...]] = {
    "a name that leads up": ("../.bashrc",),
    "a name that leads up further down": ("a/../../.bashrc",),
    "a name that leads to itself": ("a/./b",),
    "an absolute name": ("/etc/passwd",),
    "an empty part": ("a//b",),
    "a slash at the end": ("a/",),
    "another machine's slashes": ("..\\.bashrc",),
    "a NUL": ("a\0b",),
    "an end of a line": ("a\nb",),
    "an escape": ("a\x1b[31m",),
    "a long part": ("a" * 256,),
    "a long part of wide letters": ("\u20ac" * 100,),
    "a long name": ("/".join(["a" * 200] * 6),),
    "a file and a folder": ("a", "a/b"),
    "a file and a folder further down": ("x/a", "x/a/b/c"),
    "one of many": (*map(str, range(50)), "../x"),
}


@pytest.mark.parametrize("names", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_name_leaves_nothing_on_the_machine(names: tuple[str, ...], tmp_path: Path) -> None:
    """Trial code may write objects of any name."""
    put(*names)
    (tmp_path / ".bashrc").write_text("# mine")
    with pytest.raises(StoreRefusedError, match=r"trial-1\.files has a"):
        STORE.get_folder(FOLDER, tmp_path / "downloads" / "copy")
    assert [path.name for path in tmp_path.rglob("*")] == [".bashrc"]
    assert (tmp_path / ".bashrc").read_text() == "# mine"


@given(st.lists(st.text(st.sampled_from("a/.\\\0~\n"), max_size=8) | st.text(max_size=8)))
def test_names_that_are_taken_stay_below(names: list[str]) -> None:
    """Whatever they are."""
    if fault_of_names(names) is None:
        paths = {os.path.normpath(f"/folder/{name}") for name in names}
        assert all(path.startswith("/folder/") for path in paths)
        assert len(paths) == len(set(names))


def test_a_folder_is_fetched_with_all_that_is_in_it(tmp_path: Path) -> None:
    """Nothing else is beside it; who fetches is told first."""
    put("a", "b/c", ".hidden", "b/d e")
    told: list[Mapping[str, int]] = []
    assert STORE.get_folder(FOLDER, tmp_path / "copy", accept=told.append)
    assert told == [dict.fromkeys(["a", "b/c", ".hidden", "b/d e"], len(b"content"))]
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]
    assert sorted(path.name for path in (tmp_path / "copy").rglob("*")) == [".hidden", "a", "b", "c", "d e"]


def test_what_was_there_is_replaced_and_no_link_is_followed(tmp_path: Path) -> None:
    """A worker that goes on with a trial has what the bucket has; an older file or a link of that name is none of it."""
    put("a", "b/c")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "old").touch()
    (copy / "b").symlink_to(elsewhere)
    assert STORE.get_folder(FOLDER, copy)
    assert sorted(path.name for path in copy.rglob("*")) == ["a", "b", "c"]
    assert [*elsewhere.iterdir()] == []


def test_half_a_folder_is_not_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither when the store goes away, nor when an object is removed meanwhile, nor when who fetches refuses."""
    put("a", "b")

    def refuse(_: Mapping[str, int]) -> None:
        raise ValueError("too much")

    def remove(_: Mapping[str, int]) -> None:
        del MemoryFileSystem.store[f"/bucket/prefix/{FOLDER}/b"]

    with pytest.raises(ValueError, match="too much"):
        STORE.get_folder(FOLDER, tmp_path / "copy", accept=refuse)
    with pytest.raises(StoreError, match=r"trial-1\.files/b was removed while it was read"):
        STORE.get_folder(FOLDER, tmp_path / "copy", accept=remove)
    monkeypatch.setattr(MemoryFileSystem, "cat_file", lambda *_, **__: 1 / 0)
    monkeypatch.setattr(MemoryFileSystem, "get_file", lambda *_, **__: 1 / 0)
    with pytest.raises(StoreError):
        STORE.get_folder(FOLDER, tmp_path / "copy")
    assert [*tmp_path.iterdir()] == []
