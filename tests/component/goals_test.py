"""Several objectives, constraints and warm start on a real Postgres: what workers write, and what everybody reads of it."""

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState, create_trial
from sqlalchemy.engine import URL
from tests.support.builders import a_spec
from tests.support.plans import carry_out
from tests.support.postgres import PostgresServer
from tests.support.tenancy import a_tenancy
from tests.support.trial_worker import TrialStudy, a_trial, run
from tests.support.trial_worker import a_spec as a_workers_spec

from tuning_api.naming import CHARTS_ROLE
from tuning_api.rows import RowStorage
from tuning_api.spec import StudySpec
from tuning_operator import additions
from tuning_operator.charts.source import PostgresSource
from tuning_operator.decide.completion import best_trials
from tuning_operator.local.database import OneDatabase, sqlite_url
from tuning_operator.local.folder import StudyFolder
from tuning_operator.model import Record, StudyKey, TakenOver, TrialsPlan
from tuning_operator.studies import OptunaStudies

SPACE = [
    {"name": "scenario", "type": "categorical", "choices": ["is good"]},
    {"name": "quality", "type": "float", "low": 0.0, "high": 1.0},
]
BOTH = [{"metric": "val_acc", "direction": "maximize"}, {"metric": "train_metric", "direction": "minimize"}]
LIMIT = [{"metric": "train_metric", "upper": 0.3}]


def worked(server: PostgresServer, folder: Path, *qualities: float, **changes: Any) -> TrialStudy:
    """A study whose worker has run a trial for each quality; train_metric is half of it."""
    study = TrialStudy(server, a_workers_spec(searchSpace=SPACE, trial=a_trial(quality="${quality}"), **changes))
    for quality in qualities:
        study.add(scenario="is good", quality=quality)
    exit_code, log = run(study.environment(folder), folder)
    assert exit_code == 0, log
    return study


def record_of(study: TrialStudy) -> Record:
    record = study._gateway.read(study._key)
    assert record is not None
    return record


def test_a_worker_tells_constraints_under_its_own_role(postgres_server: PostgresServer, tmp_path: Path) -> None:
    """As Optuna keeps them, so that the sampler knows; with what was measured beside it; and the best is feasible."""
    study = worked(postgres_server, tmp_path, 0.9, 0.5, 0.2, constraints=LIMIT)
    first, second, _ = study.trials()
    assert first.constraints == {"train_metric <= 0.3": pytest.approx(0.15)}
    assert first.user_attrs["tuningstudy:limited"] == {"train_metric": pytest.approx(0.45)}
    assert second.constraints == {"train_metric <= 0.3": pytest.approx(-0.05)}
    record = record_of(study)
    assert [trial.is_feasible for trial in record.trials] == [False, True, True]
    (best,) = best_trials(record.trials, [StudySpec.model_validate(record.stored_spec).objectives[0].direction])
    assert best.number == 1


def test_the_sampler_learns_what_is_feasible(postgres_server: PostgresServer, tmp_path: Path) -> None:
    """Ten trials beyond the bound and ten within it: TPE draws most of the next ones within."""
    study = worked(
        postgres_server,
        tmp_path,
        *(0.62 + number / 40 for number in range(6)),
        *(0.4 + number / 40 for number in range(6)),
        sampler={"type": "tpe", "seed": 3, "nStartupTrials": 10},
        constraints=LIMIT,
        maxTrials=100,
    )
    study.add(8)
    assert run(study.environment(tmp_path), tmp_path)[0] == 0
    drawn = [trial.params["quality"] for trial in study.trials()[12:]]
    assert sum(quality <= 0.6 for quality in drawn) >= 5, drawn


MISSING = {
    "never logged": (
        [{"metric": "latency", "upper": 50}],
        "MissingMetric",
        "the model logged no metric 'latency'; it logged train_metric, val_acc",
    ),
    "an objective, too": ([{"metric": "val_acc", "lower": 0.1}], None, ""),
}


@pytest.mark.parametrize(("constraints", "reason", "message"), MISSING.values(), ids=MISSING)
def test_a_constraint_needs_a_metric_that_is_logged(
    postgres_server: PostgresServer, tmp_path: Path, constraints: list[dict[str, Any]], reason: str | None, message: str
) -> None:
    """The failure names it, and those that are."""
    (trial,) = worked(postgres_server, tmp_path, 0.5, constraints=constraints).trials()
    failure = trial.user_attrs.get("tuningstudy:failure", {"reason": None, "message": ""})
    assert (reason, message) == (failure["reason"], failure["message"])


def test_a_front_of_two_objectives_is_read_as_it_was_told(postgres_server: PostgresServer, tmp_path: Path) -> None:
    """By the controller as by Optuna; the second objective here always contradicts the first."""
    study = worked(postgres_server, tmp_path, 0.9, 0.5, 0.7, objectives=BOTH, pruner=None)
    record = record_of(study)
    spec = StudySpec.model_validate(record.stored_spec)
    front = best_trials(record.trials, [objective.direction for objective in spec.objectives])
    assert [trial.number for trial in front] == [0, 2, 1]
    assert {trial.number for trial in study.optuna.best_trials} == {0, 1, 2}
    assert front[0].values == (pytest.approx(0.9), pytest.approx(0.45))


# Warm start

KEY, EARLIER = StudyKey("team-a", "digits"), StudyKey("team-a", "wide")
RATE = optuna.distributions.FloatDistribution(1e-4, 1e-1, log=True)
WIDTH = optuna.distributions.CategoricalDistribution([8, 16, 32])
WIDE = {"name": "learning_rate", "type": "float", "low": 1e-4, "high": 1e-1, "log": True}
NARROW = [WIDE | {"high": 1e-2}, {"name": "hidden_dim", "type": "categorical", "choices": [8, 16, 32]}]


def gateway(url: URL) -> OptunaStudies:
    return OptunaStudies(a_tenancy(url))


@pytest.fixture
def studies(postgres: URL) -> OptunaStudies:
    """A new study, and an earlier one with eight finished trials of which two are outside of the new one's bounds."""
    studies = gateway(postgres)
    studies.open(EARLIER, a_spec())
    rows = optuna_study(studies, EARLIER)
    for number in range(8):
        rows.add_trial(
            create_trial(
                value=number / 10,
                params={"learning_rate": 0.05 if number >= 6 else 0.001 * (number + 1), "hidden_dim": 16},
                distributions={"learning_rate": RATE, "hidden_dim": WIDTH},
                intermediate_values={0: number / 20},
            )
        )
    rows.add_trial(create_trial(state=TrialState.FAIL))
    studies.open(KEY, new_spec())
    return studies


def new_spec() -> StudySpec:
    return a_spec(searchSpace=NARROW, warmStart=[{"name": "wide"}])


def optuna_study(studies: OptunaStudies, key: StudyKey) -> optuna.Study:
    return optuna.load_study(study_name=key.name, storage=studies._storage(key.namespace))


def test_what_fits_is_taken_over_and_is_in_no_count(studies: OptunaStudies, postgres: URL) -> None:
    """Neither for the controller nor on the page; the sampler has it all."""
    taken = studies.take_over(KEY, new_spec(), "wide")
    assert taken == TakenOver(
        "wide", taken=6, skipped={"are outside the bounds of learning_rate, or between its steps": 2}
    )
    record = studies.read(KEY)
    assert record is not None
    assert (record.trials, record.warm_started, record.has_trials) == ((), {"wide": 6}, True)
    assert len(optuna_study(studies, KEY).trials) == 6
    page = PostgresSource(postgres.set(username=CHARTS_ROLE, password="charts"))
    data = page.load(KEY.namespace, KEY.name)
    page.close()
    assert data is not None
    assert (data.trials, data.warm_started) == ((), {"wide": 6})


def test_own_trials_are_numbered_on_and_alone_make_the_best(studies: OptunaStudies, postgres: URL) -> None:
    """A worker learns from the copies under its own role, and claims none of them."""
    studies.take_over(KEY, new_spec(), "wide")
    carry_out(studies, KEY, TrialsPlan(add=1))
    url = a_tenancy(postgres, charts_password=None).worker_url(KEY.namespace, base=postgres)
    study = optuna.load_study(study_name=KEY.name, storage=url, sampler=optuna.samplers.TPESampler(n_startup_trials=4))
    trial = study.ask()
    trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True)
    trial.suggest_categorical("hidden_dim", [8, 16, 32])
    study.tell(trial, 0.01)
    record = studies.read(KEY)
    assert record is not None
    assert [(row.number, row.values) for row in record.trials] == [(6, (0.01,))]
    assert [row.number for row in best_trials(record.trials, [new_spec().objectives[0].direction])] == [6]


@pytest.mark.parametrize(
    "last",
    [
        pytest.param((additions, "add"), id="before the copies are there"),
        pytest.param((optuna.Study, "set_user_attr"), id="before the study says so"),
    ],
)
def test_a_crash_during_a_warm_start_leaves_neither_gap_nor_double(
    studies: OptunaStudies, postgres: URL, last: tuple[Any, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next operator goes on with what it finds."""
    owner, name = last
    really = getattr(owner, name)

    def crash(*arguments: Any) -> None:
        if owner is additions:
            really(*arguments)  # and nothing is committed
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, crash)
        with pytest.raises(KeyboardInterrupt):
            studies.take_over(KEY, new_spec(), "wide")
    again = gateway(postgres)
    record = again.read(KEY)
    assert record is not None
    assert record.warm_started == {}
    taken = again.take_over(KEY, new_spec(), "wide")
    assert taken is not None
    assert taken.taken == 6
    assert [trial.value for trial in optuna_study(again, KEY).trials] == [number / 10 for number in range(6)]


def test_a_study_that_never_ran_cannot_be_taken_over(studies: OptunaStudies) -> None:
    """Nor one of another namespace, which has a schema of its own."""
    studies.open(StudyKey("team-b", "theirs"), a_spec())
    assert (studies.take_over(KEY, new_spec(), "nobody"), studies.take_over(KEY, new_spec(), "theirs")) == (None, None)


def test_learning_curves_come_too(studies: OptunaStudies) -> None:
    """The pruner counts complete trials before it begins, and judges by their curves."""
    studies.take_over(KEY, new_spec(), "wide")
    copies = optuna_study(studies, KEY).trials
    storage = studies._storage(KEY.namespace)
    assert isinstance(storage, RowStorage)
    curves = storage.reports_of(copies)
    assert [curves[trial._trial_id] for trial in copies] == [{0: number / 20} for number in range(6)]


def test_without_a_cluster_studies_beside_each_other_can_be_taken_over(tmp_path: Path) -> None:
    """Each has its own file below .tuningstudy; one that is not there, or elsewhere, is none."""
    kept: list[OptunaStudies] = []
    for name in ("digits", "wide"):
        folder = StudyFolder.beside(tmp_path / f"{name}.yaml", name)
        folder.create()
        studies = OptunaStudies(OneDatabase(sqlite_url(folder.database)))
        studies.open(StudyKey("research", name), a_spec())
        kept.append(studies)
    new, earlier = kept
    key = StudyKey("research", "digits")
    row = create_trial(
        value=0.7,
        params={"learning_rate": 0.001, "hidden_dim": 16},
        distributions={"learning_rate": RATE, "hidden_dim": WIDTH},
    )
    optuna_study(earlier, StudyKey("research", "wide")).add_trial(row)
    assert new.take_over(key, a_spec(), "wide") == TakenOver("wide", taken=1)
    assert new.take_over(key, a_spec(), "nobody") is None
    shared = OptunaStudies(OneDatabase(sqlite_url(tmp_path / "shared.db")))
    shared.open(key, a_spec())
    assert shared.take_over(key, a_spec(), "wide") is None
