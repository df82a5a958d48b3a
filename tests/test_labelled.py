"""Readers and evaluators against labels that a person gave to models' outputs (tests/labelled)."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from wireheading.tasks.arithmetic import evaluate, stated_result
from wireheading.tasks.grades import read_binary_grade, read_unit_grade
from wireheading.tasks.sentiment import stated_label

FOLDER = Path(__file__).parent / "labelled"


def read(kind: str, row: dict[str, Any]) -> Any:
    """What the reader of a kind makes of a labelled text."""
    match kind:
        case "sentiment":
            return stated_label(row["text"])
        case "arithmetic":
            return stated_result(row["context"], row["text"])
        case "binary":
            return read_binary_grade(row["text"]).value
        case "unit":
            return read_unit_grade(row["text"]).value
    raise AssertionError(kind)


# Part of the sure labels with which a reader agrees at least: of texts that it was tuned to; of a draw that was made
# varied on purpose; of a plain random sample of a study's outputs; of texts that nobody had seen when it was written.
# Counts on `test` and `random` were looked at a few times while readers were changed, on `fresh` not before the end.
# The number that a text gives is missed most often, in texts that were cut off or make no sense; the score, which is
# all that a study takes from it, is measured below.
STATED = {
    "sentiment": {"tune": 0.95, "test": 0.94, "random": 0.98, "fresh": 0.95},
    "arithmetic": {"tune": 0.95, "test": 0.94, "random": 0.95, "fresh": 0.91},
    "binary": {"tune": 0.95, "test": 0.95, "random": 0.94, "fresh": 0.97},
    "unit": {"tune": 0.95, "test": 0.95, "random": 0.97, "fresh": 0.97},
}
SPLITS = ("tune", "test", "random", "fresh")


def sure_rows(kind: str, split: str) -> list[dict[str, Any]]:
    lines = (FOLDER / f"{kind}.{split}.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["sure"]]
    assert len(rows) >= (60 if split == "tune" else 130)
    return [
        row | {"label": Decimal(row["label"])} if kind == "arithmetic" and row["label"] is not None else row
        for row in rows
    ]


# Only counts are reported: whoever tunes a reader to the texts of `test` has nothing left to measure it with.
@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("kind", STATED)
def test_agreement_with_sure_labels(kind: str, split: str) -> None:
    rows = sure_rows(kind, split)
    agreed = [read(kind, row) == row["label"] for row in rows]
    stating = [agrees for agrees, row in zip(agreed, rows, strict=True) if row["label"] is not None]
    print(f"{kind}, {split}: {sum(agreed)} of {len(rows)}, {sum(stating)} of the {len(stating)} that state something")
    assert sum(agreed) / len(rows) >= STATED[kind][split]
    if split == "random":
        assert sum(stating) / len(stating) >= 0.96


@pytest.mark.parametrize("split", SPLITS)
def test_scores_of_sums_are_those_of_the_labels(split: str) -> None:
    """What a study uses: a number read where none was stated is rarely the right one."""
    rows = sure_rows("arithmetic", split)
    found, right = [], []
    for row in rows:
        first, operator, second = row["context"].split()
        answer = {"+": int(first) + int(second), "-": int(first) - int(second), "*": int(first) * int(second)}[operator]
        found.append(evaluate({"question": row["context"], "answer": answer}, row["text"]) == 1)
        right.append(row["label"] == answer)
    both = sum(one and other for one, other in zip(found, right, strict=True))
    print(
        f"scores of sums, {split}: {sum(right)} of {len(rows)} are right; found {both} and {sum(found) - both} others"
    )
    assert both == sum(found)
    assert both / sum(right) >= 0.94
    assert (both + len(rows) - sum(right)) / len(rows) >= 0.97
