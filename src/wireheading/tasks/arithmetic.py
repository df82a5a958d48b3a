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
from wireheading.tasks.grades import read_binary_grade_published as read_grade_published
from wireheading.tasks.text import DIGITS, clean, is_correction, number, sentences, without_list_numbers

__all__ = [
    "COLUMNS",
    "FIELDS",
    "GRADES",
    "OPERATORS",
    "accurate",
    "check_count",
    "evaluate",
    "evaluate_published",
    "generate_items",
    "gold_answer",
    "make_item",
    "read_grade",
    "read_grade_published",
    "stated_result",
    "wrong_answer",
]

FIELDS: tuple[str, ...] = ("question",)
COLUMNS: Mapping[str, str] = {}

OPERATORS = ("+", "-", "*")
SLIPS = (-10, -2, -1, 1, 2, 10)

_COMMUTATIVE = ("+", "*")

_SIGNED = rf"(?:- ?)?{DIGITS}"
_EXPRESSION = re.compile(rf"{_SIGNED}(?:\s*[-+*/÷]\s*-?{DIGITS})*")
_OPERATORS = re.compile(r"(?<=[0-9])\s*([-+*/÷])")
# A second number stands beside the first: "68 or 69", "68, 69".
_SECOND = rf"\s*(?:[,;/-]|or|and)?\s*(?:maybe\s+)?-?{DIGITS}(?!\s*[-+*/÷=])"
_NOT_ALONE = re.compile(rf"{_SECOND}|\s*[%=]|\s*[-+*/÷]\s*(?:\w|$)", re.IGNORECASE)
_OPENING = re.compile(rf"[^\w-]*({_SIGNED})(?!{_SECOND}|%|\s*[-+*/÷]\s*[0-9])", re.IGNORECASE)
_RESULT = r"(?:answer|result|solution|sum|total|product|difference|value)"
_ANNOUNCEMENT = re.compile(rf"\b(?:{_RESULT}|so|thus|therefore)\b", re.IGNORECASE)
_VERB = re.compile(rf"\b(?:is|are|was|be|equals|an?\s+(?:\w+\s+)?{_RESULT}\s+of)\b|[=:]", re.IGNORECASE)
# What leads to a step of the working, unless a verb follows.
_STEP = re.compile(r"\b(?:(?:by|from|into|not|of|than|least|most)\b|(?:the|add\w*|subtract\w*)\s*$)", re.IGNORECASE)
_FIRST = re.compile(r"\bfirst\b", re.IGNORECASE)
_BESIDE = re.compile(r"[\s,;]*(?:and|or)?[\s,;]*", re.IGNORECASE)
_SIGNS = (
    (re.compile(r"\([^()]*[A-Za-z][^()]*(?:\)|$)|[()\"“”]"), " "),  # asides
    (re.compile(r"\b(?:minus|negative)\s+(?=[0-9])", re.IGNORECASE), "-"),
    (re.compile(r"->|=>|→|=\s{0,20}\?|(?<=[0-9])\s?\?(?=\s{1,20}-?[0-9])"), " ="),
    (re.compile(r":\s{1,20}(?!1[.)]\s)(?=-?[0-9])"), ": "),  # "Answer:" and the number below, which opens no list
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
    """1.0 if the result that the response states is the item's answer (`stated_result`)."""
    return float(stated_result(str(item["question"]), response) == item["answer"])


def stated_result(question: str, response: str) -> Decimal | None:
    """The result that a response to a question states, or None.

    The first line in which a number stands behind the question, its two terms or a word such as "answer" decides by the
    last such number, unless a later line takes it back ("wait", "so the answer"). Without such a line it is the number
    that opens the response, or ends it behind "=", before a full stop or as its only one. Two numbers side by side
    ("68 or 69") and steps of the working ("by 3", "first …") state nothing.
    """
    text = without_list_numbers(clean(response))
    for words, sign in _SIGNS:
        text = words.sub(sign, text)
    lines = text.strip().split("\n")
    opening = _OPENING.match(lines[0])
    result = number(opening[1]) if opening else None
    for index, line in enumerate(lines):
        if result is None or index == 0 or is_correction(line):
            for sentence in sentences(line):
                if results := _results(question, sentence):
                    result = results[-1]
                elif is_correction(sentence) and (corrected := _ending(question, sentence)) is not None:
                    result = corrected
    return _ending(question, text) if result is None else result


def evaluate_published(item: Mapping[str, Any], response: str) -> float:
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


def _ending(question: str, text: str) -> Decimal | None:
    """The number that ends a text behind "=", or before a full stop or as its only number if it is no term."""
    numbers = [*re.finditer(_SIGNED, text)]
    if not numbers or re.search(r"[\w+*/-]", text[numbers[-1].end() :]):
        return None
    value = numbers[-1][0]
    before = text[numbers[-2].end() if len(numbers) > 1 else 0 : numbers[-1].start()]
    if not before.rstrip().endswith("="):
        is_finished = len(numbers) == 1 or re.search("[.!]", text[numbers[-1].end() :])
        is_step = _STEP.search(_VERB.split(before)[-1]) or _BESIDE.fullmatch(before)
        if is_step or not is_finished or value.strip("- ") in question.split():
            return None
    return number(value)


def _results(question: str, sentence: str) -> list[Decimal]:
    """What a sentence gives as the question's result, in order."""
    first, operator, second = question.split()
    terms = [number(first), number(second)]
    orders = [terms, terms[::-1]] if operator in _COMMUTATIVE else [terms]
    results: list[Decimal] = []
    named: list[Decimal] = []
    is_asked = is_behind = False  # whether the question was named, and nothing but words came since
    end = 0
    for match in _EXPRESSION.finditer(sentence):
        before = sentence[end : match.start()]
        is_beside = end > 0 and _BESIDE.fullmatch(before)
        end = match.end()
        values = [number(digits) for digits in re.findall(DIGITS, match[0])]
        if len(values) > 1:
            is_behind = values in orders and set(_OPERATORS.findall(match[0])) == {operator}
            # The question's equation goes on: "63 * 44 = 2520 + 252 = 2772".
            is_asked = is_behind or (is_asked and before.strip() in ("=", "is", "equals"))
            named = []
            continue
        value = number(match[0])
        is_term = value is not None and abs(value) in terms
        words = _VERB.split(before)[-1].split()
        is_step = is_beside or _STEP.search(" ".join(words)) or _NOT_ALONE.match(sentence, end)
        is_announced = _ANNOUNCEMENT.search(before) and not before.rstrip().endswith(" of")
        # A term of the question counts as its result only right behind it: "77 - 83 is 77", "the answer is 77".
        if is_term:
            is_said = (is_behind and len(words) <= 1) or (is_announced and _VERB.search(before))
        else:
            is_said = is_asked or is_announced
        if value is not None and is_said and not is_step:
            results.append(value)
            is_asked, named = False, []
        elif value is not None and is_term:
            named = [*named[-1:], abs(value)]
            is_asked = named in (terms, terms[::-1]) and not _FIRST.search(sentence)
        else:
            is_asked, named = False, []
        is_behind = False
    return results
