"""A manifest as a person would write it: short things in one line, comments above what they are about."""

import functools
import os
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tuning_api import manifest
from tuning_api.manifest import ManifestError
from tuning_api.schema import Document
from tuning_operator.local.errors import BadInputError

Comments = Mapping[str, list[str] | str]
"""By the path of a field, such as spec.trial.gpus: lines that stand above it, or a text that stands beside it."""

_WIDTH = 110
_ALWAYS_BLOCKS = frozenset({"spec", "spec.trial", "spec.trial.lightning", "spec.trial.podTemplate"})


def text(document: Document, *, comments: Comments, head: Sequence[str] = ()) -> str:
    """The manifest as YAML that means the same to kubectl, see `tuning_api.manifest`."""
    lines = [*_comment(head, ""), *_mapping(document, "", "", comments)]
    return "\n".join(lines) + "\n"


def save(written: str, path: Path, *, force: bool) -> None:
    """Write a file that is not there yet, or with `force` over one that is.

    NB: a link of that name in a folder of somebody else would lead to another file of the person's.

    Raises:
        BadInputError: it is there, or cannot be written.
    """
    if path.is_symlink():
        raise BadInputError(f"{path} is a link: remove it, or choose another file with -o")
    try:
        with open(path, "w" if force else "x", encoding="utf-8", opener=_opened_itself) as file:
            file.write(written)
    except FileExistsError:
        raise BadInputError(f"{path} is there already: choose another with -o, or write over it with --force") from None
    except OSError as error:
        raise BadInputError(f"{path}: cannot be written: {error.strerror}") from error


def _opened_itself(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, mode=0o666)


def _mapping(node: Document, path: str, indent: str, comments: Comments) -> Iterator[str]:
    for key, value in node.items():
        at = f"{path}.{key}" if path else key
        remark = comments.get(at, [])
        if not isinstance(remark, str):
            yield from _comment(remark, indent)
            yield from _pair(key, value, at, indent, comments)
            continue
        first, *rest = _pair(key, value, at, indent, comments)
        yield f"{first}  # {remark}"
        yield from rest


def _pair(key: str, value: Any, path: str, indent: str, comments: Comments) -> Iterator[str]:
    title = f"{indent}{_flow([key])[1:-1]}:"
    line = f"{title} {_flow(value) if isinstance(value, dict | list) else _scalar(value)}"
    is_list_of_mappings = isinstance(value, list) and any(isinstance(item, dict) for item in value)
    is_long = len(line) > _WIDTH or path in _ALWAYS_BLOCKS or any(other.startswith(f"{path}.") for other in comments)
    if not value or not (is_list_of_mappings or (isinstance(value, dict) and is_long)):
        yield line
        return
    yield title
    if isinstance(value, dict):
        yield from _mapping(value, path, f"{indent}  ", comments)
        return
    for index, item in enumerate(value):
        yield from _item(item, f"{path}[{index}]", f"{indent}  ", comments)


def _item(item: Any, path: str, indent: str, comments: Comments) -> Iterator[str]:
    line = f"{indent}- {_flow(item)}"
    if len(line) <= _WIDTH or not isinstance(item, dict):
        yield line
        return
    first, *rest = _mapping(item, path, f"{indent}  ", comments)
    yield f"{indent}- {first.lstrip()}"
    yield from rest


def _comment(lines: Sequence[str], indent: str) -> Iterator[str]:
    for line in lines:
        printable = "".join(character if character.isprintable() else "?" for character in line)
        parts = textwrap.wrap(printable, _WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
        yield from (f"{indent}# {part}".rstrip() for part in parts or [""])


def _flow(value: Any) -> str:
    return _dump(value, flow=True)


def _scalar(value: Any) -> str:
    """As it stands behind a key: with fewer quotes than within brackets."""
    return _dump({"key": value}).removeprefix("key: ")


def _dump(value: Any, *, flow: bool = False) -> str:
    dumped = yaml.dump(
        value, Dumper=_Dumper, default_flow_style=flow, width=float("inf"), sort_keys=False, allow_unicode=True
    )
    return str(dumped).removesuffix("\n").removesuffix("\n...")


class _Dumper(yaml.SafeDumper):
    """PyYAML's, which leaves out the quotes of texts that are numbers to kubectl, such as 1e-5."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - PyYAML's signature
        """No anchors: the same list twice is written twice."""
        return True


def _quoted_where_needed(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    quote = "'" if '"' in value and value.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=None if _is_plain(value) else quote)


_Dumper.add_representer(str, _quoted_where_needed)


@functools.cache
def _is_plain(value: str) -> bool:
    """Whether a text without quotes is read as that text."""
    try:
        return manifest.parse(f"{{value: [{value}]}}", source="") == [{"value": [value]}]
    except ManifestError:
        return False
