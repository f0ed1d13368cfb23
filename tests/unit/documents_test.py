"""Hostile texts: whatever a manifest or another system's document holds, it is read or refused in a line, and soon."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuning_api import documents, limits
from tuning_api.documents import DocumentError

BOUND_SECONDS = 60
"""Ten times what the worst text takes on a busy machine; before there were limits, most of these took minutes or for ever."""

HEAD = "apiVersion: tuningstudy.io/v1alpha1\n"


def chained(line: str, *, first: str, levels: int) -> str:
    """Anchors a0, a1, ..., each made of the one before."""
    return "\n".join([first, *(line.replace("NEW", f"a{i}").replace("OLD", f"a{i - 1}") for i in range(1, levels))])


REFUSED = {
    "aliases of aliases": (
        chained("NEW: &NEW [*OLD,*OLD,*OLD,*OLD,*OLD,*OLD,*OLD,*OLD,*OLD,*OLD]", first="a0: &a0 [x,x,x]", levels=9),
        "x.yaml:6:5: this is no valid YAML: it has more than 100,000 values, each counted as often as an alias repeats it",
    ),
    "merges of merges": (
        chained("NEW: &NEW {<<: [*OLD,*OLD,*OLD]}", first="a0: &a0 {k: 1}", levels=60),
        "x.yaml:11:16: this is no valid YAML: it has more than 100,000 values",
    ),
    "merges of wide mappings": (
        f"a: &a {{{', '.join(f'k{i}: 1' for i in range(400))}}}\n" + "\n".join(f"b{i}: {{<<: *a}}" for i in range(400)),
        "x.yaml:1:1: this is no valid YAML: it has more than 100,000 values",
    ),
    "documents, all of them together": (
        "---\na: 1\n" * 40_000,
        "x.yaml:66668:1: this is no valid YAML: it has more than",
    ),
    "aliases over several documents": (
        "".join(f"---\na: &a [{'x,' * 1000}]\nb: [{'*a,' * 40}]\n" for _ in range(3)),
        "x.yaml:9:4: this is no valid YAML: it has more than 100,000 values",
    ),
    "brackets": ("a: " + "[" * 1_000_000, "x.yaml:1:103: this is no valid YAML: it nests more than 100 levels deep"),
    "dashes": ("- " * 100_000, "x.yaml:1:201: this is no valid YAML: it nests more than 100 levels deep"),
    "question marks": ("? " * 100_000, "x.yaml:1:201: this is no valid YAML: it nests more than 100 levels deep"),
    "indents": (
        "".join(f"{' ' * i}a:\n" for i in range(1400)),
        "x.yaml:101:101: this is no valid YAML: it nests more than 100 levels deep",
    ),
    "levels by aliases": (
        chained("NEW: &NEW [*OLD]", first="a0: &a0 [x]", levels=3000),
        "x.yaml:101:7: this is no valid YAML: it nests more than 100 levels deep",
    ),
    "a megabyte and more": ("#" * (1 << 20) + "\n", "x.yaml: has 1,048,577 characters, and at most 1,048,576 are read"),
    "a circle": ("spec: &s {<<: *s}", "x.yaml:1:7: this is no valid YAML: it is a part of itself, by an alias"),
    "a circle of two": ("a: &a {b: &b [*a]}", "x.yaml:1:4: this is no valid YAML: it is a part of itself, by an alias"),
    "5,000 digits": (
        HEAD + "n: " + "9" * 5_000,
        "x.yaml:2:4: this is no valid YAML: must be a number, not 5,000 digits",
    ),
    "5,000 hexadecimal digits": (
        "n: 0x" + "f" * 5_000,
        "x.yaml:1:4: this is no valid YAML: must be a number, not 5,002",
    ),
    "no digits": ("n: 0x_", "x.yaml:1:4: this is no valid YAML: must be a whole number, not '0x'"),
    "no digits to the base of two": ("n: 0b__", "x.yaml:1:4: this is no valid YAML: must be a whole number, not '0b'"),
    "more than 64 bits": ("n: 0x" + "f" * 400, "x.yaml:1:4: this is no valid YAML: must be a number, not 402 digits"),
    "more than a float": ("n: " + "9" * 400, "x.yaml:1:4: this is no valid YAML: must be a whole number, not '999"),
    "a word that shall be an integer": (
        "n: !!int abc",
        "x.yaml:1:4: this is no valid YAML: must be a whole number, not 'abc'",
    ),
    "sixty as a base": ("n: !!int 1:30", "x.yaml:1:4: this is no valid YAML: must be a whole number, not '1:30'"),
    "a word that shall be a float": ("n: !!float x", "x.yaml:1:4: this is no valid YAML: must be a number, not 'x'"),
    "a word that shall be true": (
        "n: !!bool maybe",
        "x.yaml:1:4: this is no valid YAML: must be true or false, not 'maybe'",
    ),
    "a list that shall be an integer": ("n: !!int [1]", "x.yaml:1:4: this is no valid YAML: expected a scalar node"),
    "a word that shall be a mapping": ("n: !!map abc", "x.yaml:1:4: this is no valid YAML: expected a mapping node"),
    "a word that shall be a list": ("n: !!seq abc", "x.yaml:1:4: this is no valid YAML: expected a sequence node"),
    "a mapping that shall be a word": ("n: !!str {}", "x.yaml:1:4: this is no valid YAML: expected a scalar node"),
    "a time": (
        "n: !!timestamp abc",
        "x.yaml:1:4: this is no valid YAML: could not determine a constructor for the tag '!!time",
    ),
    "a set": (
        "n: !!set {a}",
        "x.yaml:1:4: this is no valid YAML: could not determine a constructor for the tag '!!set'",
    ),
    "an ordered mapping": ("n: !!omap [a: 1]", "x.yaml:1:4: this is no valid YAML: could not determine a constructor"),
    "pairs": (
        "n: !!pairs x",
        "x.yaml:1:4: this is no valid YAML: could not determine a constructor for the tag '!!pairs'",
    ),
    "a tag as long as the text": ("n: !" + "x" * 500_000, "x.yaml:1:4: this is no valid YAML: could not determine"),
    "a merge of a word": (
        "<<: a",
        "x.yaml:1:5: this is no valid YAML: while constructing a mapping, expected a mapping or list",
    ),
    "a merge as a value": (
        "a: <<",
        "x.yaml:1:4: this is no valid YAML: could not determine a constructor for the tag '!!merge'",
    ),
    "a list as a key": (
        "? [a]\n: 1",
        "x.yaml:1:3: this is no valid YAML: while constructing a mapping, found unhashable key",
    ),
    "nothing as a key": ("~: 1", "x.yaml:1:1: this is no valid YAML: null cannot be a key"),
    "a key twice, as long as the text": (f"{'x' * 900}: 1\n" * 2, "x.yaml:2:1: this is no valid YAML: xxx"),
    "a version of 5,000 digits": (
        f"%YAML {'9' * 5_000}.1\n--- 1",
        "x.yaml:1:7: this is no valid YAML: Exceeds the limit",
    ),
    "a letter beyond Unicode": (r'a: "\UFFFFFFFF"', "x.yaml:1:"),
    "half a letter": (r'a: "\ud800"', "x.yaml:1:4: this is no valid YAML: an escape stands for half of a letter"),
    "half a letter in a key": (
        r'"\ud800": a',
        "x.yaml:1:1: this is no valid YAML: an escape stands for half of a letter",
    ),
    "a letter that YAML has not": (
        "a: 1\nb: \0",
        "x.yaml:2: this is no valid YAML: special characters are not allowed",
    ),
    "an alias without an anchor": ("a: *b", "x.yaml:1:4: this is no valid YAML: found undefined alias"),
    "a name of several lines that is there twice": (
        '"a\\nb": 1\n"a\\nb": 1',
        "x.yaml:2:1: this is no valid YAML: a b is set",
    ),
}


@pytest.mark.parametrize(("text", "words"), REFUSED.values(), ids=REFUSED)
def test_a_hostile_text_is_refused_in_one_line_with_its_place(text: str, words: str) -> None:
    """Within a bounded time, whatever it would expand to; and the line stays short, whatever it names."""
    began = time.monotonic()
    with pytest.raises(DocumentError) as caught:
        documents.from_yaml(text, source="x.yaml")
    assert str(caught.value).startswith(words)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 500
    assert time.monotonic() - began < BOUND_SECONDS


def test_what_people_write_with_anchors_is_read() -> None:
    """Limits are far above it: levels, aliases, and a merge of what is merged itself, whichever is built first."""
    text = "a: {base: &base {<<: &x {k: 0}, k: 1}}\nb: {<<: *base, l: 2}\nc: [*base, *base]"
    assert documents.from_yaml(text, source="x") == [
        {"a": {"base": {"k": 1}}, "b": {"k": 1, "l": 2}, "c": [{"k": 1}, {"k": 1}]}
    ]
    deep: Any = "x"
    for _ in range(limits.DEEPEST):
        deep = [deep]
    assert documents.from_yaml(f"{'[' * limits.DEEPEST}x{']' * limits.DEEPEST}", source="x") == [deep]
    assert documents.from_json_or_yaml(f'{"[" * limits.DEEPEST}"x"{"]" * limits.DEEPEST}', source="x") == [deep]


def test_a_whole_number_beyond_64_bits_is_a_float_as_in_go() -> None:
    """Or it would be another value in the cluster; strconv.ParseInt and ParseUint come first, then ParseFloat."""
    text = "[18446744073709551615, 18446744073709551616, -9223372036854775809]"
    found = documents.from_yaml(text, source="x")[0]
    assert [*map(type, found)] == [int, float, float]
    assert documents.from_json_or_yaml(text, source="x")[0] == found


JSON = {
    "levels": ('{"a": ' + "[" * 101 + "]" * 101 + "}", "x: document.a[0] nests more than 100 levels deep"),
    "levels that Python cannot read": (
        '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}",
        "x: document nests more than 100 levels",
    ),
    "values": ("[" + "1," * 120_000 + "1]", "x: document has more than 100,000 values"),
    "digits": ('{"a": ' + "9" * 5_000 + "}", "x:1:7: this is no valid YAML: must be a number, not 5,000 digits"),
    "a megabyte": ('"' + "x" * (1 << 20) + '"', "x: has 1,048,578 characters"),
}


@pytest.mark.parametrize(("text", "words"), JSON.values(), ids=JSON)
def test_hostile_json_is_refused_in_one_line(text: str, words: str) -> None:
    """JSON is read by another reader, with the same limits."""
    with pytest.raises(DocumentError) as caught:
        documents.from_json_or_yaml(text, source="x")
    assert str(caught.value).startswith(words)
    assert len(str(caught.value)) < 500


_WORDS = st.sampled_from(
    (
        *(
            "a",
            "&a ",
            "*a",
            "<<",
            ": ",
            "- ",
            "? ",
            "[",
            "]",
            "{",
            "}",
            ",",
            "#",
            "@",
            "~",
            "|\n",
            ">-\n",
            "'",
            '"',
            "\t",
        ),
        *(
            "!!int ",
            "!!float ",
            "!!bool ",
            "!!null ",
            "!!str ",
            "!!seq ",
            "!!map ",
            "!!set ",
            "!!omap ",
            "!!pairs ",
            "!",
        ),
        *(
            "!!merge ",
            "!!binary ",
            "!!timestamp ",
            "!!value ",
            "!x ",
            "!<x> ",
            "%YAML ",
            "%TAG ",
            "---\n",
            "...\n",
            "\n",
        ),
        *("1", "0x", "0b", "_", "1e9", ".", "-", ".inf", ".nan", "08", "1:30", "=", "9" * 5_000, "kind: TuningStudy\n"),
        *("\\", "\\u", "\\ud800", "\\UFFFFFFFF", "\n  ", "\0", "\ud800", "\ufeff", "\u2028", "\x85", "NaN", "true"),
    )
)
TEXTS = st.one_of(st.lists(_WORDS, max_size=40).map("".join), st.text(max_size=200))


@given(TEXTS)
@settings(max_examples=1_000, deadline=5_000)
def test_any_text_is_read_or_refused(text: str) -> None:
    """By no other error than that of a document, in one line; and what is read is what JSON has, within the limits."""
    for read in (documents.from_yaml, documents.from_json_or_yaml):
        found, fault = _outcome(read, text)
        assert len(fault.splitlines()) <= 1
        assert all(limits.fault_of(document, path="x") is None and _is_json(document) for document in found)


def _outcome(read: Callable[..., list[Any]], text: str) -> tuple[list[Any], str]:
    try:
        return read(text, source="x"), ""
    except DocumentError as error:
        return [], str(error)


def _is_json(value: object) -> bool:
    match value:
        case dict():
            return all(isinstance(key, str) and _is_json(item) for key, item in value.items())
        case list():
            return all(map(_is_json, value))
        case _:
            return isinstance(value, str | int | float | None)
