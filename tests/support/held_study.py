"""A study in a cluster whose trials last until a test lets them go."""

import json
from pathlib import Path
from typing import Any

from cluster.kubectl import Kubectl
from tests.support import held_objective
from tests.support.study_on_cluster import TRIAL_SECONDS, Document, StudyOnCluster
from tests.support.wait import wait_until

CODE = "held-objective"


class HeldStudy(StudyOnCluster):
    """Its trials end one by one, when a test says so."""

    def __init__(self, kubectl: Kubectl, namespace: str, name: str = "held") -> None:
        super().__init__(kubectl, namespace, name)

    def apply(self, **spec: Any) -> str:
        """Apply it, with its code."""
        module = Path(held_objective.__file__)
        code = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": CODE, "namespace": self.namespace},
            "data": {module.name: module.read_text()},
        }
        self.kubectl("apply", "--filename=-", stdin=json.dumps(code))
        trial = {"gpus": 0, "objective": f"{module.stem}:objective", "code": {"configMapName": CODE}}
        space = [{"name": "x", "type": "float", "low": 0, "high": 1}]
        return super().apply(searchSpace=space, pruner={"type": "none"}, trial=trial, **spec)

    def let_go(self, *trials: int) -> None:
        """Let trials of these numbers end; without any, all that run now or later in the pods of now."""
        files = [f"/tmp/{name}" for name in trials or (held_objective.ALL,)]  # noqa: S108
        for pod in self.pods():
            self.kubectl("exec", pod["metadata"]["name"], f"--namespace={self.namespace}", "--", "touch", *files)

    def finish(self) -> Document:
        """Let all trials end, whichever pods they come to run in; the status when the study is complete."""

        def let_go_and_look() -> Document:
            for pod in self.pods():
                # NB: it may have ended meanwhile, or not have begun.
                self.kubectl.run(
                    *("exec", pod["metadata"]["name"], f"--namespace={self.namespace}"),
                    *("--", "touch", f"/tmp/{held_objective.ALL}"),  # noqa: S108
                )
            return self.status()

        return wait_until(
            let_go_and_look,
            lambda status: status.get("phase") == "Complete",
            seconds=TRIAL_SECONDS,
            what=f"{self.name} is complete",
        )
