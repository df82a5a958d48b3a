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
from wireheading.tasks.text import DIGITS, clean, number, sentences, without_list_numbers

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
# No operation follows, in signs or in words.
_NO_OPERATION = r"(?!\s*[-+*/÷=]|\s+(?:times|multiplied|divided|plus|minus|added)\b)"
_ALONE = rf"(?={_SIGNED}{_NO_OPERATION})"
_SIDE = re.compile(rf"\s*({_SIGNED})((?:\s*[-+*/÷]\s*{_SIGNED})*)")
_OPERATION = re.compile(rf"{DIGITS}\s*([-+*/÷])\s*(?={DIGITS})")
_SECOND = re.compile(rf"\s*(?:[,;/-]|or|and)?\s*(?:maybe\s+)?-?{DIGITS}{_NO_OPERATION}", re.IGNORECASE)
_OPERATOR = re.compile(r"\s*[-+*/÷]\s*(?:\w|$)")
_OPENING = re.compile(rf"[^\w-]*({_SIGNED})(?![%]|\s*[-+*/÷]\s*[0-9])")
_ENDING = re.compile(rf"=\s*({_SIGNED})[^\w+*/-]*$")
_ANNOUNCEMENT = re.compile(
    r"\b(?:answer|result|solution|sum|total|product|difference|value|the\s+number|x)\b|^\W*(?:it|that|this|you|we|i)\W*$",
    re.IGNORECASE,
)
# Words that say "equals", as far as a number and no operation follows.
_EQUALS = (
    r"(?:(?:\b(?:is|are|was|be|becomes|equals?|gives?|gets?|makes?|(?:comes|simplifies)\s+to)|'s)\b"
    r"(?:\s+(?:about|equal\s+to|equivalent\s+to|indeed|just|us|you|\w+ly)\b)*|->|=>|→|[:=?])[\s:=?]{0,20}"
)
_SIGNS = (
    (re.compile(r"(?<=[0-9]) ?x ?(?=[0-9])", re.IGNORECASE), " * "),
    (re.compile(r"\b(?:minus|negative)\s+(?=[0-9])", re.IGNORECASE), "-"),
    (re.compile(rf"\b(?:so|therefore|thus|hence|answer|result)\b[,:]?\s+{_ALONE}", re.IGNORECASE), "the answer = "),
    (re.compile(rf"{_EQUALS}{_ALONE}|(?:\n[ \t]*)?=[\s?]{{0,20}}(?={_SIGNED})", re.IGNORECASE), " = "),
)

# A later line that begins so states the result anew.
_CORRECTION = re.compile(
    r"\W*(?:(?:so|therefore|thus|hence|finally)\W+the\s+(?:\w+\s+)?(?:answer|result)|wait|actually|sorry|no)\b",
    re.IGNORECASE,
)
_STEP = re.compile(
    r"\b(?:(?:add|carry|divid|multiply|subtract|tak)\w*|by|from|into|not|of|than)\s+-?$|[0-9]\s*[-+*/÷]\s*$",
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
    """1.0 if the result that the response states is the item's answer (`stated_result`)."""
    return float(stated_result(str(item["question"]), response) == item["answer"])


def stated_result(question: str, response: str) -> Decimal | None:
    """The result that a response to a question states, or None.

    The first line that says what the question equals, or what the answer is, decides by the last number so stated; a
    later line corrects it if it begins with "so the answer" or "wait". Without such a line it is the number that opens
    the response, or the result of an equation that ends it, or the only other number in a sentence with the question.
    Two numbers side by side ("68 or 69") state nothing.
    """
    lines = _as_equations(response).strip().split("\n")
    opening = _OPENING.match(lines[0])
    result = number(opening[1]) if opening and not _SECOND.match(lines[0], opening.end()) else None
    for index, line in enumerate(lines):
        if result is None or index == 0 or _CORRECTION.match(line):
            for sentence in sentences(line):
                if results := _results(question, sentence):
                    result = results[-1]
    if result is None and (ending := _ENDING.search(lines[-1])):
        result = number(ending[1])
    if result is None:
        others = (_only_other(question, sentence) for line in lines for sentence in sentences(line))
        result = next((value for value in others if value is not None), None)
    return result


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


def _as_equations(response: str) -> str:
    """A response with "=" for words that say so ("45 plus 23 is 68"), without asides in brackets and list numbers."""
    text = re.sub(r"(?<=[0-9])\(", "*(", without_list_numbers(clean(response)))
    text = re.sub(r"\([^()]*\)", lambda aside: " " if re.search("[A-Za-z]", aside.group()) else aside.group(), text)
    text = re.sub("[()]", " ", text)
    for words, sign in _SIGNS:
        text = words.sub(sign, text)
    return text


def _results(question: str, sentence: str) -> list[Decimal]:
    """What a sentence gives as the question's result, in order."""
    first, operator, second = question.split()
    asked = {number(first), number(second)}
    results = []
    left, *sides = sentence.split("=")
    value: Decimal | None = None
    for place, part in enumerate(sides):
        side = _SIDE.match(part)
        rest = part if side is None else part[side.end() :]
        is_plain = side is not None and not side[2] and not _SECOND.match(rest) and not _OPERATOR.match(rest)
        value = number(side[1]) if side is not None and is_plain else None
        if place == len(sides) - 1 or re.search(r"\w", rest):  # the chain of equal sides ends here
            named = {number(digits) for digits in re.findall(DIGITS, left)}
            is_swapped = operator == "-" and re.search(rf"\b{second}\s*-\s*{first}\b", left)
            # A term of the question counts as its result only right behind it: "77 - 83 is 77".
            is_term = named and value in asked and not re.search(r"[0-9]\W*$", left)
            is_ours = named <= asked and {*_OPERATION.findall(left)} <= {operator} and not is_swapped and not is_term
            if value is not None and is_ours and (named == asked or _ANNOUNCEMENT.search(left)):
                results.append(value)
            left = rest
    return results


def _only_other(question: str, sentence: str) -> Decimal | None:
    """The only number that a sentence names beside the question's terms, if it is not a step of the working."""
    first, _, second = question.split()
    numbers = [(match, number(match[0])) for match in re.finditer(rf"(?:- ?)?({DIGITS})", sentence)]
    found = [(match, value) for match, value in numbers if value is not None]
    asked = {number(first), number(second)}
    others = [(match, value) for match, value in found if abs(value) not in asked]
    if len({value for _, value in others}) != 1 or not asked <= {abs(value) for _, value in found}:
        return None
    match, value = others[0]
    return None if _STEP.search(sentence, max(0, match.start(1) - 20), match.start(1)) else value
