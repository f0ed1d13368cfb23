"""The trials of a study as JSON (`trials.json` beside its page), for the command that shows them in a terminal.

It is `Progress`, field by field. A newer command reads an older server's as long as fields are only added with a default.
"""

import json
from datetime import datetime

from pydantic import TypeAdapter

from tuning_operator.charts.source import StudyData
from tuning_operator.local.progress import Progress, progress

_PROGRESS = TypeAdapter(Progress)


def trials_json(data: StudyData, *, now: datetime) -> str:
    """How far a study is, with all trials that have started. NB: NaN and Infinity stand in it as Python writes them."""
    seen = progress(data, status=data.status, workers=data.status.workers or 0, now=now)
    return json.dumps(_PROGRESS.dump_python(seen, mode="json"))


def read_trials(text: str | bytes) -> Progress:
    """The same, read.

    Raises:
        ValueError: it is something else.
    """
    return _PROGRESS.validate_python(json.loads(text))
