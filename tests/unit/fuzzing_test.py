"""Thousands of manifests, good and broken, against the controller: none crashes it, and each ends in a condition."""

from dataclasses import dataclass, field, replace
from typing import Any

import jsonschema
from hypothesis import HealthCheck, given, settings
from tests.support.builders import a_manifest, a_spec
from tests.support.fakes import Fuse, MemoryExecutor, MemoryStudies
from tests.support.strategies import specs

from tuning_api.crd import crd
from tuning_api.status import Charts, ConditionType
from tuning_operator.controller import Controller, Pace
from tuning_operator.executors.kubernetes import read_study
from tuning_operator.metrics import Metrics
from tuning_operator.model import Study, StudyKey
from tuning_operator.render.job import WorkerDefaults, worker_job

Document = dict[str, Any]
KEY = StudyKey("research", "digits")
STATUS: Document = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
EXAMPLES = max(1000, settings.default.max_examples if settings.default else 0)


@dataclass
class FuzzedExecutor(MemoryExecutor):
    """An executor whose study is a document, and which renders each worker as the cluster's does."""

    document: Document = field(default_factory=dict)

    def study(self, _key: StudyKey) -> Study:
        """See `Executor`."""
        return replace(read_study(self.document), status=self.status)

    def start_worker(self, study: Study, index: int) -> None:
        """See `Executor`."""
        worker_job(study, index=index, defaults=WorkerDefaults(image="trial:1"))
        super().start_worker(study, index)


@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow])
@given(specs())
def test_every_manifest_ends_in_a_condition_and_the_controller_comes_to_rest(spec: Document) -> None:
    """Also what the API server of today would refuse: it may have been stored under an earlier schema."""
    document = a_manifest()
    document["metadata"] |= {"uid": "11111111-2222-3333-4444-555555555555", "generation": 1}
    executor = FuzzedExecutor(Fuse(), a_spec(), document=document | {"spec": spec})
    controller = Controller(
        executor=executor,
        studies=MemoryStudies(Fuse()),
        links=lambda *_: Charts(report="https://charts.example/"),
        metrics=Metrics(),
        pace=Pace(0),
    )
    for _ in range(2):  # with the first workers there is news
        controller.reconcile(KEY)
    written, told = executor.statuses_written, len(executor.told)
    for _ in range(3):
        controller.reconcile(KEY)
    assert (executor.statuses_written, len(executor.told)) == (written, told)
    assert {item.type for item in executor.status.conditions or []} == set(ConditionType)
    assert all(item.message and item.observed_generation == 1 for item in executor.status.conditions or [])
    jsonschema.validate(executor.status.to_document(), STATUS)
