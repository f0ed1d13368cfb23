"""`check` and `try`: what a person learns of a study's trials before the study runs, without a database."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.support.trial_worker import MODULE, a_spec, a_trial

from tuning_api.spec import Constraint, StudySpec
from tuning_trial import command_line, rehearsal
from tuning_trial.errors import UnreadableSpecError

pytestmark = [
    pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning"),
]
MODEL = f"{MODULE}.Scenario"


def a_study(*, choices: list[Any] | None = None, lightning: dict[str, Any] | None = None, **changes: Any) -> StudySpec:
    """The study of scenarios; `lightning` replaces parts of its configuration, and None removes one."""
    space = [{"name": "scenario", "type": "categorical", "choices": choices or ["is good", "is good again"]}]
    trial = a_trial()
    parts = trial["lightning"] | (lightning or {})
    trial["lightning"] = {name: part for name, part in parts.items() if part is not None}
    return a_spec(**{"searchSpace": space, "trial": trial} | changes)


def test_a_study_without_faults_has_none() -> None:
    """Conditional parameters included, whose argument is left out where there is none."""
    space = [
        {"name": "scenario", "type": "categorical", "choices": ["is good", "is good again"]},
        {"name": "quality", "type": "float", "low": 0, "high": 1, "when": {"parameter": "scenario", "in": ["is good"]}},
    ]
    assert rehearsal.faults(a_spec(searchSpace=space, trial=a_trial(quality="${quality}"))) == []


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (
            a_study(
                lightning={
                    "model": {"class_path": MODEL, "init_args": {"scenari": "${scenario}"}},
                    "data": {"class_path": f"{MODULE}.Data", "init_args": {"batch": 1}},
                    "trainer": {"max_epoch": 3},
                    "optimiser": {"class_path": "torch.optim.SGD"},
                }
            ),
            [
                f"trial.lightning.model.init_args has no argument 'scenari' of {MODEL} (did you mean 'scenario'?)",
                f"trial.lightning.data.init_args has no argument 'batch' of {MODULE}.Data (did you mean 'batch_size'?)",
                "trial.lightning.trainer has no argument 'max_epoch' (did you mean 'max_epochs'?)",
                "trial.lightning has no argument 'optimiser' (did you mean 'optimizer'?)",
            ],
        ),
        (
            a_study(
                choices=[4, "wide"],
                lightning={
                    "model": {"class_path": f"{MODULE}.Model"},
                    "data": {"class_path": f"{MODULE}.Data", "init_args": {"batch_size": "${scenario}"}},
                },
            ),
            ["trial.lightning.data.init_args.batch_size must be of type int, and is 'wide'"],
        ),
        (
            a_study(lightning={"model": None, "seed_everything": "${scenario}"}),
            ["trial.lightning needs model", "trial.lightning.seed_everything must be of type bool, and is 'is good'"],
        ),
        (
            a_study(lightning={"data": None}),
            [f"{MODEL} has no train_dataloader, and trial.lightning has no data: add one of them"],
        ),
        (
            a_study(
                lightning={
                    "model": {
                        "class_path": "tuning_trial.examples.digits.DigitsClassifier",
                        "init_args": {"hidden_dim": 8},
                    },
                    "trainer": {"default_root_dir": "${scenario}"},
                }
            ),
            [
                (
                    "tuning_trial.examples.digits.DigitsClassifier has no configure_optimizers, and trial.lightning has"
                    " no optimizer: add one of them"
                )
            ],
        ),
        (
            a_spec(trial={"objective": "tests.support.trial_objectives:quadratics"}),
            [
                (
                    "trial.objective: module tests.support.trial_objectives has no function 'quadratics' (did you mean"
                    " 'quadratic'?)"
                )
            ],
        ),
    ],
    ids=[
        "a fault in each part",
        "one bad choice",
        "the same fault with each draw",
        "no data",
        "no optimizer",
        "objective",
    ],
)
def test_each_fault_is_one_sentence(spec: StudySpec, expected: list[str]) -> None:
    """All at once, and each once, whatever the values that were drawn."""
    assert rehearsal.faults(spec) == expected


@pytest.mark.parametrize(
    ("trainer", "heads", "fault"),
    [
        (
            {"accelerator": "cpu"},
            3,
            "trial.lightning: building it raised ValueError: dim 8 is not divisible by heads 3 (",
        ),
        (
            {"accelerator": "cpu", "strategy": "ddp", "devices": 1},
            2,
            "a trial is one process: remove trainer.strategy, there is one device",
        ),
        ({"accelerator": "gpu", "strategy": "ddp", "devices": 1}, 2, "a trial is one process: remove trainer.strategy"),
        ({"accelerator": "cpu", "devices": 2}, 2, "a trial is one process: set devices to 1"),
        ({"accelerator": "cpu", "barebones": True}, 2, "trial.lightning.trainer: "),
        ({"accelerator": "gpu", "precision": "16-mixed"}, 2, ""),
    ],
)
def test_what_cannot_be_built_is_a_fault(trainer: dict[str, Any], heads: int, fault: str) -> None:
    """The model, its data and the Trainer; a GPU that is not on this machine is none."""
    lightning = {
        "model": {"class_path": f"{MODULE}.CannotBeBuilt", "init_args": {"heads": heads}},
        "data": {"class_path": f"{MODULE}.Data"},
        "trainer": {"max_epochs": 1, "enable_checkpointing": True, "default_root_dir": "${scenario}"} | trainer,
    }
    faults = rehearsal.faults(a_study(lightning=lightning))
    assert len(faults) == (1 if fault else 0), faults
    assert fault in "".join(faults)


def test_a_branch_of_the_space_that_is_never_taken_is_a_fault() -> None:
    """A condition names a value that the other parameter cannot have."""
    space = [
        {"name": "scenario", "type": "categorical", "choices": ["is good", "is good again"]},
        {"name": "quality", "type": "float", "low": 0, "high": 1, "when": {"parameter": "scenario", "in": ["is god"]}},
    ]
    document = a_study().to_document() | {"searchSpace": space, "trial": a_trial(quality="${quality}")}
    with pytest.raises(UnreadableSpecError, match=r"when\.in has 'is god', and scenario has is good, is good again"):
        rehearsal.read_spec(json.dumps(document))


def test_a_module_that_ends_the_program_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script without a guard, imported as if it were a module."""
    (tmp_path / "script_of_theirs.py").write_text("import sys\nsys.exit('usage: train.py DATA')\n")
    monkeypatch.syspath_prepend(tmp_path)
    faults = rehearsal.faults(
        a_study(
            lightning={"model": {"class_path": "script_of_theirs.Net"}, "trainer": {"default_root_dir": "${scenario}"}}
        )
    )
    assert faults == ["importing the classes of trial.lightning ended the program (sys.exit('usage: train.py DATA'))"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", ["line 1, column 2: this is no JSON: Expecting property name enclosed in double quotes"]),
        ('{"spec": {"maxTrials": 0}}', ["spec.objectives: Field required", "spec.maxTrials: ", "spec.trial: Field"]),
        ("[]", ["spec: "]),
    ],
)
def test_a_document_that_is_no_study_is_said_with_the_place(text: str, expected: list[str]) -> None:
    """A sentence for each fault; a manifest is taken as well as its spec."""
    with pytest.raises(UnreadableSpecError) as caught:
        rehearsal.read_spec(text)
    assert len(caught.value.faults) == len(expected)
    assert all(fault.startswith(start) for fault, start in zip(caught.value.faults, expected, strict=True))


def written(spec: StudySpec, folder: Path) -> str:
    file = folder / "study.json"
    file.write_text(json.dumps({"kind": "TuningStudy", "spec": spec.to_document()}))
    return str(file)


def test_check_answers_programs_in_json_and_people_in_sentences(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On standard output, and nothing else there; the exit code says whether there was anything."""
    bad = a_study(lightning={"data": None})
    assert command_line.run(["check", written(bad, tmp_path)]) == 1
    (sentence,) = capsys.readouterr().out.splitlines()
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(bad.to_document())))
    assert command_line.run(["check", "--json", "-"]) == 1
    assert json.loads(capsys.readouterr().out) == {"problem": sentence}
    assert command_line.run(["check", written(a_study(), tmp_path)]) == 0
    assert capsys.readouterr().out == ""


def test_a_file_that_is_not_there_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """As one more fault."""
    assert command_line.run(["check", "/no/such/file"]) == 1
    assert capsys.readouterr().out.startswith("/no/such/file cannot be read: ")


def test_the_help_says_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    """With examples and exit codes."""
    with pytest.raises(SystemExit) as caught:
        command_line.run(["--help"])
    assert caught.value.code == 0
    said = capsys.readouterr().out
    assert all(word in said for word in ("check", "try", "TUNING_DATABASE_URL", "examples:", "exit codes:"))


@pytest.fixture
def fresh_interpreter(tmp_path: Path) -> dict[str, str]:
    """The environment of a program of its own, with no database."""
    root = Path(__file__).parents[2]
    path = os.pathsep.join(map(str, (root, root / "operator", root / "trial_image")))
    return {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": path, "TMPDIR": str(tmp_path)}


def tried(spec: StudySpec, folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tuning_trial", "try", written(spec, folder), "--seed", "3"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_try_shows_the_parameters_the_training_and_the_metric(
    tmp_path: Path, fresh_interpreter: dict[str, str]
) -> None:
    """What the pod would run, before a person pays for GPUs; nothing of it stays."""
    done = tried(a_study(choices=["is good"]), tmp_path, fresh_interpreter)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:2] == ["seed = 3", "scenario = 'is good'"]
    assert lines[-1] == "val_acc = 0.5"
    assert "Trainable params" in done.stdout
    assert "epoch 3/3, val_acc=0.5" in done.stderr
    assert list(tmp_path.glob("trial-*")) == []


def test_try_says_whether_the_constraints_are_kept(tmp_path: Path, fresh_interpreter: dict[str, str]) -> None:
    """Before a whole study finds nothing feasible."""
    limits = [Constraint(metric="train_metric", upper=0.2), Constraint(metric="val_acc", lower=0.1)]
    spec = a_study(choices=["is good"]).model_copy(update={"constraints": limits})
    done = tried(spec, tmp_path, fresh_interpreter)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-3:] == [
        "val_acc = 0.5",
        "train_metric = 0.25",
        "infeasible: it breaks train_metric <= 0.2",
    ]


def test_try_shows_the_traceback_of_a_trial_that_raises(tmp_path: Path, fresh_interpreter: dict[str, str]) -> None:
    """And the sentence that the study would have recorded."""
    done = tried(a_study(choices=["raises"]), tmp_path, fresh_interpreter)
    assert done.returncode == 1
    assert "Traceback (most recent call last):" in done.stderr
    assert "the trial failed: RuntimeError: mat1 and mat2 shapes cannot be multiplied (tests/support/" in done.stderr
