"""Text of YAML or JSON as the values that JSON has, within limits; whatever is wrong with it is a sentence with its place.

kubectl reads YAML with go-yaml v2 (YAML 1.1 with exceptions) and sends it to the API server as JSON. PyYAML's safe
loader differs in what it takes for a number, a boolean or a time, and keeps types that JSON does not know: both are
mended here, so that a file gives the same values with and without a cluster.

A few lines can stand for more than a machine holds: aliases of aliases, merges of merges, brackets within brackets. So
levels are counted while nodes are made, and values before any is built, each as often as it is pointed to. Pure.

Documents of other systems are read as those systems read them: `n` is a text to one and false to another.
"""

import json
import math
import re
from collections.abc import Iterator
from enum import StrEnum
from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError
from yaml.reader import ReaderError

from tuning_api import limits

_TAG = "tag:yaml.org,2002:"


class DocumentError(ValueError):
    """A text cannot be read; the message is what the person reads, and begins with the text's name and the place in it."""


class Dialect(StrEnum):
    """Who reads a text: they differ in what they take for a boolean and for a number."""

    KUBERNETES = "kubernetes"
    """go-yaml v2, and JSON in Go: `n` is false, 010 is 8, and 1.0 is 1."""
    PYYAML = "pyyaml"
    """PyYAML's safe loader: `n` is a text, `no` is false, 010 is 8, and 1.0 stays a float.

    NB: `1e-5` without a point is a text to it. It is a number here, which is what was meant.
    """
    YAML_1_2 = "yaml 1.2"
    """The core schema of YAML 1.2: only true and false are booleans, 010 is 10, and 1.0 stays a float."""


def from_yaml(text: str, *, source: str, dialect: Dialect = Dialect.KUBERNETES) -> list[Any]:
    """The documents of a text, as JSON has them; empty ones are left out.

    Args:
        text: YAML, of which JSON is a part.
        source: What the text is called in errors.
        dialect: Who reads it.

    Raises:
        DocumentError: it is no YAML, is none that JSON can say, or is too large.
    """
    if fault := _fault_of_size(text):
        raise DocumentError(f"{source}: {fault}")
    loader = None
    try:
        loader = _LOADERS[dialect](text)
        found = [item for item in _documents(loader) if item is not None]
        return [_as_json(item, keeps_points=dialect is not Dialect.KUBERNETES) for item in found]
    except ReaderError as error:
        place = f":{text.count(chr(10), 0, error.position) + 1}"
        raise _error(source, place, f"{error.reason} (U+{error.character:04X})") from None
    except yaml.MarkedYAMLError as error:
        raise _error(source, _place(error.problem_mark or error.context_mark), _problem(error)) from None
    except (ValueError, OverflowError) as error:
        # NB: PyYAML computes with what it has read: an escape beyond Unicode, a version of thousands of digits.
        raise _error(source, _place(loader.get_mark() if loader else None), str(error)) from None


def from_json_or_yaml(text: str, *, source: str, dialect: Dialect = Dialect.KUBERNETES) -> list[Any]:
    """The documents of a text that another system reads. NB: JSON may be indented by tabs, which YAML refuses.

    Raises:
        DocumentError: it is neither, or is too large.
    """
    if fault := _fault_of_size(text):
        raise DocumentError(f"{source}: {fault}")
    try:
        document = json.loads(text, parse_int=_whole_number, parse_constant=_refuse)
        fault = limits.fault_of(document, path="document")
    except RecursionError:
        fault = limits.too_deep("document")
    except ValueError:
        return from_yaml(text, source=source, dialect=dialect)
    if fault:
        raise DocumentError(f"{source}: {fault}")
    return [document]


def _fault_of_size(text: str) -> str | None:
    if len(text) <= limits.LARGEST_TEXT:
        return None
    return f"has {len(text):,} characters, and at most {limits.LARGEST_TEXT:,} are read: make it smaller"


def _error(source: str, place: str, words: str) -> DocumentError:
    return DocumentError(f"{source}{place}: {limits.shortened(f'this is no valid YAML: {words}')}")


def _place(mark: yaml.Mark | None) -> str:
    return f":{mark.line + 1}:{mark.column + 1}" if mark else ""


def _problem(error: yaml.MarkedYAMLError) -> str:
    return ", ".join(part for part in (error.context, error.problem) if part)


# YAML within limits


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader within limits, without duplicate keys, and with JSON's types alone; a dialect adds scalars."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's way
        first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] in {"null", "merge"}]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    yaml_constructors = {  # noqa: RUF012
        f"{_TAG}{name}": yaml.SafeLoader.yaml_constructors[f"{_TAG}{name}"] for name in ("null", "str", "seq", "map")
    }

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._level = 0
        self._nodes = 0
        self._values = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """As PyYAML's, which goes down by calling itself."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        is_inner = isinstance(event, yaml.CollectionStartEvent)
        self._level += is_inner
        self._nodes += 1
        if self._level > limits.DEEPEST:
            raise ComposerError(None, None, limits.too_deep("it"), event.start_mark)
        if self._nodes > limits.MOST_VALUES:
            raise ComposerError(None, None, limits.too_many("it"), event.start_mark)
        node = super().compose_node(parent, index)
        self._level -= is_inner
        return node

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        """As PyYAML's, which takes halves of letters that no text can be written with."""
        node = super().compose_scalar_node(anchor)
        if _SURROGATE.search(node.value):
            raise ComposerError(None, None, "an escape stands for half of a letter", node.start_mark)
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """As PyYAML's, which lets the last of two equal keys win in silence."""
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == f"{_TAG}merge":
                continue
            if key.tag == f"{_TAG}null":
                raise ComposerError(None, None, "null cannot be a key", key.start_mark)
            if key.value in seen:
                raise ComposerError(None, None, f"{key.value} is set twice", key.start_mark)
            seen.add(key.value)
        return node

    def construct_document(self, node: yaml.Node) -> Any:
        """As PyYAML's, of what is not too large; merges and aliases are repeated only after this."""
        self._values += _values(node, already=self._values)
        return super().construct_document(node)


def _documents(loader: _Loader) -> Iterator[Any]:
    while loader.check_data():  # type: ignore[no-untyped-call]
        yield loader.get_data()


def _values(root: yaml.Node, *, already: int) -> int:
    """How many values a node stands for, each counted as often as an alias points to it.

    Raises:
        ComposerError: too many, too deep, or a node that is part of itself.
    """
    sizes: dict[yaml.Node, int] = {}
    levels: dict[yaml.Node, int] = {}
    begun: set[yaml.Node] = set()
    waiting = [root]
    while waiting:
        node = waiting[-1]
        if node in sizes:
            waiting.pop()
            continue
        children = _children(node)
        if node not in begun:
            begun.add(node)
            waiting += children
            continue
        if not sizes.keys() >= set(children):
            raise ComposerError(None, None, "it is a part of itself, by an alias", node.start_mark)
        sizes[node] = 1 + sum(sizes[child] for child in children)
        levels[node] = bool(children) + max((levels[child] for child in children), default=0)
        if already + sizes[node] > limits.MOST_VALUES:
            raise ComposerError(None, None, limits.too_many("it"), node.start_mark)
        if levels[node] > limits.DEEPEST:
            raise ComposerError(None, None, limits.too_deep("it"), node.start_mark)
        waiting.pop()
    return sizes[root]


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


_SURROGATE = re.compile("[\ud800-\udfff]")


# Scalars as each dialect reads them

_BOOLEAN = re.compile(r"(?:y|Y|yes|Yes|YES|n|N|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)\Z")
_BOOLEAN_OF_PYYAML = re.compile(r"(?:yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)\Z")
_BOOLEAN_OF_1_2 = re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z")
_INTEGER = re.compile(r"[-+]?(?:0[bB][01_]+|0[xX][0-9a-fA-F_]+|0[oO]?[0-7_]+|0|[1-9][0-9_]*)\Z")
_FLOAT = re.compile(
    r"(?:[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"
)


def _boolean(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> bool:
    text = str(loader.construct_scalar(node))
    if not _BOOLEAN.match(text):
        raise _wrong(node, f"must be true or false, not {text!r}")
    return text.lower() in {"y", "yes", "true", "on"}


def _integer(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int | float:
    text = str(loader.construct_scalar(node)).replace("_", "").lower()
    digits = text.lstrip("+-")
    is_octal = len(digits) > 1 and digits[0] == "0" and digits[1].isdigit()
    try:
        return _whole_number(text, base=8 if is_octal else 0)
    except ValueError as error:
        raise _wrong(node, str(error)) from None


def _decimal(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int | float:
    """As `_integer`, but 010 is 10."""
    text = str(loader.construct_scalar(node)).replace("_", "").lower()
    try:
        return _whole_number(text, base=10 if text.lstrip("+-").isdigit() else 0)
    except ValueError as error:
        raise _wrong(node, str(error)) from None


def _float(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    text = str(loader.construct_scalar(node))
    if not _FLOAT.match(text) and not _INTEGER.match(text):
        raise _wrong(node, f"must be a number, not {text!r}")
    return float(text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))


def _unknown(_: yaml.SafeLoader, node: yaml.Node) -> None:
    tag = node.tag.replace(_TAG, "!!")
    raise _wrong(node, f"could not determine a constructor for the tag {tag!r}, which JSON does not have: remove it")


def _wrong(node: yaml.Node, words: str) -> ConstructorError:
    return ConstructorError(None, None, words, node.start_mark)


class _Kubernetes(_Loader):
    """See `Dialect`."""


class _PyYaml(_Loader):
    """See `Dialect`."""


class _Yaml12(_Loader):
    """See `Dialect`."""


_LOADERS = {Dialect.KUBERNETES: _Kubernetes, Dialect.PYYAML: _PyYaml, Dialect.YAML_1_2: _Yaml12}
for _loader, _is_boolean, _whole in (
    (_Kubernetes, _BOOLEAN, _integer),
    (_PyYaml, _BOOLEAN_OF_PYYAML, _integer),
    (_Yaml12, _BOOLEAN_OF_1_2, _decimal),
):
    for _name, _pattern, _firsts, _construct in (
        ("bool", _is_boolean, "yYnNtTfFoO", _boolean),
        ("int", _INTEGER, "-+0123456789", _whole),
        ("float", _FLOAT, "-+0123456789.", _float),
    ):
        _loader.add_implicit_resolver(f"{_TAG}{_name}", _pattern, list(_firsts))
        _loader.add_constructor(f"{_TAG}{_name}", _construct)
    _loader.add_constructor(None, _unknown)


# Values as JSON has them

_LARGEST_INTEGER = 2**63


def _whole_number(text: str, *, base: int = 10) -> int | float:
    """What Go makes of digits: 64 bits, or else a float.

    Raises:
        ValueError: neither, with a sentence.
    """
    if len(text) > limits.LONGEST_NUMBER:
        raise ValueError(f"must be a number, not {len(text):,} digits: put a text into quotes")
    try:
        found = int(text, base)
        return found if -_LARGEST_INTEGER <= found < 2 * _LARGEST_INTEGER else float(found)
    except (ValueError, OverflowError):
        raise ValueError(f"must be a whole number, not {text!r}: put a text into quotes") from None


def _refuse(constant: str) -> float:
    raise ValueError(f"JSON has no {constant}")


def _as_json(value: object, *, keeps_points: bool = False) -> Any:
    """What is left of a value on its way through JSON.

    NB: where points are not kept, it is Go that writes: a whole float without its point, so that the API server reads an
    integer, and `1.0` is stored as 1.
    """
    match value:
        case dict():
            return {_key(key): _as_json(item, keeps_points=keeps_points) for key, item in value.items()}
        case list():
            return [_as_json(item, keeps_points=keeps_points) for item in value]
        case float() if not keeps_points and value.is_integer() and abs(value) < _LARGEST_INTEGER:
            return int(value)
        case _:
            return value


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
            raise ValueError(f"{key!r} cannot be a key")
