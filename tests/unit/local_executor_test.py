"""The local executor's decisions: what a worker gets of the machine, and what its end means."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from tuning_api.contract import Env
from tuning_operator.executors.local import worker_environment, worker_view
from tuning_operator.local import resources
from tuning_operator.local.errors import BadInputError
from tuning_operator.local.folder import StudyFolder
from tuning_operator.local.processes import Identity, Process
from tuning_operator.local.resources import Machine
from tuning_operator.model import Ending, WorkerState

WORKER = Identity(name="digits-0", index=0, id="an id")
ENDINGS = {
    "nothing was left": (0, False, WorkerState.SUCCEEDED, Ending.INTERRUPTED),
    "it was interrupted": (75, False, WorkerState.SUCCEEDED, Ending.INTERRUPTED),
    "it was asked to stop and was slow": (-9, True, WorkerState.SUCCEEDED, Ending.INTERRUPTED),
    "another run started it, and nobody saw its end": (None, False, WorkerState.SUCCEEDED, Ending.INTERRUPTED),
    "somebody killed it": (-9, False, WorkerState.FAILED, Ending.CRASHED),
    "it is misconfigured": (78, False, WorkerState.FAILED, Ending.CRASHED),
    "it has a bug": (1, False, WorkerState.FAILED, Ending.CRASHED),
}


@pytest.mark.parametrize(("code", "asked", "state", "ending"), ENDINGS.values(), ids=ENDINGS)
def test_an_exit_code_says_whose_fault_it_was(
    code: int | None,
    asked: bool,  # noqa: FBT001
    state: WorkerState,
    ending: Ending,
) -> None:
    """An interruption costs a trial nothing; three crashes in a row fail it."""
    process = Process(WORKER, exit_code=code, ended=datetime.now(UTC), kill_at=1.0 if asked else None)
    worker = worker_view(process, last_words="no module named torch")
    assert (worker.state, worker.endings, worker.live_owners) == (state, {"an id": ending}, frozenset())
    assert (worker.trouble is not None) is (state is WorkerState.FAILED)


def test_a_failed_worker_speaks_with_its_last_words() -> None:
    """The log has the rest."""
    killed = worker_view(Process(WORKER, exit_code=-9, ended=datetime.now(UTC)), last_words="epoch 3")
    failed = worker_view(Process(WORKER, exit_code=78, ended=datetime.now(UTC)), last_words="no such study")
    assert killed.trouble is not None
    assert failed.trouble is not None
    assert killed.trouble.message == "worker digits-0 was killed by signal 9: epoch 3"
    assert failed.trouble.message == "worker digits-0 ended with exit code 78: no such study"


def test_a_worker_that_lives_owns_its_trial_also_while_it_stops() -> None:
    """Its trial must not be given away before it has ended."""
    worker = worker_view(Process(WORKER, kill_at=1.0), last_words="")
    assert (worker.live_owners, worker.stopping, worker.running) == (frozenset({"an id"}), True, True)


GPUS = {
    "none": ("", ()),
    "one": ("2", ("2",)),
    "several": ("0, 3", ("0", "3")),
    "names": ("GPU-8a,MIG-1b", ("GPU-8a", "MIG-1b")),
    "the usual way to say none": ("-1", ()),
    "none after the first that is not there": ("1,-1,0", ("1",)),
}


@pytest.mark.parametrize(("visible", "gpus"), GPUS.values(), ids=GPUS)
def test_only_gpus_that_the_person_lets_us_see_are_shared(visible: str, gpus: tuple[str, ...]) -> None:
    """`CUDA_VISIBLE_DEVICES=1 tuningstudy run` leaves the others alone."""
    assert resources.gpus({resources.VISIBLE: visible}) == gpus


def test_gpus_are_counted_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Importing it takes longer than all else that happens before the first worker starts."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: H100 (UUID: GPU-1)'\necho '  MIG 1g.10gb Device 0'\necho 'GPU 1: H100'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert resources.gpus({}) == ("0", "1")
    tool.unlink()
    monkeypatch.setattr(resources, "_DRIVER", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "0000:01:00.0").mkdir()
    assert resources.gpus({}) == ("0",)


AT_ONCE = {
    "no GPU, as the manifest says": ({"parallelism": 4, "gpus": 0, "gpus_each": 1}, 4),
    "fewer GPUs than workers": ({"parallelism": 4, "gpus": 2, "gpus_each": 1}, 2),
    "two GPUs each": ({"parallelism": 4, "gpus": 5, "gpus_each": 2}, 2),
    "trials that want none": ({"parallelism": 4, "gpus": 2, "gpus_each": 0}, 4),
    "more GPUs than workers": ({"parallelism": 1, "gpus": 8, "gpus_each": 1}, 1),
    "the person knows better": ({"parallelism": 4, "gpus": 1, "gpus_each": 1, "chosen": 3}, 3),
}


@pytest.mark.parametrize(("given", "workers"), AT_ONCE.values(), ids=AT_ONCE)
def test_so_many_workers_run_as_the_gpus_allow(given: dict[str, int], workers: int) -> None:
    """Two trials on one GPU run out of memory; whoever wants that asks for it with --parallelism."""
    assert resources.workers_at_once(**({"chosen": None} | given)) == workers


def test_a_study_that_wants_more_gpus_than_there_are_is_refused() -> None:
    """It would wait for ever."""
    with pytest.raises(BadInputError, match=r"a worker needs 4 GPUs and this machine has 2: lower spec\.trial\.gpus"):
        resources.workers_at_once(parallelism=1, chosen=None, gpus=2, gpus_each=4)


def test_a_new_worker_gets_the_gpus_that_the_fewest_use() -> None:
    """All of them are used before one is used twice."""
    share = resources.share_of_gpus
    assert share(("a", "b", "c"), (), wanted=2) == ("a", "b")
    assert share(("a", "b", "c"), ("a", "b"), wanted=1) == ("c",)
    assert share(("a", "b"), ("a", "b", "a"), wanted=1) == ("b",)
    assert share((), (), wanted=1) == ()


def an_environment(*, gpus: tuple[str, ...] = (), inherited: dict[str, str] | None = None) -> dict[str, str]:
    return worker_environment(
        Machine(cores=8, gpus=gpus, environment=inherited or {}),
        identity=Identity(name="digits-1", index=1, id="an id", gpus=gpus[:1]),
        study="digits",
        database=make_url("postgresql+psycopg2://me:secret@host/db"),
        folder=StudyFolder(Path("/study")),
        code=Path("/code"),
        workers=3,
    )


def test_a_worker_gets_the_contract_and_its_share() -> None:
    """The password reaches it; the model beside the manifest is found; threads do not outnumber the cores."""
    environment = an_environment(gpus=("0", "1"), inherited={"HOME": "/home/me", "PYTHONPATH": "/mine"})
    assert environment == {
        "HOME": "/home/me",
        "PYTHONPATH": "/mine",
        Env.CODE: "/code",
        "OMP_NUM_THREADS": "2",
        "CUDA_VISIBLE_DEVICES": "0",
        Env.DATABASE_URL: "postgresql+psycopg2://me:secret@host/db",
        Env.STUDY: "digits",
        Env.WORKER_ID: "an id",
        Env.WORKER_NAME: "digits-1",
        Env.SCRATCH: "/study/scratch/digits-1",
        Env.CHECKPOINTS: "/study/checkpoints",
        Env.IDLE_SECONDS: "10",
    }


def test_what_the_person_set_holds() -> None:
    """And a machine without GPUs says nothing about them."""
    environment = an_environment(inherited={"OMP_NUM_THREADS": "5"})
    assert environment["OMP_NUM_THREADS"] == "5"
    assert "CUDA_VISIBLE_DEVICES" not in environment
    assert environment[Env.CODE] == "/code"
    assert "PYTHONPATH" not in environment


def test_every_worker_has_at_least_one_thread() -> None:
    """More workers than cores."""
    assert [resources.threads(cores=8, workers=workers) for workers in (0, 1, 3, 16)] == [8, 8, 2, 1]
