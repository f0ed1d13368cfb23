"""What the benchmarks compute from what they measured, and the document that is made of it."""

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest
from bench import document, pruning, results, storms
from bench.__main__ import DOCUMENT
from bench.aim import Aim, spread
from bench.catalogue import NAMES
from bench.conditions import ROOT, Conditions, machine
from bench.pruning import Pair, Study
from bench.results import Result

from tuning_api.spec import StudySpec

CONDITIONS = Conditions(
    machine="2 cores of Something, 8 GiB of memory",
    date="2026-01-01",
    commit="abc1234",
    python="3.11.7",
    optuna="5.0.0",
    postgres="16.1",
    longer=False,
    load=0.25,
    seconds=100.4,
)


def a_study(*, seed: int, pruned: bool, epochs: int, best: float, task: str = "digits") -> Study:
    return Study(task=task, seed=seed, pruned=pruned, trials=30, trials_pruned=9, epochs=epochs, best=best)


STUDIES = [
    a_study(seed=1, pruned=False, epochs=360, best=0.98),
    a_study(seed=0, pruned=True, epochs=180, best=0.97),
    a_study(seed=0, pruned=False, epochs=360, best=0.96),
    a_study(seed=1, pruned=True, epochs=270, best=0.98),
]
RESULT = Result(name="pruning", conditions=CONDITIONS, figures=pruning.figures_of(STUDIES))


# The document


def test_the_document_is_what_the_results_render_to() -> None:
    """Nobody writes a figure into it by hand."""
    assert DOCUMENT.read_text() == document.render(results.load_all())


def test_every_benchmark_is_known_and_can_be_made() -> None:
    """By a name in the order of the document, and a target of its own."""
    modules = {
        path.stem.replace("_", "-")
        for path in (ROOT / "bench").glob("*.py")
        if "\ndef measure(*, longer" in path.read_text()
    }
    assert modules <= set(NAMES)
    targets = re.findall(r"^bench-([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert targets == list(NAMES)


def test_a_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    """And those that were not measured yet are left out."""
    counted = replace(RESULT, figures=RESULT.figures | {"requests": Counter(["get pods", "get pods"])})
    results.save(counted, tmp_path)
    assert results.load_all(tmp_path) == [counted]


def test_a_section_says_how_it_was_measured() -> None:
    """On which machine, with which versions, and how busy it was."""
    text = document.render([RESULT])
    assert "`make bench-pruning` on 2026-01-01 in 100 s, at commit abc1234, on 2 cores of Something" in text
    assert "load average before: 0.2" in text
    assert "`make bench-pruning LONGER=1`" in document.render(
        [replace(RESULT, conditions=replace(CONDITIONS, longer=True))]
    )


def test_aims_stand_first_and_misses_with_their_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads only the start knows what was not reached."""
    found = [
        Aim("claims", "at least 100 a second", "120 a second", reached=True),
        Aim("overshoot", "none", "3 trials", reached=False, cause="The lock was taken too late."),
    ]
    monkeypatch.setattr(pruning, "aims", lambda _: found)
    text = document.render([RESULT])
    assert "| [pruning](#what-pruning-is-worth) | claims | at least 100 a second | 120 a second | reached |" in text
    assert "- overshoot: 3 trials instead of none. The lock was taken too late." in text
    assert text.index("overshoot") < text.index("## What pruning is worth")


def test_a_figure_is_shown_from_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """The frame draws it beside the document."""
    monkeypatch.setattr(pruning, "draw", lambda _: {"epochs": go.Figure()}, raising=False)
    assert "(images/benchmarks/pruning-epochs.svg)" in document.render([RESULT])


@pytest.mark.parametrize(
    ("values", "form", "words"),
    [([1.0], ".1f", "1.0"), ([3.0, 1.0, 2.0], ".1f", "2.0 (1.0 to 3.0)"), ([0.25, 0.5], ".0%", "38% (25% to 50%)")],
)
def test_a_spread_is_the_median_with_the_range(values: list[float], form: str, words: str) -> None:
    """A single value has no range."""
    assert spread(values, form) == words


def test_a_machine_in_words() -> None:
    """Its processors as the kernel names them, and its memory."""
    cpuinfo = "processor\t: 0\nmodel name\t: Fast CPU @ 2.00GHz\nflags\t\t: fpu\n"
    assert (
        machine(cpuinfo, "MemTotal:       16318480 kB\n", cores=4) == "4 cores of Fast CPU @ 2.00GHz, 16 GiB of memory"
    )


# Pruning


def test_studies_of_a_seed_are_compared_with_each_other() -> None:
    """In the order of the seeds, whichever ran first."""
    first, second = pruning.pairs(STUDIES)
    assert first == Pair(seed=0, epochs_without=360, epochs_with=180, best_without=0.96, best_with=0.97)
    assert (first.saved, first.gain) == (0.5, pytest.approx(0.01))
    assert (second.saved, second.gain) == (0.25, 0.0)


def test_the_table_ends_with_medians_and_their_range() -> None:
    """A single number would hide how much seeds differ."""
    *_, last = pruning.table("digits", STUDIES)
    assert "38% (25% to 50%)" in last
    assert "+0.0050 (+0.0000 to +0.0100)" in last


def test_studies_that_are_added_replace_those_of_their_task() -> None:
    """One task can be measured again, or elsewhere, without the other."""
    other = [replace(study, task="glosses") for study in STUDIES]
    both = pruning.with_studies(RESULT, other, commit="def5678")
    assert pruning.studies_of(json.loads(json.dumps(both.figures))) == STUDIES + other
    assert both.conditions.commit == "abc1234 (glosses at def5678)"
    assert pruning.with_studies(both, other[:2], commit="0").figures == pruning.figures_of(STUDIES + other[:2])
    assert [line for line in pruning.tell(both.figures) if line.startswith("###")] == [
        "### digits: 30 trials in each study",
        "### glosses: 30 trials in each study",
    ]


@pytest.mark.parametrize("task", pruning.TASKS)
@pytest.mark.parametrize("pruned", [True, False])
def test_the_studies_that_are_compared_differ_in_the_pruner_alone(task: str, *, pruned: bool) -> None:
    """And are valid."""
    document = pruning.with_seed(pruning.TASKS[task](), seed=7, pruned=pruned)
    spec = StudySpec.model_validate(document["spec"])
    assert spec.resolved_sampler.seed == 7
    assert (spec.resolved_pruner.type == "none") is not pruned
    other: dict[str, Any] = pruning.with_seed(pruning.TASKS[task](), seed=7, pruned=not pruned)
    assert document["spec"] | {"pruner": None} == other["spec"] | {"pruner": None}


# Storms


def a_storm(**changes: Any) -> dict[str, Any]:
    return {
        "size": {"seed": 3, "trials": 200, "apart": False},
        "ended": 200,
        "stuck": 0,
        "faults": {"workers killed": 4, "Postgres away": 1, "suspended": 2},
        "killed": {"workers killed": 6, "pods deleted": 3},
        "retried": 8,
        "lost_epochs": [1, 0, 1],
        "recoveries": {"Postgres away": [12.0, None, 30.0]},
        "violations": [],
    } | changes


def test_a_storm_is_a_row_and_faults_apart_are_a_table_of_times() -> None:
    """The times of faults that overlap are not those of one fault."""
    text = "\n".join(storms.tell({"storms": [a_storm(), a_storm(size={"seed": 7, "trials": 200, "apart": True})]}))
    assert "| 3 | 200 of 200 | 0 | 9 | 0, 1, 0 | 0, 2 | 8 | 1 (0 to 1) | none |" in text
    assert "| Postgres away | 3 | 21.0 (12.0 to 30.0) | 1 |" in text
    assert "| 7 |" not in text


def test_a_storm_after_which_something_is_wrong_misses_its_aims() -> None:
    """With what is wrong as the cause."""
    found = storms.aims({"storms": [a_storm(), a_storm(ended=199, lost_epochs=[2], violations=["trial 4 is lost"])]})
    assert [(aim.wanted, aim.measured, aim.reached) for aim in found] == [
        ("400", "399", False),
        ("1", "2", False),
        ("0", "1", False),
    ]
    assert found[-1].cause == "trial 4 is lost"
    assert all(aim.reached for aim in storms.aims({"storms": [a_storm()]}))
