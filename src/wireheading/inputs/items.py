"""The items of a task, frozen to files before any run reads them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wireheading.errors import ConfigError, InputError, first_line
from wireheading.files import replacing
from wireheading.inputs import corpus
from wireheading.inputs.models import commit_of, local_folder, telling_of_the_hub, verified_digests
from wireheading.study.randomness import generator
from wireheading.study.sections import TaskConfig
from wireheading.tasks import TASKS, Item, arithmetic

MADE_HERE = ("embedded", "generated")
"""Data that is made and not read."""

SPLITS = ("train", "test")
"""The splits of a data set that training items and held-out items are taken from."""


class DataError(InputError):
    """Items that cannot be used. Its text is one line: the file, what is wrong with it, the remedy."""


def find_commit(task_name: str, config: TaskConfig) -> str | None:
    """The commit that a hub data set's revision stands for; None where the data is no hub's.

    Raises:
        InputError: The hub cannot be reached, or has no such data set.
    """
    key = f"tasks.{task_name}.data"
    if config.data in MADE_HERE or local_folder(key, config.data):
        return None
    from huggingface_hub import HfApi

    try:
        with telling_of_the_hub(config.data, "datasets/"):
            return HfApi().dataset_info(config.data, revision=config.revision).sha
    except InputError as error:
        raise InputError(f"config: {key} = {config.data!r}: {error}") from None


def freeze_items(
    task_name: str, config: TaskConfig, data_seed: int, commit: str | None = None
) -> tuple[list[Item], list[Item]]:
    """Chooses a task's items.

    Args:
        task_name: Name of the task.
        config: Its part of the configuration.
        data_seed: Seed of the choice and of the split.
        commit: The commit of a hub data set.

    Returns:
        Training items and held-out items; no text or question is in both, nor twice in one.

    Raises:
        ConfigError: The task has no such data.
        DataError: The data set cannot be read, or has not enough items.
    """
    if config.data not in MADE_HERE:
        if not TASKS[task_name].COLUMNS:
            raise ConfigError(f"config: tasks.{task_name}.data = {config.data!r}: unknown data; use 'generated'")
        return _choose(task_name, config, data_seed, _load(task_name, config, commit))
    count = config.train_items + config.heldout_items
    if task_name in corpus.MAKERS and config.data == "embedded":
        items: Sequence[Item] = corpus.generate_items(task_name, count, f"items/{data_seed}")
    elif task_name == "arithmetic" and config.data == "generated":
        items = arithmetic.generate_items(config.operands, count, data_seed)
    else:
        raise ConfigError(
            f"config: tasks.{task_name}.data = {config.data!r}: there is no such data; give a hub id or a folder"
        )
    order = generator(data_seed, task_name, "split").permutation(count)
    shuffled = [items[index] for index in order]
    return shuffled[: config.train_items], shuffled[config.train_items :]


def write_items(path: Path, items: Iterable[Item]) -> None:
    """Writes a file of items, one JSON object a line; a crash leaves the old file or the new one."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        for item in items:
            file.write(json.dumps(item, ensure_ascii=False) + "\n")


@dataclass(frozen=True)
class Items:
    """The frozen items of a task, the SHA-256 of their files, and the commit of the data set that they come from."""

    train: Sequence[Item]
    heldout: Sequence[Item]
    digests: dict[str, str]

    @staticmethod
    def read(folder: Path, task: str) -> Items:
        """Reads the items from a task's folder.

        Raises:
            InputError: They cannot be read, or were changed since they were frozen.
        """
        train, heldout = folder / "train.jsonl", folder / "heldout.jsonl"
        items = read_items(train, task), read_items(heldout, task)
        return Items(*items, verified_digests(folder, (train.name, heldout.name)) | commit_of(folder, "data"))


def read_items(path: Path, task_name: str) -> list[Item]:
    """Reads a file of a task's items, one JSON object a line.

    Raises:
        DataError: There is no such file, or a line of it is not an item of the task.
    """
    task = TASKS[task_name]
    try:
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); delete it and run the workflow again") from None
    items: list[Item] = []
    for number, line in enumerate(lines, 1):
        try:
            item = json.loads(line)
            known = isinstance(item, dict) and isinstance(item.get("id"), str) and item.keys() >= set(task.FIELDS)
            if not known or task.evaluate(item, task.gold_answer(item)) <= 0:
                raise ValueError(f"not an item of {task_name}, which has id, {', '.join(task.FIELDS)} and an answer")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DataError(
                f"{path}, line {number}: {error}; remove {path.parent} and run the workflow again"
            ) from None
        items.append(item)
    return items


def _load(task_name: str, config: TaskConfig, commit: str | None) -> Mapping[str, Any]:
    """A data set's splits."""
    # Imported here: it takes a second, and only this needs it.
    import datasets
    from datasets.exceptions import DatasetsError

    key = f"tasks.{task_name}.data"
    told = f"config: {key} = {config.data!r}"
    folder = local_folder(key, config.data)
    try:
        with telling_of_the_hub(config.data, "datasets/"):
            splits: Mapping[str, Any] = datasets.load_dataset(
                str(folder) if folder else config.data, config.subset or None, revision=commit
            )
    except InputError as error:
        raise InputError(f"{told}: {error}") from None
    # A data set that is a program is a RuntimeError: it is not run.
    except (DatasetsError, OSError, ValueError, RuntimeError) as error:
        raise DataError(
            f"{told}: cannot be loaded ({first_line(error)}); check the folder or id, and `subset`"
        ) from None
    for split in SPLITS:
        if split not in splits:
            raise DataError(f"{told}: has no split {split!r}, but {', '.join(splits)}; give a data set with both")
    return splits


def _choose(
    task_name: str, config: TaskConfig, data_seed: int, splits: Mapping[str, Any]
) -> tuple[list[Item], list[Item]]:
    """Draws distinct items from each split in an order of its own; more items keep those of fewer.

    Rows with an empty field are left out.
    """
    task = TASKS[task_name]
    columns = {**task.COLUMNS, **config.columns}
    seen: set[str] = set()
    chosen: list[list[Item]] = []
    for split, count, key in zip(
        SPLITS, (config.train_items, config.heldout_items), ("train_items", "heldout_items"), strict=True
    ):
        rows = splits[split]
        for field, column in columns.items():
            if column not in rows.column_names:
                raise DataError(
                    f"config: tasks.{task_name}.data = {config.data!r}: has no column {column!r}, but "
                    f"{', '.join(rows.column_names)}; name the column of {field!r} in tasks.{task_name}.columns"
                )
        items: list[Item] = []
        for index in generator(data_seed, task_name, split).permutation(len(rows)).tolist():
            if len(items) == count:
                break
            row = rows[index]
            named = {field: _plain(rows.features[column], row[column]) for field, column in columns.items()}
            if not all(str(value).strip() for value in named.values()):
                continue
            try:
                fields = dict(task.make_item(named))
            except ValueError as error:
                raise DataError(f"{config.data}, {split} row {index}: {error}") from None
            for field in task.FIELDS:
                if config.characters is not None and isinstance(fields[field], str):
                    fields[field] = fields[field][: config.characters]
            content = " ".join(word for field in task.FIELDS for word in str(fields[field]).split())
            if content not in seen:
                seen.add(content)
                items.append({"id": f"{split}-{index}", **fields})
        if len(items) < count:
            raise DataError(
                f"config: tasks.{task_name}.{key} = {count}: {config.data} has only {len(items)} different items in "
                f"its split {split!r}; ask for fewer"
            )
        chosen.append(items)
    return chosen[0], chosen[1]


def _plain(feature: Any, value: Any) -> Any:
    """A value of a data set, a class by its name: what its number means differs from one data set to the next."""
    return feature.int2str(value) if hasattr(feature, "int2str") and isinstance(value, int) else value
