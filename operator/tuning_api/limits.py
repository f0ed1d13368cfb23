"""How large a document of other people may be. Pure.

An API server takes what nests 10,000 levels deep, and a few lines of YAML with aliases stand for more values than a
machine can hold. What reads a document goes down by calling itself, level by level: Python allows about 1,000 calls
within one another, and pydantic 255 when it writes a document again. So both limits are asked before anything else.
"""

from collections.abc import Iterable
from typing import Any

DEEPEST = 100
"""Mappings and lists within one another. A pod template with affinity has about 15, a deep model's arguments about 30."""
MOST_VALUES = 100_000
"""Mappings, lists, keys and values together, each as often as it is pointed to; an API server takes about 1.5 MB."""
LARGEST_TEXT = 1 << 20
"""Bytes of a file with a document, or characters; more is no manifest, since a study of it would not fit into etcd."""
LONGEST_NUMBER = 400
"""Digits. A float has at most 309 before its point; Python needs quadratic time, and refuses 4,300 in an error of its own."""
LONGEST_WORDS = 400
"""Characters of a sentence about a document, whose keys and values may be as long as the document."""


def fault_of(value: Any, *, path: str) -> str | None:
    """Why a value, as JSON has them, is too large to be read; None if it is not.

    Args:
        value: The value; nothing in it is asked for but mappings and lists.
        path: What it is called, such as spec.
    """
    counted, waiting = 1, [(value, path, 1)]
    while waiting:
        node, at, level = waiting.pop()
        if not isinstance(node, dict | list):
            continue
        if level > DEEPEST:
            return too_deep(at)
        counted += 2 * len(node) if isinstance(node, dict) else len(node)
        if counted > MOST_VALUES:
            return too_many(path)
        waiting += ((inner, _below(at, key, level), level + 1) for key, inner in _items(node))
    return None


def too_deep(path: str) -> str:
    """The sentence for what nests too deep."""
    return f"{path} nests more than {DEEPEST} levels deep: mappings and lists within one another have at most {DEEPEST}"


def too_many(path: str) -> str:
    """The sentence for what has too many values."""
    return f"{path} has more than {MOST_VALUES:,} values, each counted as often as an alias repeats it: make it smaller"


def shortened(words: str, *, most: int = LONGEST_WORDS) -> str:
    """A sentence in one line, cut where it is too long to be read."""
    line = " ".join(words.split())
    return line if len(line) <= most else f"{line[:most]} ..."


def _items(node: dict[Any, Any] | list[Any]) -> Iterable[tuple[Any, Any]]:
    return node.items() if isinstance(node, dict) else enumerate(node)


_NAMED_LEVELS = 3
_LONGEST_KEY = 63


def _below(path: str, key: object, level: int) -> str:
    """The path of what is within; names end after a few levels, where a person finds the field."""
    if level >= _NAMED_LEVELS:
        return path
    return f"{path}[{key}]" if isinstance(key, int) else f"{path}.{str(key)[:_LONGEST_KEY]}"
