"""The study's page in one file."""

from datetime import UTC, datetime
from pathlib import Path

from tuning_operator.charts import page
from tuning_operator.charts.figures import render
from tuning_operator.charts.source import StudyData
from tuning_operator.charts.summary import subject
from tuning_operator.local.errors import BadInputError


def write(data: StudyData, file: Path) -> Path:
    """Write the page of a study.

    Raises:
        BadInputError: the file cannot be written.
    """
    now = datetime.now(UTC)
    text = page.report_page(data, now=now, figures=render(subject(data, now=now)))
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadInputError(f"{file}: cannot be written: {error.strerror}") from error
    return file
