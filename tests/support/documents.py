"""The commands of the documents, so that tests run what people read."""

import re
from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"


def section(document: str, heading: str) -> str:
    """What stands below a heading of a document, up to the next one of any level.

    Raises:
        AssertionError: there is no such heading.
    """
    found = re.search(
        rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", (DOCS / document).read_text(), re.MULTILINE | re.DOTALL
    )
    assert found, f"{document} has no heading {heading}"
    return found.group(1)


def commands(document: str, heading: str) -> list[str]:
    """The code blocks of a section, in their order."""
    return re.findall(r"^```\w*\n(.*?)^```", section(document, heading), re.MULTILINE | re.DOTALL)
