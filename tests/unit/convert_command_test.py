"""`tuningstudy convert` as a person calls it: files in, a manifest and its notes out, and a sentence for each mistake."""

import json
import os
from pathlib import Path

import pytest
import yaml
from tests.support.builders import a_manifest
from tests.support.command import Tuningstudy

from tuning_api import manifest

SWEEP = """\
program: train.py
method: random
metric: {name: val_loss, goal: minimize}
run_cap: 5
parameters:
  lr: {distribution: log_uniform, min: -11, max: -2}
  decay: {values: [1e-5, 1e-6]}
entity: us
"""
SPACE = '{\n\t"lr": {"_type": "uniform", "_value": [0, 1]}\n}'
NNI = "searchSpaceFile: space.json\ntrialCommand: python3 t.py\ntrialConcurrency: 2\nmaxTrialNumber: 4\ntuner: {name: Random}\n"
EXPERIMENT = "apiVersion: kubeflow.org/v1beta1\nkind: Experiment\nspec: {}\n"


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Tuningstudy:
    """The command, in a folder with one file of each kind."""
    monkeypatch.chdir(tmp_path)
    for name, text in {"sweep.yaml": SWEEP, "space.json": SPACE, "nni.yml": NNI}.items():
        Path(name).write_text(text)
    return Tuningstudy(monkeypatch, capsys)


def test_the_manifest_goes_to_standard_output_and_the_notes_to_standard_error(command: Tuningstudy) -> None:
    """So that it can be piped to kubectl."""
    code, text, notes = command("convert", "sweep.yaml")
    study = manifest.find_study(text, source="x")
    assert (code, study["metadata"]["name"]) == (0, "sweep")
    assert study["spec"]["searchSpace"][1]["choices"] == [1e-5, 1e-6]
    titles = [line for line in notes.splitlines() if not line.startswith(" ")]
    assert [title.split(":")[0] for title in titles] == ["mapped", "changed", "no counterpart, left out", "to decide"]
    assert "  entity " in notes


def test_a_file_is_written_once(command: Tuningstudy) -> None:
    """A person may have filled it in meanwhile."""
    assert command("convert", "sweep.yaml", "-o", "study.yaml")[:2] == (0, "")
    assert manifest.load(Path("study.yaml"))["kind"] == "TuningStudy"
    code, _, said = command("convert", "sweep.yaml", "-o", "study.yaml")
    assert (code, "study.yaml is there already" in said) == (2, True)
    assert command("convert", "sweep.yaml", "-o", "study.yaml", "--force")[0] == 0


def test_the_search_space_of_nni_is_read_from_its_file(command: Tuningstudy) -> None:
    """Beside the configuration, also when it is indented by tabs."""
    code, text, notes = command("convert", "nni.yml")
    assert code == 0
    assert yaml.safe_load(text)["spec"]["searchSpace"] == [{"name": "lr", "type": "float", "low": 0, "high": 1}]
    assert "space.json.lr" in notes


def test_a_study_that_needs_a_correction_is_written_and_said(command: Tuningstudy) -> None:
    """More GPUs than a pod may ask for: the person chooses."""
    experiment = {"searcher": {"name": "single", "metric": "loss"}, "resources": {"slots_per_trial": 512}}
    Path("big.json").write_text(json.dumps(experiment))
    code, _, said = command("convert", "big.json", "-o", "big.yaml")
    assert (code, Path("big.yaml").exists()) == (1, True)
    assert said.splitlines()[-1].startswith("big.yaml cannot run yet: spec.trial.gpus: ")


MISTAKES = {
    "no such file": ("none.yaml", None, "none.yaml: there is no such file"),
    "an empty file": ("x.yaml", "", "x.yaml: the file is empty"),
    "bad YAML": ("x.yaml", "a: [1", "x.yaml:1:6: this is no valid YAML"),
    "a list": ("x.json", "[1]", "x.json: a mapping is needed, and this is none"),
    "something else": (
        "x.yaml",
        "kind: Pod",
        "x.yaml: this is no experiment of a known system; say which it is by --from",
    ),
    "a study": (
        "x.yaml",
        yaml.safe_dump(a_manifest()),
        "x.yaml: this is a TuningStudy already: tuningstudy validate x.yaml",
    ),
    "two experiments": ("x.yaml", f"{EXPERIMENT}---\n{EXPERIMENT}", "x.yaml: has 2 experiments: put each into a file"),
    "a wrong field": (
        "x.yaml",
        "method: grid\nparameters: {a: 3}",
        "x.yaml: parameters.a: a mapping with value, values",
    ),
    "no search space": (
        "x.yaml",
        NNI.replace("space.json", "none.json"),
        "x.yaml: searchSpaceFile: none.json: cannot be read: No such file or directory",
    ),
}


@pytest.mark.parametrize(("name", "text", "words"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_answered_with_one_sentence(command: Tuningstudy, name: str, text: str | None, words: str) -> None:
    """Nothing is written."""
    if text is not None:
        Path(name).write_text(text)
    code, out, said = command("convert", name, "-o", "study.yaml")
    assert (code, out, Path("study.yaml").exists()) == (2, "", False)
    assert said.startswith(f"error: {words}"), said


SECRET = "root:$6$abc:19000\n"
ELSEWHERE = {
    "an absolute name": ("/etc/passwd", "cannot be read: it leads out of .: copy it beside the document"),
    "the folder above": ("../secret", "cannot be read: it leads out of .: copy it beside the document"),
    "a link": ("link", "cannot be read: it leads out of .: copy it beside the document"),
    "a folder's link": ("up/secret", "cannot be read: it leads out of .: copy it beside the document"),
    "a device": ("/dev/zero", "cannot be read: it leads out of .: copy it beside the document"),
    "a pipe": ("pipe", "cannot be read: it is a pipe, not a file"),
    "a large file": ("large", "cannot be read: it has more than 1,048,576 bytes"),
    "a NUL": ('"a\\0b"', "cannot be read: its name has a NUL"),
    "a long name": ("x" * 5000, "cannot be read: File name too long"),
    "other text": ("secret.txt", "a search space is needed (for each parameter _type and _value), and this is none"),
    "other YAML": ("secret.yaml", "a search space is needed (for each parameter _type and _value), and this is none"),
    "nothing": ("empty", "a search space is needed (for each parameter _type and _value), and this is none"),
}


@pytest.mark.parametrize("field", ["searchSpaceFile", "search_space_file", "searchSpacePath"])
@pytest.mark.parametrize(("name", "words"), ELSEWHERE.values(), ids=ELSEWHERE)
def test_a_document_does_not_choose_what_is_read_elsewhere(
    field: str, name: str, words: str, *, command: Tuningstudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person converts what somebody else wrote; and no error says what another file holds."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    (tmp_path / "secret").write_text(SECRET)
    Path("secret.txt").write_text(SECRET)
    Path("secret.yaml").write_text("password: '$6$abc'\n")
    Path("link").symlink_to("../secret")
    Path("up").symlink_to("..")
    os.mkfifo("pipe")
    Path("empty").touch()
    Path("large").touch()
    os.truncate("large", 5 << 30)
    Path("x.yaml").write_text(NNI.replace("searchSpaceFile: space.json", f"{field}: {name}"))
    code, out, said = command("convert", "x.yaml")
    assert (code, out) == (2, "")
    assert said.startswith(f"error: x.yaml: {field}: ")
    assert said.endswith(f"{words}\n")
    assert len(said.splitlines()) == 1
    assert "6$abc" not in said


def test_a_person_may_say_what_the_file_is(command: Tuningstudy) -> None:
    """A sweep without a method is one all the same."""
    Path("x.yaml").write_text("parameters: {lr: {min: 0.1, max: 1.0}}\n")
    assert command("convert", "x.yaml")[0] == 2
    assert command("convert", "x.yaml", "--from", "wandb")[0] == 0


def test_help_teaches_by_example(command: Tuningstudy) -> None:
    """As that of each command."""
    code, said, _ = command("convert", "--help")
    assert (code, "  tuningstudy convert experiment.yaml -o study.yaml" in said) == (0, True)


READ_AS_THEIR_OWN: dict[str, tuple[str, list[dict[str, object]]]] = {
    "floats of a sweep": (
        (
            "method: random\n"
            "parameters: {a: {min: 0.0, max: 1.0}, b: {min: 0, max: 1.0}, c: {min: !!float 1, max: 9}, d: {min: 1, max: 4}}\n"
        ),
        [
            {"name": "a", "type": "float", "low": 0, "high": 1},
            {"name": "b", "type": "float", "low": 0, "high": 1},
            {"name": "c", "type": "float", "low": 1, "high": 9},
            {"name": "d", "type": "int", "low": 1, "high": 4},
        ],
    ),
    "letters of a sweep": (
        "method: random\nparameters: {n: {values: [1, 2]}, y: {values: [y, n, on]}, m: {values: [010, 1e-5]}}\n",
        [
            {"name": "n", "type": "categorical", "choices": [1, 2]},
            {"name": "y", "type": "categorical", "choices": ["y", "n", True]},
            {"name": "m", "type": "categorical", "choices": [8, 1e-5]},
        ],
    ),
    "words of Determined": (
        (
            "searcher: {name: random, metric: loss}\n"
            "hyperparameters: {o: {type: categorical, vals: [yes, no, on, adam, true, 010, 0x10]}}\n"
        ),
        [{"name": "o", "type": "categorical", "choices": ["yes", "no", "on", "adam", True, 10, 16]}],
    ),
    "letters of NNI": (
        "trialCommand: t\nsearchSpace: {n: {_type: choice, _value: [y, no]}}\n",
        [{"name": "n", "type": "categorical", "choices": ["y", False]}],
    ),
    "letters of Katib": (
        (
            "apiVersion: kubeflow.org/v1beta1\nkind: Experiment\nspec: {parameters: [{name: x, parameterType: double, "
            "feasibleSpace: {min: 0.0, max: 1.0}}]}\n"
        ),
        [{"name": "x", "type": "float", "low": 0, "high": 1}],
    ),
}


@pytest.mark.parametrize(("text", "space"), READ_AS_THEIR_OWN.values(), ids=READ_AS_THEIR_OWN)
def test_a_document_is_read_as_its_own_system_reads_it(
    command: Tuningstudy, text: str, space: list[dict[str, object]]
) -> None:
    """PyYAML, YAML 1.2 and kubectl differ in what `n`, `no`, 010 and 1.0 are."""
    Path("theirs.yaml").write_text(text)
    code, written, _ = command("convert", "theirs.yaml")
    assert code == 0
    assert manifest.find_study(written, source="x")["spec"]["searchSpace"] == space
