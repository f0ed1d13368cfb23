"""The study's page in one file."""

from datetime import UTC, datetime
from pathlib import Path

from tuning_operator.charts import page
from tuning_operator.charts.figures import render
from tuning_operator.charts.source import StudyData
from tuning_operator.charts.summary import subject
from tuning_operator.cli.writing import save


def write(data: StudyData, file: Path) -> Path:
    """Write the page of a study.

    Raises:
        BadInputError: the file cannot be written.
    """
    now = datetime.now(UTC)
    save(page.report_page(data, now=now, figures=render(subject(data, now=now))), file, force=True)
    return file
