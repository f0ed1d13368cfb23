"""The figures of the benchmarks, drawn as files by a real browser."""

from xml.etree import ElementTree

import plotly.graph_objects as go
import pytest
from bench import pictures
from cluster import prerequisites


def test_a_figure_is_the_same_file_each_time() -> None:
    """Or each rendering would be a change to commit."""
    if reason := prerequisites.reason_against_browser():
        pytest.skip(f"figures are drawn by a browser: {reason}")
    figure = go.Figure(go.Bar(x=[1, 20], y=["ours", "theirs & others"], orientation="h"))
    first, second = (pictures.to_svg({"lost": figure})["lost"] for _ in range(2))
    assert first == second
    root = ElementTree.fromstring(first)  # noqa: S314 - we drew it
    assert root.tag.endswith("svg")
    assert "theirs & others" in "".join(root.itertext())


def test_without_figures_no_browser_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most benchmarks draw none, and a machine may have no browser."""
    monkeypatch.setattr(prerequisites, "reason_against_browser", lambda: "there is none")
    assert pictures.to_svg({}) == {}
