"""What the benchmarks of overhead and utilisation make of a study's rows."""

import time
from dataclasses import asdict
from typing import Any

import pytest
from bench import overhead, utilisation
from bench.overhead import SYSTEMS, TASKS, WORKERS, Run, Task
from bench.overhead_trials import evaluate_nothing
from bench.processor import Meter
from bench.systems import Ran, Row, manifest

from tuning_api.spec import StudySpec

ROWS = [
    Row("one", start=100.0, end=101.0, value=0.5),
    Row("one", start=101.5, end=103.0, value=1.0),
    Row("two", start=102.0, end=104.0, value=1.5),
]


def a_run(system: str, workers: int, seconds: float, task: str = "nothing") -> Run:
    return Run(
        task=task,
        system=system,
        workers=workers,
        trials=100,
        seconds=seconds,
        throughput=workers / seconds,
        processor=0.01,
        first=2.0,
    )


def figures(*runs: Run, without_cluster: str | None = None) -> dict[str, Any]:
    return {"runs": [asdict(run) for run in runs], "without_cluster": without_cluster}


ALL = figures(
    *(a_run("forked", workers, seconds) for workers in WORKERS for seconds in (0.010, 0.030, 0.020)),
    *(a_run("local", workers, 0.022) for workers in WORKERS),
    *(a_run("kubernetes", workers, 0.030) for workers in WORKERS),
    a_run("job", 1, 4.4),
    a_run("job", 4, 0.2),
)


def test_a_workers_time_is_that_between_its_own_trials() -> None:
    """A worker that starts late, or ends early, costs nothing."""
    run = overhead.summary(Task("nothing", "local", 2, 3), Ran(98.0, ROWS), lambda start, end: end - start)
    assert run.seconds == pytest.approx((3 + 2) / 3)
    assert run.throughput == pytest.approx(3 / 4)
    assert run.processor == pytest.approx(4 / 3)
    assert run.first == 2.0


def test_aims_compare_medians_with_optuna_that_forks() -> None:
    """One worker may lose a fifth more, four may not."""
    found = {aim.what: (aim.measured, aim.reached) for aim in overhead.aims(ALL)}
    assert found == {
        "`tuningstudy run`, 1 worker: time lost between trials": ("1.10 x", True),
        "`tuningstudy run`, 4 workers: time lost between trials": ("1.10 x", False),
        "on Kubernetes, 1 worker: time lost between trials": ("1.50 x", False),
        "on Kubernetes, 4 workers: time lost between trials": ("1.50 x", False),
        "a Job for each trial, 1 at a time": ("200.00 x", True),
        "a Job for each trial, 4 at a time": ("9.09 x", False),
    }


def test_what_was_not_measured_is_not_reached() -> None:
    """On a machine without a cluster."""
    runs = figures(a_run("forked", 1, 0.02), a_run("local", 1, 0.02), without_cluster="it needs root")
    missed = [aim for aim in overhead.aims(runs) if aim.measured == "not measured"]
    assert not any(aim.reached for aim in missed)
    assert all(aim.cause for aim in missed)
    assert "Without a cluster, since on this machine it needs root." in list(overhead.tell(runs))


def test_the_table_has_medians_with_their_range_and_katibs_figures_their_conditions() -> None:
    """What was measured elsewhere stands apart."""
    text = "\n".join(overhead.tell(ALL))
    assert "| Optuna, a fork for each trial | 1 | 100 | 20 (10 to 30) | 1.00 |" in text
    assert "| a Job for each trial | 1 | 100 | 4400 | 220 |" in text
    assert "Katib after v0.19.0" in text
    assert "20 trials, 4 in parallel, images present" in " ".join(text.split())


def test_the_figure_has_a_bar_for_each_system() -> None:
    """From the medians."""
    one, _ = overhead.draw(ALL)["lost"].data
    assert dict(zip(one.y, one.x, strict=True))["Optuna, a fork for each trial"] == pytest.approx(20)


def test_systems_take_turns() -> None:
    """What disturbs the machine for a while disturbs all of them; Jobs come last."""
    tasks = overhead.plan(longer=False, with_node=True)
    first = [task.system for task in tasks[:4]]
    assert first == ["bare", "forked", "local", "kubernetes"]
    assert {task.system for task in tasks} == set(SYSTEMS)
    assert not [task for task in overhead.plan(longer=True, with_node=False) if task.system in {"kubernetes", "job"}]
    assert all(task.trials % task.workers == 0 for task in tasks if task.system == "bare")


@pytest.mark.parametrize("task", TASKS)
def test_the_studies_are_valid(task: str) -> None:
    """As the operator reads them."""
    document = manifest(task, overhead._TRIALS[task], overhead._SPACES[task], workers=4, trials=100)
    spec = StudySpec.model_validate(document["spec"])
    assert (spec.max_trials, spec.parallelism) == (100, 4)


def test_a_trial_that_does_nothing_has_a_value() -> None:
    """Which TPE can learn from."""
    assert evaluate_nothing({"a": 0.5, "b": -1.0}) == 1.25


def test_the_processors_are_busy_when_we_are() -> None:
    """As the kernel counts."""
    with Meter() as meter:
        start, worked = time.time(), time.process_time()
        while time.process_time() < worked + 0.2:
            sum(range(100_000))
    assert meter.busy(start, time.time()) >= 0.1


def test_the_share_of_training_is_what_trials_say_of_the_workers_time() -> None:
    """What lies before a worker's first trial does not count."""
    assert utilisation.share(Ran(90.0, ROWS)) == pytest.approx((0.5 + 1.0 + 1.5) / (3 + 2))


def test_the_worse_executor_counts() -> None:
    """An aim that is reached by one alone is missed."""
    runs = [
        utilisation.Run(system="local", training=5, trials=12, share=0.99),
        utilisation.Run(system="kubernetes", training=5, trials=12, share=0.97),
        utilisation.Run(system="local", training=30, trials=4, share=0.996),
    ]
    found = {"runs": [asdict(run) for run in runs], "without_cluster": None}
    assert [(aim.measured, aim.wanted, aim.reached) for aim in utilisation.aims(found)] == [
        ("97.00%", "at least 98.0%", False),
        ("99.60%", "at least 99.5%", True),
    ]
    assert "| `tuningstudy run` | 30 | 4 | 99.60% |" in list(utilisation.tell(found))


def test_the_sleeping_study_is_valid() -> None:
    """Its trials' value is the time that they trained."""
    spec = StudySpec.model_validate(utilisation.manifest(5, 12)["spec"])
    assert [objective.metric for objective in spec.objectives] == ["trained"]
