"""Figures are drawn in a process of their own, which may take too long or die; pages are served all the same."""

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from tests.support.chart_studies import NOW, a_search, a_study_data

from tuning_operator.charts import renderer as renderer_module
from tuning_operator.charts.figures import CHARTS
from tuning_operator.charts.renderer import Crowded, Renderer, figures_version
from tuning_operator.charts.source import StudyData
from tuning_operator.charts.summary import subject


def with_renderer(story: Callable[[Renderer], Awaitable[None]], *, seconds: float = 60.0) -> None:
    """Let a story happen to a renderer."""

    async def begin() -> None:
        renderer = Renderer(seconds=seconds)
        try:
            await story(renderer)
        finally:
            renderer.close()

    asyncio.run(begin())


async def words(renderer: Renderer, data: StudyData) -> set[str | None]:
    figures = await renderer.figures(data, subject(data, now=NOW))
    assert set(CHARTS) == set(figures)
    return {json.loads(figure)["words"] for figure in figures.values()}


def a_study(ended: int) -> StudyData:
    return a_study_data(a_search(ended, running=0)[:ended])


def test_figures_are_drawn_once_for_as_long_as_no_trial_ends() -> None:
    """Fifty readers cost as much as one."""

    async def story(renderer: Renderer) -> None:
        data = a_study(20)
        drawn = subject(data, now=NOW)
        first, second = await asyncio.gather(renderer.figures(data, drawn), renderer.figures(data, drawn))
        assert first is second
        assert {json.loads(figure)["words"] for figure in first.values()} == {None}
        assert first is not await renderer.figures(a_study(21), drawn)

    with_renderer(story)


def test_the_process_is_there_before_anybody_asks() -> None:
    """Its imports take longer than any drawing."""

    async def story(renderer: Renderer) -> None:
        renderer.start()
        (process,) = renderer._pool._processes.values()
        assert await words(renderer, a_study(20)) == {None}
        assert [process] == list(renderer._pool._processes.values())

    with_renderer(story)


def test_a_reader_who_goes_away_does_not_stop_the_drawing() -> None:
    """Others wait for the same figures."""

    async def story(renderer: Renderer) -> None:
        data = a_study(20)
        gone = asyncio.create_task(words(renderer, data))
        stays = asyncio.create_task(words(renderer, data))
        await asyncio.sleep(0)
        gone.cancel()
        assert await stays == {None}

    with_renderer(story)


def test_drawing_that_takes_too_long_is_given_up_in_words() -> None:
    """One study must not keep the others' charts."""

    async def story(renderer: Renderer) -> None:
        assert await words(renderer, a_study(20)) == {"Drawing took longer than 0.001 seconds and was given up."}

    with_renderer(story, seconds=0.001)


def test_a_process_that_died_is_replaced() -> None:
    """Out of memory, for instance."""

    async def story(renderer: Renderer) -> None:
        assert await words(renderer, a_study(20)) == {None}
        (process,) = renderer._pool._processes.values()
        os.kill(process.pid or 0, signal.SIGKILL)
        await asyncio.to_thread(process.join)
        assert await words(renderer, a_study(21)) == {
            "The process that draws the charts ended; the next trial that ends starts it again."
        }
        assert await words(renderer, a_study(22)) == {None}

    with_renderer(story)


def test_few_studies_figures_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's memory is bounded."""
    monkeypatch.setattr(renderer_module, "KEPT", 2)

    async def story(renderer: Renderer) -> None:
        for ended in (5, 6, 7, 8):
            await words(renderer, a_study(ended))
        assert len(renderer._known) == 2

    with_renderer(story)


def of_namespace(namespace: str, name: str) -> StudyData:
    return replace(a_study(5), namespace=namespace, name=name)


def test_namespaces_take_turns() -> None:
    """Who asks for the charts of many studies waits for himself, and no other for all of them."""
    drawn: list[str] = []

    async def ask(renderer: Renderer, data: StudyData) -> None:
        await words(renderer, data)
        drawn.append(f"{data.namespace}/{data.name}")

    async def story(renderer: Renderer) -> None:
        studies = [of_namespace("many", str(number)) for number in range(4)]
        studies += [of_namespace("few", "0"), of_namespace("few", "1"), of_namespace("one", "0")]
        await asyncio.gather(*(ask(renderer, data) for data in studies))

    with_renderer(story)
    assert drawn == ["many/0", "many/1", "few/0", "one/0", "many/2", "few/1", "many/3"]


def test_too_many_who_wait_are_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """And first those of the namespace that has most; they may ask again."""
    monkeypatch.setattr(renderer_module, "MOST_WAITING", 3)

    async def story(renderer: Renderer) -> None:
        many = [of_namespace("many", str(number)) for number in range(6)]
        asked = [asyncio.create_task(words(renderer, data)) for data in many]
        asked.append(asyncio.create_task(words(renderer, of_namespace("few", "0"))))
        drawn = await asyncio.gather(*asked, return_exceptions=True)
        assert [isinstance(answer, Crowded) for answer in drawn] == [False] * 3 + [True] * 3 + [False]
        assert await words(renderer, many[5]) == {None}

    with_renderer(story)


def test_a_version_changes_with_every_trial_that_starts_or_ends() -> None:
    """And only then: what is cached is asked for by version."""
    versions = [figures_version(a_study_data(a_search(count, running=running))) for count, running in SEARCHES]
    assert len(set(versions)) == len(SEARCHES)
    assert figures_version(a_study_data([])) == "0--1"


SEARCHES = ((20, 0), (20, 1), (21, 1), (21, 0))
