"""What a page says about a study, from the trials where they say more than the last status does."""

from datetime import timedelta
from typing import Any

import pytest
import yaml
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from tests.support.chart_studies import (
    BEGIN,
    NOW,
    POOR_RELATIVES,
    SMALL,
    a_failure,
    a_finished_trial,
    a_search,
    a_search_of_two,
    a_status,
    a_study_data,
    some,
    two_objectives,
    with_a_constraint,
)

from tuning_api import contract
from tuning_api.contract import FailureReason
from tuning_api.status import Phase, Reason, StudyStatus
from tuning_operator.charts.source import StudyData
from tuning_operator.charts.summary import MOST_OF_FRONT, Summary, search_space, subject, summary
from tuning_operator.charts.table import MOST_ROWS, Table, table
from tuning_operator.charts.wording import counted, duration, shortened, shown, told_apart
from tuning_operator.model import Clock

MANY: dict[str, BaseDistribution] = {f"p{at}": FloatDistribution(0, 1) for at in range(30)}


def summary_of(data: StudyData) -> Summary:
    return summary(data, subject(data, now=NOW), now=NOW)


def said(trials: list[FrozenTrial] | None = None, **changes: Any) -> Summary:
    return summary_of(a_study_data(trials, **changes))


def listed(trials: list[FrozenTrial], **changes: Any) -> Table:
    data = a_study_data(trials, **changes)
    return table(data, subject(data, now=NOW), now=NOW)


def facts(page: Summary) -> dict[str, tuple[str, str]]:
    return {fact.label: (fact.value, fact.detail) for fact in page.facts}


def pruned(number: int, **attributes: Any) -> FrozenTrial:
    return a_finished_trial(number, TrialState.PRUNED, attributes=attributes)


DURATIONS = {
    None: "",
    0.0: "0 s",
    0.04: "0.0 s",
    9.94: "9.9 s",
    9.96: "10 s",
    10.2: "10 s",
    59.9: "59 s",
    61.0: "1 min 1 s",
    599.0: "9 min 59 s",
    600.0: "10 min",
    3599.0: "59 min",
    3600.0: "1 h 0 min",
    86_399.0: "23 h 59 min",
    90_000.0: "1 d 1 h",
}


@pytest.mark.parametrize(("seconds", "words"), DURATIONS.items(), ids=map(str, DURATIONS))
def test_a_span_of_time_is_told_in_its_two_largest_units(seconds: float | None, words: str) -> None:
    """Long ones change rarely, so that a page that says the same is not sent again."""
    assert words == duration(seconds)


VALUES = [
    (None, "none"),
    (True, "true"),
    (64, "64"),
    (0.000123456, "0.0001235"),
    (float("nan"), "nan"),
    ("gelu", "gelu"),
]


@pytest.mark.parametrize(("value", "words"), VALUES, ids=[words for _, words in VALUES])
def test_a_value_is_shown_as_a_person_reads_it(value: object, words: str) -> None:
    """As YAML would have it, to four digits."""
    assert words == shown(value)


def test_words_are_counted_and_cut() -> None:
    """No "1 trials", and no name that pushes a chart aside."""
    assert (
        counted(1, "trial"),
        counted(2, "trial"),
        shortened("abcde", 4),
        shortened("abcd", 4),
    ) == ("1 trial", "2 trials", "abc…", "abcd")


def test_progress_counts_trials_by_state() -> None:
    """Each part has its share of the budget; what waits has none."""
    page = said([*some(TrialState.COMPLETE, 4), *some(TrialState.PRUNED, 2), *some(TrialState.WAITING, 9)])
    assert [(part.key, part.trials, part.percent) for part in page.parts] == [
        ("complete", 4, 5.0),
        ("pruned", 2, 2.5),
        ("failed", 0, 0.0),
        ("running", 0, 0.0),
    ]
    assert (page.ended, page.total, page.title) == (6, 80, "6/80 digits")


def test_progress_never_exceeds_its_bar() -> None:
    """A budget that was lowered below what has run already."""
    page = said(some(TrialState.COMPLETE, 100))
    assert sum(part.percent for part in page.parts) == 100


def test_a_spec_that_cannot_be_read_leaves_what_the_status_knows() -> None:
    """Another version has written it; the trials are Optuna's and can be shown all the same."""
    page = said(some(TrialState.COMPLETE, 2), spec=None)
    assert (page.goals, page.total, page.title) == ([("maximize", "value")], None, "digits")
    assert search_space(a_study_data([], spec=None)) == []


BEST = {StudyDirection.MAXIMIZE: 2, StudyDirection.MINIMIZE: 0}


@pytest.mark.parametrize(("direction", "number"), BEST.items(), ids=str)
def test_the_best_trial_follows_the_direction(direction: StudyDirection, number: int) -> None:
    """Of equals the first."""
    trials = [a_finished_trial(at, value=value) for at, value in enumerate((0.1, 0.5, 0.9, 0.9, 0.1))]
    page = said(trials, directions=(direction,))
    assert page.best is not None
    assert f"trial {number}" == page.best.detail


def test_the_best_parameters_are_copied_in_full_as_yaml() -> None:
    """The page rounds; what is copied is exact, and says where it is from."""
    page = said([a_finished_trial(7, value=0.98765432, params={"learning_rate": 0.00123456789, "activation": "gelu"})])
    assert page.best is not None
    assert page.best.yaml.splitlines()[0] == "# trial 7 of digits: val_acc = 0.987654"
    assert yaml.safe_load(page.best.yaml) == {"learning_rate": 0.00123456789, "activation": "gelu"}


def test_a_metric_with_a_line_break_stays_inside_the_comment() -> None:
    """Otherwise it could add parameters to what is pasted."""
    spec = a_study_data().spec
    assert spec is not None
    spec = spec.model_copy(update={"objectives": [spec.objectives[0].model_copy(update={"metric": "acc\nevil: 1"})]})
    page = said([a_finished_trial(0, params={"dropout": 0.1})], spec=spec)
    assert page.best is not None
    assert yaml.safe_load(page.best.yaml) == {"dropout": 0.1}


@pytest.mark.parametrize("study", ["no trial", "only running trials", "only failed trials", "only pruned trials"])
def test_without_a_best_trial_the_page_says_why(study: str) -> None:
    """The same sentence as the charts."""
    page = said(POOR_RELATIVES[study])
    assert (None, subject(a_study_data(POOR_RELATIVES[study]), now=NOW).why_nothing_is_complete()) == (
        page.best,
        page.no_best,
    )


CALL_OUTS = {
    Reason.POD_UNSCHEDULABLE: ("Pod unschedulable", True),
    Reason.TRIALS_FAILING: ("Trials failing", True),
    Reason.QUEUED_BY_KUEUE: ("Queued by kueue", False),
    Reason.SUSPENDED: ("Suspended", False),
    Reason.ENDED: None,
}


@pytest.mark.parametrize(("reason", "expected"), CALL_OUTS.items(), ids=str)
def test_a_study_that_does_not_advance_says_why(reason: Reason, expected: tuple[str, bool] | None) -> None:
    """The condition's own sentence; a wait is no fault, and an end is no news."""
    page = said(status=a_status(message="no node fits", trouble=reason))
    found = page.call_out and (page.call_out.title, page.call_out.is_fault)
    assert expected == found
    assert page.call_out is None or page.call_out.message == "no node fits"


def test_a_study_that_advances_needs_no_call_out() -> None:
    """Nor does one of which the operator has not reported."""
    silent = said(status=StudyStatus())
    assert (said().call_out, silent.call_out) == (None, None)
    assert (silent.phase, silent.message) == ("Pending", "The operator has not reported on this study yet.")


NOT_KNOWN = ("not known", "1 trial cut short, of unknown length")
SAVINGS = {
    "pruned trials": (
        [pruned(0, **{contract.EPOCHS_ATTRIBUTE: 5, contract.MAX_EPOCHS_ATTRIBUTE: 20})],
        ("75%", "15 of 20 epochs"),
    ),
    "a failed trial saves nothing": (
        [
            a_finished_trial(
                0, TrialState.FAIL, attributes={contract.EPOCHS_ATTRIBUTE: 5, contract.MAX_EPOCHS_ATTRIBUTE: 20}
            )
        ],
        ("0%", "5 epochs run"),
    ),
    "epochs that nobody counted": ([pruned(0)], NOT_KNOWN),
    "attributes that user code has overwritten": (
        [pruned(0, **{contract.EPOCHS_ATTRIBUTE: "many", contract.MAX_EPOCHS_ATTRIBUTE: True})],
        NOT_KNOWN,
    ),
}


@pytest.mark.parametrize(("trials", "expected"), SAVINGS.values(), ids=SAVINGS)
def test_what_pruning_saved_is_told_in_epochs(trials: list[FrozenTrial], expected: tuple[str, str]) -> None:
    """The unit that costs."""
    assert expected == facts(said(trials))["Saved by pruning"]


def test_time_is_told_as_wall_clock_and_as_compute() -> None:
    """Two minutes of trials within one of wall clock ran two at a time."""
    page = said(some(TrialState.COMPLETE, 2), clock=Clock(60.0, None))
    assert (
        facts(page)["Elapsed"][0],
        *facts(page)["Compute time"],
    ) == ("1 min 0 s", "2 min 0 s", "2.0 trials at a time")


def test_retried_trials_are_told_where_there_are_any() -> None:
    """They do not count as ended, and would be missed otherwise."""
    assert (facts(said(retried=2))["Retried"][0] == "2 trials", "Retried" in facts(said())) == (True, False)


def test_the_search_space_is_told_in_words() -> None:
    """As the person wrote it."""
    assert search_space(a_study_data()) == [
        ("learning_rate", "1e-05 to 0.1, log"),
        ("weight_decay", "1e-06 to 0.01, log"),
        ("dropout", "0 to 0.6"),
        ("layers", "1 to 6"),
        ("hidden_dim", "32, 64, 128, 256"),
        ("activation", "relu, gelu, silu"),
    ]


def test_a_finished_study_says_so() -> None:
    """Its page is then asked for rarely."""
    phases = {phase: said(status=a_status(phase)).is_terminal for phase in Phase}
    assert {Phase.COMPLETE, Phase.FAILED} == {phase for phase, is_terminal in phases.items() if is_terminal}


def test_the_table_lists_trials_that_have_started_newest_first() -> None:
    """A waiting trial has nothing to show."""
    trials = a_search(12)
    found = listed(list(trials))
    assert [*range(11, -1, -1)] == [row.number for row in found.rows]
    assert [row.number for row in found.rows if row.is_best] == [
        subject(a_study_data(trials), now=NOW).ranked[0].number
    ]


def test_the_table_is_cut_where_there_are_very_many_trials() -> None:
    """A browser shows a thousand rows; the newest are kept."""
    found = listed(some(TrialState.COMPLETE, MOST_ROWS + 5))
    assert (len(found.rows), found.left_out, found.rows[0].number) == (MOST_ROWS, 5, MOST_ROWS + 4)


def test_a_failed_trial_says_why() -> None:
    """Reason, sentence and traceback; what a stranger wrote there is not trusted."""
    trials = [
        a_finished_trial(0, TrialState.FAIL, attributes={contract.FAILURE_ATTRIBUTE: a_failure("no memory")}),
        a_finished_trial(1, TrialState.FAIL, attributes={contract.FAILURE_ATTRIBUTE: "nonsense"}),
        a_finished_trial(2, TrialState.FAIL),
        a_finished_trial(3, attributes={contract.FAILURE_ATTRIBUTE: a_failure("recovered")}),
    ]
    rows = {row.number: row for row in listed(trials).rows}
    failure = rows[0].failure
    assert failure is not None
    assert (
        failure.reason,
        failure.message,
        "Traceback" in (failure.details or ""),
    ) == (FailureReason.ERROR, "no memory", True)
    assert [rows[number].is_unexplained for number in range(4)] == [False, True, True, False]
    assert rows[3].failure is None


def test_a_retried_trial_says_which_it_continues() -> None:
    """The one that was lost is not listed."""
    rows = listed([a_finished_trial(4, attributes={contract.RETRY_OF_ATTRIBUTE: 2})]).rows
    assert rows[0].retry_of == 2


EPOCHS = {
    "all of them": ({contract.EPOCHS_ATTRIBUTE: 20, contract.MAX_EPOCHS_ATTRIBUTE: 20}, "20"),
    "some of them": ({contract.EPOCHS_ATTRIBUTE: 3, contract.MAX_EPOCHS_ATTRIBUTE: 20}, "3/20"),
    "of an unknown plan": ({contract.EPOCHS_ATTRIBUTE: 3}, "3"),
    "not known": ({}, ""),
}


@pytest.mark.parametrize(("attributes", "words"), EPOCHS.values(), ids=EPOCHS)
def test_epochs_are_told_with_their_plan_where_it_was_not_reached(attributes: dict[str, Any], words: str) -> None:
    """A pruned trial shows how early it was."""
    assert words == listed([a_finished_trial(0, TrialState.PRUNED, attributes=attributes)]).rows[0].epochs


def test_a_running_trial_has_lasted_until_now() -> None:
    """Naive times of Optuna's are UTC."""
    rows = listed([a_finished_trial(0, TrialState.RUNNING), a_finished_trial(1)]).rows
    assert [60.0, (NOW - BEGIN) / timedelta(seconds=1)] == [row.seconds for row in rows]


def test_columns_are_the_search_space_and_whatever_else_trials_have() -> None:
    """A parameter that was removed from the spec is still one of its trials."""
    extra = a_finished_trial(0, params=SMALL | {"dropout": 0.1})
    data = a_study_data([extra], spec=None)
    assert table(data, subject(data, now=NOW), now=NOW).names == ["learning_rate", "layers", "activation", "dropout"]
    assert listed([extra]).names == ["learning_rate", "weight_decay", "dropout", "layers", "hidden_dim", "activation"]


def test_a_front_is_told_by_its_trials() -> None:
    """How many, each with its values, and all of them to be copied, one document each."""
    data = two_objectives()
    page, front = summary_of(data), subject(data, now=NOW).best
    assert page.goals == [("maximize", "val_acc"), ("minimize", "latency")]
    assert page.best is not None
    assert (page.best.value, page.best.lines[0], len(page.best.lines)) == (
        str(len(front)),
        ("", "val_acc · latency"),
        1 + len(front),
    )
    assert page.best.lines[1] == (f"trial {front[0].number}", " · ".join(map(shown, front[0].values)))
    assert [*yaml.safe_load_all(page.best.yaml)] == [trial.params for trial in front]
    assert page.learned_from == "Warm start: learned from 37 trials of digits-wide, which are not counted here."


def test_a_long_front_is_cut_in_the_summary_and_marked_in_the_table() -> None:
    """The page says how many more there are."""
    trials = some(TrialState.COMPLETE, MOST_OF_FRONT + 3)
    for trial in trials:
        trial.values = [float(trial.number), float(trial.number)]
    data = two_objectives(trials)
    best = summary_of(data).best
    assert best is not None
    assert (len(best.lines), best.more) == (1 + MOST_OF_FRONT, 3)
    assert [row.is_best for row in table(data, subject(data, now=NOW), now=NOW).rows] == [True] * len(trials)


def test_the_table_has_a_column_for_each_objective_and_for_what_is_constrained() -> None:
    """A trial that has not completed has none of the values."""
    listed_two = table(two_objectives(), subject(two_objectives(), now=NOW), now=NOW)
    assert (listed_two.metrics, listed_two.has_front) == (["val_acc", "latency"], True)
    running, complete = listed_two.rows[0], listed_two.rows[2]
    assert running.values == [None, None]
    assert complete.values == list(next(item for item in a_search_of_two() if item.number == complete.number).values)
    data = with_a_constraint()
    assert table(data, subject(data, now=NOW), now=NOW).metrics == ["val_acc", "latency"]


def test_a_trial_that_breaks_a_constraint_says_which_and_by_how_much() -> None:
    """And it is counted, and not the best, though its value is."""
    good, better = some(TrialState.COMPLETE, 2)
    better.set_constraint("latency <= 24", 6.5)
    data = with_a_constraint([good, better])
    rows = table(data, subject(data, now=NOW), now=NOW).rows
    assert [(row.broken, row.is_best) for row in rows] == [(["latency <= 24 by 6.5"], False), ([], True)]
    page = summary_of(data)
    assert page.goals[1] == ("keep", "latency ≤ 24")
    assert facts(page)["Infeasible"] == ("1 trial", "break a constraint, never the best")


def test_without_a_feasible_trial_the_page_says_so() -> None:
    """Not that no trial has completed."""
    trials = some(TrialState.COMPLETE, 2)
    for trial in trials:
        trial.set_constraint("latency <= 24", 6.5)
    page = summary_of(with_a_constraint(trials))
    assert (page.best, page.no_best) == (
        None,
        "None of the 2 complete trials is feasible: each breaks a constraint.",
    )


def test_the_sentence_counts_what_the_page_counts() -> None:
    """The status is some seconds older than the rows."""
    page = said(status=a_status(message="57 of 80 trials done, 2 workers running"))
    assert (page.ended, page.message) == (58, "58 of 80 trials done, 2 workers running")
    assert said(spec=None).message == "58 of 80 trials done, 2 workers running"


def test_of_many_parameters_ten_are_seen_at_once() -> None:
    best = said([a_finished_trial(0, params={f"p{at}": 0.1 for at in range(30)}, distributions=MANY)]).best
    assert best is not None
    assert ([name for name, _ in best.lines], len(best.folded)) == ([f"p{at}" for at in range(10)], 20)


def test_a_pruned_trial_is_listed_with_its_last_finite_report() -> None:
    """NaN is no value to sort by."""
    rows = listed(
        [
            a_finished_trial(0, TrialState.PRUNED, intermediate_values={0: 0.7, 1: 0.3}),
            a_finished_trial(1, TrialState.PRUNED, intermediate_values={0: 0.7, 1: float("nan")}),
            a_finished_trial(2, TrialState.PRUNED),
            a_finished_trial(3, value=0.5),
        ]
    ).rows
    assert [(row.values, row.is_last_report) for row in reversed(rows)] == [
        ([0.3], True),
        ([None], True),
        ([None], True),
        ([0.5], False),
    ]


LAYERS = [
    f"encoder.transformer.layers.{at}.{part}.dropout_probability" for at in range(15) for part in ("attention", "ff")
]


@pytest.mark.parametrize(
    "names",
    [
        LAYERS,
        [*LAYERS, "learning_rate"],
        ["a" * 60 + end for end in ("", "b", "bc")],
        ["x" * 30 + str(at) + "y" * 30 for at in range(120)],
        [f"{at}" + "z" * 40 for at in range(12)],
    ],
    ids=lambda names: names[-1],
)
@pytest.mark.parametrize("most", [16, 24])
def test_long_names_are_told_apart(names: list[str], most: int) -> None:
    labels = told_apart(names, most)
    assert list(labels) == names
    assert len(set(labels.values())) == len(names)
    assert max(map(len, labels.values())) <= most


def test_names_that_have_room_are_whole_and_long_ones_begin_where_they_differ() -> None:
    labels = told_apart([*LAYERS, "learning_rate"], 24)
    assert labels["learning_rate"] == "learning_rate"
    assert labels[LAYERS[20]] == "…10.atte…out_probability"
