"""The charts: each draws what there is, says in words what there is not, and shows people's names as they are."""

import json
import math
import re
from collections.abc import Iterable
from typing import Any

import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
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
    a_search_of_two,
    a_study_data,
    hostile_trials,
    some,
    two_objectives,
    with_a_constraint,
)

from tuning_operator.charts import figures
from tuning_operator.charts.drawing import Scale
from tuning_operator.charts.figures import CHARTS, render
from tuning_operator.charts.links import CHARTS as LINKED
from tuning_operator.charts.source import StudyData
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
    "one complete trial": "3 more trials with a value until importances can be told.",
    "equal values": "All trials have the same value, so no parameter stands out.",
    "no parameters": "The trials have no parameters.",
}


@pytest.mark.parametrize(("study", "sentence"), IMPORTANCES_IN_WORDS.items(), ids=IMPORTANCES_IN_WORDS)
def test_importances_that_cannot_be_told_are_words(study: str, sentence: str) -> None:
    """A model would give numbers all the same."""
    assert sentence == words(POOR_RELATIVES[study])["param-importances"]


def test_importances_have_whiskers_and_say_what_is_not_sure() -> None:
    """Which parameter is first in a search of sixty trials is sure; in six it is not."""
    answer = drawn(a_search(60))["param-importances"]
    bars = traces(answer)[0]
    assert answer["note"] is None
    assert all(
        low >= 0 and high >= 0
        for low, high in zip(bars["error_x"]["arrayminus"], bars["error_x"]["array"], strict=True)
    )
    few = drawn(a_search(8, running=0))["param-importances"]
    assert str(few["note"]).endswith(
        "trials are too few to tell which parameter matters most: halves of them disagree."
    )


CHOICES = [[64], [64, 64], {"width": (1, 2)}, True, 1, "1", None, math.inf, "two\nlines"]


@pytest.mark.filterwarnings("ignore:Choices for a categorical distribution:UserWarning")
@pytest.mark.parametrize("direction", [[StudyDirection.MAXIMIZE], [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE]])
def test_choices_of_any_kind_are_drawn(direction: list[StudyDirection]) -> None:
    """An objective may suggest what it likes."""
    space: dict[str, BaseDistribution] = {"layers": CategoricalDistribution(CHOICES), "b": FloatDistribution(0, 1)}
    trials = [
        a_finished_trial(at, value=at / 9, params={"layers": choice, "b": at / 9}, distributions=space)
        for at, choice in enumerate(CHOICES)
    ]
    for trial in trials:
        trial.values = [trial.values[0]] * len(direction)
    answers = drawn(trials, spec=None, directions=tuple(direction))
    without = {key for key, answer in answers.items() if not answer["figure"]}
    assert without <= {"intermediate-values"}


def test_choices_that_look_alike_have_places_of_their_own() -> None:
    """1 and "1" are two, and so are none and "none"."""
    choices = [1, "1", None, "none", "a"]
    space: dict[str, BaseDistribution] = {"c": CategoricalDistribution(choices)}
    trials = [a_finished_trial(at, params={"c": choice}, distributions=space) for at, choice in enumerate(choices)]
    scale = Scale.of("c", trials)
    assert [scale.at(trial) for trial in trials] == [0, 1, 2, 3, 4]
    assert [label for _, label in scale.ticks()] == ["1", '"1"', "null", '"none"', "a"]


def test_headings_of_parallel_coordinates_have_room() -> None:
    """Each is as wide as it is long; a phone scrolls."""
    names = [f"encoder.transformer.layers.{at}.dropout_probability" for at in range(30)]
    space: dict[str, BaseDistribution] = {name: FloatDistribution(0, 1) for name in names}
    trials = [a_finished_trial(at, value=at, params=dict.fromkeys(names, 0.5), distributions=space) for at in range(5)]
    answer = drawn(trials, spec=None)["parallel-coordinate"]
    headings = [note["text"] for note in answer["figure"]["layout"]["annotations"] if note["text"].startswith("<b>")]
    assert len(set(headings)) == 31
    assert answer["minWidth"] >= 31 * 7 * max(len(heading) - len("<b></b>") for heading in headings)


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


def of_study(data: StudyData) -> dict[str, Any]:
    """What the browser gets of any study."""
    return {key: json.loads(answer) for key, answer in render(subject(data, now=NOW)).items()}


def test_several_objectives_have_charts_of_their_own() -> None:
    """The front first; learning curves and ranks are not there, and each of the status's links is."""
    answers = of_study(two_objectives())
    assert list(answers) == list(figures.CHARTS_OF_SEVERAL)
    assert [key for key, answer in answers.items() if not answer["figure"]] == []
    assert set(FOUR) < set(answers)
    assert {"intermediate-values", "rank"}.isdisjoint(answers)


@pytest.mark.parametrize("trials", POOR_RELATIVES.values(), ids=POOR_RELATIVES)
def test_every_chart_of_several_objectives_is_a_figure_or_words(
    trials: list[FrozenTrial], caplog: pytest.LogCaptureFixture
) -> None:
    """Also where user code, or another version, has left a value too few: such a trial has none."""
    for answer in of_study(two_objectives(trials)).values():
        assert bool(answer["figure"]) != bool(answer["words"])
    assert caplog.records == []


def a_front(directions: tuple[StudyDirection, StudyDirection]) -> StudyData:
    values = [(0.5, 10.0), (0.9, 40.0), (0.4, 15.0), (0.7, 20.0)]
    trials = [a_finished_trial(number, params=SMALL) for number in range(4)]
    for trial, pair in zip(trials, values, strict=True):
        trial.values = list(pair)
    return two_objectives(trials, directions=directions)


FRONTS = {
    "more is better, less is better": ((StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE), [0.9, 0.7, 0.5]),
    "less is better, more is better": ((StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE), [0.4, 0.7, 0.9]),
    "more of both": ((StudyDirection.MAXIMIZE, StudyDirection.MAXIMIZE), [0.9]),
}


@pytest.mark.parametrize(("directions", "front"), FRONTS.values(), ids=FRONTS)
def test_the_front_is_drawn_from_the_best_of_the_first_objective_on(
    directions: tuple[StudyDirection, StudyDirection], front: list[float]
) -> None:
    """In this order its steps lead round what is dominated, whichever way the objectives go."""
    *_, line = traces(of_study(a_front(directions))["pareto-front"])
    assert (line["name"], line["x"], line["line"]["shape"]) == ("Pareto front", front, "hv")


def test_three_objectives_are_seen_in_three_planes() -> None:
    """Each pair; none has a line, for a front of three is a surface."""
    three = (StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE, StudyDirection.MINIMIZE)
    trials = list(a_search_of_two())
    for trial in trials:
        trial.values = [*trial.values, float(trial.number % 5)] if trial.values else None
    answers = of_study(two_objectives(trials, directions=three, spec=None))
    shown = traces(answers["pareto-front"])
    assert {(trace["xaxis"], trace["yaxis"]) for trace in shown} == {("x", "y"), ("x2", "y2"), ("x3", "y3")}
    assert {trace["mode"] for trace in shown} == {"markers"}
    assert [answers["optimization-history"]["figure"]["layout"][axis]["title"]["text"] for axis in ROWS] == [
        "value",
        "second value",
        "third value",
    ]


ROWS = ("yaxis", "yaxis2", "yaxis3")


def test_each_objective_has_a_history_with_the_best_so_far_of_its_direction() -> None:
    """Accuracy goes up, latency goes down."""
    shown = traces(of_study(a_front((StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE)))["optimization-history"])
    lines = {trace["yaxis"]: trace["y"] for trace in shown if trace["name"] == "Best so far"}
    assert lines == {"y": [0.5, 0.9, 0.9, 0.9], "y2": [10.0, 10.0, 10.0, 10.0]}


def test_what_breaks_a_constraint_is_drawn_apart_and_is_never_the_best() -> None:
    """As crosses and dotted lines, with the constraint under the pointer."""
    data = with_a_constraint()
    answers = of_study(data)
    broken = {trial.number for trial in subject(data, now=NOW).infeasible}
    by_name = {trace["name"]: trace for trace in traces(answers["optimization-history"])}
    assert (set(by_name["Infeasible"]["x"]), broken.isdisjoint(by_name["Trial"]["x"])) == (broken, True)
    assert broken.isdisjoint(by_name["Best"]["x"])
    assert "breaks: latency &lt;= 24" in by_name["Infeasible"]["text"][0]
    assert by_name["Best so far"]["x"] == by_name["Trial"]["x"]
    assert traces(answers["parallel-coordinate"])[0]["line"]["dash"] == "dot"
    assert answers["slice"]["note"] == "Crosses are trials that break a constraint."


def test_a_study_without_a_feasible_trial_is_drawn_all_the_same() -> None:
    """All crosses, and no best."""
    trials = some(TrialState.COMPLETE, 5)
    for trial in trials:
        trial.set_constraint("latency <= 24", 1.0)
    answers = of_study(with_a_constraint(trials))
    assert [trace["name"] for trace in traces(answers["optimization-history"])] == ["Infeasible"]
    assert all(answer["figure"] for key, answer in answers.items() if key != "intermediate-values")


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


DOTS = {
    "every point has a line": ({}, ["lines", "lines+markers"]),
    "a parameter between two that the trial has not": ({"dropout": 0.1}, ["lines+markers", "lines+markers"]),
}


@pytest.mark.parametrize(("more", "modes"), DOTS.values(), ids=DOTS)
def test_a_parallel_line_has_dots_if_it_is_the_best_or_has_a_point_alone(
    more: dict[str, Any], modes: list[str]
) -> None:
    """A dot for every trial on every axis would be thousands of elements of the page."""
    trials = [
        a_finished_trial(0, value=0.1, params={"learning_rate": 0.01} | more | {"layers": 2}),
        a_finished_trial(1, value=0.0, params={"learning_rate": 0.02, "layers": 3}),
    ]
    assert modes == [trace["mode"] for trace in traces(drawn(trials)["parallel-coordinate"])]


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
    assert max(traces(history)[0]["y"]) == float(f"{seen(trials).ranked[0].value:.7g}")
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
    assert "Shows 75 of 300 complete trials" in (answers["slice"]["note"] or "")
    assert all(answer["figure"] for key, answer in answers.items() if key != "intermediate-values")


def test_numbers_are_sent_with_the_digits_that_are_seen() -> None:
    """Thousands of them are most of what is sent; whole numbers and times stay as they are."""
    value, trials = 123456.789012345, 20_000_001
    history = drawn([a_finished_trial(trials, value=value)])["optimization-history"]
    assert [traces(history)[0][axis] for axis in ("x", "y")] == [[trials], [123456.8]]


def test_all_traces_are_of_the_kinds_that_the_page_can_draw() -> None:
    """Its Plotly.js is the basic bundle: lines, markers and bars."""
    studies = (a_study_data(), two_objectives(), with_a_constraint())
    answers = [answer for study in studies for answer in of_study(study).values()]
    kinds = {trace["type"] for answer in answers if answer["figure"] for trace in traces(answer)}
    assert kinds == {"scatter", "bar"}


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
