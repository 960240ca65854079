"""The errors of an emulator that does not run."""


class StartError(Exception):
    """The emulator can't start. The text is one line: what is wrong, and what to do."""
