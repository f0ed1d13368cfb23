"""A worker's environment: each mistake has its own sentence, which names the variable."""

import socket
from pathlib import Path

import pytest

from tuning_api.store import Store
from tuning_trial import settings
from tuning_trial.checkpoints import Bucket
from tuning_trial.errors import MisconfiguredError

GOOD = {
    "TUNING_DATABASE_URL": "postgresql://tuning_research:secret@db/tuning",
    "TUNING_STUDY": "digits",
    "TUNING_WORKER_ID": "0b1c",
}


def test_what_is_not_said_has_a_default() -> None:
    """A person may start a worker by hand with three variables."""
    read = settings.read(GOOD)
    assert (read.owner.id, read.owner.name, read.idle_seconds) == ("0b1c", socket.gethostname(), 10.0)
    assert read.scratch.is_dir()


def test_everything_can_be_said(tmp_path: Path) -> None:
    """The scratch folder is made."""
    more = {"TUNING_WORKER_NAME": "digits-7", "TUNING_SCRATCH": str(tmp_path / "new"), "TUNING_IDLE_SECONDS": "0"}
    read = settings.read(GOOD | more)
    assert (read.owner.name, read.scratch, read.idle_seconds) == ("digits-7", tmp_path / "new", 0.0)
    assert read.scratch.is_dir()


def test_checkpoints_are_saved_only_where_it_is_said(tmp_path: Path) -> None:
    """Without a folder there is nothing durable."""
    assert settings.read(GOOD).checkpoints is None
    assert settings.read(GOOD | {"TUNING_CHECKPOINTS": ""}).checkpoints is None
    read = settings.read(GOOD | {"TUNING_CHECKPOINTS": str(tmp_path / "new")})
    assert read.checkpoints == tmp_path / "new"
    assert (tmp_path / "new").is_dir()


def test_checkpoints_of_a_bucket_are_known_by_their_uri() -> None:
    """No folder is made, and nobody is asked yet."""
    read = settings.read(GOOD | {"TUNING_CHECKPOINTS": "s3://bucket/prefix"})
    assert read.checkpoints == Bucket(Store("s3://bucket/prefix"))
    assert not Path("s3:").exists()


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("value", [None, ""])
def test_a_variable_that_is_missing_is_named(name: str, value: str | None) -> None:
    """Kubernetes gives an empty string where a key of a Secret is empty."""
    environment = {key: text for key, text in (GOOD | {name: value}).items() if text is not None}
    with pytest.raises(MisconfiguredError, match=f"^{name} is not set: it must be "):
        settings.read(environment)


@pytest.mark.parametrize("text", ["ten", "-1", "nan", "inf"])
def test_an_idle_time_must_be_a_number_of_seconds(text: str) -> None:
    """With nan it would wait for ever."""
    with pytest.raises(MisconfiguredError, match=r"TUNING_IDLE_SECONDS is '.*', and must be a number of seconds"):
        settings.read(GOOD | {"TUNING_IDLE_SECONDS": text})


@pytest.mark.parametrize("name", ["TUNING_SCRATCH", "TUNING_CHECKPOINTS"])
def test_a_folder_that_cannot_be_made_is_said(name: str, tmp_path: Path) -> None:
    """The usual cause is a read-only root without an emptyDir."""
    (tmp_path / "file").touch()
    with pytest.raises(MisconfiguredError, match=rf"{name} is .*/file/new, which cannot be made"):
        settings.read(GOOD | {name: str(tmp_path / "file" / "new")})


def test_the_password_is_in_no_representation() -> None:
    """Settings end up in tracebacks and logs."""
    assert "secret" not in repr(settings.read(GOOD))


def test_a_program_that_a_trial_started_again_is_no_worker() -> None:
    """Lightning's `ddp` runs the command line once more for each further device: that would claim another trial."""
    with pytest.raises(MisconfiguredError, match=r"LOCAL_RANK is 1: .* set its devices to 1"):
        settings.read(GOOD | {"LOCAL_RANK": "1"})
    assert settings.read(GOOD | {"LOCAL_RANK": "0"}).study == "digits"
