"""The data of the glosses example, and the script that builds them from WordNet."""

import lzma
import sys
from collections import Counter
from pathlib import Path

import pytest
from trial_image import build_glosses

LICENCE = "  1 This software and database is being provided to you  \n"
SYNSETS = {
    "adj": '00001740 00 a 01 able 0 001 = 05200169 n 0000 | having means; "able to swim"  \n',
    "adv": "00001740 02 r 01 a_cappella 0 000 | without accompaniment  \n",
    "noun": "00001740 03 n 01 entity 0 001 ~ 00001930 n 0000 | that which exists  \n"
    "02084071 05 n 01 dog 0 000 | a canid | kept by people  \n",
    "verb": "00001740 29 v 01 breathe 0 000 | draw air\n",
}


@pytest.fixture
def wordnet(tmp_path: Path) -> Path:
    for part, synsets in SYNSETS.items():
        (tmp_path / f"data.{part}").write_text(LICENCE + synsets)
    return tmp_path


def test_the_data_are_all_glosses_of_wordnet() -> None:
    """117,659 synsets in 45 lexicographer files, each field and gloss on a line of its own, sorted."""
    lines = lzma.decompress(build_glosses.DEFAULT_OUTPUT.read_bytes()).decode("ascii").splitlines()
    rows = [line.split("\t") for line in lines]
    assert len(rows) == 117_659
    assert {len(row) for row in rows} == {2}
    assert {field for field, _ in rows} == set(build_glosses.FIELDS)
    assert Counter(field for field, _ in rows)["noun.animal"] == 7_509
    assert all(gloss for _, gloss in rows)
    assert lines == sorted(lines)


def test_the_licence_of_wordnet_stays_with_the_data() -> None:
    """It must appear on all copies, and whoever copies the example copies the folder."""
    notice = (build_glosses.DEFAULT_OUTPUT.parent / "LICENSE-wordnet.txt").read_text()
    assert "WordNet 3.0 Copyright 2006 by Princeton University.  All rights reserved." in notice
    assert "Permission to use, copy, modify and distribute" in notice


def test_a_line_is_the_field_of_a_synset_and_its_gloss(wordnet: Path) -> None:
    """The licence at the head of each file is none, and examples stay."""
    assert build_glosses.build_lines(wordnet) == [
        'adj.all\thaving means; "able to swim"',
        "adv.all\twithout accompaniment",
        "noun.Tops\tthat which exists",
        "noun.animal\ta canid | kept by people",
        "verb.body\tdraw air",
    ]


def test_the_same_wordnet_gives_the_same_bytes(
    wordnet: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """So that anybody can check where the data come from."""
    written = []
    for name in ("first.xz", "second.xz"):
        monkeypatch.setattr(sys, "argv", ["build_glosses", "--dict", str(wordnet), "-o", str(wordnet / name)])
        assert build_glosses.main() == 0
        written.append((wordnet / name).read_bytes())
    assert written[0] == written[1]
    assert "5 glosses, 5 classes" in capsys.readouterr().out


def test_a_folder_without_wordnet_is_refused_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The name of the file that is missing, and the option."""
    monkeypatch.setattr(sys, "argv", ["build_glosses", "--dict", str(tmp_path)])
    assert build_glosses.main() == 1
    assert f"{tmp_path}/data.adj is not there: is --dict WordNet's folder" in capsys.readouterr().err
