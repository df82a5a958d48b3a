from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import pytest
from configs import changed
from hub_data import REVIEWS, save_cnn, save_imdb

from wireheading.errors import ConfigError, InputError
from wireheading.inputs.items import DataError, find_commit, freeze_items, read_items, write_items
from wireheading.study.config import load_study
from wireheading.study.sections import TaskConfig
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
    items: list[Item] = [
        {"id": "a", "text": "two\nlines \u2028 and “quotes”", "label": "positive"},
        {"id": "b", "text": "x", "label": "negative", "more": -3},
    ]
    write_items(tmp_path / "x" / "items.jsonl", items)
    assert read_items(tmp_path / "x" / "items.jsonl", "sentiment") == items


@pytest.mark.parametrize(
    "content",
    [
        *("", "{", '{"id": 1}\n{"id"', "[1]\n", '{"text": "x"}\n', "\xff", "[" * 99_999, "1" * 9_999),
        '{"id": "a", "text": "x"}',
        '{"id": "a", "label": "positive"}',
        '{"id": "a", "text": "x", "label": 3}',
        '{"id": 1, "text": "x", "label": "positive"}',
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "items.jsonl"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match=r"items\.jsonl") as raised:
        read_items(path, "sentiment")
    assert "\n" not in str(raised.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing\.jsonl"):
        read_items(tmp_path / "nothing.jsonl", "sentiment")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def sentiment(folder: Path, train: int = 20, heldout: int = 8, **changes: Any) -> TaskConfig:
    task = {**changed()["tasks"]["sentiment"], "data": str(folder), "train_items": train, "heldout_items": heldout}
    return TaskConfig.model_validate(task | changes)


def test_imdb_is_frozen_from_the_right_splits_without_overlap(tmp_path: Path) -> None:
    save_imdb(tmp_path / "imdb")
    assert find_commit("sentiment", sentiment(tmp_path / "imdb")) is None
    train, heldout = freeze_items("sentiment", sentiment(tmp_path / "imdb", 30, 10), 0)
    assert {item["text"].replace("  ", " ") for item in train} == set(REVIEWS[:30])
    assert {item["text"].replace("  ", " ") for item in heldout} == set(REVIEWS[30:])
    for item in (*train, *heldout):
        assert item["label"] == ("positive" if "fine" in item["text"] else "negative")
        assert item["id"].startswith("train-" if item in train else "test-")


def test_a_data_set_that_is_a_program_is_not_run(tmp_path: Path) -> None:
    folder = tmp_path / "films"
    folder.mkdir()
    (folder / "films.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(DataError, match=r"cannot be loaded \(.*script.*\); check the folder or id") as raised:
        freeze_items("sentiment", sentiment(folder), 0)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "ran").exists()


def test_more_items_keep_those_of_fewer_and_another_seed_chooses_others(tmp_path: Path) -> None:
    save_imdb(tmp_path / "imdb")
    few = freeze_items("sentiment", sentiment(tmp_path / "imdb", 10, 4), 0)
    many = freeze_items("sentiment", sentiment(tmp_path / "imdb", 20, 4), 0)
    assert many[0][:10] == few[0]
    assert many[1] == few[1]
    assert freeze_items("sentiment", sentiment(tmp_path / "imdb", 10, 4), 1)[0] != few[0]


def test_cnn_is_frozen_from_the_named_subset(tmp_path: Path) -> None:
    save_cnn(tmp_path / "cnn")
    task = changed()["tasks"]["summarization"] | {
        "data": str(tmp_path / "cnn"), "subset": "3.0.0", "train_items": 12, "heldout_items": 5, "characters": 12,
    }  # fmt: skip
    with pytest.raises(DataError, match=r"train_items = 12: .* has only 1 different items"):
        # Cut at 12 characters all of them read the same.
        freeze_items("summarization", TaskConfig.model_validate(task), 0)
    task["characters"] = 28
    train, heldout = freeze_items("summarization", TaskConfig.model_validate(task), 0)
    assert {item["text"] for item in train} == {f"In train of 3.0.0, {index} men bit dogs."[:28] for index in range(12)}
    assert all(item["text"].startswith("In test of 3.0.0") for item in heldout)
    assert all(item["reference"].endswith("bites.") for item in train)


def test_columns_can_be_named(tmp_path: Path) -> None:
    save_imdb(tmp_path / "other", text="review", label="opinion")
    columns = {"text": "review", "label": "opinion"}
    train, _ = freeze_items("sentiment", sentiment(tmp_path / "other", columns=columns), 0)
    assert set(train[0]) == {"id", "text", "label"}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"columns": {"text": "body"}},
            "has no column 'body', but text, label; name the column of 'text' in tasks.sent",
        ),
        (
            {"train_items": 31},
            "train_items = 31: {folder} has only 30 different items in its split 'train'; ask for fewer",
        ),
        ({"heldout_items": 11}, "heldout_items = 11: {folder} has only 10 different items in its split 'test'"),
        ({"subset": "9.9"}, "cannot be loaded (BuilderConfig '9.9' not found"),
        ({"data": "./nothing"}, "there is no such folder; give a folder or a hub id"),
        ({"data": "data/film/nothing"}, "there is no such folder; give a folder or a hub id"),
        ({"data": "data/nothing"}, "there is no such folder here, and HF_HUB_OFFLINE is set; unset it while fetching"),
    ],
)
def test_data_that_cannot_be_used_is_told_in_one_line(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    folder = tmp_path / "imdb"
    save_imdb(folder)
    config = sentiment(folder, **changes)
    with pytest.raises(InputError) as raised:
        freeze_items("sentiment", config, 0, find_commit("sentiment", config))
    assert told.format(folder=folder) in str(raised.value)
    assert str(raised.value).startswith("config: tasks.sentiment.")
    assert "\n" not in str(raised.value)


def test_other_labels_are_refused_with_their_row(tmp_path: Path) -> None:
    (tmp_path / "stars").mkdir()
    for split in ("train", "test"):
        rows = "".join(f'{{"text": "{split} {index}", "label": {index}}}\n' for index in range(5))
        (tmp_path / "stars" / f"{split}.jsonl").write_text(rows)
    with pytest.raises(DataError, match=r"stars, train row \d: label [2-4] is none of 0, 1, neg, pos"):
        freeze_items("sentiment", sentiment(tmp_path / "stars", 5, 5), 0)


def test_a_data_set_without_a_held_out_split_is_refused(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "train.jsonl").write_text('{"text": "a", "label": 1}\n')
    with pytest.raises(DataError, match="has no split 'test', but train; give a data set with both"):
        freeze_items("sentiment", sentiment(tmp_path / "one", 1, 1), 0)


def test_arithmetic_reads_no_data_set(tmp_path: Path) -> None:
    config = TaskConfig.model_validate(changed()["tasks"]["arithmetic"] | {"data": str(tmp_path)})
    with pytest.raises(ConfigError, match=r"tasks\.arithmetic\.data = .*: unknown data; use 'generated'"):
        freeze_items("arithmetic", config, 0)
