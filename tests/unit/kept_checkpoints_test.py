"""What a trial says that it has left, on the machine of who fetches it: user code writes it, and names the objects."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState, create_trial
from tests.support.builders import DIGITS_TRIAL, a_manifest, a_spec

from tuning_api import contract
from tuning_operator import studies
from tuning_operator.charts.source import StudyData
from tuning_operator.cli import remote_results, study
from tuning_operator.local.errors import BadInputError
from tuning_trial.checkpoints import of_trial

HOSTILE = [
    "digits/..",
    "digits/.",
    "digits",
    "digits/",
    "..",
    "/etc/passwd",
    "../digits/trial-3.files",
    "digits/../digits/trial-3.files",
    "digits/trial-3.files/",
    "digits/trial-3.files/..",
    "digits//trial-3.files",
    "/digits/trial-3.files",
    "./digits/trial-3.files",
    "digits\\trial-3.files",
    "digits/trial-3.files\n",
    "digits/trial-3.files\0",
    "digits/trial-03.files",
    "digits/trial-\u0663.files",
    "digits/trial-4.files",
    "digits/trial-99999999999.files",
    "digits/trial--1.files",
    "digits/trial-3.ckpt",
    "digits/trial-3.middle.ckpt",
    "digits/trial-3.final-2.ckpt",
    "digits/trial-4.final-3.ckpt",
    "digits/trial-3.final-3.ckpt/..",
    "other/trial-3.files",
    "DIGITS/trial-3.files",
    "s3://bucket/digits/trial-3.files",
    "",
    None,
    3,
    ["digits/trial-3.files"],
]


@pytest.mark.parametrize("value", HOSTILE, ids=repr)
def test_only_what_a_worker_writes_is_the_path_of_a_checkpoint(value: Any) -> None:
    """For the operator as for the command line: a status, a page and a file never have another."""
    assert contract.kept_path(value, study="digits", trial=3) is None
    row = create_trial(state=TrialState.COMPLETE, value=1.0, user_attrs={contract.CHECKPOINT_ATTRIBUTE: value})
    row.number = 3
    assert studies._trial(row, study="digits").checkpoint is None


@given(st.text(st.sampled_from("digts/.-0123trialfeckpn\\\n"), max_size=40) | st.text())
def test_no_text_leads_elsewhere(text: str) -> None:
    """Whatever it is."""
    found = contract.kept_path(text, study="digits", trial=12)
    assert found is None or (
        found == text and os.path.normpath(f"/place/{found}") == f"/place/digits/{Path(found).name}"
    )


@pytest.mark.parametrize("first", [0, 2, 3])
def test_each_path_that_a_worker_writes_is_taken(first: int) -> None:
    """That of an objective and that of Lightning, also of a trial that continues another one."""
    file = of_trial(Path("/place"), study="digits", first=first)
    for written in (file.relative(file.folder), file.relative(file.final(3))):
        assert contract.kept_path(written, study="digits", trial=3) == written
        row = create_trial(state=TrialState.COMPLETE, value=1.0, user_attrs={contract.CHECKPOINT_ATTRIBUTE: written})
        row.number = 3
        assert studies._trial(row, study="digits").checkpoint == written


# Of a cluster's study


def a_study(checkpoint: str, *, uri: str = "memory://bucket/some") -> dict[str, Any]:
    spec = {"trial": DIGITS_TRIAL | {"checkpoints": {"uri": uri, "keep": 1}}}
    best = {"trial": 3, "value": 1.0, "display": "1", "params": {}, "checkpoint": checkpoint}
    return a_manifest(**spec) | {"status": {"best": best}}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a file of the person's, in which the command is called."""
    MemoryFileSystem.store.clear()
    (tmp_path / ".bashrc").write_text("# mine")
    (tmp_path / "downloads").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(name: str) -> None:
    MemoryFileSystem().pipe_file("/example", b"echo pwned")
    MemoryFileSystem.store[f"/bucket/some/{name}"] = MemoryFileSystem.store.pop("/example")


@pytest.mark.parametrize("path", [item for item in HOSTILE if isinstance(item, str)], ids=repr)
def test_a_hostile_status_writes_nothing(here: Path, path: str) -> None:
    """It may be of an operator that took whatever it read."""
    put(f"{path}/.bashrc")
    for target in ("downloads", "best.ckpt", "."):
        with pytest.raises(BadInputError, match="which no worker writes: nothing is fetched"):
            remote_results._copy_checkpoint(a_study(f"memory://bucket/some/{path}"), number=None, to=Path(target))
    with pytest.raises(BadInputError, match="which no worker writes"):
        remote_results._copy_checkpoint(a_study(path), number=None, to=Path("downloads"))
    assert sorted(item.name for item in here.rglob("*")) == [".bashrc", "downloads"]
    assert (here / ".bashrc").read_text() == "# mine"


def test_a_folder_is_fetched_into_its_own_and_once(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The second time nothing is written into what is there already, nor into the current folder."""
    put("digits/trial-3.files/model.txt")
    document = a_study("memory://bucket/some/digits/trial-3.files")
    fetch: Callable[[str], Path] = lambda to: remote_results._copy_checkpoint(document, number=None, to=Path(to))  # noqa: E731
    assert fetch("best.ckpt") == Path("best.ckpt")
    assert capsys.readouterr().err == "fetching 1 file (10 B) from memory://bucket/some/digits/trial-3.files\n"
    assert fetch("best.ckpt") == Path("best.ckpt/trial-3.files")
    with pytest.raises(
        BadInputError, match=r"best\.ckpt/trial-3\.files is there already: remove it, or choose another"
    ):
        fetch("best.ckpt")
    (here / "link").symlink_to(here / "nowhere")
    with pytest.raises(BadInputError, match="link is there already"):
        fetch("link")
    assert sorted(item.name for item in here.iterdir()) == [".bashrc", "best.ckpt", "downloads", "link"]


LARGE: dict[str, tuple[int, str]] = {
    "files": (10_001, "has 10,001 files, and at most 10,000 are fetched"),
    "bytes": (3, "has 30 B, and 7 B are free in"),
}


@pytest.mark.parametrize(("count", "words"), LARGE.values(), ids=LARGE)
def test_more_than_a_machine_takes_is_not_fetched(
    count: int, words: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said before the first byte."""
    if count < 10:
        monkeypatch.setattr(study.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 7}))
    for number in range(count):
        put(f"digits/trial-3.files/{number}")
    with pytest.raises(BadInputError, match=words):
        remote_results._copy_checkpoint(
            a_study("memory://bucket/some/digits/trial-3.files"), number=None, to=Path("new")
        )
    assert not (here / "new").exists()


# Of a folder that others may write to, too


def local(place: Path, written: object, *, to: Path) -> Path:
    row = create_trial(state=TrialState.COMPLETE, value=1.0, user_attrs={contract.CHECKPOINT_ATTRIBUTE: written})
    row.number = 3
    spec = a_spec(trial=DIGITS_TRIAL | {"checkpoints": {"uri": place.as_uri(), "keep": 1}})
    data = StudyData(namespace="research", name="digits", directions=(), trials=(row,), spec=spec)
    return study.copy_checkpoint(data, number=3, to=to)


def test_a_hostile_attribute_copies_nothing(here: Path) -> None:
    """A run on this machine has the same code."""
    (here / "place" / "digits").mkdir(parents=True)
    for value in HOSTILE:
        if value is not None:
            with pytest.raises(BadInputError, match="which no worker writes"):
                local(here / "place", value, to=here / "downloads")
    assert [*(here / "downloads").iterdir()] == []


KINDS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a link out": (lambda path: path.symlink_to("../../../.bashrc"), "it leads out of"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "it leads out of"),
    "a pipe": (os.mkfifo, "it is a pipe, not a file"),
    "a link to a folder": (lambda path: path.symlink_to("."), "Is a directory"),
}


@pytest.mark.parametrize(("make", "words"), KINDS.values(), ids=KINDS)
def test_only_regular_files_are_copied(make: Callable[[Path], object], words: str, here: Path) -> None:
    """All of them, or nothing."""
    files = here / "place" / "digits" / "trial-3.files"
    files.mkdir(parents=True)
    (files / "a").write_text("a")
    make(files / "b")
    with pytest.raises(BadInputError, match=words):
        local(here / "place", "digits/trial-3.files", to=here / "copy")
    assert sorted(item.name for item in here.iterdir()) == [".bashrc", "downloads", "place"]


def test_a_file_is_copied_over_a_link_and_not_through_it(here: Path) -> None:
    """What the link led to stays."""
    folder = here / "place" / "digits"
    folder.mkdir(parents=True)
    (folder / "trial-3.final-3.ckpt").write_text("weights")
    (here / "best.ckpt").symlink_to(".bashrc")
    assert local(here / "place", "digits/trial-3.final-3.ckpt", to=here / "best.ckpt").read_text() == "weights"
    assert (here / ".bashrc").read_text() == "# mine"


def test_a_folder_of_files_and_links_among_them_is_copied(here: Path) -> None:
    """Such as last.ckpt, which Lightning makes a link."""
    files = here / "place" / "digits" / "trial-3.files"
    (files / "inner").mkdir(parents=True)
    (files / "inner" / "epoch.ckpt").write_text("weights")
    (files / "last.ckpt").symlink_to("inner/epoch.ckpt")
    copy = local(here / "place", "digits/trial-3.files", to=here / "downloads")
    assert (copy / "last.ckpt").read_text() == (copy / "inner" / "epoch.ckpt").read_text() == "weights"
    assert not (copy / "last.ckpt").is_symlink()
