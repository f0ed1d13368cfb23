"""Which study wants a pass, and that no two passes of a study overlap."""

import asyncio
import threading
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import kopf
import pytest
from aiohttp.test_utils import TestClient, TestServer

from tuning_operator import framework, handlers, probes
from tuning_operator.errors import DatabaseUnavailable
from tuning_operator.handlers import SingleFlight
from tuning_operator.metrics import Metrics
from tuning_operator.model import StudyKey
from tuning_operator.rounds import Rounds
from tuning_operator.turns import OVERDUE_SECONDS, Turns

KEY = StudyKey("research", "digits")


def test_a_request_during_a_pass_causes_exactly_one_more() -> None:
    """However many come: the second pass sees what all of them saw."""
    begun, go = threading.Event(), threading.Event()
    passes: list[StudyKey] = []

    def work(key: StudyKey) -> None:
        passes.append(key)
        begun.set()
        go.wait(10)

    async def scenario() -> None:
        flight = SingleFlight(work, turns=Turns())
        first = asyncio.create_task(flight.run(KEY))
        await asyncio.to_thread(begun.wait, 10)
        for _ in range(5):
            flight.ask(KEY)
        go.set()
        await first

    asyncio.run(scenario())
    assert passes == [KEY, KEY]


def test_studies_do_not_wait_for_each_other() -> None:
    """One slow database call of one study holds up no other."""
    meeting = threading.Barrier(2, timeout=10)

    async def scenario() -> None:
        flight = SingleFlight(lambda _: meeting.wait(), turns=Turns())
        await asyncio.gather(flight.run(KEY), flight.run(StudyKey("research", "other")))

    asyncio.run(scenario())


def test_a_pass_that_raised_does_not_block_the_next() -> None:
    """The key is let go, whatever happened."""
    passes = []

    def fail(key: StudyKey) -> None:
        passes.append(key)
        raise RuntimeError("a bug")

    async def scenario() -> None:
        flight = SingleFlight(fail, turns=Turns())
        for _ in range(2):
            with pytest.raises(RuntimeError):
                await flight.run(KEY)

    asyncio.run(scenario())
    assert len(passes) == 2


def test_handlers_wait_for_no_pass() -> None:
    """Kopf handles what comes of one object after the other: whoever waited would hold up what comes next."""
    go = threading.Event()

    async def scenario() -> None:
        turns = Turns()
        registry = registered(turns, reconcile=lambda _: go.wait(30))
        (changed, _) = registry._watching._handlers
        handler: Any = changed.fn
        for number in range(100):
            body = {"metadata": {"namespace": "mallory", "name": f"study-{number}", "generation": 1}}
            await asyncio.wait_for(handler(body=kopf.Body(body), type="ADDED"), timeout=5)
        go.set()
        await asyncio.wrap_future(turns.submit("mallory", lambda: None))

    asyncio.run(scenario())


def test_a_pass_that_does_not_end_is_said_once_by_another_thread(caplog: pytest.LogCaptureFixture) -> None:
    """In its study's status and in the log; it holds its own thread and no other."""
    go, told, moment = threading.Event(), threading.Semaphore(0), [0.0]
    said: list[StudyKey] = []

    def tell(key: StudyKey, *, seconds: float) -> None:
        assert seconds == OVERDUE_SECONDS
        said.append(key)
        told.release()

    turns, metrics = Turns(clock=lambda: moment[0]), Metrics()
    controller: Any = SimpleNamespace(tell_overdue=tell)
    watch = handlers._Watch(turns, controller, metrics)
    stuck = [turns.submit(KEY.namespace, lambda: go.wait(30), name=KEY) for _ in range(2)]
    watch.look()
    assert not said
    moment[0] = OVERDUE_SECONDS + 1
    watch.look()
    assert told.acquire(timeout=10)
    watch.look()
    assert said == [KEY]
    assert "the pass takes longer than 60 s" in caplog.text
    assert metrics.registry.get_sample_value("tuningstudy_overdue_passes") == 1
    go.set()
    for future in stuck:
        future.result(10)
    watch.look()
    assert metrics.registry.get_sample_value("tuningstudy_overdue_passes") == 0


LAST_WORDS: dict[str, tuple[dict[str, Any], bool]] = {
    "the operator's own mistake": ({"conditions": [{"reason": "OperatorError"}]}, True),
    "of an earlier spec": ({"conditions": [{"reason": "OperatorError"}], "observedGeneration": 1}, False),
    "another reason": ({"conditions": [{"reason": "InvalidSpec"}]}, False),
    "nothing": ({}, False),
}


@pytest.mark.parametrize(("status", "is_suspect"), LAST_WORDS.values(), ids=LAST_WORDS)
def test_after_a_restart_a_study_is_suspect_whose_pass_did_not_end(status: dict[str, Any], *, is_suspect: bool) -> None:
    """Else all of them would hold all threads once more."""
    body = kopf.Body({"metadata": {"generation": 2}, "status": {"observedGeneration": 2} | status})
    assert handlers._has_failed_us(body) is is_suspect


BODIES = {
    "a new study": ({"metadata": {"generation": 1}}, True),
    "a changed study": ({"metadata": {"generation": 2}, "status": {"observedGeneration": 1}}, True),
    "our own status write": ({"metadata": {"generation": 1}, "status": {"observedGeneration": 1}}, False),
    "a study that is being deleted": (
        {"metadata": {"generation": 1, "deletionTimestamp": "2026-01-01T00:00:00Z"}},
        False,
    ),
}


@pytest.mark.parametrize(("body", "wanted"), BODIES.values(), ids=BODIES)
def test_only_what_asks_for_something_new_gets_a_pass(body: dict[str, Any], *, wanted: bool) -> None:
    """Our own writes come back as events, and must not feed themselves."""
    assert handlers._wants_a_pass(kopf.Body(body)) is wanted


STATUSES: dict[str, tuple[dict[str, Any], bool]] = {
    "it runs": ({"phase": "Running", "workers": 2}, False),
    "it is suspended": ({"phase": "Suspended", "workers": 0}, False),
    "it is complete, and a worker is not gone yet": ({"phase": "Complete", "workers": 1}, False),
    "it is complete, and its spec has changed": ({"phase": "Complete", "observedGeneration": 0}, False),
    "it is complete": ({"phase": "Complete", "workers": 0}, True),
    "it has failed before any worker began": ({"phase": "Failed"}, True),
}


@pytest.mark.parametrize(("status", "expected"), STATUSES.values(), ids=STATUSES)
def test_a_study_has_ended_when_its_last_worker_is_gone(status: dict[str, Any], *, expected: bool) -> None:
    """A watch that was interrupted is not told of a Job that went meanwhile."""
    body = kopf.Body({"metadata": {"generation": 1}, "status": {"observedGeneration": 1} | status})
    assert handlers._has_ended(body) is expected


def registered(turns: Turns | None = None, **doings: Any) -> kopf.OperatorRegistry:
    """All handlers, over a controller that does nothing but what is given."""
    turns = turns or Turns()
    registry, rounds = kopf.OperatorRegistry(), Rounds(pulses=lambda _: {}, turns=turns, seconds=5)
    controller: Any = SimpleNamespace(**{"reconcile": lambda _: None, "release": lambda *_: None} | doings)
    handlers.register(registry, controller=controller, metrics=Metrics(), turns=turns, rounds=rounds)
    return registry


def test_no_study_has_a_timer_of_kopfs() -> None:
    """Each turn of one costs more than most passes have to do; the rounds look after all studies."""
    assert not list(registered()._spawning._handlers)


def out_of_reach(*_: Any) -> None:
    """A database that is away."""
    raise DatabaseUnavailable("connection refused")


def test_a_deletion_waits_for_the_database_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """A study that cannot be deleted would keep its namespace; what is left behind is said in an event."""
    events: list[str] = []
    monkeypatch.setattr(kopf, "warn", lambda _, *, reason, message: events.append(f"{reason}: {message}"))
    (deleted,) = registered(release=out_of_reach)._changing.get_all_handlers()
    deletion: Any = deleted.fn
    body = kopf.Body({"metadata": {"namespace": "research", "name": "digits"}, "spec": {}})
    with pytest.raises(kopf.TemporaryError, match="the database is unavailable: connection refused"):
        asyncio.run(deletion(body=body, runtime=timedelta(seconds=handlers.RELEASE_SECONDS - 1)))
    assert not events
    asyncio.run(deletion(body=body, runtime=timedelta(seconds=handlers.RELEASE_SECONDS)))
    (event,) = events
    assert event.startswith("LeftBehind: the database was unavailable for 300 s; the study's trials were left in it")


def a_job(*, labels: dict[str, str] | None = None, **owner: Any) -> dict[str, Any]:
    """A Job as handlers see it; None: without the field."""
    fields = {"apiVersion": "tuningstudy.io/v1alpha1", "kind": "TuningStudy", "name": "digits", "uid": "uid-1"} | owner
    return {
        "metadata": {
            "namespace": "research",
            "labels": {"tuningstudy.io/study-uid": "uid-1"} if labels is None else labels,
            "ownerReferences": [{name: value for name, value in fields.items() if value is not None}],
        }
    }


def test_a_job_leads_to_its_study() -> None:
    """By its owner reference; a Job of somebody else leads nowhere."""
    assert handlers._owning_study(a_job()) == KEY
    assert handlers._owning_study({"metadata": {"namespace": "research"}}) is None


FORGED: dict[str, Any] = {
    "another namespace's study": a_job(name="../../victim/tuningstudies/digits"),
    "a name that is none": a_job(name="Digits?"),
    "no name": a_job(name=None),
    "a study of another time": a_job(uid="uid-of-a-namesake"),
    "no study's label": a_job(labels={}),
    "another group's kind": a_job(apiVersion="example.com/v1"),
    "an owner of nothing": {"metadata": {"namespace": "research", "ownerReferences": [{}]}},
}


@pytest.mark.parametrize("job", FORGED.values(), ids=FORGED)
def test_a_forged_job_leads_nowhere(job: dict[str, Any]) -> None:
    """Whoever may write Jobs in a namespace can give them our labels, and any owner; the operator may read all namespaces."""
    assert handlers._owning_study(job) is None


def test_kopf_watches_our_jobs_only_and_shares_no_finalizer() -> None:
    """Without the selector, every Job of the cluster would be listed and watched."""
    settings = kopf.OperatorSettings()
    framework.configure(settings)
    assert settings.watching.label_selectors[handlers.JOBS] == "app.kubernetes.io/managed-by=tuningstudy-operator"
    assert settings.persistence.finalizer == "tuningstudy.io/finalizer"
    assert settings.peering.standalone
    assert settings.queueing.worker_limit is None, "one tenant's objects would hold the workers of all"
    assert settings.queueing.exit_timeout < 45, "the pod's grace period"


@pytest.mark.parametrize(("is_stuck", "status"), [(False, 200), (True, 503)])
def test_the_kubelet_is_told_when_only_a_restart_helps(*, is_stuck: bool, status: int) -> None:
    """Threads that never come back are given back by nothing else."""

    async def scenario() -> int:
        app = probes.probe_app(Metrics().registry, threading.Event(), is_stuck=lambda: is_stuck)
        async with TestClient(TestServer(app)) as client:
            return (await client.get("/healthz")).status

    assert asyncio.run(scenario()) == status
