"""Text of other people on its way to a terminal: letters that would move its cursor, colour it or set its title. Pure.

Names, values and messages are written by whoever may create a study or write its code, and read by others.
"""

import re

_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""All of C0 and C1 but tabs and line ends, what turns the direction of text round, and halves of letters."""


def printable(text: str) -> str:
    r"""The text with its control characters written out, such as `\x1b`; line ends and tabs stay."""
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
