"""The controller's pass, interrupted wherever it writes, and paced in what it writes."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.builders import a_spec
from tests.support.fakes import Fuse, MemoryExecutor, MemoryStudies, survive

from tuning_api.spec import DeletionPolicy, StudySpec
from tuning_api.status import Charts, ConditionStatus, ConditionType, Phase, Reason
from tuning_operator.controller import Controller, Pace
from tuning_operator.decide.attention import LONGEST
from tuning_operator.errors import Conflict, DatabaseUnavailable, Refused
from tuning_operator.metrics import Metrics
from tuning_operator.model import Ending, Study, StudyKey, TrialState

KEY = StudyKey("research", "digits")


class System:
    """A study with everything around it in memory."""

    def __init__(self, spec: StudySpec, *, status_seconds: float = 0) -> None:
        self.fuse = Fuse()
        self.executor = MemoryExecutor(self.fuse, spec)
        self.studies = MemoryStudies(self.fuse)
        self.metrics = Metrics()
        self.link = "https://charts.example/"
        self.restart(status_seconds=status_seconds)

    def restart(self, *, status_seconds: float = 0) -> None:
        """A new process, which remembers nothing."""
        self.controller = Controller(
            executor=self.executor,
            studies=self.studies,
            links=self.links,
            metrics=self.metrics,
            pace=Pace(status_seconds),
        )

    def links(self, _study: Study, _now: datetime) -> Charts:
        """The links that a status should have now."""
        return Charts(report=self.link)

    def reconcile(self) -> None:
        """One pass."""
        self.controller.reconcile(KEY)

    def interrupted(self, after: int) -> None:
        """A pass that ends with the process, after so many writes; then the process starts again."""
        self.fuse.left = after
        survive(self.reconcile)
        self.fuse.left = None
        self.restart()

    def ended(self) -> int:
        """Trials that count."""
        return sum(trial.is_ended for trial in self.studies.trials)

    def work(self, choose: Callable[[], str], state: TrialState = TrialState.COMPLETE) -> None:
        """Each worker ends its trial, or claims one, or is lost."""
        for owner in list(self.executor.owners()):
            match choose():
                case "finish":
                    self.studies.finish(owner, state)
                case "claim" if not self._has_trial(owner):
                    self.studies.claim(owner)
                case "lose":
                    self.executor.lose(owner, Ending.INTERRUPTED)

    def _has_trial(self, owner: str) -> bool:
        running = (trial for trial in self.studies.trials if trial.state is TrialState.RUNNING)
        return any(trial.owner is not None and trial.owner.id == owner for trial in running)


@settings(max_examples=150, deadline=None)
@given(
    budget=st.integers(1, 6),
    parallelism=st.integers(1, 4),
    crashes=st.lists(st.integers(0, 12), max_size=12),
    data=st.data(),
)
def test_a_crash_at_any_line_costs_no_trial_and_adds_none(
    budget: int, parallelism: int, crashes: list[int], data: st.DataObject
) -> None:
    """The promise: exactly maxTrials, whatever is killed and whenever."""
    system = System(a_spec(maxTrials=budget, parallelism=parallelism))
    actions = st.sampled_from(["finish", "claim", "claim", "lose", "nothing"])
    for after in crashes:
        system.interrupted(after)
        system.work(lambda: data.draw(actions))
        assert system.ended() <= budget
    for _ in range(20 * budget):
        system.reconcile()
        system.work(lambda: "claim")
        system.work(lambda: "finish")
    system.reconcile()
    assert system.ended() == budget
    assert not [trial for trial in system.studies.trials if trial.state in {TrialState.RUNNING, TrialState.WAITING}]
    assert system.executor.status.phase is Phase.COMPLETE


@given(parallelism=st.integers(0, 5), after=st.integers(0, 5))
def test_a_second_pass_over_the_same_state_writes_nothing(parallelism: int, after: int) -> None:
    """Level-triggered: when all is as it should be, there is nothing to do."""
    system = System(a_spec(parallelism=parallelism))
    system.interrupted(after)
    for _ in range(3):
        system.reconcile()
    system.fuse.left = 0
    system.reconcile()


def test_counts_wait_for_their_turn_and_phases_do_not() -> None:
    """A status that changed only in its counts is not worth a write each time; a person waits for a phase."""
    system = System(a_spec(maxTrials=3, parallelism=1), status_seconds=3600)
    system.reconcile()
    system.work(lambda: "claim")
    system.reconcile()
    before = system.executor.statuses_written
    system.work(lambda: "finish")
    system.work(lambda: "claim")
    system.reconcile()
    assert system.executor.statuses_written == before
    for _ in range(4):
        system.work(lambda: "finish")
        system.work(lambda: "claim")
        system.reconcile()
    assert system.executor.status.phase is Phase.COMPLETE
    assert system.studies.status == system.executor.status, "the charts server reads the status from the database"


def test_a_pass_that_does_not_end_is_said_without_the_database_and_the_spec() -> None:
    """Either may be what it does not end for; when it does end, it says how the study is."""
    system = System(a_spec())
    system.reconcile()

    def never() -> None:
        raise AssertionError("the database was asked")

    system.studies.is_away = never
    system.controller.tell_overdue(KEY, seconds=60)
    progressing = system.executor.status.condition(ConditionType.PROGRESSING)
    assert progressing is not None
    assert (progressing.status, progressing.reason) == (ConditionStatus.FALSE, Reason.OPERATOR_ERROR)
    assert "for more than 60 s" in progressing.message
    system.studies.is_away = lambda: None
    system.reconcile()
    assert "OperatorError" not in str(system.executor.status.to_document())


def test_a_database_that_is_away_becomes_a_condition() -> None:
    """And Ready stays, since the study was accepted."""
    system = System(a_spec())
    system.reconcile()

    def away() -> None:
        raise DatabaseUnavailable("connection refused")

    system.studies.is_away = away
    system.reconcile()
    progressing = system.executor.status.condition(ConditionType.PROGRESSING)
    assert progressing is not None
    assert (progressing.status, progressing.reason) == (ConditionStatus.FALSE, Reason.DATABASE_UNAVAILABLE)
    assert "connection refused" in progressing.message
    assert [reason for reason, _ in system.executor.told].count(Reason.DATABASE_UNAVAILABLE) == 1


def test_a_link_is_renewed_in_one_write_also_when_the_study_has_ended() -> None:
    """No event for it, and nothing else is touched."""
    system = System(a_spec(maxTrials=1))
    while system.executor.status.phase is not Phase.COMPLETE:
        system.reconcile()
        system.work(lambda: "claim")
        system.work(lambda: "finish")
    system.reconcile()
    before, written, told = system.executor.status, system.executor.statuses_written, len(system.executor.told)
    system.link = "https://charts.example/fresh/"
    for _ in range(3):
        system.reconcile()
    assert system.executor.status == before.model_copy(update={"charts": Charts(report=system.link)})
    assert (system.executor.statuses_written, len(system.executor.told)) == (written + 1, told)


def test_an_operator_that_starts_shows_running_workers_namespaces_the_way_in_once() -> None:
    """It may have another key than the one before: a pod that is replaced comes with the password that is good now."""
    system = System(a_spec(maxTrials=5, parallelism=1))
    system.reconcile()
    system.restart()
    system.executor.prepared.clear()
    for _ in range(3):
        system.reconcile()
    assert system.executor.prepared == [KEY.namespace]


@pytest.mark.parametrize(("has_links", "expected"), [(True, "https://charts.example/fresh/"), (False, None)])
def test_a_study_at_fault_keeps_a_link_that_is_good_if_it_has_one(*, has_links: bool, expected: str | None) -> None:
    """Its trials are there to be looked at; a study that was never opened has no page."""
    system = System(a_spec())
    if has_links:
        system.reconcile()

    def away() -> None:
        raise DatabaseUnavailable("connection refused")

    system.studies.is_away = away
    system.link = "https://charts.example/fresh/"
    system.reconcile()
    charts = system.executor.status.charts
    assert (charts.report if charts else None) == expected


def test_a_status_that_somebody_else_changed_is_left_to_the_next_pass() -> None:
    """Optimistic concurrency: no error for anyone, and no second try on old facts."""
    system = System(a_spec())

    def changed() -> None:
        raise Conflict("the object has been modified")

    system.executor.on_write = changed
    system.reconcile()
    assert system.executor.statuses_written == 0


def test_a_mistake_of_ours_is_said_too() -> None:
    """Never a study that says nothing while the traceback stands in a log that its owner may not read."""
    system = System(a_spec())

    def mistake() -> None:
        raise ZeroDivisionError("division by zero")

    system.studies.is_away = mistake
    with pytest.raises(ZeroDivisionError):
        system.reconcile()
    progressing = system.executor.status.condition(ConditionType.PROGRESSING)
    assert progressing is not None
    assert progressing.reason is Reason.OPERATOR_ERROR
    assert "ZeroDivisionError: division by zero" in progressing.message


REFUSALS = {
    "a quota": ("exceeded quota: team, requested: count/jobs.batch=1", Reason.QUOTA_EXCEEDED),
    "an admission policy": ("admission webhook denied the request", Reason.WORKERS_FAILING),
}


@pytest.mark.parametrize(("words", "reason"), REFUSALS.values(), ids=REFUSALS)
def test_a_worker_that_the_api_server_refuses_is_said(words: str, reason: Reason) -> None:
    """With the API server's own sentence."""
    system = System(a_spec())

    def refuse(_study: object, _index: int) -> None:
        raise Refused(words)

    system.executor.start_worker = refuse  # type: ignore[method-assign]
    system.reconcile()
    progressing = system.executor.status.condition(ConditionType.PROGRESSING)
    assert progressing is not None
    assert progressing.reason is reason
    assert words in progressing.message


@pytest.mark.parametrize(("policy", "rows_left"), [(DeletionPolicy.RETAIN, True), (DeletionPolicy.DELETE, False)])
def test_a_deleted_study_leaves_its_rows_as_its_policy_says(policy: DeletionPolicy, *, rows_left: bool) -> None:
    """Retain is the default: results are worth more than tidiness."""
    system = System(a_spec())
    system.reconcile()
    system.controller.release(KEY, policy)
    assert bool(system.studies.trials) is rows_left
    assert system.studies.forgotten == 1, "what is kept in memory goes in any case"


def test_no_rows_are_kept_of_a_study_without_workers() -> None:
    """Optuna's and ours are 4.5 KB a trial, and those that are suspended or have ended may be thousands."""
    system = System(a_spec())
    system.reconcile()
    assert system.studies.forgotten == 0, "a live study is read again at once"
    system.executor.spec = a_spec(suspend=True)
    system.reconcile()
    assert system.studies.forgotten == 0, "its workers are still there"
    system.reconcile()
    assert system.studies.forgotten == 1


def test_transitions_are_told_once() -> None:
    """Kubernetes does not aggregate our events, so each is worth reading."""
    system = System(a_spec(maxTrials=1, parallelism=1))
    for _ in range(6):
        system.reconcile()
        system.work(lambda: "claim")
        system.work(lambda: "finish")
    reasons = [reason for reason, _ in system.executor.told]
    assert reasons.count(Reason.BUDGET_SPENT) == 1


def test_an_earlier_study_that_is_not_there_is_waited_for_in_words() -> None:
    """A misspelt name, or one that has not run yet; nothing starts before, and it goes on by itself."""
    system = System(a_spec(warmStart=[{"name": "wide"}]))
    system.reconcile()
    progressing = system.executor.status.condition(ConditionType.PROGRESSING)
    assert progressing is not None
    assert (progressing.reason, system.studies.trials) == (Reason.INVALID_SPEC, [])
    assert progressing.message == (
        "spec.warmStart names study wide, and none of that name has run in namespace research: run it first, or remove"
        " the entry"
    )
    look = system.controller.reconcile(KEY)
    assert look is not None
    assert look.deadline is not None
    assert look.deadline - datetime.now(UTC) < 2 * LONGEST, "nothing else would bring a pass"
    system.studies.earlier["wide"] = 7
    system.reconcile()
    assert (Reason.WARM_STARTED, "took over 7 of 7 finished trials of study wide") in system.executor.told
    assert system.studies.trials


def test_earlier_studies_are_taken_over_once_each_and_in_their_order() -> None:
    """One that is named later is taken over then; what was taken over stays, whatever becomes of the other study."""
    system = System(a_spec(warmStart=[{"name": "wide"}]))
    system.studies.earlier = {"wide": 7, "wider": 0}
    system.reconcile()
    del system.studies.earlier["wide"]
    system.executor.spec = a_spec(warmStart=[{"name": "wide"}, {"name": "wider"}])
    for _ in range(3):
        system.reconcile()
    told = [message for reason, message in system.executor.told if reason is Reason.WARM_STARTED]
    assert told == [
        "took over 7 of 7 finished trials of study wide",
        "study wider has no finished trial to learn from",
    ]
    assert system.executor.status.warm_started == {"wide": 7, "wider": 0}


def test_a_study_cannot_learn_from_itself() -> None:
    """It knows its own trials; copies of them would count twice for the sampler."""
    system = System(a_spec(warmStart=[{"name": KEY.name}]))
    system.reconcile()
    assert system.executor.status.message == (
        "spec.warmStart names the study itself: remove it, for it knows its own trials"
    )


def test_metrics_say_which_studies_stand_still_and_why() -> None:
    """What alerts ask for: a database that is away stalls a study until it is back, and a study that is gone stalls nothing."""
    system = System(a_spec())

    def stalled(reason: Reason) -> float | None:
        return system.metrics.registry.get_sample_value("tuningstudy_stalled_studies", {"reason": reason})

    def away() -> None:
        raise DatabaseUnavailable("connection refused")

    def waiting() -> float | None:
        return system.metrics.registry.get_sample_value("tuningstudy_trials", {"state": "WAITING"})

    system.reconcile()
    system.reconcile()
    before = waiting()
    assert {reason: stalled(reason) for reason in Reason} == dict.fromkeys(Reason, 0)
    present, system.studies.is_away = system.studies.is_away, away
    system.reconcile()
    system.reconcile()
    assert stalled(Reason.DATABASE_UNAVAILABLE) == 1
    errors = {"error": "DatabaseUnavailable"}
    assert system.metrics.registry.get_sample_value("tuningstudy_pass_errors_total", errors) == 2
    assert waiting() == before
    assert before
    system.studies.is_away = present
    system.reconcile()
    assert stalled(Reason.DATABASE_UNAVAILABLE) == 0
    system.studies.is_away = away
    system.studies.delete = lambda _key: away()  # type: ignore[method-assign]
    system.reconcile()
    with pytest.raises(DatabaseUnavailable):
        system.controller.release(KEY, DeletionPolicy.DELETE)
    assert stalled(Reason.DATABASE_UNAVAILABLE) == 0


@pytest.mark.parametrize("spec", [{"suspend": True}, {"maxTrials": 1, "parallelism": 1}], ids=["suspended", "ended"])
def test_a_study_that_stands_still_as_asked_is_not_stalled(spec: dict[str, object]) -> None:
    """Nobody is to be called for it."""
    system = System(a_spec(**spec))
    for _ in range(3):
        system.reconcile()
        system.work(lambda: "claim")
        system.work(lambda: "finish")
    assert system.executor.status.phase in {Phase.SUSPENDED, Phase.COMPLETE}
    counted = {
        reason: system.metrics.registry.get_sample_value("tuningstudy_stalled_studies", {"reason": reason})
        for reason in Reason
    }
    assert counted == dict.fromkeys(Reason, 0)
