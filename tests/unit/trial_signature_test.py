"""What a class takes and logs, read from it; and what is answered where there is no such class."""

import json
import sys
from pathlib import Path

import pytest

from tuning_trial import command_line, lightning_parser, lookup, signature
from tuning_trial.errors import InvalidConfigError

DIGITS = "tuning_trial.examples.digits"
MODULE = """
import math
import pytorch_lightning as pl
import torch
from torch import nn


class Base(pl.LightningModule):
    def __init__(self, width: int, activation: str = "relu", **kwargs):
        super().__init__()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def validation_step(self, batch, _):
        self._step(batch, "val")
        self.log_dict({"val_f1": 0.1, "val_ece": 0.2})

    def _step(self, batch, stage):
        self.log(f"{stage}_acc", 0.5)
        self.log("beta" if stage else "gamma", 0.1)


class Net(Base):
    def __init__(self, lr: "float" = 1e-3, loss: nn.Module = nn.ReLU(), limit: float = math.inf, *, sizes=(1, 2), **kwargs):
        super().__init__(**kwargs)

    def train_dataloader(self):
        return []


class NotOne:
    pass


def raising(self):
    raise RuntimeError
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module of a person's own."""
    (tmp_path / "module_of_theirs.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "module_of_theirs", raising=False)
    return "module_of_theirs"


def test_arguments_are_those_of_the_class_and_of_the_bases_that_it_hands_them_on_to(module: str) -> None:
    """With types and defaults as far as JSON has them; infinity it has not."""
    described = signature.describe(f"{module}.Net")
    assert described["arguments"] == [
        {"name": "lr", "type": "float", "required": False, "default": 1e-3},
        {"name": "loss", "type": "torch.nn.modules.module.Module", "required": False},
        {"name": "limit", "type": "float", "required": False},
        {"name": "sizes", "type": "", "required": False, "default": (1, 2)},
        {"name": "width", "type": "int", "required": True},
        {"name": "activation", "type": "str", "required": False, "default": "relu"},
    ]


def test_metrics_are_read_from_the_source(module: str) -> None:
    """Of the bases too; a name that begins with the stage is the one of validation."""
    assert sorted(signature.describe(f"{module}.Net")["metrics"]) == ["val_acc", "val_ece", "val_f1"]
    assert signature.describe(f"{DIGITS}.DigitsClassifier")["metrics"] == ["train_loss", "val_loss", "val_acc"]


@pytest.mark.parametrize(("name", "has_data"), [("Base", False), ("Net", True)])
def test_a_model_may_bring_its_optimizer_and_its_data_along(module: str, name: str, *, has_data: bool) -> None:
    """Its own or inherited."""
    described = signature.describe(f"{module}.{name}")
    assert (described["has_optimizer"], described["has_data"]) == (True, has_data)


def test_data_are_told_from_a_model() -> None:
    """By what they inherit from."""
    assert signature.describe(f"{DIGITS}.DigitsData")["kind"] == "data"
    assert signature.describe(f"{DIGITS}.DigitsClassifier")["kind"] == "model"


UNKNOWN = {
    "a class": (f"{DIGITS}.DigitClassifier", f"{DIGITS} has no DigitClassifier (did you mean 'DigitsClassifier'?)"),
    "a module": (
        "tuning_trial.examples.digit.DigitsClassifier",
        "there is no module 'tuning_trial.examples.digit' (did you mean 'tuning_trial.examples.digits'?)",
    ),
    "a package": ("tuning_tral.x.Net", "there is no module 'tuning_tral' (did you mean 'tuning_trial'?)"),
    "nothing near": (f"{DIGITS}.Xyz", f"{DIGITS} has no Xyz"),
    "no path": ("Net", "Net is no full path: write package.module.Net"),
}


@pytest.mark.parametrize(("class_path", "words"), UNKNOWN.values(), ids=UNKNOWN)
def test_a_class_that_is_not_there_is_said_with_the_nearest(class_path: str, words: str) -> None:
    """So is a module."""
    with pytest.raises(InvalidConfigError) as caught:
        lookup.find_class(class_path)
    assert str(caught.value) == words


@pytest.mark.parametrize("name", ["NotOne", "raising"])
def test_what_is_no_part_of_lightning_is_refused(module: str, name: str) -> None:
    """Its arguments would be none of a model's."""
    with pytest.raises(InvalidConfigError, match="is no LightningModule, and no LightningDataModule"):
        signature.describe(f"{module}.{name}")


CONFIGS = {
    "a class": (
        {"model": {"class_path": f"{DIGITS}.DigitClassifier"}},
        f"trial.lightning.model.class_path: {DIGITS} has no DigitClassifier (did you mean 'DigitsClassifier'?)",
    ),
    "a class of the data": (
        {"model": {"class_path": f"{DIGITS}.DigitsClassifier"}, "data": {"class_path": f"{DIGITS}.DigitData"}},
        f"trial.lightning.data.class_path: {DIGITS} has no DigitData (did you mean 'DigitsData'?)",
    ),
    "an optimizer": (
        {"model": {"class_path": f"{DIGITS}.DigitsClassifier"}, "optimizer": {"class_path": "torch.optim.AdmW"}},
        "trial.lightning.optimizer.class_path: torch.optim has no AdmW (did you mean 'AdamW'?)",
    ),
    "a module": (
        {"model": {"class_path": "tuning_trial.examples.digit.DigitsClassifier"}},
        (
            "trial.lightning.model.class_path: there is no module 'tuning_trial.examples.digit'"
            " (did you mean 'tuning_trial.examples.digits'?)"
        ),
    ),
    "data for a model": (
        {"model": {"class_path": f"{DIGITS}.DigitsData"}},
        f"trial.lightning.model.class_path: {DIGITS}.DigitsData is no LightningModule",
    ),
    "no path": (
        {"model": {"class_path": "Nett"}},
        "trial.lightning.model.class_path: Nett is no full path: write package.module.Nett",
    ),
    "an argument": (
        {"model": {"class_path": f"{DIGITS}.DigitsClassifier", "init_args": {"hiden_dim": 8}}},
        (
            f"trial.lightning.model.init_args has no argument 'hiden_dim' of {DIGITS}.DigitsClassifier"
            " (did you mean 'hidden_dim'?)"
        ),
    ),
}


@pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning")
@pytest.mark.parametrize(("config", "words"), CONFIGS.values(), ids=CONFIGS)
def test_a_configuration_with_an_unknown_class_names_its_place(config: dict[str, object], words: str) -> None:
    """In the words of the manifest, not in the parser's."""
    with pytest.raises(InvalidConfigError) as caught:
        lightning_parser.parse(lightning_parser.shared_parser(), config)
    assert str(caught.value) == words


def test_describe_answers_programs_in_json_and_people_in_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """On standard output, and nothing else there."""
    assert command_line.run(["describe", "--json", f"{DIGITS}.DigitsData"]) == 0
    assert json.loads(capsys.readouterr().out)["arguments"][0]["name"] == "batch_size"
    assert command_line.run(["describe", f"{DIGITS}.DigitsData"]) == 0
    assert "  batch_size: int, default 64\n" in capsys.readouterr().out
    assert command_line.run(["describe", "--json", f"{DIGITS}.Nothing", f"{DIGITS}.DigitsData"]) == 1
    problem, description = map(json.loads, capsys.readouterr().out.splitlines())
    assert problem == {"problem": f"{DIGITS} has no Nothing"}
    assert description["kind"] == "data"


def test_describe_says_what_importing_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mistake in the person's module is theirs to see, with its traceback."""
    (tmp_path / "broken_of_theirs.py").write_text("print('loading')\n1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert command_line.run(["describe", "--json", "broken_of_theirs.Net"]) == 1
    said = capsys.readouterr()
    assert json.loads(said.out) == {
        "problem": "importing broken_of_theirs.Net raised ZeroDivisionError: division by zero"
    }
    assert "broken_of_theirs.py" in said.err
