"""What the strict readers share: models' prose freed of markup, its sentences, and the numbers in it."""

from __future__ import annotations

import re
from decimal import Decimal

# An em dash is missing: it is a pause, never a minus.
_LOOKALIKES = str.maketrans("−–‐‑×·⋅⁄’", "----***/'", "\r")
_MARKUP = re.compile(
    r"""
    </?[A-Za-z]+>          # tags
    | ^[ \t]*\#+[ \t]      # headings
    | \\[A-Za-z]+          # TeX commands
    | \*\*+ | [_`${}\\]
    """,
    re.VERBOSE | re.MULTILINE,
)

DIGITS = r"(?:(?<![\w.])\.)?(?<!\w)(?<![0-9][.,])(?<![0-9][eE][-+])(?>[0-9]+(?:[.,][0-9]+)*)(?!\w)"
"""Pattern of an unsigned number: digits, points and commas that hang together, and no letter beside them."""

_LIST_NUMBER = re.compile(r"^[ \t]*[0-9][.)][ \t]", re.MULTILINE)
_SECOND_ITEM = re.compile(r"^[ \t]*2[.)][ \t]", re.MULTILINE)
_NUMBER = re.compile(r"[-+]?(?:0|[1-9][0-9]*|[1-9][0-9]{0,2}(?:,[0-9]{3})+)?(?:\.[0-9]+)?")
_DENIED = re.compile(
    r"(?:n't|\b(?:non|not(?!\s+(?:only|just))|never|cannot|hardly|far\s+from|anything\s+but))\b(?:(?!\b(?:and|but)\b)[^,;:()])*$"
    r"|\bno(?:thing)?\s+(?!doubt|question|or\b)(?:\w+\s+)?$",
    re.IGNORECASE,
)
_CORRECTION = re.compile(
    r"\W*(?:(?:so|therefore|thus|hence|finally)\W+the\s+(?:\w+\s+)?(?:answer|result)|wait|actually|sorry|no)\b",
    re.IGNORECASE,
)


def clean(text: str) -> str:
    """The text behind its thoughts, with plain minus and multiplication signs and apostrophes, without markup."""
    text = text.rpartition("</think>")[2]
    return _MARKUP.sub(" ", re.sub(r"\\(?:times|cdot)\b", "*", text.translate(_LOOKALIKES)))


def without_list_numbers(text: str) -> str:
    """The text without the "1.", "2." … that open its lines, if a line follows that opens with "2."."""
    return _LIST_NUMBER.sub(" ", text) if _SECOND_ITEM.search(text) else text


def sentences(text: str) -> list[str]:
    """The sentences and lines of a text, without questions in words; "because" and "since" begin a sentence."""
    parts = re.split(r"(?<=[.!?;])\s+|\n+|\b(?:because|since)\b", text)
    return [part for part in parts if part.strip() and not (part.endswith("?") and re.search("[A-Za-z]", part))]


def is_correction(part: str) -> bool:
    """Whether a sentence or line takes back what was said before: "Wait, …", "So the answer is …"."""
    return _CORRECTION.match(part) is not None


def is_denied(sentence: str, place: int) -> bool:
    """Whether the word at a place is denied: "not positive", "isn't right", "anything but correct"."""
    return _DENIED.search(sentence, max(0, place - 50), place) is not None


def number(written: str) -> Decimal | None:
    """The exact value of a number.

    Args:
        written: A match of `DIGITS`, with or without a sign and a space behind it.

    Returns:
        None for what is no plain decimal number with or without commas between thousands: `0,7`, `1.2.3`, `007`.
    """
    written = written.replace(" ", "")
    return Decimal(written.replace(",", "")) if _NUMBER.fullmatch(written) else None
