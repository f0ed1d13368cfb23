"""Trials that are read by the row are those that Optuna reads: any state, any values, whole studies and parts of them."""

import time
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import text

from tuning_api import rows
from tuning_api.rows import RowStorage

BOTH = [StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE]
SPACE: dict[str, tuple[BaseDistribution, st.SearchStrategy[Any]]] = {
    "rate": (FloatDistribution(1e-5, 1e-1, log=True), st.floats(1e-5, 1e-1)),
    "layers": (IntDistribution(1, 9, step=2), st.sampled_from([1, 3, 9])),
    "optimizer": (
        CategoricalDistribution(["sgd", "adam", None, True, 0.5]),
        st.sampled_from(["adam", None, True, 0.5]),
    ),
}
ATTRIBUTES = st.dictionaries(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=9),
    st.one_of(st.none(), st.integers(), st.text(max_size=9), st.lists(st.booleans(), max_size=2)),
    max_size=3,
)


@st.composite
def trials(draw: st.DrawFn) -> FrozenTrial:
    """A trial as Optuna may have stored it."""
    state = draw(st.sampled_from(TrialState))
    params = {name: draw(values) for name, (_, values) in SPACE.items() if draw(st.booleans())}
    value = st.floats(allow_nan=False)
    return create_trial(
        state=state,
        values=draw(st.lists(value, min_size=2, max_size=2)) if state is TrialState.COMPLETE else None,
        params=params,
        distributions={name: SPACE[name][0] for name in params},
        intermediate_values=draw(st.dictionaries(st.integers(0, 99), st.floats(), max_size=4)),
        user_attrs=draw(ATTRIBUTES),
        system_attrs=draw(ATTRIBUTES),
    )


@pytest.fixture(scope="module")
def storages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RDBStorage, RowStorage]]:
    """A database as Optuna sees it, and as we do."""
    url = f"sqlite:///{tmp_path_factory.mktemp('rows') / 'study.db'}"
    optunas, ours = RDBStorage(url), RowStorage(url)
    yield optunas, ours
    for storage in (optunas, ours):
        storage.engine.dispose()


def told(trials: Iterable[FrozenTrial]) -> list[dict[str, Any]]:
    """All that trials say; not a number is not even equal to itself, and curves have no order."""
    return [
        vars(trial) | {"intermediate_values": sorted(map(repr, trial.intermediate_values.items()))} for trial in trials
    ]


@pytest.fixture(params=[rows._MOST_NAMED, 1], ids=["named", "chosen by a query"], scope="module")
def most_named(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whether the parts of a few trials are asked for as those of a few, or as those of many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "_MOST_NAMED", request.param)
        yield


@pytest.mark.usefixtures("most_named")
@settings(max_examples=40)
@given(st.lists(trials(), max_size=4), st.data())
def test_what_is_read_is_what_optuna_reads(
    storages: tuple[RDBStorage, RowStorage], stored: list[FrozenTrial], data: st.DataObject
) -> None:
    """Parameters in the order in which they were suggested, too: a sampler that is asked again goes by it."""
    optunas, ours = storages
    study_id = optunas.create_new_study(BOTH)
    ids = [optunas.create_new_trial(study_id, template_trial=trial) for trial in stored]
    some = data.draw(st.sets(st.sampled_from(ids))) if ids else set()
    after = data.draw(st.sampled_from([-1, *ids]))
    states = data.draw(st.none() | st.lists(st.sampled_from(TrialState)))
    for asked in [(None, set(), -1), (None, some, after), (states, set(), -1)]:
        expected, read = optunas._get_trials(study_id, *asked), ours._get_trials(study_id, *asked)
        assert told(read) == told(expected)
        assert [list(trial.params) for trial in read] == [list(trial.params) for trial in expected]
    assert told(map(ours.get_trial, ids)) == told(map(optunas.get_trial, ids))


@settings(max_examples=20)
@given(ATTRIBUTES)
def test_attributes_of_a_study_are_those_that_optuna_reads(
    storages: tuple[RDBStorage, RowStorage], noted: dict[str, Any]
) -> None:
    """One that has none is not one that is not there."""
    optunas, ours = storages
    study_id = optunas.create_new_study(BOTH)
    for key, value in noted.items():
        optunas.set_study_user_attr(study_id, key, value)
    assert ours.get_study_user_attrs(study_id) == optunas.get_study_user_attrs(study_id) == noted
    with pytest.raises(KeyError):
        ours.get_study_user_attrs(study_id + 1)


@pytest.fixture
def tokyo() -> Iterator[None]:
    """The time of a place that is far from Greenwich."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("tokyo")
def test_moments_are_those_of_the_clock_on_the_wall(storages: tuple[RDBStorage, RowStorage]) -> None:
    """Optuna keeps UTC, and tells local time."""
    optunas, ours = storages
    study_id = optunas.create_new_study(BOTH)
    optunas.create_new_trial(study_id, template_trial=create_trial(state=TrialState.RUNNING, values=None))
    (trial,) = ours._get_trials(study_id, None, set(), -1)
    assert trial.datetime_start
    assert abs((datetime.now() - trial.datetime_start).total_seconds()) < 600  # noqa: DTZ005
    assert told([trial]) == told(optunas._get_trials(study_id, None, set(), -1))


def test_a_study_that_is_gone_is_not_an_empty_one(storages: tuple[RDBStorage, RowStorage]) -> None:
    """One statement tells both."""
    optunas, ours = storages
    study_id = optunas.create_new_study(BOTH)
    assert ours._get_trials(study_id, None, set(), -1) == []
    with pytest.raises(KeyError):
        ours._get_trials(study_id + 1, None, set(), -1)
    with pytest.raises(KeyError):
        ours.get_trial(10**6)


def test_what_the_database_refuses_is_said_as_optuna_says_it(tmp_path: Path) -> None:
    """Whoever asks tells by that what is the database's doing."""
    storage = RowStorage(f"sqlite:///{tmp_path / 'study.db'}")
    study_id = storage.create_new_study(BOTH)
    with storage.engine.begin() as connection:
        connection.execute(text("DROP TABLE trials"))
    with pytest.raises(StorageInternalError) as caught:
        storage._get_trials(study_id, None, set(), -1)
    assert "no such table" in str(caught.value.__cause__)
    storage.engine.dispose()
