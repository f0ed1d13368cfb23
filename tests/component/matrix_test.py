"""Every sampler with every pruner that it may go with, on both executors, to an exact budget.

A pruner may change while a study runs, so one study of each sampler goes through all of them, a few trials with each.
"""

import os
from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster.control_plane import ControlPlane
from cluster.kubectl import Kubectl
from tests.support import search_objectives
from tests.support.builders import a_manifest
from tests.support.operator_process import OperatorProcess
from tests.support.process_kubelet import ProcessKubelet
from tests.support.study_on_cluster import StudyOnCluster
from tests.support.wait import wait_until

from tuning_api.search import PrunerType, SamplerType
from tuning_operator.controller import Controller, Pace
from tuning_operator.executors.local import LocalExecutor
from tuning_operator.local.database import OneDatabase, sqlite_url
from tuning_operator.local.folder import StudyFolder
from tuning_operator.local.resources import Machine
from tuning_operator.metrics import Metrics
from tuning_operator.model import StudyKey
from tuning_operator.studies import OptunaStudies

Document = dict[str, Any]
Change = Callable[[Document], Document]
"""Makes a study follow a spec, and gives its status once that has ended."""

ROOT = Path(__file__).resolve().parent.parent.parent
SECONDS = 90
SPACE = [
    {"name": "rate", "type": "float", "low": 0.1, "high": 0.9, "step": 0.1},
    {"name": "layers", "type": "int", "low": 1, "high": 3},
    {"name": "optimizer", "type": "categorical", "choices": ["sgd", "adam"]},
]
SAMPLERS: dict[SamplerType, Document] = {
    SamplerType.TPE: {"nStartupTrials": 4},
    SamplerType.RANDOM: {},
    SamplerType.GRID: {},
    SamplerType.QMC: {},
    SamplerType.CMAES: {"populationSize": 4},
    SamplerType.GP: {"nStartupTrials": 4},
    SamplerType.NSGA2: {"populationSize": 4},
    SamplerType.NSGA3: {"populationSize": 4},
    SamplerType.BRUTEFORCE: {},
}
PRUNERS: dict[PrunerType, Document] = {
    PrunerType.NONE: {},
    PrunerType.MEDIAN: {"nStartupTrials": 1},
    PrunerType.PERCENTILE: {"percentile": 50, "nStartupTrials": 1},
    PrunerType.SUCCESSIVE_HALVING: {},
    PrunerType.HYPERBAND: {"maxResource": 4},
    PrunerType.THRESHOLD: {"upper": 5},
    PrunerType.PATIENT: {"patience": 1, "wrapped": {"type": "median", "nStartupTrials": 1}},
    PrunerType.WILCOXON: {},
}


def stages(sampler: SamplerType) -> Iterator[tuple[str, Document, int]]:
    """The pruners one after the other, each with the budget at whose end the next one comes."""
    trials = 1 if sampler is SamplerType.GP else 2  # each of its trials imports torch
    budgets = accumulate(trials for _ in PRUNERS)
    for (pruner, options), budget in zip(PRUNERS.items(), budgets, strict=True):
        spec = {
            "objectives": [{"metric": "score", "direction": "minimize"}],
            "searchSpace": SPACE,
            "sampler": {"type": sampler.value, "seed": 5} | SAMPLERS[sampler],
            "pruner": {"type": pruner.value} | options,
            "maxTrials": budget,
            "parallelism": 1,
            "trial": {"gpus": 0, "objective": f"{search_objectives.__name__}:hilly"},
        }
        yield pruner.value, spec, budget


def search(sampler: SamplerType, change: Change) -> None:
    """Take a study through all pruners; after each, exactly its budget has ended and nothing has failed."""
    seen = {}
    for pruner, spec, budget in stages(sampler):
        status = change(spec)
        trials = status["trials"]
        seen[pruner] = (trials["finished"], trials["failed"], trials["running"] + trials["waiting"])
        assert seen[pruner] == (budget, 0, 0), (status["message"], seen)
    assert len(seen) == len(PrunerType)


@pytest.mark.parametrize("sampler", SamplerType)
def test_without_a_cluster(sampler: SamplerType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes and SQLite; the manifest is edited while its worker waits for more."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    file, folder = tmp_path / "matrix.yaml", StudyFolder(tmp_path / "study")
    folder.create()
    database = OneDatabase(sqlite_url(folder.database))
    executor = LocalExecutor(
        file, folder=folder, database=sqlite_url(folder.database), machine=Machine.here(parallelism=1)
    )
    controller = Controller(
        executor=executor,
        studies=OptunaStudies(database),
        links=lambda *_: None,
        metrics=Metrics(),
        pace=Pace(status_seconds=0),
    )
    key = StudyKey("default", "matrix")

    def a_pass() -> Document:
        controller.reconcile(key)
        return executor.status.to_document()

    def change(spec: Document) -> Document:
        file.write_text(yaml.safe_dump(a_manifest(name="matrix", namespace="default") | {"spec": spec}))
        return wait_until(a_pass, lambda status: has_ended(status, spec), seconds=SECONDS, what=f"{spec['pruner']}")

    try:
        search(sampler, change)
    finally:
        executor.kill_all()
        wait_until(lambda: executor.has_workers, lambda works: not works, seconds=SECONDS, what="no worker is left")
        database.open("default").engine.dispose()


def has_ended(status: Document, spec: Document) -> bool:
    """Whether a study has spent the budget of this spec, or can go no further."""
    phase, trials = status.get("phase"), status.get("trials", {})
    return phase == "Failed" or (phase == "Complete" and trials["total"] == spec["maxTrials"])


@pytest.fixture(scope="module")
def kubelet(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessKubelet]:
    """Runs pods as processes, which find the objective of these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))))
        with ProcessKubelet(control_plane.kubeconfig, tmp_path_factory.mktemp("pods")) as kubelet:
            yield kubelet


@pytest.mark.parametrize("sampler", SamplerType)
def test_on_a_cluster(
    sampler: SamplerType, kubectl: Kubectl, namespace: str, kubelet: ProcessKubelet, operator: OperatorProcess
) -> None:
    """Jobs and Postgres; the same studies by `kubectl apply`."""
    assert operator.metrics()
    assert kubelet.gpus > 0
    study = StudyOnCluster(kubectl, namespace, "matrix")

    def change(spec: Document) -> Document:
        said = kubectl.apply(a_manifest(name="matrix", namespace=namespace) | {"spec": spec})
        assert said.returncode == 0, said.stderr
        return wait_until(
            study.status, lambda status: has_ended(status, spec), seconds=SECONDS, what=f"{spec['pruner']}"
        )

    search(sampler, change)
