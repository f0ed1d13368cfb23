#!/usr/bin/env python3
"""Builds the data of the glosses example: WordNet's glosses, each with the lexicographer file that its word is in.

WordNet 3.0 has 117,659 synsets, words of one meaning, and lexicographers wrote each into one of 45 files by its field:
noun.animal, verb.motion, adj.all. A line of the result is such a field, a tab and the gloss with its examples. The
lines are sorted, so that the same WordNet gives the same bytes (with the same liblzma).

    apt-get download wordnet-base && dpkg -x wordnet-base_*.deb wordnet
    python trial_image/build_glosses.py --dict wordnet/usr/share/wordnet

Where `apt-get install wordnet-base` was done, no argument is needed. The licence of WordNet asks that its notice stay
with the data: it is in LICENSE-wordnet.txt beside the result, and is not written here.
"""

import argparse
import lzma
import sys
from collections.abc import Iterator
from pathlib import Path

DEFAULT_DICT = Path("/usr/share/wordnet")
DEFAULT_OUTPUT = Path(__file__).parent / "tuning_trial" / "examples" / "data" / "wordnet-glosses.tsv.xz"
PARTS_OF_SPEECH = ("adj", "adv", "noun", "verb")
FIELDS = (
    "adj.all",
    "adj.pert",
    "adv.all",
    "noun.Tops",
    "noun.act",
    "noun.animal",
    "noun.artifact",
    "noun.attribute",
    "noun.body",
    "noun.cognition",
    "noun.communication",
    "noun.event",
    "noun.feeling",
    "noun.food",
    "noun.group",
    "noun.location",
    "noun.motive",
    "noun.object",
    "noun.person",
    "noun.phenomenon",
    "noun.plant",
    "noun.possession",
    "noun.process",
    "noun.quantity",
    "noun.relation",
    "noun.shape",
    "noun.state",
    "noun.substance",
    "noun.time",
    "verb.body",
    "verb.change",
    "verb.cognition",
    "verb.communication",
    "verb.competition",
    "verb.consumption",
    "verb.contact",
    "verb.creation",
    "verb.emotion",
    "verb.motion",
    "verb.perception",
    "verb.possession",
    "verb.social",
    "verb.stative",
    "verb.weather",
    "adj.ppl",
)
"""The lexicographer files by their number in the data files, from the manual page lexnames(5WN)."""


def main() -> int:
    """Build the file and say what is in it."""
    arguments = _arguments()
    missing = [file for file in _data_files(arguments.dict) if not file.is_file()]
    if missing:
        sys.stderr.write(f"{missing[0]} is not there: is --dict WordNet's folder of data.* files? See --help.\n")
        return 1
    lines = build_lines(arguments.dict)
    packed = pack(lines)
    arguments.output.write_bytes(packed)
    fields = {line.partition("\t")[0] for line in lines}
    sys.stdout.write(f"{arguments.output}: {len(lines):,} glosses, {len(fields)} classes, {len(packed):,} bytes\n")
    return 0


def build_lines(folder: Path) -> list[str]:
    """The sorted lines, `field<tab>gloss`, without line ends.

    Args:
        folder: Has WordNet's files data.adj, data.adv, data.noun and data.verb.
    """
    return sorted(line for file in _data_files(folder) for line in _read(file))


def pack(lines: list[str]) -> bytes:
    """Compress the lines as xz, with everything said that decides on the bytes."""
    text = "".join(f"{line}\n" for line in lines).encode()
    return lzma.compress(text, format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC64, preset=9 | lzma.PRESET_EXTREME)


def _data_files(folder: Path) -> list[Path]:
    return [folder / f"data.{part}" for part in PARTS_OF_SPEECH]


def _read(file: Path) -> Iterator[str]:
    """One line for each synset: `offset field_number type words and pointers | gloss`; the licence is indented."""
    with file.open(encoding="ascii") as synsets:
        for synset in synsets:
            if synset.startswith(" "):
                continue
            head, _, gloss = synset.partition(" | ")
            yield f"{FIELDS[int(head.split()[1])]}\t{gloss.strip()}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--dict",
        type=Path,
        default=DEFAULT_DICT,
        metavar="FOLDER",
        help="WordNet's folder of data.adj, data.adv, data.noun and data.verb (default: %(default)s)",
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=DEFAULT_OUTPUT, metavar="FILE", help="the result (default: the example's)"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
