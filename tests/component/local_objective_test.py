"""`tuningstudy` with a plain Optuna objective that lies beside its manifest, on SQLite; and what it keeps."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState
from sqlalchemy import create_engine, text
from tests.support import usual_objectives
from tests.support.local_study import LocalStudy

COMPLETE = TrialState.COMPLETE
TRAIN = '''"""An objective as people write it, without torch. It waits for the file `go` beside it.

A worker imports once what its trials need: a trial that imports anything of ours fails.
"""

import os
import sys
import time
from pathlib import Path

IMPORTED = set(sys.modules)


def objective(trial):
    x = trial.suggest_float("x", 0, 1)
    trial.report(x, 0)
    while not Path("go").exists():
        time.sleep(0.02)
    assert not [name for name in set(sys.modules) - IMPORTED if name.startswith("tuning_")]
    Path(os.environ["TUNING_TRIAL_CHECKPOINTS"], "model.txt").write_text(str(x))
    return x + 0 * trial.suggest_int("y", 1, 3)
'''


@pytest.fixture
def study(tmp_path: Path) -> Iterator[LocalStudy]:
    """A study of five trials that keeps the best two."""
    study = LocalStudy(tmp_path / "home", name="train")
    (study.home / "train.py").write_text(TRAIN)
    study.write(**a_spec())
    yield study
    study.clean_up()


def a_spec(**trial: Any) -> dict[str, Any]:
    checkpoints = {"persistentVolumeClaim": "checkpoints", "keep": 2}
    return {"searchSpace": [], "trial": {"gpus": 0, "objective": "train:objective", "checkpoints": checkpoints} | trial}


def said(study: LocalStudy, *arguments: str) -> tuple[int, str]:
    """Run a command in the manifest's folder: its exit code, and all that it says."""
    command = [sys.executable, "-m", "tuning_operator.cli", *arguments]
    done = subprocess.run(
        command, cwd=study.home, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    return done.returncode, done.stdout


def parameters_of_lost_trials(study: LocalStudy) -> list[str]:
    """Of the rows that a successor stands for, which the commands do not show."""
    engine = create_engine(f"sqlite:///{study.folder.database}")
    with engine.connect() as connection:
        rows = connection.execute(
            text(
                "SELECT p.param_value FROM trial_params p JOIN trial_user_attributes a ON a.trial_id = p.trial_id"
                " WHERE p.param_name = 'x' AND a.key = 'tuningstudy:requeued'"
            )
        )
        found = [str(row[0]) for row in rows]
    engine.dispose()
    return found


def test_killed_workers_cost_neither_parameters_nor_what_is_kept(study: LocalStudy) -> None:
    """The budget is exact, the trials that were lost are tried again, and the best two leave what they saved."""
    run = study.start("--no-report")
    study.wait_for_trials(2)
    study.kill_workers()
    assert study.finish(run) == 0, study.said
    assert study.states() == {COMPLETE: 5}
    trials = {trial.number: trial for trial in study.data().trials}
    lost = parameters_of_lost_trials(study)
    assert len(lost) == 2
    assert set(lost) <= {str(trial.params["x"]) for trial in trials.values()}
    best = sorted(trials.values(), key=lambda trial: trial.value or 0)
    kept = [study.folder.checkpoints / trial.user_attrs["tuningstudy:checkpoint"] for trial in best[:2]]
    assert sorted((study.folder.checkpoints / "train").iterdir()) == sorted(kept)
    assert [(file / "model.txt").read_text() for file in kept] == [str(trial.params["x"]) for trial in best[:2]]
    assert study.status()["best"]["checkpoint"] == kept[0].as_uri()
    assert "the best parameters:  tuningstudy best" in study.said
    assert said(study, "best", "train", "--checkpoint", "best") == (0, "wrote best\n" + said(study, "best", "train")[1])
    assert (study.home / "best" / "model.txt").read_text() == str(best[0].params["x"])
    code, words = said(study, "best", "train", "--checkpoint", "best/model.txt")
    taken = "error: best/model.txt is there already: remove it, or choose another with --checkpoint\n"
    assert (code, words) == (2, taken)
    code, words = said(study, "best", "train", "--config")
    assert code == 2
    assert "its trials call train:objective: `tuningstudy best train --json` prints the parameters" in words


WIDE = """def objective(trial):
    if trial.suggest_float("width", 0, 1) > 0.5:
        raise MemoryError("CUDA out of memory. Tried to allocate 80 GiB")
    return trial.params["width"]
"""


def test_parameters_that_do_not_fit_do_not_end_a_study(study: LocalStudy) -> None:
    """They count, and the sampler stays away from them, also where only the code knows the parameters."""
    (study.home / "wide.py").write_text(WIDE)
    spec = {
        "objectives": [{"metric": "width", "direction": "maximize"}],
        "searchSpace": [],
        "sampler": {"type": "tpe", "seed": 3},
        "maxTrials": 40,
        "maxFailedTrials": 3,
        "parallelism": 1,
        "trial": {"gpus": 0, "objective": "wide:objective"},
    }
    study.write(**spec)
    assert study.finish(study.start("--no-report")) == 0, study.said
    counts = study.status()["trials"]
    assert counts["finished"] == 40
    assert counts["infeasible"] == counts["failed"] > 3
    assert f"{counts['failed']} failed ({counts['failed']} out of memory)" in study.said
    # Without what it learns here, no later trial fits: TPE has the best just below the edge, and nothing above it.
    later = [trial.state for trial in study.data().trials if trial.number >= 20]
    assert later.count(COMPLETE) >= len(later) // 3


def test_what_does_not_fit_is_a_failure_where_it_is_asked_for(study: LocalStudy) -> None:
    """As any other, and the study ends."""
    (study.home / "wide.py").write_text(WIDE.replace("> 0.5", ">= 0"))
    study.write(
        objectives=[{"metric": "width", "direction": "maximize"}],
        searchSpace=[],
        maxTrials=8,
        maxFailedTrials=3,
        parallelism=1,
        trial={"gpus": 0, "objective": "wide:objective", "outOfMemory": "fail"},
    )
    assert study.finish(study.start("--no-report")) == 1, study.said
    assert "3 trials have failed and maxFailedTrials is 3" in study.said
    assert study.status()["phase"] == "Failed"
    assert "infeasible" not in study.status()["trials"]


def test_a_study_that_keeps_nothing_says_so(study: LocalStudy) -> None:
    """With the field to set."""
    study.write(searchSpace=[], trial={"gpus": 0, "objective": "train:objective"}, maxTrials=1)
    assert study.finish(study.start("--no-report")) == 0, study.said
    code, words = said(study, "best", "train", "--checkpoint", "best")
    assert (code, words) == (
        2,
        "error: study train keeps no checkpoints: set trial.checkpoints.keep before its trials run\n",
    )
    assert not (study.home / "best").exists()


def test_an_objective_is_checked_and_tried_before_it_runs(study: LocalStudy) -> None:
    """A call is what `try` does: its own parameters and its value are shown."""
    (study.home / "go").touch()
    assert said(study, "validate", "train.yaml") == (0, "train.yaml: study train is ready to run\n")
    code, words = said(study, "try", "train.yaml", "--seed", "3")
    names = [line.partition(" = ")[0] for line in words.splitlines()]
    assert (code, names) == (0, ["seed", "x", "y", "val_loss"])
    study.write(**a_spec(objective="trian:objective"))
    code, words = said(study, "validate", "train.yaml")
    assert code == 1
    assert words.startswith(
        "train.yaml: trial.objective: there is no module 'trian' (did you mean 'train'?); it is looked"
    )
    (study.home / "train.py").write_text("def objective(trial):\n    raise ValueError('no data')\n")
    study.write(**a_spec())
    code, words = said(study, "try", "train.yaml")
    assert code == 1
    assert words.splitlines()[-1] == "the trial failed: ValueError: no data (train.py:2)"


MAXIMIZE, MINIMIZE = "maximize", "minimize"
USUAL: dict[str, tuple[dict[str, str], set[str], set[TrialState]]] = {
    "choose_a_model": ({"accuracy": MAXIMIZE}, {"model", "svc_c", "tree_depth"}, {COMPLETE}),
    "train_and_prune": (
        {"accuracy": MAXIMIZE},
        {"layers", "units_0", "units_1", "units_2", "rate"},
        {COMPLETE, TrialState.PRUNED},
    ),
    "small_and_good": ({"leaves": MINIMIZE, "accuracy": MAXIMIZE}, {"leaves"}, {COMPLETE}),
}


@pytest.mark.parametrize(("function", "expected"), USUAL.items(), ids=USUAL)
def test_objectives_of_the_usual_shapes_run_as_they_are(
    study: LocalStudy, function: str, expected: tuple[dict[str, str], set[str], set[TrialState]]
) -> None:
    """With the lines that would have run them left in: exactly the budget, every parameter that the code knows, the best."""
    goals, names, states = expected
    (study.home / "usual.py").write_text(Path(usual_objectives.__file__).read_text())
    study.write(
        objectives=[{"metric": metric, "direction": direction} for metric, direction in goals.items()],
        searchSpace=[],
        pruner={"type": "median", "nStartupTrials": 4} if len(goals) == 1 else {"type": "none"},
        maxTrials=12,
        trial={"gpus": 0, "objective": f"usual:{function}"},
    )
    assert study.finish(study.start("--no-report")) == 0, study.said
    assert (sum(study.states().values()), set(study.states())) == (12, states)
    assert {name for trial in study.data().trials for name in trial.params} == names
    status = study.status()
    assert [trial["params"] for trial in status.get("bestTrials", [status.get("best")])]
