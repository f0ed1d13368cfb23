"""A trial's configuration: placeholders become typed values, and nothing else changes."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuning_api.schema import Scalar
from tuning_api.spec import class_paths
from tuning_trial.config import substitute, with_defaults
from tuning_trial.errors import InvalidConfigError

VALUES: dict[str, Scalar] = {
    "lr": 1e-3,
    "layers": 3,
    "optimizer": "adam",
    "bias": True,
    "init": None,
    "trial.number": 7,
}

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
plain_text = st.text().filter(lambda text: "${" not in text)
documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | plain_text,
    lambda node: st.lists(node, max_size=4) | st.dictionaries(plain_text, node, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${lr}", 1e-3),
        ("${layers}", 3),
        ("${optimizer}", "adam"),
        ("${bias}", True),
        ("${init}", None),
        ("${trial.number}", 7),
        ("run-${trial.number}-${optimizer}", "run-7-adam"),
        (" ${layers}", " 3"),
        ("plain", "plain"),
        ("$lr, {lr} and ${}", "$lr, {lr} and ${}"),
    ],
)
def test_a_placeholder_becomes_its_value(text: str, expected: object) -> None:
    """A whole placeholder keeps the value's type; within a longer text the value is written out."""
    assert substitute({"key": [text]}, VALUES) == {"key": [expected]}


@given(config=st.dictionaries(plain_text, documents, max_size=4))
def test_a_configuration_without_placeholders_is_left_as_it_is(config: dict[str, Any]) -> None:
    """Substitution touches nothing but placeholders."""
    assert substitute(config, VALUES) == config


@given(value=scalars, key=plain_text)
def test_a_whole_placeholder_becomes_the_very_value(value: Any, key: str) -> None:
    """No value goes through text, whatever it is: 1e-5 stays that number, "1" stays a string."""
    result = substitute({key: "${x}", "list": [["${x}"]]}, {"x": value})
    assert result[key] is value
    assert result["list"] == [[value]]


@given(value=st.text())
def test_a_value_is_not_substituted_again(value: str) -> None:
    """A choice may look like a placeholder."""
    assert substitute({"key": "a ${x}"}, {"x": value}) == {"key": f"a {value}"}


def test_the_given_configuration_stays_for_the_next_trial() -> None:
    """The spec is read once and used for many trials."""
    config = {"model": {"init_args": {"lr": "${lr}"}}}
    substitute(config, VALUES)
    assert config == {"model": {"init_args": {"lr": "${lr}"}}}


def test_an_argument_without_value_in_this_trial_is_left_out() -> None:
    """A parameter whose condition is not met leaves its argument to its default."""
    config = {"init_args": {"lr": "${lr}", "momentum": "${momentum}"}, "list": ["${momentum}", 1]}
    assert substitute(config, VALUES, absent={"momentum"}) == {"init_args": {"lr": 1e-3}, "list": [1]}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            "${hiden}",
            r"trial\.lightning\.model\[0\]: \$\{hiden\} has no value, since searchSpace has no such parameter",
        ),
        ("m-${momentum}", r"\$\{momentum\} has no value, since its condition is not met in this trial"),
    ],
)
def test_a_placeholder_without_value_is_refused_with_its_place(text: str, complaint: str) -> None:
    """The person finds the line to mend."""
    with pytest.raises(InvalidConfigError, match=complaint):
        substitute({"model": [text]}, VALUES, absent={"momentum"})


def test_defaults_suit_a_trial_on_a_read_only_root() -> None:
    """Nothing is written but to the trial's folder, and nothing is drawn that nobody sees."""
    config = with_defaults({"trainer": {"max_epochs": 2}}, seed=5, folder=Path("/scratch/7"))
    assert config == {
        "seed_everything": 5,
        "trainer": {
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "default_root_dir": "/scratch/7",
            "max_epochs": 2,
        },
    }


def test_a_person_who_watches_sees_what_lightning_shows() -> None:
    """Its progress bar and its summary of the model."""
    config = with_defaults({}, seed=5, folder=Path("/scratch/7"), is_watched=True)
    assert config["trainer"] == {"default_root_dir": "/scratch/7"}


def test_what_a_person_chose_wins_over_the_defaults() -> None:
    """Loggers, folders and seeds of the user are kept; null means not chosen, as LightningCLI writes it."""
    chosen = {"logger": {"class_path": "CSVLogger"}, "default_root_dir": "/data", "enable_progress_bar": None}
    config = with_defaults({"trainer": chosen, "seed_everything": 1, "ckpt_path": None}, seed=5, folder=Path("/s"))
    assert config["trainer"] | {} == {
        "logger": {"class_path": "CSVLogger"},
        "default_root_dir": "/data",
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    assert (config["seed_everything"], "ckpt_path" in config) == (1, False)


def test_a_trainer_that_is_no_mapping_is_refused() -> None:
    """Lightning itself would ignore it."""
    with pytest.raises(InvalidConfigError, match=r"trial\.lightning\.trainer must be a mapping"):
        with_defaults({"trainer": ["max_epochs"]}, seed=1, folder=Path("/s"))


def test_classes_are_found_wherever_they_stand() -> None:
    """What the worker imports before it forks: full paths, not Lightning's short names nor placeholders."""
    config = {
        "model": {"class_path": "pkg.Model", "init_args": {"encoder": {"class_path": "pkg.parts.Encoder"}}},
        "optimizer": {"class_path": "${optimizer}"},
        "trainer": {"callbacks": [{"class_path": "EarlyStopping"}, {"class_path": "other.Callback"}]},
    }
    assert list(class_paths(config)) == ["pkg.Model", "pkg.parts.Encoder", "other.Callback"]
