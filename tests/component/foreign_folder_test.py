"""The commands in a folder of somebody else: what of its code runs, and before what."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tests.support.builders import a_manifest

TUNINGSTUDY = (sys.executable, "-P", "-m", "tuning_operator.cli")
STUDY = {
    "searchSpace": [{"name": "x", "type": "float", "low": 0, "high": 1}],
    "sampler": {"type": "random"},
    "objectives": [{"metric": "loss", "direction": "minimize"}],
    "pruner": {"type": "none"},
    "maxTrials": 1,
    "trial": {"gpus": 0, "objective": "model:objective"},
}
MARK = "import os; open(os.path.join({folder!r}, 'ran-' + __name__), 'w').close()\n"
AT_THE_START = ("sitecustomize", "usercustomize")
SHADOWS = ("json", "random", "re", "argparse", "logging", "tempfile", "shutil", "secrets", "statistics", "code")
OURS = ("tuning_trial", "tuning_api", "optuna", "pydantic")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study with all that Python would run before, or instead of, what was asked for; each leaves a mark when it runs."""
    here = tmp_path / "cloned"
    here.mkdir()
    for name in ("model", *AT_THE_START, *SHADOWS, *OURS):
        (here / f"{name}.py").write_text(MARK.format(folder=str(tmp_path)))
    (here / "model.py").write_text(
        MARK.format(folder=str(tmp_path))
        + "import statistics\ndef objective(trial): return statistics.mean([trial.params['x']])\n"
    )
    (here / "study.yaml").write_text(yaml.safe_dump(a_manifest(name="foreign") | {"spec": STUDY}))
    (here / "space.json").write_text('{"x": {"_type": "uniform", "_value": [0, 1]}}')
    monkeypatch.setenv("PYTHONPATH", os.pathsep + os.environ.get("PYTHONPATH", ""))
    monkeypatch.setenv("HOME", str(tmp_path))
    return here


def call(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """NB: from elsewhere, and with an empty entry in PYTHONPATH, which for a process in the folder is the folder."""
    return subprocess.run(
        [*TUNINGSTUDY, *arguments], cwd=folder.parent, capture_output=True, text=True, check=False, timeout=240
    )


def ran(folder: Path) -> list[str]:
    return sorted(file.name.removeprefix("ran-") for file in folder.parent.glob("ran-*"))


@pytest.mark.parametrize("command", ["validate", "try", "run"])
def test_of_a_folders_code_only_the_model_runs(folder: Path, command: str) -> None:
    """It was asked for; what Python starts with, the standard library and our own packages are those that are installed."""
    done = call(folder, command, str(folder / "study.yaml"))
    assert done.returncode == 0, done.stderr
    assert ran(folder) == ["model"]


def test_a_manifest_that_is_wrong_runs_nothing(folder: Path) -> None:
    """What its words mean is known before."""
    manifest = folder / "study.yaml"
    manifest.write_text(manifest.read_text().replace("maxTrials", "maxTrails"))
    for command in ("validate", "try", "run"):
        assert call(folder, command, str(manifest)).returncode == 2
    assert ran(folder) == []


def test_a_model_that_is_named_runs_alone(folder: Path) -> None:
    """It is no LightningModule, which is all that is said."""
    done = call(folder, "init", "model.objective", "-o", str(folder / "new.yaml"))
    assert done.returncode == 2
    assert "model" in done.stderr
    assert ran(folder) == ["model"]


def test_nothing_runs_of_what_is_submitted_or_converted(folder: Path) -> None:
    """They read."""
    submitted = call(folder, "submit", str(folder / "study.yaml"), "--dry-run")
    assert (submitted.returncode, "model.py" in submitted.stderr) == (0, True), submitted.stderr
    converted = call(folder, "convert", str(folder / "space.json"))
    assert "x" in converted.stdout, converted.stderr
    assert ran(folder) == []
