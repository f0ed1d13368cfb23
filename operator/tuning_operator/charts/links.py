"""Signed links: whoever has one may open one study until the link ends, and nothing else.

The signature is an HMAC over the end, the namespace's mark, its name and the study under the operator's signing key, so no
list of links is kept anywhere: the status has the newest, and older ones are good until their own end (ADR 0020). The mark
follows from the namespace's uid: a link opens nothing in a namespace that was deleted and made again.
"""

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import quote

from tuning_api.status import Charts

CHARTS = ("optimization-history", "param-importances", "parallel-coordinate", "slice")
"""The charts that have a link of their own in the status."""
_TICKET = re.compile(r"/([0-9]{1,12})\.([0-9a-f]{16})\.[A-Za-z0-9_-]+/$")


@dataclass(frozen=True)
class Ticket:
    """What a link says for its study."""

    end: int
    """When it ends, in seconds since 1970."""
    mark: str
    """Of the namespace that it was made for, see `namespace_mark`."""


def namespace_mark(uid: str) -> str:
    """Return what tells two namespaces of one name apart: 64 bits of the uid's digest."""
    return hashlib.sha256(uid.encode()).hexdigest()[:16]


def sign(ticket: Ticket, *, key: str, namespace: str, study: str) -> str:
    """Return the text that opens a study; safe in a URL."""
    said = f"{ticket.end}.{ticket.mark}"
    return f"{said}.{_signature(key=key, namespace=namespace, study=study, said=said)}"


def read_ticket(text: str, *, key: str, namespace: str, study: str) -> Ticket | None:
    """Read a signed ticket; None if it is not this study's. Takes the same time for every wrong one."""
    said, _, signature = text.rpartition(".")
    expected = _signature(key=key, namespace=namespace, study=study, said=said)
    if not hmac.compare_digest(expected.encode(), signature.encode()):
        return None
    end, _, mark = said.partition(".")
    return Ticket(end=int(end), mark=mark)


def study_path(*, key: str, namespace: str, study: str, uid: str, end: int) -> str:
    """Return the path of a study's page, good until `end` in the namespace with this uid."""
    signed = sign(Ticket(end=end, mark=namespace_mark(uid)), key=key, namespace=namespace, study=study)
    return f"/studies/{quote(namespace, safe='')}/{quote(study, safe='')}/{signed}/"


def study_links(
    old: Charts | None,
    *,
    external_url: str,
    key: str,
    namespace: str,
    study: str,
    uid: str,
    lifetime: timedelta,
    now: datetime,
) -> Charts:
    """All links of a study, for its status: they end with the old ones until half of their time is over, then later.

    So each is good for half of `lifetime` at least when it is read, a study is written for it once in that time, and all
    studies of a cluster are not written at one moment.
    """
    end = _end_in(old, mark=namespace_mark(uid)) if old else None
    if end is None or not lifetime / 2 < timedelta(seconds=end - now.timestamp()) <= lifetime:
        end = int((now + lifetime).timestamp())
    report = external_url.rstrip("/") + study_path(key=key, namespace=namespace, study=study, uid=uid, end=end)
    history, importances, parallel, slices = (report + chart for chart in CHARTS)
    return Charts(
        report=report,
        optimization_history=history,
        param_importances=importances,
        parallel_coordinate=parallel,
        slice=slices,
    )


def _signature(*, key: str, namespace: str, study: str, said: str) -> str:
    """NB: there are three slashes more than in the three parts together, so no other parts sign the same text."""
    text = f"charts/{said}/{namespace}/{study}".encode()
    digest = hmac.new(key.encode(), text, hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def _end_in(links: Charts, *, mark: str) -> int | None:
    """Return when the links of a status end; None for those of an earlier version, or of a namespace that is gone."""
    found = _TICKET.search(links.report)
    return int(found[1]) if found and found[2] == mark else None
