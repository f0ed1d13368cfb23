"""The executor: where workers run. The controller knows only this protocol, so a cluster and a laptop share every decision."""

from typing import Protocol

from tuning_api.status import Reason, StudyStatus
from tuning_operator.model import Study, StudyKey, Worker


class Executor(Protocol):
    """Where manifests, statuses and workers live.

    Raises (all methods): what `tuning_operator.errors` lists.
    """

    def study(self, key: StudyKey) -> Study | None:
        """The study as its owner wrote it, or None if it is gone."""

    def glance(self, key: StudyKey) -> Study | None:
        """The study without its spec, for whoever must not stop at what a person wrote; None if it is gone."""

    def workers(self, study: Study) -> tuple[Worker, ...]:
        """The workers of a study, ended ones included for as long as they are remembered."""

    def prepare(self, study: Study) -> None:
        """Make sure that workers find their way into the database."""

    def start_worker(self, study: Study, index: int) -> None:
        """Start the worker of a slot; one that runs already is fine."""

    def stop_worker(self, study: Study, name: str) -> None:
        """Ask a worker to stop; one that is gone already is fine."""

    def write_status(self, study: Study, status: StudyStatus) -> None:
        """Write a status if the study is still as it was observed."""

    def tell(self, study: Study, *, reason: Reason, message: str, is_warning: bool) -> None:
        """Tell the study's owner of a transition."""
