"""Signed links: whoever has one may open one study until the link ends, and nothing else.

The signature is an HMAC over the end, namespace and study under the operator's signing key, so no list of links is kept
anywhere: the status has the newest, and older ones are good until their own end (ADR 0020).
"""

import base64
import hashlib
import hmac
import re
from datetime import datetime, timedelta
from urllib.parse import quote

from tuning_api.status import Charts

CHARTS = ("optimization-history", "param-importances", "parallel-coordinate", "slice")
"""The charts that have a link of their own in the status."""
_END = re.compile(r"/([0-9]{1,12})\.[A-Za-z0-9_-]+/$")


def ticket(*, key: str, namespace: str, study: str, end: int) -> str:
    """What opens a study until `end`, in seconds since 1970; safe in a URL."""
    return f"{end}.{_signature(key=key, namespace=namespace, study=study, end=str(end))}"


def end_of(ticket: str, *, key: str, namespace: str, study: str) -> int | None:
    """When a ticket ends, in seconds since 1970; None if it is not this study's. Takes the same time for every wrong one."""
    end, _, signature = ticket.partition(".")
    expected = _signature(key=key, namespace=namespace, study=study, end=end)
    return int(end) if hmac.compare_digest(expected.encode(), signature.encode()) else None


def study_path(*, key: str, namespace: str, study: str, end: int) -> str:
    """The path of a study's page."""
    signed = ticket(key=key, namespace=namespace, study=study, end=end)
    return f"/studies/{quote(namespace, safe='')}/{quote(study, safe='')}/{signed}/"


def study_links(
    old: Charts | None,
    *,
    external_url: str,
    key: str,
    namespace: str,
    study: str,
    lifetime: timedelta,
    now: datetime,
) -> Charts:
    """All links of a study, for its status: they end with the old ones until half of their time is over, then later.

    So each is good for half of `lifetime` at least when it is read, a study is written for it once in that time, and all
    studies of a cluster are not written at one moment.
    """
    end = _end_in(old) if old else None
    if end is None or not lifetime / 2 < timedelta(seconds=end - now.timestamp()) <= lifetime:
        end = int((now + lifetime).timestamp())
    report = external_url.rstrip("/") + study_path(key=key, namespace=namespace, study=study, end=end)
    history, importances, parallel, slices = (report + chart for chart in CHARTS)
    return Charts(
        report=report,
        optimization_history=history,
        param_importances=importances,
        parallel_coordinate=parallel,
        slice=slices,
    )


def _signature(*, key: str, namespace: str, study: str, end: str) -> str:
    """NB: there are three slashes more than in the three parts together, so no other parts sign the same text."""
    text = f"charts/{end}/{namespace}/{study}".encode()
    digest = hmac.new(key.encode(), text, hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def _end_in(links: Charts) -> int | None:
    """When the links of a status end; None for those that this version did not write."""
    found = _END.search(links.report)
    return int(found[1]) if found else None
