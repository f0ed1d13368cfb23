"""`tuningstudy init`: a manifest that `tuningstudy validate` accepts as it is, by a process that knows torch."""

from pathlib import Path

import pytest
import yaml
from tests.support.command import Tuningstudy

MODEL = """
import pytorch_lightning as pl


class Net(pl.LightningModule):
    def __init__(self, num_classes: int, hidden_dim: int = 32):
        super().__init__()

    def training_step(self, batch, _):
        self.log("train_loss", 0.1)
"""


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Tuningstudy:
    """The command, in a folder with a model in it."""
    monkeypatch.chdir(tmp_path)
    Path("model_of_theirs.py").write_text(MODEL)
    return Tuningstudy(monkeypatch, capsys)


GLOSSES = ("tuning_trial.examples.glosses:TransformerClassifier", "--data", "tuning_trial.examples.glosses.GlossData")


@pytest.mark.parametrize(
    ("arguments", "name", "space"),
    [
        ((), "digits", ["hidden_dim", "num_layers", "dropout", "batch_size", "learning_rate"]),
        (
            GLOSSES,
            "transformer-classifier",
            ["num_layers", "embedding_dim", "dropout", "batch_size", "learning_rate"],
        ),
    ],
    ids=["the digits example by default", "the glosses example"],
)
def test_a_starter_is_valid_as_it_is(
    command: Tuningstudy, arguments: tuple[str, ...], name: str, space: list[str]
) -> None:
    """Fields, classes, arguments and types."""
    assert command("init", *arguments)[0] == 0
    study = yaml.safe_load(Path("study.yaml").read_text())
    assert study["metadata"]["name"] == name
    assert [parameter["name"] for parameter in study["spec"]["searchSpace"]] == space
    assert study["spec"]["objectives"] == [{"metric": "val_acc", "direction": "maximize"}]
    code, said, faults = command("validate", "study.yaml")
    assert (code, said, faults) == (0, f"study.yaml: study {name} is ready to run\n", "")


def test_what_a_person_must_say_is_asked_and_validate_insists(command: Tuningstudy) -> None:
    """A class beside the manifest is found, as in a run."""
    code, said, _ = command("init", "model_of_theirs.Net", "-o", "net.yaml")
    assert code == 0
    assert "  To decide: num_classes (int) has no default: write a value into init_args.\n" in said
    assert "  To decide: the data. " in said
    assert "  To decide: the metric and its direction. The model logs train_loss.\n" in said
    code, _, faults = command("validate", "net.yaml")
    assert code == 1
    assert "trial.lightning.model.init_args needs num_classes of model_of_theirs.Net" in faults


def test_a_class_that_is_not_there_is_said_with_the_nearest(command: Tuningstudy) -> None:
    """And no file is written."""
    code, _, said = command("init", "tuning_trial.examples.digits.DigitClassifier")
    words = "error: CLASS: tuning_trial.examples.digits has no DigitClassifier (did you mean 'DigitsClassifier'?)\n"
    assert (code, said, Path("study.yaml").exists()) == (2, words, False)


def test_data_are_no_model(command: Tuningstudy) -> None:
    """Named by the option where it was given."""
    code, _, said = command("init", "--data", "model_of_theirs.Net")
    assert (code, said) == (2, "error: --data: model_of_theirs.Net is no LightningDataModule\n")


def test_a_manifest_is_not_written_over(command: Tuningstudy) -> None:
    """Before a process is started for nothing."""
    Path("study.yaml").write_text("mine")
    code, _, said = command("init", "no.such.Model")
    assert (code, Path("study.yaml").read_text()) == (2, "mine")
    assert said.startswith("error: study.yaml is there already")


def test_help_teaches_by_example(command: Tuningstudy) -> None:
    """As that of each command."""
    code, said, _ = command("init", "--help")
    assert (code, "  tuningstudy init my_model.Classifier --data my_data.Images" in said) == (0, True)
