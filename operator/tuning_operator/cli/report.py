"""The study's page in one file."""

from datetime import UTC, datetime
from pathlib import Path

from tuning_operator.charts.figures import render
from tuning_operator.charts.page import Moment, report_page
from tuning_operator.charts.source import StudyData
from tuning_operator.cli.writing import save


def write(data: StudyData, file: Path) -> Path:
    """Write the page of a study.

    Raises:
        BadInputError: the file cannot be written.
    """
    moment = Moment(data, datetime.now(UTC))
    save(report_page(moment, figures=render(moment.drawn)), file, force=True)
    return file
