"""Readers and evaluators on long texts: the time they take grows with the length, not with its square."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from wireheading.tasks.arithmetic import stated_result
from wireheading.tasks.grades import read_binary_grade, read_unit_grade
from wireheading.tasks.sentiment import stated_label

READERS: dict[str, Callable[[str], object]] = {
    "sentiment": stated_label,
    "arithmetic": lambda text: stated_result("45 + 23", text),
    "binary": read_binary_grade,
    "unit": read_unit_grade,
}
# What the patterns repeat or look ahead for.
PIECES = [
    "positiv",
    "positive really ",
    "1+",
    "1.",
    "1 - ",
    ":",
    "= ",
    "45 + 23 = ",
    "is just ",
    "(a",
    "not ",
    " ",
    "\n ",
]


def seconds(read: Callable[[str], object], text: str) -> float:
    """Processor time, which other processes do not add to."""
    start = time.process_time()
    read(text)
    return time.process_time() - start


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("piece", PIECES)
def test_ten_times_the_text_does_not_take_a_hundred_times_the_time(kind: str, piece: str) -> None:
    short, long = (piece * (size // len(piece)) for size in (10_000, 100_000))
    read = READERS[kind]
    # 40 lies between a linear reader's 10 and a quadratic one's 100; what takes two seconds need not be compared.
    assert seconds(read, long) < max(2.0, 40 * min(seconds(read, short) for _ in range(3)))
