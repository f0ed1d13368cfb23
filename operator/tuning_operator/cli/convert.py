"""`tuningstudy convert`: an experiment of another system as a manifest, and what became of each of its fields."""

import json
from collections.abc import Iterator
from pathlib import Path

from tuning_api import manifest
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
_COLUMN = 60
"""The longest path that the words of all notes are moved to the right for."""


def convert(file: Path, *, system: str | None, output: Path | None, force: bool) -> int:
    """Write the manifest to a file or to standard output, and the notes to standard error.

    Returns:
        0, or 1 when the manifest needs a correction before it can run.

    Raises:
        BadInputError: the file is no experiment of a known system, or a field in it is wrong.
    """
    document, source = _recognised(_documents(file), System(system) if system else None, file=file)
    try:
        made = conversion.convert(document, source, name=file.stem, search_space=_search_space(document, source, file))
    except ConversionError as error:
        raise BadInputError(f"{file}: {error}") from error
    written = writing.text(made.manifest, comments=made.comments, head=[f"Converted from {file.name} ({source})."])
    if output is None:
        say(written, nl=False)
    else:
        writing.save(written, output, force=force)
    for line in _report(made):
        say(line, err=True)
    return _checked(made, output or Path("the manifest"))


def _documents(file: Path) -> list[Document]:
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise BadInputError(f"{file}: this is no text in UTF-8") from None
    except OSError as error:
        raise BadInputError(f"{file}: cannot be read: {error.strerror}") from error
    try:
        # NB: JSON may be indented by tabs, which YAML refuses.
        document = json.loads(text)
    except json.JSONDecodeError:
        return _from_yaml(text, file)
    if not isinstance(document, dict):
        raise BadInputError(f"{file}: a mapping is needed, and this is none")
    return [document]


def _from_yaml(text: str, file: Path) -> list[Document]:
    try:
        return manifest.parse(text, source=str(file))
    except ManifestError as error:
        raise BadInputError(str(error)) from error


def _recognised(documents: list[Document], system: System | None, *, file: Path) -> tuple[Document, System]:
    if not documents:
        raise BadInputError(f"{file}: the file is empty")
    if any(document.get("kind") == KIND for document in documents):
        raise BadInputError(f"{file}: this is a {KIND} already: tuningstudy validate {file}")
    if system is not None and len(documents) == 1:
        return documents[0], system
    found = [(document, known) for document in documents if (known := conversion.recognise(document))]
    found = [(document, known) for document, known in found if system in {None, known}]
    if not found:
        raise BadInputError(
            f"{file}: this is no experiment of a known system; say which it is by --from ({', '.join(System)})"
        )
    if len(found) > 1:
        raise BadInputError(f"{file}: has {len(found)} experiments: put each into a file of its own")
    return found[0]


def _search_space(document: Document, system: System, file: Path) -> Document | None:
    name = nni.search_space_file(document) if system is System.NNI else None
    if name is None:
        return None
    path = file.parent / name
    try:
        return _documents(path)[0]
    except BadInputError as error:
        raise BadInputError(f"{file}: its search space cannot be read: {error}") from error


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
