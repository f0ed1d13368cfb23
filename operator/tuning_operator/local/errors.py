"""What a person did or has that a study cannot be run with: one sentence, and never a traceback."""


class BadInputError(Exception):
    """The command cannot be carried out; the message says what to change."""
