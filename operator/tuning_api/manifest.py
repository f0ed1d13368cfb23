"""A manifest as a person writes it, read to mean what it means to kubectl.

kubectl reads YAML with go-yaml v2 (YAML 1.1 with exceptions) and sends it to the API server as JSON. PyYAML's safe
loader differs in what it takes for a number, a boolean or a time, and keeps types that JSON does not know: both are
mended here, so that a file gives the same spec with and without a cluster.
"""

import difflib
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from tuning_api import limits
from tuning_api.schema import Document
from tuning_api.spec import GROUP, KIND, VERSION, StudySpec

API_VERSION = f"{GROUP}/{VERSION}"
DEFAULT_NAMESPACE = "default"
"""Where kubectl puts what names no namespace."""

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_LARGEST_INTEGER = 2**63


class ManifestError(ValueError):
    """The manifest cannot be used; the message is what the person reads, and begins with the file's name."""


def load(path: Path) -> Document:
    """The TuningStudy of a file; see `find_study`.

    Raises:
        ManifestError: the file cannot be read, or holds no TuningStudy.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ManifestError(f"{path}: there is no such file{_nearby(path)}") from None
    except UnicodeDecodeError:
        raise ManifestError(f"{path}: this is no text in UTF-8") from None
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read: {error.strerror}") from error
    return find_study(text, source=str(path))


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
    documents = parse(text, source=source)
    if not documents:
        raise ManifestError(f"{source}: the file is empty")
    studies = [item for item in documents if item.get("kind") == KIND]
    if not studies:
        raise ManifestError(f"{source}: {_what_it_is_instead(documents)}")
    if len(studies) > 1:
        names = ", ".join(str(_metadata(item).get("name")) for item in studies)
        raise ManifestError(f"{source}: has {len(studies)} TuningStudies ({names}): put each into a file of its own")
    if fault := next(_envelope_faults(studies[0]), None):
        raise ManifestError(f"{source}: {fault}")
    return studies[0]


def parse(text: str, *, source: str) -> list[Document]:
    """The documents of a text, as JSON has them.

    Raises:
        ManifestError: the text is no YAML, or a document in it is no mapping.
    """
    try:
        documents = [_as_json(item) for item in yaml.load_all(text, Loader=_Loader) if item is not None]
    except yaml.MarkedYAMLError as error:
        raise ManifestError(f"{source}{_place(error)}: {_problem(error)}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ManifestError(f"{source}: this is no YAML: {' '.join(str(error).split())}") from error
    for document in documents:
        if not isinstance(document, dict):
            raise ManifestError(
                f"{source}: a manifest is a mapping (apiVersion, kind, metadata, spec), and this is none"
            )
    return documents


def _what_it_is_instead(documents: list[Document]) -> str:
    kinds = sorted({str(item["kind"]) for item in documents if item.get("kind")})
    if not kinds:
        return f"kind is missing: it must be {KIND}, with apiVersion {API_VERSION}"
    return f"there is no {KIND} in it: kind is {', '.join(kinds)}"


def _envelope_faults(document: Document) -> Iterator[str]:
    if document.get("apiVersion") != API_VERSION:
        yield f"apiVersion is {document.get('apiVersion') or 'missing'}: it must be {API_VERSION}"
    name = _metadata(document).get("name")
    if not name:
        yield "metadata.name is missing: a study needs a name"
    elif not isinstance(name, str) or not _NAME.fullmatch(name):
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
    return [_fault(item["type"], _path(item["loc"]), item["msg"]) for item in error.errors(include_url=False)]


def _fault(kind: str, path: str, message: str) -> str:
    if kind != "extra_forbidden":
        return f"{path}: {message.removeprefix('Value error, ')}"
    close = difflib.get_close_matches(path.rpartition(".")[2], _field_names(), n=1)
    return f'unknown field "{path}"' + (f": did you mean {close[0]}?" if close else "")


def _path(location: tuple[int | str, ...]) -> str:
    return "spec" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)


def _field_names() -> list[str]:
    schema = StudySpec.model_json_schema()
    models = [schema, *schema.get("$defs", {}).values()]
    return sorted({name for model in models for name in model.get("properties", {})})


# YAML as go-yaml v2 reads it


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, with go-yaml's scalars and without duplicate keys."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's way
        first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] in {"bool", "null", "merge"}]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002
        """As PyYAML's, which lets the last of two equal keys win in silence."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"{key.value} is set twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


_BOOLEAN = re.compile(r"(?:y|Y|yes|Yes|YES|n|N|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)\Z")
_INTEGER = re.compile(r"[-+]?(?:0[bB][01_]+|0[xX][0-9a-fA-F_]+|0[oO]?[0-7_]+|0|[1-9][0-9_]*)\Z")
_FLOAT = re.compile(
    r"(?:[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"
)


def _boolean(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> bool:
    return str(loader.construct_scalar(node)).lower() in {"y", "yes", "true", "on"}


def _integer(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node)).replace("_", "").lower()
    digits = text.lstrip("+-")
    is_octal = len(digits) > 1 and digits[0] == "0" and digits[1].isdigit()
    return int(text, 8 if is_octal else 0)


def _float(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    return float(
        str(loader.construct_scalar(node)).replace("_", "").replace(".inf", "inf").replace(".nan", "nan").lower()
    )


for _tag, _pattern, _firsts, _construct in (
    ("bool", _BOOLEAN, "yYnN", _boolean),
    ("int", _INTEGER, "-+0123456789", _integer),
    ("float", _FLOAT, "-+0123456789.", _float),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _pattern, list(_firsts))
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _construct)


def _as_json(value: object) -> Any:
    """What is left of a value on its way through JSON.

    NB: Go writes a whole float without its point, so that the API server reads an integer: `1.0` is stored as 1.
    """
    match value:
        case dict():
            return {_key(key): _as_json(item) for key, item in value.items()}
        case list():
            return [_as_json(item) for item in value]
        case float() if value.is_integer() and abs(value) < _LARGEST_INTEGER:
            return int(value)
        case None | bool() | int() | float() | str():
            return value
        case _:
            raise yaml.YAMLError(f"JSON has no {type(value).__name__}")


def _key(key: object) -> str:
    match key:
        case str():
            return key
        case bool():
            return str(key).lower()
        case int():
            return str(key)
        case float() if math.isfinite(key):
            return f"{key:g}"
        case _:
            raise yaml.YAMLError(f"{key!r} cannot be a key")


def _place(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    return f":{mark.line + 1}:{mark.column + 1}" if mark else ""


def _problem(error: yaml.MarkedYAMLError) -> str:
    words = [part for part in (error.context, error.problem) if part]
    return f"this is no valid YAML: {', '.join(words)}"
