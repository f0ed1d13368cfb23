"""`tuningstudy run` with checkpoints in a bucket: the same manifest, with the person's own environment for credentials."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.local_study import LocalStudy
from tests.support.s3_server import Bucket

TRAIN = '''"""An objective that leaves a file with its value."""

import os
from pathlib import Path


def objective(trial):
    x = trial.suggest_float("x", 0, 1)
    Path(os.environ["TUNING_TRIAL_CHECKPOINTS"], "model.txt").write_text(str(x))
    return x
'''


@pytest.fixture
def study(tmp_path: Path) -> Iterator[LocalStudy]:
    study = LocalStudy(tmp_path / "home", name="train")
    (study.home / "train.py").write_text(TRAIN)
    yield study
    study.clean_up()


def write(study: LocalStudy, uri: str) -> None:
    trial = {"gpus": 0, "objective": "train:objective", "checkpoints": {"uri": uri, "keep": 1}}
    study.write(searchSpace=[], maxTrials=3, parallelism=1, trial=trial)


def said(study: LocalStudy, *arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "tuning_operator.cli", *arguments]
    done = subprocess.run(command, cwd=study.home, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


def test_the_best_is_kept_in_the_bucket_and_fetched_from_it(study: LocalStudy, bucket: Bucket) -> None:
    """The status has its URI, and `best --checkpoint` brings it here."""
    write(study, bucket.uri)
    assert study.finish(study.start("--no-report")) == 0, study.said
    best = study.status()["best"]
    assert best["checkpoint"] == f"{bucket.uri}/train/trial-{best['trial']}.files"
    assert bucket.files() == [f"train/trial-{best['trial']}.files/model.txt"]
    code, words = said(study, "best", "train", "--checkpoint", "best")
    size = len(str(best["params"]["x"]))
    assert (code, words) == (0, f"fetching 1 file ({size} B) from {best['checkpoint']}\nwrote best\n")
    assert (study.home / "best" / "model.txt").read_text() == str(best["params"]["x"])
    (bucket.folder / "some/prefix/train" / f"trial-{best['trial']}.files" / "model.txt").unlink()
    code, words = said(study, "best", "train", "--checkpoint", "again")
    assert (code, words) == (
        2,
        f"error: trial {best['trial']} left {best['checkpoint']}, and it is not there any more, or not on this machine\n",
    )


def test_a_bucket_that_does_not_exist_ends_up_in_the_status(study: LocalStudy, bucket: Bucket) -> None:  # noqa: ARG001
    """With the field and the store's own words; no trial was spent on it."""
    write(study, "s3://nobodys/prefix")
    run = study.start("--no-report")
    study.wait_until_said(
        "trial.checkpoints.uri: s3://nobodys/prefix: FileNotFoundError: The specified bucket does not exist"
    )
    run.terminate()
    run.wait(60)
    assert not [trial for trial in study.data().trials if trial.state.is_finished()]
