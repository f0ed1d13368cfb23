"""Files that are replaced as a whole, or not at all."""

import pickle
from pathlib import Path

import pytest

from tuning_api.store import Store, StoreError
from tuning_trial import checkpoints


def a_file(folder: Path, *, first: int = 3) -> checkpoints.CheckpointFile:
    return checkpoints.of_trial(folder, study="digits", first=first, identity="x")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "digits").iterdir())


def test_a_file_is_known_by_its_study_and_the_first_of_its_trials(tmp_path: Path) -> None:
    """All studies of a namespace may share a volume."""
    assert a_file(tmp_path).path == tmp_path / "digits" / "trial-3.ckpt"


def test_what_was_there_is_replaced(tmp_path: Path) -> None:
    """And nothing else is left."""
    for text in ("first", "second"):
        a_file(tmp_path).write(lambda path, text=text: path.write_text(text))  # type: ignore[misc]
    assert a_file(tmp_path).path.read_text() == "second"
    assert names(tmp_path) == ["trial-3.ckpt"]


def test_what_was_there_stays_when_writing_fails(tmp_path: Path) -> None:
    """The disk is full in the middle of it."""
    a_file(tmp_path).write(lambda path: path.write_text("whole"))  # type: ignore[arg-type, return-value]

    def half(path: Path) -> None:
        path.write_text("ha")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        a_file(tmp_path).write(half)
    assert a_file(tmp_path).path.read_text() == "whole"
    assert names(tmp_path) == ["trial-3.ckpt"]


def test_only_the_files_of_the_trial_are_discarded(tmp_path: Path) -> None:
    """With what a process left that was killed while it wrote; doing it again does no harm."""
    for name in ("trial-3.ckpt", "trial-3.ckpt.1a2b.tmp", "trial-33.ckpt", "notes.txt"):
        (tmp_path / "digits").mkdir(exist_ok=True)
        (tmp_path / "digits" / name).touch()
    for _ in range(2):
        a_file(tmp_path).discard()
    assert names(tmp_path) == ["notes.txt", "trial-33.ckpt"]


def test_the_trials_that_have_files_are_found(tmp_path: Path) -> None:
    """Whatever else lies there is not ours; a study may have none."""
    assert list(checkpoints.found(tmp_path, study="digits")) == []
    (tmp_path / "digits").mkdir()
    for name in ("trial-12.ckpt", "trial-3.ckpt", "trial-3.ckpt.1a2b.tmp", "trial-4.ckpt.5.tmp", "trial-x.ckpt"):
        (tmp_path / "digits" / name).touch()
    assert list(checkpoints.found(tmp_path, study="digits")) == [3, 4, 12]


def test_a_bucket_that_failed_is_left_alone_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A try may take a minute, and the training waits for it: nothing is written to be sent meanwhile."""
    now = 1000.0
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now)
    tries = []

    def fail(_store: Store, _file: Path, name: str) -> None:
        tries.append(name)
        raise StoreError("s3://bucket: no answer")

    monkeypatch.setattr(Store, "put", fail)
    bucket = checkpoints.Bucket(Store("s3://bucket"))
    file = checkpoints.of_trial(bucket, study="digits", first=3, scratch=tmp_path)
    for _ in range(2):
        with pytest.raises(StoreError):
            file.write(lambda path: path.touch())
    assert tries == ["digits/trial-3.ckpt"]
    now += checkpoints.PAUSE_SECONDS
    with pytest.raises(StoreError):
        file.write(lambda path: path.touch())
    assert tries == ["digits/trial-3.ckpt"] * 2
    assert names(tmp_path) == []


def test_a_file_in_a_bucket_travels_to_a_fresh_interpreter(tmp_path: Path) -> None:
    """It is a part of the trial's assignment."""
    file = checkpoints.of_trial(checkpoints.Bucket(Store("s3://bucket")), study="digits", first=3, scratch=tmp_path)
    assert pickle.loads(pickle.dumps(file)) == file  # noqa: S301 - our own


def test_what_an_objective_saves_in_a_shared_folder_is_there_already(tmp_path: Path) -> None:
    """Nothing has to be sent; what is kept is the folder, if there is something in it."""
    files = checkpoints.ObjectiveFiles(a_file(tmp_path), name="trial 3")
    assert files.send()
    assert files.kept() is None
    a_file(tmp_path).folder.mkdir(parents=True)
    (a_file(tmp_path).folder / "model").touch()
    assert files.kept() == "digits/trial-3.files"
