"""Tables and the live view on their way to a terminal; see `terminal` for lines."""

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from typing_extensions import override

from tuning_api.printable import printable


class Screen(Console):
    """Rich's console, for texts that other people wrote: brackets in them are no markup, and control characters are escaped."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    @override
    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """NB: what rich itself sends to move the cursor is marked as control; colours are added later."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)
