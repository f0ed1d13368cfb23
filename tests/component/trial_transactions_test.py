"""What a worker writes into Optuna's own tables: claims, parameters and ends; on Postgres and on SQLite."""

import copy
import math
import multiprocessing
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError, ProgrammingError
from tests.support.postgres import PostgresServer
from tests.support.trial_worker import TrialStudy, a_spec

from tuning_api.contract import OWNER_ATTRIBUTE, SPEC_ATTRIBUTE, Owner
from tuning_trial import database, transactions, worker
from tuning_trial.outcomes import Record
from tuning_trial.settings import Settings
from tuning_trial.transactions import Claimed

if TYPE_CHECKING:
    from multiprocessing.queues import Queue

US = Owner(id="uid-1", name="worker-1")
CLAIMS_SECONDS = 120


def utc_now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


class Setting:
    """A study called digits in some database."""

    def __init__(self, url: str, study: optuna.Study) -> None:
        self.url = url
        self.study = study
        """With the rights of the operator."""

    @property
    def study_id(self) -> int:
        return self.study._study_id

    def add(self, count: int = 1, *, fixed: dict[str, float] | None = None) -> None:
        system = {"fixed_params": fixed} if fixed else {}
        for _ in range(count):
            self.study.add_trial(create_trial(state=TrialState.WAITING, system_attrs=system))

    @property
    def engine(self) -> Engine:
        """With the rights of a worker, where there are any."""
        return database_engine(self.url)

    def claim(self, owner: Owner = US) -> Claimed | None:
        return transactions.claim(self.engine, study_id=self.study_id, owner=owner, now=utc_now)

    def running(self, **fixed: float) -> FrozenTrial:
        """A trial that was claimed."""
        self.add(fixed=fixed)
        claimed = self.claim()
        assert claimed is not None
        return self.trial(claimed.number)

    def trial(self, number: int) -> FrozenTrial:
        return self.study.get_trials()[number]

    def replace(self, trial: FrozenTrial) -> None:
        """End a trial as the operator does."""
        self.study._storage.set_trial_state_values(trial._trial_id, state=TrialState.FAIL)


def database_engine(url: str) -> Engine:
    return database.storage_of(database.open_study(url, "digits")).engine


@pytest.fixture(params=["postgres", "sqlite"])
def setting(request: pytest.FixtureRequest, tmp_path: Path) -> Setting:
    """The same tests for both databases."""
    if request.param == "postgres":
        study = TrialStudy(request.getfixturevalue("postgres_server"), a_spec())
        return Setting(study.url, study.optuna)
    url = f"sqlite:///{tmp_path}/studies.db"
    return Setting(url, optuna.create_study(study_name="digits", storage=url))


def test_nothing_is_claimed_when_nothing_waits(setting: Setting) -> None:
    """And nothing is created, which is what Study.ask would do."""
    assert setting.claim() is None
    assert setting.study.get_trials() == []


def test_a_claimed_trial_runs_with_its_owner_since_now(setting: Setting) -> None:
    """Optuna reads what the statement wrote; times are naive and in UTC since 5.0."""
    setting.add()
    before = utc_now() - timedelta(seconds=1)
    claimed = setting.claim()
    (trial,) = setting.study.get_trials()
    assert claimed == Claimed(trial_id=trial._trial_id, number=0, spec=setting.study.user_attrs.get(SPEC_ATTRIBUTE))
    assert (trial.state, trial.user_attrs) == (
        TrialState.RUNNING,
        {OWNER_ATTRIBUTE: {"id": "uid-1", "name": "worker-1"}},
    )
    with database_engine(setting.url).connect() as connection:
        stored = connection.execute(text("SELECT datetime_start FROM trials")).scalar_one()
    started = datetime.fromisoformat(stored) if isinstance(stored, str) else stored
    assert before <= started <= utc_now()


def test_a_claimed_trial_can_be_suggested_and_told_as_any_other(setting: Setting) -> None:
    """The contract with Optuna 5.0's Trial and cache, with a sampler that reads no trials."""
    setting.add(fixed={"x": 0.25})
    study = database.open_study(setting.url, "digits")
    study.sampler = optuna.samplers.RandomSampler()
    claimed = setting.claim()
    assert claimed is not None
    study.get_trials(deepcopy=False, states=())
    value = Trial(study, claimed.trial_id).suggest_float("x", 0, 1)
    study.tell(claimed.number, value)
    (trial,) = setting.study.get_trials()
    assert (trial.state, trial.params, trial.value) == (TrialState.COMPLETE, {"x": 0.25}, 0.25)


def test_given_points_are_claimed_first_and_then_the_oldest(setting: Setting) -> None:
    """Known good points and retries do not wait behind a full buffer."""
    setting.add(2)
    setting.add(fixed={"x": 0.5})
    setting.add()
    claims = [setting.claim() for _ in range(5)]
    assert [item.number if item else None for item in claims] == [2, 0, 1, 3, None]


def test_trials_of_other_studies_and_states_are_left_alone(setting: Setting) -> None:
    """A namespace has one set of tables for all its studies."""
    setting.add()
    storage = setting.study._storage
    storage.set_trial_state_values(setting.study.get_trials()[0]._trial_id, state=TrialState.FAIL)
    other = optuna.create_study(study_name="glosses", storage=storage)
    other.add_trial(create_trial(state=TrialState.WAITING))
    assert setting.claim() is None


def test_a_claim_whose_answer_was_lost_is_found_again(setting: Setting) -> None:
    """Otherwise it would run for ever, owned by a worker that lives and works on something else."""
    setting.add(2)
    claimed = setting.claim()
    engine = database_engine(setting.url)
    assert transactions.unfinished(engine, study_id=setting.study_id, owner=US) == claimed
    assert transactions.unfinished(engine, study_id=setting.study_id, owner=Owner(id="uid-2", name="worker-1")) is None


def test_a_claim_that_is_repeated_takes_up_the_first_one(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection breaks after the commit: the worker goes on with the trial that is its own already."""
    setting.add(3)
    really, calls = transactions.claim, []

    def breaks_once(*args: object, **kwargs: object) -> Claimed | None:
        calls.append(claimed := really(*args, **kwargs))  # type: ignore[arg-type]
        if len(calls) == 1:
            raise OperationalError("COMMIT", {}, Exception("server closed the connection unexpectedly"))
        return claimed

    monkeypatch.setattr(transactions, "claim", breaks_once)
    study = database.open_study(setting.url, "digits")
    this = worker._Worker(
        settings=Settings(database_url=setting.url, study="digits", owner=US, scratch=Path("/")),
        signals=None,  # type: ignore[arg-type]
        study=study,
        storage=database.storage_of(study),
        isolation="fork",
        grace=1.0,
    )
    assert worker._claim(this) == calls[0]
    states = Counter(trial.state for trial in setting.study.get_trials())
    assert states == {TrialState.RUNNING: 1, TrialState.WAITING: 2}


CHOSEN: dict[str, tuple[Any, BaseDistribution]] = {
    "layers": (3, IntDistribution(1, 4)),
    "rate": (0.25, FloatDistribution(0.1, 0.9, log=True)),
    "optimizer": ("adam", CategoricalDistribution(["sgd", "adam", None])),
    "absent": (None, CategoricalDistribution(["sgd", "adam", None])),
}


def chosen(trial: FrozenTrial) -> FrozenTrial:
    """With parameters, and with what is told of them."""
    new = copy.copy(trial)
    new.params = {name: value for name, (value, _) in CHOSEN.items()}
    new.distributions = {name: kind for name, (_, kind) in CHOSEN.items()}
    new.user_attrs = trial.user_attrs | {"tuningstudy:seed": 7}
    new.system_attrs = trial.system_attrs | {"cma:generation": 1}
    return new


def test_what_was_chosen_is_what_optuna_reads(setting: Setting) -> None:
    """Parameters in their order, with all attributes, in one transaction; a repeated attempt changes nothing."""
    before = setting.running()
    for _ in range(2):
        transactions.choose(setting.engine, chosen(before), before=before)
    read, wanted = setting.trial(0), chosen(before)
    assert list(read.params.items()) == list(wanted.params.items())
    assert read == wanted


def test_a_trial_without_parameters_may_have_attributes(setting: Setting) -> None:
    """All of its parameters are its code's own."""
    before = setting.running()
    seeded = copy.copy(before)
    seeded.user_attrs = before.user_attrs | {"tuningstudy:seed": 7}
    transactions.choose(setting.engine, seeded, before=before)
    assert setting.trial(0) == seeded


def test_nothing_is_chosen_for_a_trial_that_has_ended(setting: Setting) -> None:
    """The controller gave it to another worker meanwhile."""
    before = setting.running()
    setting.replace(before)
    ended = setting.trial(0)
    with pytest.raises(UpdateFinishedTrialError):
        transactions.choose(setting.engine, chosen(before), before=before)
    assert setting.trial(0) == ended


def test_reports_are_those_that_optuna_reads(setting: Setting) -> None:
    """Infinite ones and those that are no numbers among them."""
    trial = setting.running()
    assert transactions.reports(setting.engine, trial._trial_id) == {}
    told = {2: 0.5, 0: math.inf, 1: -math.inf, 7: math.nan}
    for step, value in told.items():
        setting.study._storage.set_trial_intermediate_value(trial._trial_id, step, value)
    assert transactions.reports(setting.engine, trial._trial_id) == pytest.approx(told, nan_ok=True)


ENDS = {
    "complete": Record(state=TrialState.COMPLETE, values=(0.1, math.inf), attributes={"a": 1, "b": {"c": None}}),
    "constrained": Record(
        state=TrialState.COMPLETE, values=(-math.inf,), attributes={}, system_attributes={"constraints:size": 0.5}
    ),
    "pruned": Record(state=TrialState.PRUNED, values=(0.5,), attributes={"a": 1}),
    "pruned without a value": Record(state=TrialState.PRUNED, attributes={}),
    "failed": Record(state=TrialState.FAIL, attributes={"tuningstudy:failure": {"reason": "Error", "message": "no"}}),
}


@pytest.mark.parametrize("record", ENDS.values(), ids=ENDS)
def test_an_end_is_what_optuna_reads(setting: Setting, record: Record) -> None:
    """State, values and attributes, over those of the same name; the second attempt finds it done."""
    before = setting.running()
    setting.study._storage.set_trial_user_attr(before._trial_id, "a", "of the trial's own code")
    assert transactions.end(setting.engine, before._trial_id, record, now=utc_now)
    read = setting.trial(0)
    assert (read.state, tuple(read.values or ())) == (record.state, record.values)
    assert read.user_attrs == before.user_attrs | {"a": "of the trial's own code"} | record.attributes
    assert read.system_attrs == before.system_attrs | record.system_attributes
    assert read.datetime_start <= read.datetime_complete
    assert not transactions.end(setting.engine, before._trial_id, record, now=utc_now)
    assert setting.trial(0) == read


def test_an_end_that_came_too_late_writes_nothing(setting: Setting) -> None:
    """The controller was faster, and a successor runs."""
    trial = setting.running()
    setting.replace(trial)
    ended = setting.trial(0)
    assert not transactions.end(setting.engine, trial._trial_id, ENDS["complete"], now=utc_now)
    assert setting.trial(0) == ended


@pytest.mark.parametrize(("workers", "trials"), [(8, 120)])
def test_many_workers_share_the_trials_without_a_remainder(setting: Setting, workers: int, trials: int) -> None:
    """No trial twice, none left over, and the owner in the database is the one who got it."""
    setting.add(trials)
    context = multiprocessing.get_context("fork")
    queue: Queue[tuple[str, list[int]]] = context.Queue()
    start = context.Barrier(workers, timeout=CLAIMS_SECONDS)
    processes = [
        context.Process(target=_claim_all, args=(setting.url, setting.study_id, f"uid-{index}", start, queue))
        for index in range(workers)
    ]
    for process in processes:
        process.start()
    claims = dict(queue.get(timeout=CLAIMS_SECONDS) for _ in processes)
    for process in processes:
        process.join(CLAIMS_SECONDS)
        assert process.exitcode == 0
    assert sorted(number for numbers in claims.values() for number in numbers) == list(range(trials))
    owners = {trial.number: trial.user_attrs[OWNER_ATTRIBUTE]["id"] for trial in setting.study.get_trials()}
    assert owners == {number: owner for owner, numbers in claims.items() for number in numbers}
    assert all(claims.values())


def _claim_all(url: str, study_id: int, identity: str, start: object, queue: "Queue[tuple[str, list[int]]]") -> None:
    owner = Owner(id=identity, name=identity)
    study = database.open_study(url, "digits")
    storage = database.storage_of(study)
    claims = iter(
        lambda: storage.patiently(transactions.claim, storage.engine, study_id=study_id, owner=owner, now=utc_now), None
    )
    start.wait()  # type: ignore[attr-defined]
    numbers = [next(claims).number]
    # SQLite's lock is not fair: without a second start, one process may have taken all before another was scheduled.
    start.wait()  # type: ignore[attr-defined]
    numbers += [claimed.number for claimed in claims]
    queue.put((identity, numbers))


def test_a_worker_can_neither_create_a_trial_nor_change_a_study(postgres_server: PostgresServer) -> None:
    """The budget holds even against user code that calls study.ask()."""
    study = TrialStudy(postgres_server, a_spec())
    study.add()
    theirs = optuna.load_study(
        study_name="digits", storage=RDBStorage(database._for_optuna(study.url), skip_table_creation=True)
    )
    theirs.ask()
    storage = theirs._storage
    for forbidden in (
        theirs.ask,
        lambda: theirs.set_user_attr("x", 1),
        lambda: optuna.delete_study(study_name="digits", storage=storage),
    ):
        with pytest.raises(optuna.exceptions.StorageInternalError) as caught:
            forbidden()
        assert isinstance(caught.value.__cause__, ProgrammingError)
        assert "permission denied" in str(caught.value.__cause__)
    assert len(study.trials()) == 1
