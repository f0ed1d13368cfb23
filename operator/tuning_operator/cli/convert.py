"""`tuningstudy convert`: an experiment of another system as a manifest, and what became of each of its fields."""

import errno
from collections.abc import Iterator
from pathlib import Path

from tuning_api import documents, files, limits, manifest
from tuning_api.documents import Dialect, DocumentError
from tuning_api.manifest import ManifestError
from tuning_api.schema import Document
from tuning_api.spec import KIND
from tuning_operator import convert as conversion
from tuning_operator.cli import writing
from tuning_operator.cli.terminal import say
from tuning_operator.convert import Conversion, ConversionError, System, nni
from tuning_operator.convert.draft import Kind
from tuning_operator.decide import validity
from tuning_operator.local.errors import BadInputError

_TITLES = {
    Kind.MAPPED: "mapped",
    Kind.CHANGED: "changed: look whether it still means what you want",
    Kind.MISSING: "no counterpart, left out",
    Kind.DECIDE: "to decide",
}
_LONGEST_NAME = 200
_COLUMN = 60
"""The longest path that the words of all notes are moved to the right for."""


def convert(file: Path, *, system: str | None, output: Path | None, force: bool) -> int:
    """Write the manifest to a file or to standard output, and the notes to standard error.

    Returns:
        0, or 1 when the manifest needs a correction before it can run.

    Raises:
        BadInputError: the file is no experiment of a known system, or a field in it is wrong.
    """
    place, source = _recognised(_documents(file), System(system) if system else None, file=file)
    document = _documents(file, dialect=conversion.DIALECTS[source])[place]
    try:
        made = conversion.convert(document, source, name=file.stem, search_space=_search_space(document, source, file))
    except ConversionError as error:
        raise BadInputError(f"{file}: {limits.shortened(str(error))}") from error
    written = writing.text(made.manifest, comments=made.comments, head=[f"Converted from {file.name} ({source})."])
    if output is None:
        say(written, nl=False)
    else:
        writing.save(written, output, force=force)
    for line in _report(made):
        say(line, err=True)
    return _checked(made, output or Path("the manifest"))


def _documents(file: Path, *, dialect: Dialect = Dialect.KUBERNETES) -> list[Document]:
    """What is in a file that the person has named."""
    try:
        found = documents.from_json_or_yaml(manifest.read_text(file), source=str(file), dialect=dialect)
    except (ManifestError, DocumentError) as error:
        raise BadInputError(str(error)) from None
    if not all(isinstance(document, dict) for document in found):
        raise BadInputError(f"{file}: a mapping is needed, and this is none")
    return found


def _recognised(read: list[Document], system: System | None, *, file: Path) -> tuple[int, System]:
    """Which of the documents is the experiment, and whose it is."""
    if not read:
        raise BadInputError(f"{file}: the file is empty")
    if any(document.get("kind") == KIND for document in read):
        raise BadInputError(f"{file}: this is a {KIND} already: tuningstudy validate {file}")
    if system is not None and len(read) == 1:
        return 0, system
    known = [conversion.recognise(document) for document in read]
    found = [(place, other) for place, other in enumerate(known) if other and system in {None, other}]
    if not found:
        raise BadInputError(
            f"{file}: this is no experiment of a known system; say which it is by --from ({', '.join(System)})"
        )
    if len(found) > 1:
        raise BadInputError(f"{file}: has {len(found)} experiments: put each into a file of its own")
    return found[0]


def _search_space(document: Document, system: System, file: Path) -> Document | None:
    """What NNI's file with the search space holds.

    NB: the document chooses the file, and may be somebody else's: it has to be below the document's folder, and what is
    in it is said only where it is a search space.
    """
    named = nni.search_space_file(document) if system is System.NNI else None
    if named is None:
        return None
    field, name = named
    words = f"{file}: {field}: {limits.shortened(name, most=_LONGEST_NAME)}"
    try:
        path = files.resolved_below(file.parent / name, file.parent)
        text = files.read(path, most=limits.LARGEST_TEXT).decode()
    except UnicodeDecodeError:
        raise BadInputError(f"{words}: this is no text in UTF-8") from None
    except OSError as error:
        advice = ": copy it beside the document" if error.errno == errno.EXDEV else ""
        raise BadInputError(f"{words}: cannot be read: {error.strerror}{advice}") from None
    try:
        found: list[Document] = documents.from_json_or_yaml(text, source=name, dialect=conversion.DIALECTS[system])
    except DocumentError:
        found = []
    if len(found) != 1 or not nni.is_search_space(found[0]):
        raise BadInputError(
            f"{words}: a search space is needed (for each parameter _type and _value), and this is none"
        )
    return found[0]


def _report(made: Conversion) -> Iterator[str]:
    width = min(max(len(note.path) for note in made.notes), _COLUMN)
    for kind, title in _TITLES.items():
        notes = [note for note in made.notes if note.kind is kind]
        if notes:
            yield f"{title}:"
        for note in notes:
            yield f"  {note.path:{width}} {note.words}" if note.path else f"  {note.words}"


def _checked(made: Conversion, where: Path) -> int:
    spec, fault = manifest.read_spec(made.manifest)
    fault = fault or (validity.fault(spec, stored=None) if spec else None)
    if fault:
        say(f"{where} cannot run yet: {fault}", err=True)
    return 1 if fault else 0
