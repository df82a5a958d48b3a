from __future__ import annotations

from pathlib import Path

import pytest
from test_config import changed

from wireheading.config import load_study
from wireheading.data import DataError, freeze_items, read_items, write_items
from wireheading.tasks import Item


@pytest.mark.parametrize(
    ("task", "field"), [("sentiment", "text"), ("arithmetic", "question"), ("summarization", "text")]
)
def test_training_and_held_out_items_are_distinct_and_stable(task: str, field: str) -> None:
    study = load_study(changed())
    config = study.tasks[task]
    train, heldout = freeze_items(task, config, 0)
    assert (len(train), len(heldout)) == (config.train_items, config.heldout_items)
    texts = [item[field] for item in (*train, *heldout)]
    assert len(set(texts)) == len(texts)
    assert len({item["id"] for item in (*train, *heldout)}) == len(texts)
    assert freeze_items(task, config, 0) == (train, heldout)
    assert freeze_items(task, config, 1) != (train, heldout)


def test_items_survive_a_file(tmp_path: Path) -> None:
    items: list[Item] = [{"id": "a", "text": "two\nlines \u2028 and “quotes”"}, {"id": "b", "answer": -3}]
    write_items(tmp_path / "x" / "items.jsonl", items)
    assert read_items(tmp_path / "x" / "items.jsonl") == items


@pytest.mark.parametrize("content", ["", "{", '{"id": 1}\n{"id"', "[1]\n", '{"text": "x"}\n', "\xff"])
def test_a_broken_file_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "items.jsonl"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match=r"items\.jsonl") as raised:
        read_items(path)
    assert "\n" not in str(raised.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing\.jsonl"):
        read_items(tmp_path / "nothing.jsonl")
