"""A manifest's file: YAML that means what it means to kubectl, and what a person reads when it is wrong."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.builders import a_manifest

from tuning_api import manifest
from tuning_api.manifest import ManifestError

AS_THE_API_SERVER_STORES_IT: dict[str, Any] = {
    "1e-5": 0.00001,
    "1.0e-5": 0.00001,
    "-1.5e+2": -150,
    ".5": 0.5,
    "1.0": 1,
    "010": 8,
    "0o10": 8,
    "0x10": 16,
    "0b11": 3,
    "08": 8,
    "1_000": 1000,
    "on": True,
    "yes": True,
    "y": True,
    "off": False,
    "N": False,
    "~": None,
    "": None,
    "1:30": "1:30",
    "2026-01-01": "2026-01-01",
    "e5": "e5",
    "'1e-5'": "1e-5",
    "1e": "1e",
    "0x": "0x",
}


@pytest.mark.parametrize(
    ("text", "value"), AS_THE_API_SERVER_STORES_IT.items(), ids=map(repr, AS_THE_API_SERVER_STORES_IT)
)
def test_a_scalar_means_what_it_means_to_kubectl(text: str, value: Any) -> None:
    """Or a study that runs on a laptop is another one in the cluster: a whole number for a float, a text for a number."""
    (document,) = manifest.parse(f"value: {text}", source="x.yaml")
    assert (document["value"], type(document["value"])) == (value, type(value))


def test_keys_become_texts_and_merges_are_carried_out() -> None:
    """JSON has no other keys."""
    (document,) = manifest.parse("base: &base {a: 1, b: 2}\nmine: {<<: *base, b: 3}\n7: seven\non: 1", source="x.yaml")
    assert document == {"base": {"a": 1, "b": 2}, "mine": {"a": 1, "b": 3}, "7": "seven", "true": 1}


def test_a_manifest_is_found_among_other_documents() -> None:
    """The same file holds what a cluster needs besides; a comment at its end is no document."""
    study, other = yaml.safe_dump(a_manifest()), "kind: ConfigMap\napiVersion: v1"
    assert manifest.find_study(f"{other}\n---\n{study}---\n# end\n", source="x.yaml") == a_manifest()


FAULTS = {
    "nothing": ("", "x.yaml: the file is empty"),
    "an open bracket": ("a: 1\nb: [1,\nc: 2", "x.yaml:3:5: this is no valid YAML: while parsing a flow sequence"),
    "a tab": ("a:\n\tb: 1", "x.yaml:2:1: this is no valid YAML"),
    "a key twice": ("a: 1\nb: 2\na: 3", "x.yaml:3:1: this is no valid YAML: a is set twice"),
    "a list": ("- 1", "x.yaml: a manifest is a mapping"),
    "bytes": (
        "a: !!binary aGk=",
        "x.yaml:1:4: this is no valid YAML: could not determine a constructor for the tag '!!binary'",
    ),
    "code": ("a: !!python/object:os.system x", "x.yaml:1:4: this is no valid YAML: could not determine a constructor"),
    "a circle": ("a: &a [*a]", "x.yaml:1:4: this is no valid YAML: it is a part of itself, by an alias"),
    "another kind": ("kind: Experiment", "x.yaml: there is no TuningStudy in it: kind is Experiment"),
    "no kind": ("a: 1", "x.yaml: kind is missing: it must be TuningStudy, with apiVersion tuningstudy.io/v1alpha1"),
    "another version": (
        "kind: TuningStudy\napiVersion: tuningstudy.io/v9",
        "x.yaml: apiVersion is tuningstudy.io/v9: it must be tuningstudy.io/v1alpha1",
    ),
    "no name": ("kind: TuningStudy\napiVersion: tuningstudy.io/v1alpha1", "x.yaml: metadata.name is missing"),
    "an impossible name": (
        "kind: TuningStudy\napiVersion: tuningstudy.io/v1alpha1\nmetadata: {name: ../digits}",
        "x.yaml: metadata.name is '../digits'",
    ),
    "two studies": (
        "kind: TuningStudy\nmetadata: {name: a}\n---\nkind: TuningStudy\nmetadata: {name: b}",
        "x.yaml: has 2 TuningStudies (a, b): put each into a file of its own",
    ),
}


@pytest.mark.parametrize(("text", "words"), FAULTS.values(), ids=FAULTS)
def test_a_file_without_a_study_is_refused_in_words(text: str, words: str) -> None:
    """With line and column where there are any."""
    with pytest.raises(ManifestError) as caught:
        manifest.find_study(text, source="x.yaml")
    assert str(caught.value).startswith(words)


def test_a_file_that_cannot_be_read_is_refused_in_words(tmp_path: Path) -> None:
    """A name that is nearly right is named."""
    (tmp_path / "digits.yaml").write_bytes(b"\xff\xfe")
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "zero.yaml").symlink_to("/dev/zero")
    (tmp_path / "large.yaml").touch()
    os.truncate(tmp_path / "large.yaml", 5 << 30)
    faults = {
        tmp_path / "digts.yaml": f"there is no such file: did you mean {tmp_path / 'digits.yaml'}?",
        tmp_path / "digits.yaml": "this is no text in UTF-8",
        tmp_path: "cannot be read: Is a directory",
        tmp_path / "pipe.yaml": "cannot be read: it is a pipe, not a file",
        tmp_path / "zero.yaml": "cannot be read: it is a device, not a file",
        tmp_path / "large.yaml": "cannot be read: it has more than 1,048,576 bytes",
        tmp_path / "none" / "x.yaml": "there is no such file",
    }
    for path, words in faults.items():
        with pytest.raises(ManifestError) as caught:
            manifest.load(path)
        assert str(caught.value) == f"{path}: {words}"


SPECS = {
    "a list's item": (
        {"searchSpace": [{"name": "x", "type": "float", "low": 2, "high": 1}]},
        "spec.searchSpace[0]: parameter x: low must not be greater than high, and 2 > 1",
    ),
    "an unknown field, with the one that was meant": (
        {"maxTrails": 3},
        'unknown field "spec.maxTrails": did you mean maxTrials?',
    ),
    "a name that YAML takes for false": (
        {"searchSpace": [{"name": False, "type": "int", "low": 1, "high": 8}]},
        (
            "spec.searchSpace[0].name: must be a text, and it is false: put it into quotes "
            "(YAML reads y, n, yes, no, on and off so)"
        ),
    ),
    "a name that is a number": (
        {"searchSpace": [{"name": 10, "type": "int", "low": 1, "high": 8}]},
        "spec.searchSpace[0].name: must be a text, and it is 10: put it into quotes",
    ),
    "an unknown field that resembles none": ({"qqqqq": 3}, 'unknown field "spec.qqqqq"'),
}


@pytest.mark.parametrize(("changes", "words"), SPECS.values(), ids=SPECS)
def test_a_faulty_spec_names_the_field_as_kubectl_does(changes: dict[str, Any], words: str) -> None:
    """With or without a cluster, a person reads the same path."""
    spec, fault = manifest.read_spec(a_manifest(**changes))
    assert spec is None
    assert words in str(fault).split("; ")


def test_a_fault_is_short_whatever_the_manifest_says() -> None:
    """Names and values may be as long as the manifest, and a list may have as many faults as items."""
    long = "x" * 100_000
    texts = [
        f"kind: {long}",
        f"kind: TuningStudy\napiVersion: {long}",
        f"kind: TuningStudy\napiVersion: tuningstudy.io/v1alpha1\nmetadata: {{name: {long}}}",
        "\n---\n".join(["kind: TuningStudy\nmetadata: {name: " + long[:9_000] + "}"] * 9),
    ]
    for text in texts:
        with pytest.raises(ManifestError) as caught:
            manifest.find_study(text, source="x.yaml")
        assert len(str(caught.value)) < 600
    for changes in (
        {long: 1},
        {"maxTrials": long},
        {f"a{i}": 1 for i in range(10_000)},
        {"objectives": [long] * 9_000},
    ):
        fault = str(manifest.read_spec(a_manifest(**changes))[1])
        assert len(fault) < 21 * 500
    assert fault.endswith("more") or "at most" in fault


def test_a_study_without_a_namespace_is_in_kubectls_default() -> None:
    """Its status then says the same with and without a cluster."""
    document = a_manifest()
    assert (manifest.name_of(document), manifest.namespace_of(document)) == ("digits", "research")
    del document["metadata"]["namespace"]
    assert manifest.namespace_of(document) == "default"
