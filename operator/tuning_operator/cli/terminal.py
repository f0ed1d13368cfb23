"""Lines on their way to a terminal: what other people wrote is escaped here, so that no command has to remember it.

`screen` is the way of tables and of the live view.
"""

import typer

from tuning_api.printable import printable


def say(words: str, *, err: bool = False, nl: bool = True) -> None:
    """Write a line; with `nl=False` a text that ends its own lines."""
    typer.echo(printable(words), err=err, nl=nl)
