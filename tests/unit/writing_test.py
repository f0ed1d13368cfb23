"""A manifest's text: it means what was meant, and a person would have written it so."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuning_api import manifest
from tuning_operator.cli import writing
from tuning_operator.local.errors import BadInputError

TEXTS = [
    "1e-5",
    "on",
    "y",
    "0x10",
    "010",
    "1_000",
    "~",
    "",
    "null",
    "a: b",
    "a, b",
    "# c",
    "- d",
    "${lr}",
    '{"e": 1}',
    "it's",
]
scalars = (
    st.none() | st.booleans() | st.integers(-(2**63) + 1, 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
)
texts = st.sampled_from(TEXTS) | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
documents = st.recursive(
    scalars | texts,
    lambda node: st.lists(node, max_size=3) | st.dictionaries(texts, node, max_size=3),
    max_leaves=10,
)


def read_back(document: dict[str, Any]) -> dict[str, Any]:
    (read,) = manifest.parse(writing.text(document, comments={}), source="study.yaml")
    return read


@settings(deadline=None)
@given(value=documents)
def test_a_text_is_read_as_what_was_written(value: Any) -> None:
    """By kubectl's rules, in which 1e-5 without quotes is a number."""
    assert read_back({"spec": value}) == {"spec": value}


@pytest.mark.parametrize("value", TEXTS)
def test_a_text_that_looks_like_something_else_stays_a_text(value: str) -> None:
    """In a line, in a list, and as a key."""
    document = {"a": value, "b": [value], "c": {value: 1}}
    assert read_back(document) == document


def test_short_things_are_in_one_line_and_comments_where_they_belong() -> None:
    """As the samples are written."""
    document = {
        "spec": {
            "searchSpace": [{"name": "lr", "type": "float", "low": 0.1, "high": 1}],
            "sampler": {"type": "tpe"},
            "trial": {"gpus": 0, "image": "registry.example/image:1"},
        }
    }
    comments: dict[str, list[str] | str] = {"spec.sampler": ["why"], "spec.trial.gpus": "CPU"}
    assert writing.text(document, comments=comments, head=["Title."]) == (
        "# Title.\n"
        "spec:\n"
        "  searchSpace:\n"
        "    - {name: lr, type: float, low: 0.1, high: 1}\n"
        "  # why\n"
        "  sampler: {type: tpe}\n"
        "  trial:\n"
        "    gpus: 0  # CPU\n"
        "    image: registry.example/image:1\n"
    )


def test_long_comments_are_broken_and_cannot_become_yaml() -> None:
    """A command may be long; a name may have any character."""
    comment = f"It ran: {'--option ' * 30}\nspec: broken\x85kind: Pod"
    text = writing.text({"spec": {"a": 1}}, comments={"spec.a": [comment]})
    assert all(len(line) < 120 for line in text.splitlines())
    assert manifest.parse(text, source="x") == [{"spec": {"a": 1}}]


def test_a_file_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    """Unless that is asked for; what stands in the way is named."""
    path = tmp_path / "study.yaml"
    writing.save("one", path, force=False)
    with pytest.raises(BadInputError, match=r"study\.yaml is there already: .* --force"):
        writing.save("two", path, force=False)
    assert path.read_text() == "one"
    writing.save("two", path, force=True)
    assert path.read_text() == "two"
    with pytest.raises(BadInputError, match="cannot be written: No such file or directory"):
        writing.save("x", tmp_path / "none" / "study.yaml", force=False)


@pytest.mark.parametrize("force", [False, True])
def test_nothing_is_written_through_a_link(force: bool, tmp_path: Path) -> None:  # noqa: FBT001 - a parameter
    """`report` writes NAME.html into a folder that may be somebody else's."""
    (tmp_path / ".bashrc").write_text("# mine")
    (tmp_path / "digits.html").symlink_to(".bashrc")
    (tmp_path / "new.html").symlink_to("new")
    for name in ("digits.html", "new.html"):
        with pytest.raises(BadInputError, match=f"{name} is a link: remove it, or choose another file with -o"):
            writing.save("<html>", tmp_path / name, force=force)
    assert (tmp_path / ".bashrc").read_text() == "# mine"
    assert not (tmp_path / "new").exists()
