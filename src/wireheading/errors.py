"""Errors that a user can fix."""


class InputError(ValueError):
    """Unusable input. Its text is one line: what it is, what is wrong, what to do."""

    def __init__(self, text: str):
        super().__init__(printable(text))


class ConfigError(InputError):
    """A configuration that cannot be run. Its text is one line: the key, the value, the remedy."""


def printable(text: str) -> str:
    """A text in one line, with every character escaped that a terminal would act on instead of showing it."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def first_line(error: Exception) -> str:
    """The first line of what an exception says; its type where it says nothing."""
    return printable(next(iter(str(error).strip().splitlines()), type(error).__name__))
