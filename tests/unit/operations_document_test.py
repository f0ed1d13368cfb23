"""The operations document tells of all that the operator can say."""

import re

import pytest
from tests.support import documents

from tuning_api.status import ConditionType, Reason

ROWS = {
    cells[0]: cells[1:]
    for cells in re.findall(
        r"^\| `(\w+)` \| (.+?) \| (.+?) \| (.+?) \|$",
        documents.section("operations.md", "What the conditions say"),
        re.MULTILINE,
    )
}


def test_every_reason_is_in_the_table_and_no_other() -> None:
    """Whoever is called reads a reason, and looks it up."""
    assert set(ROWS) == set(Reason)


@pytest.mark.parametrize("reason", Reason)
def test_a_reason_says_where_it_is_read_and_what_to_do(reason: Reason) -> None:
    """In a condition that there is, or in an event."""
    where, meaning, remedy = ROWS[reason]
    assert where == "an event" or set(where.split(", ")) <= set(ConditionType)
    assert meaning
    assert remedy
