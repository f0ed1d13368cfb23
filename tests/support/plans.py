"""Plans for trials, carried out over a study as it is now."""

from tuning_api.spec import StudySpec
from tuning_operator.model import StudyKey, TrialsPlan
from tuning_operator.studies import Studies


def carry_out(studies: Studies, key: StudyKey, plan: TrialsPlan) -> None:
    """As a pass does it: with what it has read."""
    record = studies.read(key)
    assert record is not None
    studies.carry_out(key, plan, spec=StudySpec.model_validate(record.stored_spec), trials=record.trials)
