"""The charts: each draws what there is, says in words what there is not, and shows people's names as they are."""

import json
import math
import re
from collections.abc import Iterable
from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from tests.support.chart_studies import (
    HOSTILE_NAME,
    HOSTILE_VALUE,
    NOW,
    POOR_RELATIVES,
    SMALL,
    a_finished_trial,
    a_search,
    a_study_data,
    hostile_trials,
)

from tuning_operator.charts import figures
from tuning_operator.charts.figures import CHARTS, render
from tuning_operator.charts.links import CHARTS as LINKED
from tuning_operator.charts.subject import Subject
from tuning_operator.charts.summary import subject

FOUR = list(CHARTS)[:4]


def drawn(trials: Iterable[FrozenTrial], **changes: Any) -> dict[str, Any]:
    """What the browser gets."""
    answers = render(subject(a_study_data(trials, **changes), now=NOW))
    return {key: json.loads(answer) for key, answer in answers.items()}


def seen(trials: Iterable[FrozenTrial], **changes: Any) -> Subject:
    return subject(a_study_data(trials, **changes), now=NOW)


def words(trials: Iterable[FrozenTrial]) -> dict[str, str | None]:
    return {key: answer["words"] for key, answer in drawn(trials).items()}


def traces(answer: dict[str, Any]) -> list[dict[str, Any]]:
    data: list[dict[str, Any]] = answer["figure"]["data"]
    return data


def strings(value: object) -> Iterable[str]:
    """All texts of a document, however deep."""
    if isinstance(value, str):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from strings(item)


def test_the_links_of_the_status_open_the_first_four_charts() -> None:
    """The status promises these four."""
    assert tuple(FOUR) == LINKED


def test_a_search_has_all_charts() -> None:
    """Nothing is left out of a study that has everything."""
    assert dict.fromkeys(CHARTS, True) == {key: bool(answer["figure"]) for key, answer in drawn(a_search()).items()}


@pytest.mark.parametrize("trials", POOR_RELATIVES.values(), ids=POOR_RELATIVES)
def test_every_chart_is_a_figure_or_words(trials: list[FrozenTrial], caplog: pytest.LogCaptureFixture) -> None:
    """No blank plot, and no failure that only the log knows of."""
    for answer in drawn(trials).values():
        assert bool(answer["figure"]) != bool(answer["words"])
        assert not answer["figure"] or any(trace.get("x") for trace in traces(answer))
    assert caplog.records == []


FIRST_FOUR_IN_WORDS = {
    "no trial": "No trial has run yet.",
    "only waiting trials": "No trial has run yet.",
    "only running trials": "No trial has completed: 2 running.",
    "only failed trials": "No trial has completed: 3 failed.",
    "only pruned trials": "No trial has completed: 3 pruned.",
    "pruned and failed trials": "No trial has completed: 2 pruned, 1 failed.",
    "infinite values only": "No complete trial has a finite value.",
}


@pytest.mark.parametrize(("study", "sentence"), FIRST_FOUR_IN_WORDS.items(), ids=FIRST_FOUR_IN_WORDS)
def test_without_a_value_the_charts_say_why(study: str, sentence: str) -> None:
    """The same sentence everywhere, with the numbers that matter."""
    assert dict.fromkeys(FOUR, sentence) == {key: words(POOR_RELATIVES[study])[key] for key in FOUR}


IMPORTANCES_IN_WORDS = {
    "one complete trial": "3 more complete trials until importances can be told.",
    "equal values": "All complete trials have the same value, so no parameter stands out.",
    "no parameters": "The complete trials have no parameters.",
}


@pytest.mark.parametrize(("study", "sentence"), IMPORTANCES_IN_WORDS.items(), ids=IMPORTANCES_IN_WORDS)
def test_importances_that_cannot_be_told_are_words(study: str, sentence: str) -> None:
    """PED-ANOVA would give numbers, or NaN, all the same."""
    assert sentence == words(POOR_RELATIVES[study])["param-importances"]


def test_infinite_values_are_left_out_of_the_history() -> None:
    """One -inf would be the best for ever, and flatten the chart."""
    history = drawn(POOR_RELATIVES["a mixture of oddities"])["optimization-history"]
    assert [traces(history)[0]["x"], traces(history)[0]["y"]] == [[1, 4], [0.4, 0.6]]


def test_steps_that_are_not_finite_are_left_out_of_the_curves() -> None:
    """A loss that was NaN for one epoch still has a curve."""
    curves = traces(drawn(POOR_RELATIVES["a mixture of oddities"])["intermediate-values"])
    assert {tuple(curve["x"]): curve["y"] for curve in curves} == {(1,): [0.4], (7,): [0.6]}


BEST_SO_FAR = {StudyDirection.MINIMIZE: [3.0, 1.0, 1.0], StudyDirection.MAXIMIZE: [3.0, 3.0, 3.0]}


@pytest.mark.parametrize(("direction", "line"), BEST_SO_FAR.items(), ids=str)
def test_the_best_so_far_follows_the_direction(direction: StudyDirection, line: list[float]) -> None:
    """A minimise study goes down."""
    trials = [a_finished_trial(number, value=value) for number, value in enumerate((3.0, 1.0, 2.0))]
    history = drawn(trials, directions=(direction,))["optimization-history"]
    assert line == traces(history)[1]["y"]


def test_a_study_of_several_objectives_is_drawn_by_its_first() -> None:
    """This version makes none, and an older or newer one may have."""
    both = (StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE)
    trials = [a_finished_trial(number, value=number / 10, params=SMALL) for number in range(5)]
    for trial in trials:
        trial.values = [trial.values[0], 1.0]
    assert all(answer["figure"] or answer["words"] for answer in drawn(trials, directions=both).values())


def test_names_and_values_of_people_are_shown_as_they_are() -> None:
    """Plotly reads HTML-like markup in titles, ticks and hover texts alike."""
    metric = a_study_data().spec
    assert metric is not None
    objective = metric.objectives[0].model_copy(update={"metric": "<i>loss</i>"})
    spec = metric.model_copy(update={"objectives": [objective]})
    answers = drawn(hostile_trials(), spec=spec)
    texts = [text for answer in answers.values() for text in strings(answer["figure"])]
    ours = ("<b>Trial ", "<extra></extra>", "<br>", "<b>", "</b>")
    assert [text for text in texts if "<" in re.sub("|".join(ours), "", text)] == []
    together = " ".join(texts)
    assert "&lt;b&gt;bold&lt;/b&gt;" in together
    assert "&lt;i&gt;loss&lt;/i&gt;" in together
    assert HOSTILE_NAME not in together
    assert HOSTILE_VALUE not in together


def test_choices_keep_the_order_of_the_search_space() -> None:
    """As the person wrote them, those that were never tried included."""
    distribution = CategoricalDistribution([None, True, 64, "gelu", 0.25])
    trials = [
        a_finished_trial(at, value=at / 10, params={"choice": choice}, distributions={"choice": distribution})
        for at, choice in enumerate((64, None, "gelu"))
    ]
    slices = drawn(trials)["slice"]["figure"]
    assert slices["layout"]["xaxis"]["ticktext"] == ["none", "true", "64", "gelu", "0.25"]
    assert slices["data"][0]["x"] == [2, 0, 3]


DECADES = {
    "five decades": (1e-5, 1e-1, ["1e-5", "0.001", "0.1"]),
    "two decades": (0.01, 1.0, ["0.01", "0.1", "1"]),
    "within one decade": (0.02, 0.05, ["0.02", "0.05"]),
    "narrow bounds": (3.0, 3.5, ["3", "3.5"]),
}


@pytest.mark.parametrize(("low", "high", "ticks"), DECADES.values(), ids=DECADES)
def test_logarithmic_axes_have_few_plain_ticks(low: float, high: float, ticks: list[str]) -> None:
    """A panel is 150 pixels wide."""
    space = {"rate": FloatDistribution(low, high, log=True)}
    trials = [a_finished_trial(0, value=0.1, params={"rate": low}, distributions=space)]
    axis = drawn(trials)["slice"]["figure"]["layout"]["xaxis"]
    assert ("log", ticks) == (axis["type"], axis["ticktext"])


def test_a_parallel_line_has_a_gap_where_a_trial_has_no_such_parameter() -> None:
    """Conditional parameters, and search spaces that grew."""
    trials = [
        a_finished_trial(0, value=0.1, params={"dropout": 0.1}),
        a_finished_trial(1, value=0.2, params={"dropout": 0.2, "layers": 3}),
    ]
    best, other = reversed(traces(drawn(trials)["parallel-coordinate"]))
    assert (best["y"], other["y"]) == ([1.0, 1.0, 0.5, None], [0.0, 0.0, None, None])


def test_a_running_trial_lasts_until_now() -> None:
    """It has no end yet."""
    timeline = traces(drawn([a_finished_trial(0, TrialState.RUNNING)])["timeline"])
    assert timeline[0]["x"] == [72 * 60 * 1000]


def many(count: int) -> list[FrozenTrial]:
    return [a_finished_trial(at, value=math.sin(at), params=SMALL, intermediate_values={0: 0.1}) for at in range(count)]


def test_of_very_many_trials_the_best_are_shown_and_the_note_says_so() -> None:
    """A browser draws thousands of points and not more; the best one is never left out."""
    trials = many(figures.MOST_TRIALS + 300)
    answers = drawn(trials)
    history = answers["optimization-history"]
    assert len(traces(history)[0]["x"]) == figures.MOST_TRIALS
    assert max(traces(history)[0]["y"]) == seen(trials).ranked[0].value
    assert history["note"] == "Shows 1000 of 1300 complete trials: the best, and an even choice of the others."
    assert len(traces(answers["intermediate-values"])) == figures.MOST_LINES
    assert answers["timeline"]["note"] == "Shows the latest 1000 of 1300 trials."
    assert all(len(json.dumps(answer)) < figures.MOST_BYTES for answer in answers.values())


def test_many_parameters_leave_room_for_fewer_trials() -> None:
    """Points are trials times parameters."""
    params = {f"p{at}": 0.5 for at in range(40)}
    space = {name: FloatDistribution(0, 1) for name in params}
    trials = [a_finished_trial(at, value=at / 10, params=params, distributions=space) for at in range(300)]
    answers = drawn(trials)
    assert "Shows 200 of 300 complete trials" in (answers["slice"]["note"] or "")
    assert all(answer["figure"] for key, answer in answers.items() if key != "intermediate-values")


def test_a_figure_that_is_too_large_is_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last resort: a browser that hangs says nothing."""
    monkeypatch.setattr(figures, "MOST_BYTES", 10)
    assert {"This chart is too large to be shown in a browser."} == set(words(a_search()).values())


def test_a_chart_that_fails_takes_no_other_with_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The log has the traceback; the page has a sentence."""

    def fail(_: Subject) -> None:
        raise ZeroDivisionError

    monkeypatch.setitem(CHARTS, "slice", figures.Chart("Slice", "", fail))  # type: ignore[arg-type]
    answers = drawn(a_search())
    assert answers["slice"]["words"] == "This chart could not be drawn; the charts server's log says why."
    assert [key for key, answer in answers.items() if not answer["figure"]] == ["slice"]
    assert "ZeroDivisionError" in caplog.text
