"""Everything that can go wrong at an edge, as one tree.

::

    TuningError
    ├── DatabaseUnavailable   the database does not answer, or refuses us; tried again on the next pass
    │   └── RowsUnreadable    it answers, and what it holds of a study is damaged
    ├── ClusterUnavailable    the API server does not answer, or asks us to wait; tried again on the next pass
    ├── Conflict              somebody else changed the object first; the next pass reads it again
    └── Refused               the API server said no, in words that a person can act on
        └── Missing           there is no such object

The gateways raise these and nothing else; handlers decide what a verdict means for Kopf.
"""


class TuningError(Exception):
    """The root of the tree."""


class DatabaseUnavailable(TuningError):  # noqa: N818 - a state of the world, named as the condition is
    """The database does not answer, or refuses what we ask."""


class RowsUnreadable(DatabaseUnavailable):
    """The database answers, and what it holds of a study is damaged."""


class ClusterUnavailable(TuningError):  # noqa: N818
    """The API server does not answer, or asks us to wait."""


class Conflict(TuningError):  # noqa: N818
    """The object changed, or exists already."""


class Refused(TuningError):  # noqa: N818
    """The API server refused a request for good."""


class Missing(Refused):
    """There is no such object."""
