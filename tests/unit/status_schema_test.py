"""Whatever the controller can write as a status, the API server takes: it would refuse the whole of it for one field."""

from collections.abc import Iterator
from typing import Any

import jsonschema
from hypothesis import given
from tests.support.statuses import statuses

from tuning_api.crd import crd

Document = dict[str, Any]
STATUS: Document = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]


def unknown(document: Any, schema: Document, path: str = "status") -> Iterator[str]:
    """Fields that the schema does not have: the API server drops them without a word."""
    if isinstance(document, list):
        for item in document:
            yield from unknown(item, schema.get("items", {}), f"{path}[]")
    if not isinstance(document, dict) or schema.get("x-kubernetes-preserve-unknown-fields"):
        return
    for name, value in document.items():
        child = schema.get("properties", {}).get(name) or schema.get("additionalProperties")
        if child is None:
            yield f"{path}.{name}"
        else:
            yield from unknown(value, child, f"{path}.{name}")


@given(statuses())
def test_every_status_is_one_that_the_api_server_takes(written: tuple[Document, Document]) -> None:
    """Types, required fields, bounds; and nothing that it would drop. Then the same for a study that is at fault."""
    for document in written:
        jsonschema.validate(document, STATUS)
        assert not [*unknown(document, STATUS)]
