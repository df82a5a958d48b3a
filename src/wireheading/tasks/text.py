"""What strict readers share: models' prose freed of markup, and the numbers in it."""

from __future__ import annotations

import re
from decimal import Decimal

# An em dash is missing: it is a pause, never a minus.
_LOOKALIKES = str.maketrans(
    {
        "\N{MINUS SIGN}": "-",
        "\N{EN DASH}": "-",
        "\N{HYPHEN}": "-",
        "\N{NON-BREAKING HYPHEN}": "-",
        "\N{MULTIPLICATION SIGN}": "*",
        "\N{MIDDLE DOT}": "*",
        "\N{DOT OPERATOR}": "*",
        "\N{FRACTION SLASH}": "/",
        "\N{RIGHT SINGLE QUOTATION MARK}": "'",
        "\r": None,
    }
)
_MARKUP = re.compile(
    r"""
    </?[A-Za-z]+>          # tags
    | ^[ \t]*\#+[ \t]      # headings
    | \\[A-Za-z]+          # TeX commands
    | \*\*+ | [_`${}\\]
    """,
    re.VERBOSE | re.MULTILINE,
)

DIGITS = r"(?:(?<![\w.])\.)?(?<!\w)(?<![0-9][eE][-+])[0-9](?:[0-9.,]*[0-9])?+(?!\w)"
"""Pattern of an unsigned number: all digits, points and commas that hang together, and no letter beside them."""

_NUMBER = re.compile(r"[-+]?(?:0|[1-9][0-9]*|[1-9][0-9]{0,2}(?:,[0-9]{3})+)?(?:\.[0-9]+)?")

BOUND = re.compile(
    r"(?:(?<![-=])[<>]|[≤≥≠]|\b(?:not|nor|never|neither|cannot|above|below|over|under)\b|n't\b"
    r"|\b(?:less|more|greater|lower|higher|smaller|larger|better|worse)\s+than\b|\bat\s+(?:least|most)\b)\s*(?:an?\s+)?$",
    re.IGNORECASE,
)
"""Searched in the text before a number: it denies the number or makes it a bound, so that it states no value."""


def paragraphs(text: str) -> list[str]:
    """Splits a text at its blank lines.

    Typographic minus and multiplication signs and apostrophes become plain ones; tags and the markup
    of Markdown and TeX become spaces.
    """
    text = re.sub(r"\\(?:times|cdot)\b", "*", text.translate(_LOOKALIKES))
    return [part for part in re.split(r"\n\s*\n", _MARKUP.sub(" ", text)) if part.strip()]


def number(written: str) -> Decimal | None:
    """The exact value of a number.

    Args:
        written: A match of `DIGITS`, with or without a sign.

    Returns:
        None for what is no plain decimal number with or without commas between thousands: `0,7`, `1.2.3`, `007`.
    """
    if not _NUMBER.fullmatch(written):
        return None
    return Decimal(written.replace(",", ""))
