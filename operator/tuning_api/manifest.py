"""A manifest as a person writes it, read to mean what it means to kubectl; see `documents` for its text."""

import difflib
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from tuning_api import documents, files, limits, naming
from tuning_api.documents import DocumentError
from tuning_api.schema import Document
from tuning_api.spec import GROUP, KIND, VERSION, StudySpec

API_VERSION = f"{GROUP}/{VERSION}"
DEFAULT_NAMESPACE = "default"
"""Where kubectl puts what names no namespace."""

_MOST_FAULTS = 20
"""Of a spec; each is a sentence, and a list has as many faults as items."""


class ManifestError(ValueError):
    """The manifest cannot be used; the message is what the person reads, and begins with the file's name."""


def load(path: Path) -> Document:
    """The TuningStudy of a file; see `find_study`.

    Raises:
        ManifestError: the file cannot be read, or holds no TuningStudy.
    """
    return find_study(read_text(path), source=str(path))


def read_text(path: Path) -> str:
    """The text of a manifest's file.

    Raises:
        ManifestError: it cannot be read, is no regular file, is too large, or is no text.
    """
    try:
        return files.read(path, most=limits.LARGEST_TEXT).decode("utf-8")
    except FileNotFoundError:
        raise ManifestError(f"{path}: there is no such file{_nearby(path)}") from None
    except UnicodeDecodeError:
        raise ManifestError(f"{path}: this is no text in UTF-8") from None
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read: {error.strerror}") from error


def _nearby(path: Path) -> str:
    try:
        names = [item.name for item in path.parent.iterdir() if item.suffix in {".yaml", ".yml"}]
    except OSError:
        return ""
    close = difflib.get_close_matches(path.name, names, n=1)
    return f": did you mean {path.with_name(close[0])}?" if close else ""


# From text to a document


def find_study(text: str, *, source: str) -> Document:
    """The one TuningStudy among the documents of a text; others (a ConfigMap, a Namespace) are left to kubectl.

    Raises:
        ManifestError: the text is no YAML, or has no TuningStudy, or several.
    """
    found = parse(text, source=source)
    if not found:
        raise ManifestError(f"{source}: the file is empty")
    studies = [item for item in found if item.get("kind") == KIND]
    if not studies:
        raise ManifestError(f"{source}: {limits.shortened(_what_it_is_instead(found))}")
    if len(studies) > 1:
        names = limits.shortened(", ".join(str(_metadata(item).get("name")) for item in studies))
        raise ManifestError(f"{source}: has {len(studies)} TuningStudies ({names}): put each into a file of its own")
    if fault := next(_envelope_faults(studies[0]), None):
        raise ManifestError(f"{source}: {limits.shortened(fault)}")
    return studies[0]


def parse(text: str, *, source: str) -> list[Document]:
    """The documents of a text, as JSON has them.

    Raises:
        ManifestError: the text is no YAML, or a document in it is no mapping.
    """
    try:
        found = documents.from_yaml(text, source=source)
    except DocumentError as error:
        raise ManifestError(str(error)) from None
    if not all(isinstance(item, dict) for item in found):
        raise ManifestError(f"{source}: a manifest is a mapping (apiVersion, kind, metadata, spec), and this is none")
    return found


def _what_it_is_instead(found: list[Document]) -> str:
    kinds = sorted({str(item["kind"]) for item in found if item.get("kind")})
    if not kinds:
        return f"kind is missing: it must be {KIND}, with apiVersion {API_VERSION}"
    return f"there is no {KIND} in it: kind is {', '.join(kinds)}"


def _envelope_faults(document: Document) -> Iterator[str]:
    if document.get("apiVersion") != API_VERSION:
        yield f"apiVersion is {document.get('apiVersion') or 'missing'}: it must be {API_VERSION}"
    name = _metadata(document).get("name")
    if not name:
        yield "metadata.name is missing: a study needs a name"
    elif not isinstance(name, str) or not naming.is_study_name(name):
        yield f"metadata.name is {name!r}: a name has at most 63 of a-z, 0-9 and -, and begins and ends with one of the first"


def _metadata(document: Document) -> Document:
    metadata = document.get("metadata")
    return metadata if isinstance(metadata, dict) else {}


def name_of(document: Document) -> str:
    """The study's name."""
    return str(_metadata(document)["name"])


def namespace_of(document: Document) -> str:
    """The study's namespace; kubectl's default where it names none."""
    return str(_metadata(document).get("namespace") or DEFAULT_NAMESPACE)


# From a document to a spec


def read_spec(document: Document) -> tuple[StudySpec | None, str | None]:
    """The spec of a TuningStudy, or why it cannot be read, in words."""
    spec = document.get("spec") or {}
    if fault := limits.fault_of(spec, path="spec"):
        return None, fault
    try:
        return StudySpec.model_validate(spec), None
    except ValidationError as error:
        return None, "; ".join(faults(error))


def faults(error: ValidationError) -> list[str]:
    """What is wrong with a spec, each with the field's path as kubectl names it."""
    found = error.errors(include_url=False)
    words = [_fault(item) for item in islice(found, _MOST_FAULTS)]
    return [*words, f"and {len(found) - _MOST_FAULTS:,} more"] if len(found) > _MOST_FAULTS else words


def _fault(found: ErrorDetails) -> str:
    path = _path(found["loc"])
    if found["type"] == "string_type" and isinstance(found["input"], bool | int | float):
        return limits.shortened(f"{path}: {_as_text(found['input'])}")
    if found["type"] != "extra_forbidden":
        return limits.shortened(f"{path}: {found['msg'].removeprefix('Value error, ')}")
    path = limits.shortened(path)
    close = difflib.get_close_matches(path.rpartition(".")[2], _field_names(), n=1)
    return f'unknown field "{path}"' + (f": did you mean {close[0]}?" if close else "")


def _as_text(value: float) -> str:
    """What YAML has made of a name such as `n`, as PyYAML itself writes it, or of digits."""
    why = " (YAML reads y, n, yes, no, on and off so)" if isinstance(value, bool) else ""
    return f"must be a text, and it is {json.dumps(value)}: put it into quotes{why}"


def _path(location: tuple[int | str, ...]) -> str:
    return "spec" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)


def _field_names() -> list[str]:
    schema = StudySpec.model_json_schema()
    models = [schema, *schema.get("$defs", {}).values()]
    return sorted({name for model in models for name in model.get("properties", {})})
