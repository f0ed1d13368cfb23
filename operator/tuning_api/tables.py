"""Optuna's tables in a relational database, for whatever reads or writes them by statements of its own.

NB: the models behind them are private. Optuna is pinned to a minor version, and tests compare with what it reads.
"""

from optuna.storages._rdb import models

STUDIES = models.StudyModel.__table__
STUDY_ATTRIBUTES = models.StudyUserAttributeModel.__table__
TRIALS = models.TrialModel.__table__
PARAMS = models.TrialParamModel.__table__
VALUES = models.TrialValueModel.__table__
REPORTS = models.TrialIntermediateValueModel.__table__
USER_ATTRIBUTES = models.TrialUserAttributeModel.__table__
SYSTEM_ATTRIBUTES = models.TrialSystemAttributeModel.__table__
"""Both of trials."""
