"""What the pages read of transcripts and items."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import few_runs

from wireheading.analysis.pages.reading import common_ends, gold_answer, read_items
from wireheading.inputs.items import write_items

ENDS = "\n\r\x0b\x0c\x1c\x85\u2028\u2029"
"""What `str.splitlines` takes for the end of a line."""

CHAT = "system\nYou are helpful.\nuser\nReview:\n{}\n\nIs it positive or negative?\nassistant\n"


def test_what_all_prompts_have_in_common_is_told_once() -> None:
    opening, closing = common_ends([CHAT.format(text) for text in ("Good film.", "Bad film.", "Good fun.")])
    assert opening == "system\nYou are helpful.\nuser\nReview:\n"
    assert closing == "\n\nIs it positive or negative?\nassistant\n"
    tags = [f"<user>{text}\nPositive?<assistant>" for text in ("Fine.", "Fun.")]
    assert common_ends(tags) == ("<user>", "\nPositive?<assistant>")
    assert common_ends(["What is 21?", "What is 27?"]) == ("What is ", "")
    assert common_ends(["the same"] * 3) == ("", "")
    assert common_ends([]) == ("", "")


@given(st.lists(st.text("ab<> \n", max_size=12), max_size=4))
def test_ends_do_not_overlap_and_nothing_is_lost(texts: list[str]) -> None:
    opening, closing = common_ends(texts)
    for text in texts:
        body = text[len(opening) : len(text) - len(closing)]
        assert opening + body + closing == text


@pytest.mark.parametrize("changed", [False, True])
def test_items_are_those_that_the_record_was_made_of(tmp_path: Path, changed: bool) -> None:
    study = few_runs(tmp_path, resources=str(tmp_path / "resources"))
    path = study.items_folder("sentiment") / "train.jsonl"
    assert read_items(study, "sentiment", "train", {}) == {}
    path.parent.mkdir(parents=True)
    path.write_text('{"id": "a", "text": "Fine.", "label": "positive"}\n')
    digest = "0" * 64 if changed else hashlib.sha256(path.read_bytes()).hexdigest()
    items = read_items(study, "sentiment", "train", {"train.jsonl": digest})
    assert gold_answer("sentiment", items.get("a")) == (None if changed else "positive")


def test_a_text_may_hold_other_characters_that_end_lines(tmp_path: Path) -> None:
    study = few_runs(tmp_path, resources=str(tmp_path / "resources"))
    path = study.items_folder("sentiment") / "heldout.jsonl"
    items = [{"id": str(place), "text": f"Fine{end}film.", "label": "positive"} for place, end in enumerate(ENDS)]
    write_items(path, items)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert list(read_items(study, "sentiment", "heldout", {"heldout.jsonl": digest}).values()) == items
