"""What the API server was asked, from its audit log."""

import json
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})


def writes(log: Path, *, user: str, namespace: str, since: datetime) -> Counter[str]:
    """Successful writes of a user in a namespace, as "verb resource/subresource"."""
    counted: Counter[str] = Counter()
    for event in _events(log):
        reference = event.get("objectRef", {})
        if (
            event["user"]["username"] == user
            and event["verb"] in WRITES
            and reference.get("namespace") == namespace
            and datetime.fromisoformat(event["requestReceivedTimestamp"]) >= since
            and event["responseStatus"]["code"] < 400
        ):
            counted[f"{event['verb']} {_resource(reference)}"] += 1
    return counted


def _events(log: Path) -> Iterator[dict[str, Any]]:
    """Finished requests; the last line may still be being written."""
    for line in log.read_text().splitlines():
        if line.endswith("}"):
            event = json.loads(line)
            if event["stage"] == "ResponseComplete":
                yield event


def _resource(reference: dict[str, Any]) -> str:
    return "/".join(reference[key] for key in ("resource", "subresource") if key in reference)
