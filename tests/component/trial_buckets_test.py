"""Checkpoints in a bucket: real workers, a real S3 server, and what happens when one of them goes away."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FrozenTrial, TrialState
from tests.component.trial_checkpoints_test import EPOCHS, Setting, kill, terminate
from tests.support.postgres import PostgresServer
from tests.support.s3_server import Bucket, S3Server
from tests.support.trial_models import Learner
from tests.support.trial_worker import TrialStudy, WorkerProcess, a_spec, run, running, wait_for_file

from tuning_api.contract import CHECKPOINT_ATTRIBUTE, Env
from tuning_api.store import Store
from tuning_trial import checkpoints

COMPLETE, FAIL = TrialState.COMPLETE, TrialState.FAIL


class BucketSetting(Setting):
    """A study whose trials save their state in a bucket; each worker has a scratch folder of its own, as a pod has."""

    def __init__(self, server: PostgresServer, folder: Path, bucket: Bucket, **changes: Any) -> None:
        super().__init__(server, folder, **changes)
        self._bucket = bucket
        self._workers = 0

    def environment(self, **changes: str) -> dict[str, str]:
        self._workers += 1
        scratch = {Env.SCRATCH.value: str(self.folder / f"scratch-{self._workers}")}
        return super().environment(**{Env.CHECKPOINTS: self._bucket.uri} | scratch | changes)

    def files(self) -> list[str]:
        return self._bucket.files()


@pytest.fixture
def setting(postgres_server: PostgresServer, tmp_path: Path, bucket: Bucket) -> BucketSetting:
    return BucketSetting(postgres_server, tmp_path, bucket)


def keeping(setting: BucketSetting, keep: int) -> None:
    """Let the best trials keep their weights."""
    spec = setting.study.optuna.user_attrs["tuningstudy:spec"]
    spec["trial"]["checkpoints"] = {"uri": setting._bucket.uri, "keep": keep}
    setting.study.change(type(a_spec()).model_validate(spec))


LOSSES = {
    "killed": (kill, ["digits/trial-1.ckpt"], "after epoch 2, from its checkpoint"),
    "asked to stop": (terminate, ["digits/trial-1.ckpt", "digits/trial-1.middle.ckpt"], "in epoch 3, after 4 batches"),
}


@pytest.mark.parametrize(("how", "files", "where"), LOSSES.values(), ids=LOSSES)
def test_a_trial_goes_on_in_another_worker_from_the_bucket(
    how: Callable[[WorkerProcess], None], files: list[str], where: str, *, setting: BucketSetting, tmp_path: Path
) -> None:
    """With its curve and its very weights; nothing of it stays, in the bucket or on the disk."""
    setting.add()
    setting.run()
    setting.add("epoch 2 batch 3")
    setting.lose(how)
    assert setting.files() == files
    assert f"trial 2: goes on {where}" in setting.run()
    whole, _, successor = setting.study.trials()
    assert successor.intermediate_values == whole.intermediate_values
    assert (successor.value, setting.weights(2)) == (whole.value, setting.weights(0))
    assert setting.files() == []
    assert not [path for path in tmp_path.rglob("*.ckpt*") if "scratch-2" not in path.parts]


def test_the_best_keep_their_weights_in_the_bucket(setting: BucketSetting, bucket: Bucket, tmp_path: Path) -> None:
    """Each is named in its trial, and can be loaded."""
    keeping(setting, 2)
    for quality in (5.0, 3.0, 1.0):
        setting.add(quality=quality)
    setting.run()
    assert setting.files() == ["digits/trial-1.final-1.ckpt", "digits/trial-2.final-2.ckpt"]
    name = setting.study.trials()[2].user_attrs[CHECKPOINT_ATTRIBUTE]
    assert name == "digits/trial-2.final-2.ckpt"
    assert Store(bucket.uri).get(name, tmp_path / "best.ckpt")
    assert Learner.load_from_checkpoint(tmp_path / "best.ckpt").quality == 1.0


def test_the_next_worker_removes_what_others_left(setting: BucketSetting, bucket: Bucket, tmp_path: Path) -> None:
    """A worker died before it tidied up; a study of the same name was deleted."""
    (tmp_path / "old").touch()
    for name in ("trial-0.ckpt", "trial-77.final-77.ckpt", "trial-78.files/model"):
        Store(bucket.uri).put(tmp_path / "old", f"digits/{name}")
    Store(bucket.uri).put(tmp_path / "old", "other/trial-0.ckpt")
    setting.add()
    log = setting.run()
    assert "cannot go on" not in log
    assert setting.files() == ["other/trial-0.ckpt"]


def test_a_store_that_goes_away_costs_no_trial_and_is_used_again(
    setting: BucketSetting, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said once; the trial trains on, and a successor goes on at the last state that did arrive."""
    monkeypatch.setattr(checkpoints, "PAUSE_SECONDS", 0.0)
    setting.add("epoch 1 batch 3")
    with running(setting.environment(), setting.folder) as worker:
        wait_for_file(setting.folder / "waiting", worker.log)
        assert setting.files() == ["digits/trial-0.ckpt"]
        s3_server.stop()
        try:
            (setting.folder / "go").touch()
            assert worker.exit_code() == 0
        finally:
            s3_server.start()
        log = worker.log()
    (trial,) = setting.study.trials()
    assert (trial.state, len(trial.intermediate_values)) == (COMPLETE, EPOCHS)
    assert log.count("cannot save its state (StoreError: s3://") == 1, log
    assert log.count("what trials have left is removed later") == 1, log
    assert setting.files() == ["digits/trial-0.ckpt"]
    setting.run()
    assert setting.files() == []


def test_a_store_that_comes_back_gets_what_is_kept(
    setting: BucketSetting, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was away when the worker began, and for some epochs."""
    monkeypatch.setattr(checkpoints, "PAUSE_SECONDS", 0.0)
    keeping(setting, 1)
    setting.add("epoch 2 batch 3")
    s3_server.stop()
    with running(setting.environment(), setting.folder) as worker:
        try:
            wait_for_file(setting.folder / "waiting", worker.log)
        finally:
            s3_server.start()
        assert "trials begin without" in worker.log()
        (setting.folder / "go").touch()
        assert worker.exit_code() == 0, worker.log()
    (trial,) = setting.study.trials()
    assert trial.state is COMPLETE
    assert setting.files() == [trial.user_attrs[CHECKPOINT_ATTRIBUTE]] == ["digits/trial-0.final-0.ckpt"]


WRONG = {
    "a bucket that does not exist": ("s3://nobodys/prefix", {}, "The specified bucket does not exist"),
    "a secret that is wrong": ("", {"AWS_SECRET_ACCESS_KEY": "wrong"}, "PermissionError"),
    "a package that is missing": ("gs://bucket/prefix", {}, "an image with the package can use gs://"),
}


@pytest.mark.parametrize(("uri", "environment", "words"), WRONG.values(), ids=WRONG)
def test_what_can_never_be_saved_stops_the_worker_before_its_first_trial(
    uri: str,
    environment: dict[str, str],
    words: str,
    *,
    setting: BucketSetting,
    bucket: Bucket,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the last line, which the study's condition shows; the trial waits."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    setting.add()
    exit_code, log = run(setting.environment(**{Env.CHECKPOINTS: uri or bucket.uri}), setting.folder)
    assert exit_code == 78, log
    last = log.strip().splitlines()[-1]
    assert f"trial.checkpoints.uri: {uri or bucket.uri}: " in last
    assert words in last
    assert [trial.state for trial in setting.study.trials()] == [TrialState.WAITING]


class ObjectiveSetting(BucketSetting):
    """A study whose trials call an objective that saves something in its folder."""

    def __init__(self, server: PostgresServer, folder: Path, bucket: Bucket, *, objective: str, keep: int) -> None:
        self.folder = folder
        self._bucket = bucket
        self._workers = 0
        trial = {"gpus": 0, "objective": objective, "checkpoints": {"uri": bucket.uri, "keep": keep}}
        objectives = [{"metric": "val_loss", "direction": "minimize"}]
        self.study = TrialStudy(server, a_spec(searchSpace=[], objectives=objectives, trial=trial))


def test_what_an_objective_saved_is_kept_in_the_bucket(
    postgres_server: PostgresServer, tmp_path: Path, bucket: Bucket
) -> None:
    """As a folder, of the best trials."""
    setting = ObjectiveSetting(
        postgres_server, tmp_path, bucket, objective="tests.support.trial_objectives:saves", keep=2
    )
    for x in (0.5, 0.25, 0.75):
        setting.study.add(x=x)
    setting.run()
    trials: list[FrozenTrial] = setting.study.trials()
    assert setting.files() == ["digits/trial-0.files/model.txt", "digits/trial-1.files/model.txt"]
    assert bucket.read("digits/trial-1.files/model.txt") == b"0.25"
    assert trials[1].user_attrs[CHECKPOINT_ATTRIBUTE] == "digits/trial-1.files"


def test_an_objective_goes_on_from_what_it_had_saved_when_it_reported(
    postgres_server: PostgresServer, tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its folder is sent with each report: what was saved after the last one before the end is lost."""
    monkeypatch.setenv("FOLDER", str(tmp_path))
    setting = ObjectiveSetting(
        postgres_server, tmp_path, bucket, objective="tests.support.trial_trainers:goes_on", keep=0
    )
    setting.study.add(waits_before="epoch 3 batch 2")
    setting.lose(kill)
    assert setting.files() == ["digits/trial-0.files/last.ckpt"]
    setting.run()
    lost, successor = setting.study.trials()
    assert successor.state is COMPLETE
    assert successor.user_attrs["went on"]
    assert sorted(lost.intermediate_values) == [0, 1, 2]
    assert sorted(successor.intermediate_values) == [0, 1, 2, 3, 4]
    assert setting.files() == []
