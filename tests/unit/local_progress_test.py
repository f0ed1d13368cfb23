"""What a person sees while a study runs without a cluster: a function of its rows."""

import csv
import io
import json
import math

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from rich.text import Text
from tests.support.chart_studies import (
    NOW,
    a_finished_trial,
    a_search_spec,
    a_status,
    a_study_data,
    two_objectives,
    with_a_constraint,
)

from tuning_api import contract
from tuning_api.status import Phase, Reason, StudyStatus
from tuning_operator.charts.source import StudyData
from tuning_operator.cli import live, results
from tuning_operator.cli.screen import Screen
from tuning_operator.cli.views import JsonView, PlainView, ending, what_happens
from tuning_operator.local.errors import BadInputError
from tuning_operator.local.progress import Progress, progress

PARAMS = {"learning_rate": 0.001, "layers": 2}
FAILURE = {"reason": "OutOfMemory", "message": "the trial was killed for its memory"}


def the_trials() -> tuple[FrozenTrial, ...]:
    return (
        a_finished_trial(0, value=0.5, params=PARAMS, attributes={contract.EPOCHS_ATTRIBUTE: 20}),
        a_finished_trial(1, TrialState.PRUNED, params=PARAMS, intermediate_values={0: 0.1, 1: 0.2}),
        a_finished_trial(2, TrialState.FAIL, params=PARAMS, attributes={contract.FAILURE_ATTRIBUTE: FAILURE}),
        a_finished_trial(3, value=0.7, params=PARAMS),
        a_finished_trial(4, TrialState.RUNNING, params=PARAMS, intermediate_values={0: 0.3, 1: 0.4, 2: 0.35}),
        a_finished_trial(5, TrialState.WAITING),
    )


def a_progress(data: StudyData | None = None, *, status: StudyStatus | None = None, workers: int = 2) -> Progress:
    data = data or a_study_data(trials=the_trials(), spec=a_search_spec(maxTrials=10))
    return progress(data, status=status or StudyStatus(phase=Phase.RUNNING), workers=workers, now=NOW)


def drawn(now: Progress, *, width: int = 100, height: int = 30) -> str:
    console = Screen(file=io.StringIO(), width=width, record=True, color_system=None)
    console.print(live.drawn(now, height=height))
    return console.export_text()


def test_trials_are_told_apart_by_what_became_of_them() -> None:
    """Ended ones count against the budget, running ones show what they last reported."""
    now = a_progress()
    assert [now.count(state) for state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)] == [2, 1, 1]
    assert (now.total, len(now.ended), now.waiting) == (10, 4, 1)
    (running,) = now.running
    assert (running.number, running.epochs, running.value, running.reports) == (4, 3, 0.35, (0.3, 0.4, 0.35))


@pytest.mark.parametrize(("direction", "ranked"), [("MAXIMIZE", [3, 0]), ("MINIMIZE", [0, 3])])
def test_the_best_trial_is_that_of_the_direction(direction: str, ranked: list[int]) -> None:
    """And an infinite value is none."""
    infinite = a_finished_trial(9, value=math.inf if direction == "MAXIMIZE" else -math.inf, params=PARAMS)
    data = a_study_data(trials=(*the_trials(), infinite), directions=(StudyDirection[direction],))
    assert [trial.number for trial in a_progress(data).ranked] == ranked


def test_the_time_left_follows_from_what_trials_took() -> None:
    """Three complete or pruned trials took a minute each; six are left, for the one worker that has a trial."""
    assert a_progress().seconds_left == pytest.approx(360, rel=0.01)


def test_the_time_left_ends_with_the_timeout() -> None:
    """Whatever the trials would take."""
    spec = a_search_spec(maxTrials=10, timeout="10s")
    assert a_progress(a_study_data(trials=the_trials(), spec=spec)).seconds_left == 0


def test_nobody_guesses_from_one_trial() -> None:
    """The first trial is the slowest."""
    assert a_progress(a_study_data(trials=the_trials()[:1])).seconds_left is None


def test_the_live_view_shows_what_a_person_looks_for() -> None:
    """Budget, states, the best and each running trial."""
    text = drawn(a_progress())
    for words in (
        "4 of 10 trials",
        "2 complete · 1 pruned · 1 failed (1 out of memory) · 2 workers",
        "about 6 min",
        "best 0.7",
    ):
        assert words in text
    assert "▁█▅" in text.replace("▄", "▅")
    assert "learning_rate=0.001 layers=2" in text


def test_the_live_view_says_why_nothing_moves() -> None:
    """Importing torch takes long enough to wonder; a fault is told in the condition's words."""
    idle = a_study_data(trials=the_trials()[:4])
    assert "2 workers starting: torch and the model are being imported" in drawn(a_progress(idle))
    trouble = a_status(trouble=Reason.WORKERS_FAILING, message="a worker failed: no module named torch")
    assert "no module named torch" in drawn(a_progress(status=trouble))


def test_the_live_view_fits_a_small_terminal() -> None:
    """What does not fit would scroll with each redraw."""
    running = tuple(a_finished_trial(number, TrialState.RUNNING, params=PARAMS) for number in range(50))
    assert len(drawn(a_progress(a_study_data(trials=running)), width=60, height=24).splitlines()) <= 24


def test_names_and_values_are_no_markup() -> None:
    """A choice may be called [red]."""
    trial = a_finished_trial(0, value=0.5, params={"activation": "gelu"}, attributes={})
    trial.params["activation"] = "[bold]x[/nothing]"
    assert "[bold]x[/nothing]" in drawn(a_progress(a_study_data(trials=(trial,))))


def test_a_line_tells_how_a_trial_ended() -> None:
    """Enough to follow a study in a log file."""
    now = a_progress()
    complete, pruned, failed, best = now.ended
    assert (
        ending(complete, now) == "trial 0 complete: val_acc=0.5, 20 epochs in 1 min 0 s; learning_rate=0.001 layers=2"
    )
    assert ending(pruned, now).startswith("trial 1 pruned: val_acc=0.2, 2 epochs in 1 min 0 s")
    assert ending(failed, now) == "trial 2 failed: OutOfMemory: the trial was killed for its memory"
    assert "(the best so far)" in ending(best, now)


def test_lines_are_printed_once_and_only_for_this_run(capsys: pytest.CaptureFixture[str]) -> None:
    """Trials of an earlier run are not told again."""
    view, trials = PlainView(), the_trials()
    view.update(a_progress(a_study_data(trials=trials[:2])))
    for _ in range(2):
        view.update(a_progress(a_study_data(trials=trials, spec=a_search_spec(maxTrials=10))))
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(" ")[0] for line in lines] == ["[3/10]", "[4/10]"]


def test_json_lines_are_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    """One document a line, with full precision."""
    view = JsonView()
    view.update(a_progress(a_study_data(trials=())))
    view.update(a_progress())
    view.event(Reason.BUDGET_SPENT, "done", is_warning=False)
    documents = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [item["type"] for item in documents] == ["trial"] * 4 + ["event"]
    assert documents[3] | {"seconds": None} == {
        "type": "trial",
        "trial": 3,
        "state": "Complete",
        "value": 0.7,
        "params": PARAMS,
        "epochs": 0,
        "seconds": None,
        "failure": None,
        "finished": 4,
        "total": 10,
        "best": 3,
    }


def test_nothing_happens_in_a_study_that_has_ended() -> None:
    """No worker runs then, and that is no news."""
    assert what_happens(a_progress(a_study_data(trials=()), status=StudyStatus(phase=Phase.COMPLETE), workers=0)) == ""


def test_a_spreadsheet_gets_every_trial_with_full_precision() -> None:
    """In the order of their numbers."""
    lines = results.csv_of_trials(a_progress()).splitlines()
    assert lines[0] == "trial,state,val_acc,learning_rate,layers,epochs,seconds,retry_of,failure"
    assert lines[1] == "0,Complete,0.5,0.001,2,20,60.0,,"
    assert lines[3] == "2,Failed,,0.001,2,0,60.0,,OutOfMemory: the trial was killed for its memory"
    assert len(lines) == 6


def test_a_spreadsheet_computes_nothing_that_people_have_named() -> None:
    """A text that begins like a formula stays a text; a negative number is one."""
    params = {"=cmd|' /C calc'!A0": "=1+1", "@x": "-1+1", "low": -0.5}
    distributions = {name: CategoricalDistribution([value]) for name, value in params.items()}
    trial = a_finished_trial(0, params=params, distributions=distributions)
    titles, fields = csv.reader(io.StringIO(results.csv_of_trials(a_progress(a_study_data([trial])))))
    cells = dict(zip(titles, fields, strict=True))
    assert (cells["'=cmd|' /C calc'!A0"], cells["'@x"], cells["low"]) == ("'=1+1", "'-1+1", "-0.5")


def titled(names: list[str], *, metric: str = "loss") -> tuple[list[str], list[str]]:
    """The titles of a spreadsheet of one trial, and its fields: the parameters' are 100, 101, ..."""
    space = {name: FloatDistribution(0, 200) for name in names}
    trial = a_finished_trial(0, params={name: 100.0 + at for at, name in enumerate(names)}, distributions=dict(space))
    data = a_study_data([trial], spec=a_search_spec(objectives=[{"metric": metric, "direction": "minimize"}]))
    titles, fields = csv.reader(io.StringIO(results.csv_of_trials(a_progress(data))))
    return titles, fields


def test_no_two_columns_have_one_name() -> None:
    """Our own keep theirs; a reader by name gets the parameter, and the count of epochs."""
    titles, fields = titled(["epochs", "seconds", "state", "trial", "loss", "params_epochs", "failure", "depth"])
    cells = dict(zip(titles, fields, strict=True))
    assert len(cells) == len(titles)
    assert [
        cells[name] for name in ("params_epochs", "params_seconds", "params_state", "params_trial", "params_loss")
    ] == [
        "100.0",
        "101.0",
        "102.0",
        "103.0",
        "104.0",
    ]
    assert (cells["params_params_epochs"], cells["params_failure"], cells["depth"]) == ("105.0", "106.0", "107.0")
    assert (cells["trial"], cells["state"], cells["loss"]) == ("0", "Complete", "0.5")


@pytest.mark.parametrize("metric", ["trial", "state", "epochs", "seconds", "retry_of", "failure"])
def test_a_metric_has_a_column_of_its_own(metric: str) -> None:
    titles, fields = titled([metric], metric=metric)
    cells = dict(zip(titles, fields, strict=True))
    assert (cells[f"metrics_{metric}"], cells[f"params_{metric}"], len(cells)) == ("0.5", "100.0", len(titles))


def test_names_that_are_escaped_alike_are_told_apart() -> None:
    titles, _ = titled(["=a", "'=a"])
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize("metric", ["trial", "params"])
def test_the_best_trial_as_a_document_loses_nothing(metric: str) -> None:
    data = a_study_data(spec=a_search_spec(objectives=[{"metric": metric, "direction": "maximize"}]))
    now = a_progress(data)
    assert now.best is not None
    assert results.best_document(now.best, now) == {
        "trial": now.best.number,
        f"metrics_{metric}": now.best.value,
        "params": now.best.params,
    }


def test_a_line_of_a_trial_is_one_line() -> None:
    """Whatever its choices hold."""
    params = {"text": "two\nlines\r\nand\u2028more"}
    trial = a_finished_trial(0, params=params, distributions={"text": CategoricalDistribution([params["text"]])})
    now = a_progress(a_study_data([trial]))
    assert "text=two\\nlines\\nand\\nmore" in ending(now.ended[0], now)
    assert len(ending(now.ended[0], now).splitlines()) == 1
    assert len(results.headline(now.ended[0], now).splitlines()) == 1
    table = results.trials_table(now, now.ended, names=["text"])
    assert list(table.columns[-1].cells) == [Text("two\\nlines\\nand\\nmore")]


# Several objectives and constraints


def of_two() -> Progress:
    """Three complete trials, of which one is dominated, and one that runs."""
    values = [(0.9, 40.0), (0.8, 45.0), (0.7, 20.0)]
    trials = [a_finished_trial(number, params=PARAMS) for number in range(3)]
    for trial, pair in zip(trials, values, strict=True):
        trial.values = list(pair)
    return a_progress(two_objectives([*trials, a_finished_trial(3, TrialState.RUNNING, params=PARAMS)]))


def under_a_constraint(*, feasible: bool = True) -> Progress:
    """The better of two trials breaks it; or both do."""
    trials = [a_finished_trial(number, value=0.5 + number / 10, params=PARAMS) for number in range(2)]
    trials[1].set_constraint("latency <= 24", 6.5)
    if not feasible:
        trials[0].set_constraint("latency <= 24", 1.0)
    for trial, latency in zip(trials, (24.0 if feasible else 25.0, 30.5), strict=True):
        trial.user_attrs[contract.LIMITED_ATTRIBUTE] = {"latency": latency}
    return a_progress(with_a_constraint(trials))


def test_several_objectives_have_a_front_in_place_of_a_best() -> None:
    """Everywhere a best is shown."""
    now = of_two()
    assert [trial.number for trial in now.front] == [0, 2]
    assert [trial.number for trial in now.ranked] == [0, 2, 1]
    text = drawn(now)
    assert "maximize val_acc, minimize latency" in text
    assert "front of 2: 0.9 40 trial 0 · 0.7 20 trial 2" in text
    assert ending(now.ended[0], now).startswith("trial 0 complete: val_acc=0.9 latency=40 (on the front so far), ")
    assert "(on the front" not in ending(now.ended[1], now)


def test_a_front_is_a_document_and_one_of_it_is_chosen_by_its_number() -> None:
    """No trial of it is better than the others, so whoever wants a configuration says which."""
    now = of_two()
    assert results.front_document(now) == {
        "front": [
            {"trial": 0, "val_acc": 0.9, "latency": 40.0, "params": PARAMS},
            {"trial": 2, "val_acc": 0.7, "latency": 20.0, "params": PARAMS},
        ]
    }
    assert results.headline_of_front(now) == (
        "the Pareto front of study digits: 2 trials (maximize val_acc, minimize latency)"
    )
    with pytest.raises(BadInputError, match=r"has 2 trials: choose one with --trial \(0, 2\)"):
        results.chosen(now, number=None)
    assert results.chosen(now, number=1).number == 1
    with pytest.raises(BadInputError, match="has no complete trial 3"):
        results.chosen(now, number=3)


def test_what_breaks_a_constraint_is_never_the_best_and_is_marked() -> None:
    """In lines, in the counts, and in the spreadsheet."""
    now = under_a_constraint()
    assert now.best is not None
    assert (now.best.number, results.chosen(now, number=None).number) == (0, 0)
    assert ending(now.ended[1], now).startswith(
        "trial 1 complete: val_acc=0.6 latency=30.5 (infeasible: latency <= 24 by 6.5), "
    )
    assert "2 complete · 1 of them infeasible" in drawn(now)
    assert results.csv_of_trials(now).splitlines() == [
        "trial,state,val_acc,latency,feasible,learning_rate,layers,epochs,seconds,retry_of,failure",
        "0,Complete,0.5,24.0,yes,0.001,2,0,60.0,,",
        "1,Complete,0.6,30.5,no,0.001,2,0,60.0,,",
    ]


def test_without_a_feasible_trial_the_command_says_so() -> None:
    """Not that none is complete."""
    now = under_a_constraint(feasible=False)
    with pytest.raises(BadInputError, match="no trial of study digits is feasible: each of the 2 complete ones breaks"):
        results.chosen(now, number=None)
    assert "no trial is feasible yet" in drawn(now)


def test_json_lines_have_all_values(capsys: pytest.CaptureFixture[str]) -> None:
    """By metric, with the front as it is then."""
    view = JsonView()
    view.update(a_progress(two_objectives([])))
    view.update(of_two())
    first = json.loads(capsys.readouterr().out.splitlines()[0])
    assert (first["values"], first["front"], first["best"]) == ({"val_acc": 0.9, "latency": 40.0}, [0, 2], 0)
