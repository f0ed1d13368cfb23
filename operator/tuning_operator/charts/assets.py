"""The static files: scripts, styles, and Plotly.js.

Of Plotly.js it is the bundle with lines, markers and bars, a quarter of the whole one that is in the Python package; it has
the same version (ADR 0026). Each is served under a name with its content's hash, and may so be cached for ever.
"""

import base64
import hashlib
from functools import cache
from importlib.resources import files
from pathlib import PurePosixPath

from markupsafe import Markup

PLOTLY = "plotly-basic.min.js"
_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


@cache
def assets() -> dict[str, tuple[str, bytes]]:
    """Content type and content of each file, by its versioned path."""
    charts = files("tuning_operator.charts")
    served = (*charts.joinpath("static").iterdir(), charts.joinpath("vendored", PLOTLY))
    contents = {item.name: item.read_bytes() for item in served}
    return {
        f"{hashlib.sha256(content).hexdigest()[:12]}/{name}": (_TYPES[PurePosixPath(name).suffix], content)
        for name, content in contents.items()
    }


@cache
def asset_path(name: str) -> str:
    """Where a file is served, below the server's root."""
    return next(f"static/{path}" for path in assets() if path.endswith(f"/{name}"))


def content(name: str) -> Markup:
    """A file's text, for a page that has it inside."""
    text = assets()[asset_path(name).removeprefix("static/")][1].decode()
    if "</script" in text or "</style" in text:
        msg = f"{name} would end the element that holds it"
        raise ValueError(msg)
    return Markup(text)  # noqa: S704 - our own files, and Plotly's


def data_url(name: str) -> str:
    """A file as a URL that holds it."""
    content_type, data = assets()[asset_path(name).removeprefix("static/")]
    return f"data:{content_type};base64,{base64.b64encode(data).decode()}"
