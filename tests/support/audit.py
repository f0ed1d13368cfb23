"""What the API server was asked, from its audit log."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})
_SERVICE_ACCOUNT = "system:serviceaccount:"


@dataclass(frozen=True)
class Request:
    """A request that was answered."""

    user: str
    agent: str
    verb: str
    what: str
    """The resource and its subresource, such as "pods/binding"."""
    name: str
    """Of the object; empty for a list, and where the server chooses it."""
    namespace: str | None
    code: int
    received: datetime
    answered: datetime
    said: str = ""
    """The API server's sentence where it refused."""

    @property
    def is_write(self) -> bool:
        """Whether it was to change something."""
        return self.verb in WRITES

    @property
    def client(self) -> str:
        """Who asked: the name of a service account, which the controllers of Kubernetes have too; else the program's."""
        if self.user.startswith(_SERVICE_ACCOUNT):
            return self.user.rpartition(":")[2]
        return self.agent.partition("/")[0]


def requests(log: Path, *, since: datetime, namespace: str | None = None) -> Iterator[Request]:
    """Requests about what is in a namespace, or about anything, in the order in which they were answered.

    NB: a watch is answered when it begins, and written down once more when it ends; only its end is counted.
    """
    for event in _events(log):
        reference = event.get("objectRef", {})
        received = datetime.fromisoformat(event["requestReceivedTimestamp"])
        if namespace in {None, reference.get("namespace")} and received >= since:
            yield Request(
                user=event["user"]["username"],
                agent=event.get("userAgent", ""),
                verb=event["verb"],
                what=_resource(reference),
                name=reference.get("name", ""),
                namespace=reference.get("namespace"),
                code=event["responseStatus"]["code"],
                received=received,
                answered=datetime.fromisoformat(event["stageTimestamp"]),
                said=event["responseStatus"].get("message", ""),
            )


def writes(log: Path, *, user: str, namespace: str, since: datetime) -> Counter[str]:
    """Successful writes of a user in a namespace, as "verb resource/subresource"."""
    return Counter(
        f"{request.verb} {request.what}"
        for request in requests(log, namespace=namespace, since=since)
        if request.user == user and request.is_write and request.code < 400
    )


def _events(log: Path) -> Iterator[dict[str, Any]]:
    """Finished requests; the last line may still be being written.

    NB: str.splitlines knows more ends of lines than a file does, and a refused manifest is quoted with all of them.
    """
    with log.open() as lines:
        for line in lines:
            if line.endswith("}\n"):
                event = json.loads(line)
                if event["stage"] == "ResponseComplete":
                    yield event


def _resource(reference: dict[str, Any]) -> str:
    return "/".join(reference[key] for key in ("resource", "subresource") if key in reference)
