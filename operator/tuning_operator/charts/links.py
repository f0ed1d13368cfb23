"""Signed links: whoever has one may open one study, and nothing else.

The signature is an HMAC over namespace and study under the operator's signing key, so no list of links is kept anywhere
and a link stays valid for as long as the key does.
"""

import base64
import hashlib
import hmac
from urllib.parse import quote

from tuning_api.status import Charts

CHARTS = ("optimization-history", "param-importances", "parallel-coordinate", "slice")
"""The charts that have a link of their own in the status."""


def sign(*, key: str, namespace: str, study: str) -> str:
    """The signature of a study, safe in a URL.

    Neither name can hold a slash, so no two studies sign the same text.
    """
    text = f"charts {namespace}/{study}".encode()
    digest = hmac.new(key.encode(), text, hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def is_signed(signature: str, *, key: str, namespace: str, study: str) -> bool:
    """Whether a signature is this study's; takes the same time for every wrong one."""
    expected = sign(key=key, namespace=namespace, study=study)
    return hmac.compare_digest(expected.encode(), signature.encode())


def study_path(*, key: str, namespace: str, study: str) -> str:
    """The path of a study's page."""
    signature = sign(key=key, namespace=namespace, study=study)
    return f"/studies/{quote(namespace, safe='')}/{quote(study, safe='')}/{signature}/"


def study_links(*, external_url: str, key: str, namespace: str, study: str) -> Charts:
    """All links of a study, for its status."""
    report = external_url.rstrip("/") + study_path(key=key, namespace=namespace, study=study)
    history, importances, parallel, slices = (report + chart for chart in CHARTS)
    return Charts(
        report=report,
        optimization_history=history,
        param_importances=importances,
        parallel_coordinate=parallel,
        slice=slices,
    )
