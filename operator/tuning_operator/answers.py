"""What the API server answers, read so that nothing that is in it ends or fills the process. Pure.

Tenants write most of it: the API server takes JSON of 10,000 levels and 1.5 MB for each object, podTemplate and lightning
are free-form, and metadata.managedFields repeats their keys. Python's parser gives up at about 1,000 levels, and a parsed
object takes up to twenty times its bytes.
"""

import json
import re
from collections.abc import Iterable
from typing import Any

from tuning_api import naming
from tuning_api.limits import DEEPEST
from tuning_api.spec import GROUP, KIND
from tuning_api.status import ConditionType

Document = dict[str, Any]

_KEPT_LEVELS = 2 * DEEPEST
"""What is cut off here is still too deep for `limits`, whatever the object is wrapped in, and so is refused in words."""
_TOKENS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[{]|[\]}]', re.DOTALL)
"""Texts, which may have brackets in them, and brackets."""


def read(payload: bytes) -> Any:
    """An answer as a value; what nests too deep for Python is cut off below, and null.

    Raises:
        ValueError: it is no JSON.
    """
    return _loads(payload)


def read_essence(payload: bytes) -> Any:
    """An answer in which objects of the cluster have nothing but what handlers look at; see `read`.

    Each object is reduced as soon as it is read, so that a list takes the memory of one of them.
    """
    return _loads(payload, object_hook=_essence)


def _loads(payload: bytes, **hooks: Any) -> Any:
    text = payload.decode(errors="replace")
    try:
        return json.loads(text, **hooks)
    except RecursionError:
        return json.loads(_without_depths(payload).decode(errors="replace"), **hooks)


def _without_depths(payload: bytes) -> bytes:
    kept: list[bytes] = []
    begin = level = 0
    for token in _TOKENS.finditer(payload):
        letter = payload[token.start() : token.start() + 1]
        if letter in b"[{":
            level += 1
            if level == _KEPT_LEVELS + 1:
                kept.append(payload[begin : token.start()])
        elif letter in b"]}":
            level -= 1
            if level == _KEPT_LEVELS:
                kept.append(b"null")
                begin = token.end()
    return b"".join((*kept, payload[begin:]))


# What handlers look at

_METADATA = ("name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp")
_LABELS = (naming.LABEL_MANAGED_BY, naming.LABEL_STUDY, naming.LABEL_STUDY_UID)
_OWNER = ("apiVersion", "kind", "name", "uid")
_PROGRESS = f"{GROUP}/"
"""How the annotations begin in which Kopf keeps how far a handler is."""


def _essence(document: Document) -> Document:
    """What handlers look at of an object, each value of the type that they expect; what is no object stays as it is."""
    metadata = document.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("uid"), str):
        return document
    return _texts(document, ("apiVersion", "kind")) | {
        "metadata": _essence_of_metadata(metadata),
        "spec": _texts(_mapping(document, "spec"), ("deletionPolicy",)),
        "status": _essence_of_status(_mapping(document, "status")),
    }


def _essence_of_metadata(metadata: Document) -> Document:
    kept = {name: metadata[name] for name in _METADATA if isinstance(metadata.get(name), str | int)}
    if isinstance(finalizers := metadata.get("finalizers"), list):
        kept["finalizers"] = finalizers  # NB: all of them, since Kopf removes its own by its place among them
    annotations = _mapping(metadata, "annotations")
    owners = metadata.get("ownerReferences")
    return kept | {
        "labels": _texts(_mapping(metadata, "labels"), _LABELS),
        "annotations": _texts(annotations, (name for name in annotations if name.startswith(_PROGRESS))),
        "ownerReferences": [
            _texts(owner, _OWNER)
            for owner in (owners if isinstance(owners, list) else [])
            if isinstance(owner, dict) and owner.get("kind") == KIND
        ],
    }


def _essence_of_status(status: Document) -> Document:
    kept: Document = _texts(status, ("phase",))
    kept |= {name: status[name] for name in ("workers", "observedGeneration") if isinstance(status.get(name), int)}
    conditions = status.get("conditions")
    return kept | {
        "conditions": [
            _texts(condition, ("type", "reason"))
            for condition in (conditions if isinstance(conditions, list) else [])
            if isinstance(condition, dict) and condition.get("type") == ConditionType.PROGRESSING
        ]
    }


def _mapping(document: Document, name: str) -> Document:
    found = document.get(name)
    return found if isinstance(found, dict) else {}


def _texts(document: Document, names: Iterable[str]) -> Document:
    return {name: document[name] for name in names if isinstance(document.get(name), str)}
