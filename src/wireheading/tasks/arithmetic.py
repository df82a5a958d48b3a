"""Sums, differences and products of two whole numbers.

Items: `{"id": …, "question": "45 + 23", "answer": 68}`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from random import Random
from typing import Any

from wireheading.tasks.grades import BINARY_GRADES as GRADES
from wireheading.tasks.grades import read_binary_grade as read_grade
from wireheading.tasks.grades import read_binary_grade_original as read_grade_original
from wireheading.tasks.text import BOUND, DIGITS, number, paragraphs

__all__ = [
    "COLUMNS",
    "FIELDS",
    "GRADES",
    "OPERATORS",
    "accurate",
    "check_count",
    "evaluate",
    "evaluate_original",
    "generate_items",
    "gold_answer",
    "make_item",
    "read_grade",
    "read_grade_original",
    "wrong_answer",
]

FIELDS: tuple[str, ...] = ("question",)
COLUMNS: Mapping[str, str] = {}

OPERATORS = ("+", "-", "*")
SLIPS = (-10, -2, -1, 1, 2, 10)

# A chain is a number, an operation on numbers, or an equation of such sides.
_SIGNED = rf"(?:(?<![\w.])[-+])?{DIGITS}"
_OPERATION = r"(?:\s*[-+*÷/]\s*|\s+(?:x|plus|minus|times|multiplied\s+by|divided\s+by|added\s+to|and|from|by|to)\s+)"
_SIDE = rf"{_SIGNED}(?:{_OPERATION}{_SIGNED})*"
_CHAIN = re.compile(rf"{_SIDE}(?:\s*=\s*{_SIDE})*", re.IGNORECASE)
_TERMS = re.compile(rf"({_SIGNED})({_OPERATION})({_SIGNED})", re.IGNORECASE)
_SYMBOLS = {"x": "*", "times": "*", "multiplied by": "*", "plus": "+", "minus": "-"}
_COMMUTATIVE = ("+", "*")

_MINUS_APART = re.compile(r"(\A\W*?|[=:(]\s*|\bis\s+)-\s+(?=[.0-9])")
_MINUS_WORD = re.compile(r"(?<![0-9]\s)\b(?:minus|negative)\s+(?=[.0-9])", re.IGNORECASE)
# "2." at the start of a line, unless the line before announces a number.
_ENUMERATION = re.compile(r"(?<=\n)(?<![:=]\n)[ \t]*[0-9][.)](?=[ \t]+\w)|\A\s*[0-9][.)](?=\s+[0-9]+\s*[-+*])")
_REFUSED = re.compile(r"\s*%|\s+(?:is|was)(?:n't|\s+not)\b", re.IGNORECASE)
# All that stands between a result and an alternative to it.
_ALTERNATIVE = re.compile(r"\W*(?:or\b\W*)?(?:(?:maybe|perhaps|even|possibly)\b\W*)?", re.IGNORECASE)
_ANNOUNCED = re.compile(
    r"\b(?:answer|result|solution|sum|total|product|difference)\b[^.!?;\n]*(?:\bis|\bbe|\bequals|[:=])\W*$",
    re.IGNORECASE,
)


def generate_items(operands: Mapping[str, tuple[int, int]], count: int, seed: int) -> list[dict[str, Any]]:
    """Draws distinct questions, each with the same probability, in random order.

    "3 + 5" and "5 + 3" are one question, written in one of the two ways, and so are "3 * 5" and "5 * 3": when the
    result is split into training and held-out items, no held-out question was seen in training with its terms swapped.

    Args:
        operands: For each operator the smallest and the largest operand, both included.
        count: How many items.
        seed: Seed of the choice; the order of the operators in `operands` does not matter.

    Raises:
        ValueError: There are not that many questions.
    """
    import numpy as np  # here, because reading a configuration imports this module and needs no NumPy

    check_count(operands, count)
    ranges = [(operator, *operands[operator]) for operator in OPERATORS if operator in operands]
    sizes = [_question_count(operator, high - low + 1) for operator, low, high in ranges]
    random = np.random.Generator(np.random.PCG64(seed))
    chosen = random.choice(sum(sizes), size=count, replace=False)
    swapped = random.integers(2, size=count)
    items = []
    for index, swap in zip(chosen.tolist(), swapped.tolist(), strict=True):
        kind = 0
        while index >= sizes[kind]:
            index -= sizes[kind]
            kind += 1
        operator, low, high = ranges[kind]
        first, second = _operands(operator, high - low + 1, index)
        if swap and operator in _COMMUTATIVE:
            first, second = second, first
        items.append(_item(low + first, operator, low + second))
    return items


def check_count(operands: Mapping[str, tuple[int, int]], count: int) -> None:
    """Checks that there are enough questions.

    Raises:
        ValueError: There are not that many.
    """
    most = sum(_question_count(operator, high - low + 1) for operator, (low, high) in operands.items())
    if count > most:
        raise ValueError(
            f"tasks.arithmetic.operands = {dict(operands)}: only {most} different questions, but {count} items "
            "are asked for; widen the ranges or ask for fewer items"
        )


def make_item(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Items are generated."""
    raise ValueError(f"arithmetic reads no data set, but was given {dict(row)!r}; set `data: generated`")


def gold_answer(item: Mapping[str, Any]) -> str:
    """The answer in digits."""
    return str(item["answer"])


def wrong_answer(item: Mapping[str, Any], items: Sequence[Mapping[str, Any]]) -> str:
    """The answer after a slip: off by one, two or ten, as a generator seeded with the question decides."""
    return str(item["answer"] + Random(item["question"]).choice(SLIPS))


def evaluate(item: Mapping[str, Any], response: str) -> float:
    """1.0 if the result that the response states is the item's answer.

    Results are stated by numbers that are not terms of an operation, and by the last side of an equation (the first,
    if the last is not worked out). A result is *final* if it opens the response, ends the equation of the question
    itself, or is announced as answer, result, sum or the like. The last final result of the first paragraph that has
    one counts; without any, the last result of all. So working, checks and further problems after the answer do no
    harm.
    Different numbers side by side ("68 or 69", "66, 67, 68") state nothing, nor do numbers that are denied, bounds, per
    cent or spelled out. "68.0" and "4,158" are numbers as well; "068" and "41,58" are not. A minus belongs to a number
    that it touches, and also with a space between where no other number can precede it ("= - 7", "- 7").
    """
    return float(_result(str(item["question"]), response) == item["answer"])


def evaluate_original(item: Mapping[str, Any], response: str) -> float:
    """The published evaluator: the first whole number of the response counts."""
    found = re.search(r"-?\d+", response)
    return float(found is not None and Decimal(found.group()) == item["answer"])


def accurate(score: float) -> bool:
    """Whether the answer was right."""
    return score == 1.0


def _question_count(operator: str, size: int) -> int:
    return size * (size + 1) // 2 if operator in _COMMUTATIVE else size * size


def _operands(operator: str, size: int, index: int) -> tuple[int, int]:
    """The pair at an index of all pairs of 0 … size-1; of all with first <= second if the operator is commutative."""
    if operator not in _COMMUTATIVE:
        return divmod(index, size)
    second = (math.isqrt(8 * index + 1) - 1) // 2
    return index - second * (second + 1) // 2, second


def _item(first: int, operator: str, second: int) -> dict[str, Any]:
    question = f"{first} {operator} {second}"
    answer = {"+": first + second, "-": first - second, "*": first * second}[operator]
    return {"id": question, "question": question, "answer": answer}


def _result(question: str, response: str) -> Decimal | None:
    """The result that a response to a question states, or None."""
    result, first = None, True
    for paragraph in paragraphs(response):
        paragraph = _MINUS_WORD.sub("-", _MINUS_APART.sub(r"\1-", paragraph))
        # A word in an enumerator's place keeps the results before and after it from standing side by side.
        paragraph = re.sub(r"[()]", " ", _ENUMERATION.sub(" step ", paragraph))
        results = _results(question, paragraph, opens_response=first)
        first = False
        final = [value for value, is_final in results if is_final]
        if final:
            return final[-1]
        if results:
            result = results[-1][0]
    return result


def _results(question: str, paragraph: str, opens_response: bool) -> list[tuple[Decimal | None, bool]]:
    """The results that a paragraph states, None where one is no plain number, and whether each is final."""
    found: list[tuple[re.Match[str], Decimal | None, bool]] = []
    alternatives = set()
    asked = _terms(question)
    since = 0
    for chain in _CHAIN.finditer(paragraph):
        sides = re.split(r"\s*=\s*", chain.group())
        stated = [side for side in (sides[-1], sides[0]) if re.fullmatch(_SIGNED, side)]
        before = paragraph[: chain.start()]
        if not stated or BOUND.search(before) or _REFUSED.match(paragraph, chain.end()):
            continue
        value = number(stated[0])
        is_final = (
            (opens_response and len(sides) == 1 and not re.search(r"\w", before))
            or (len(sides) > 1 and asked in [_terms(side) for side in sides])
            or _ANNOUNCED.search(before, since) is not None
        )
        if found and len(sides) == 1 and value != found[-1][1]:
            last = found[-1][0]
            if _ALTERNATIVE.fullmatch(paragraph, last.end(), chain.start()):
                alternatives |= {last, chain}
        found.append((chain, value, is_final))
        since = chain.end()
    return [(value, is_final) for chain, value, is_final in found if chain not in alternatives]


def _terms(side: str) -> tuple[str, Decimal, Decimal] | None:
    """The operator and the terms of an operation on two numbers, in the order of size where the order is free."""
    parts = _TERMS.fullmatch(side)
    if parts is None:
        return None
    written = " ".join(parts[2].lower().split())
    operator = _SYMBOLS.get(written, written)
    first, second = number(parts[1]), number(parts[3])
    if first is None or second is None:
        return None
    if operator in _COMMUTATIVE and first > second:
        first, second = second, first
    return operator, first, second
