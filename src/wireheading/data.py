"""The items of a task, frozen to files before any run reads them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from wireheading.config import ConfigError, TaskConfig
from wireheading.errors import InputError
from wireheading.files import replacing
from wireheading.streams import generator
from wireheading.tasks import Item, arithmetic
from wireheading.tiny import corpus


class DataError(InputError):
    """Items that cannot be used. Its text is one line: the file, what is wrong with it, the remedy."""


def freeze_items(task_name: str, config: TaskConfig, data_seed: int) -> tuple[list[Item], list[Item]]:
    """Chooses a task's items.

    Args:
        task_name: Name of the task.
        config: Its part of the configuration.
        data_seed: Seed of the choice and of the split.

    Returns:
        Training items and held-out items; no text or question is in both, nor twice in one.

    Raises:
        ConfigError: The task has no such data.
    """
    count = config.train_items + config.heldout_items
    if task_name in corpus.MAKERS and config.data == "embedded":
        items: Sequence[Item] = corpus.generate_items(task_name, count, f"items/{data_seed}")
    elif task_name == "arithmetic" and config.data == "generated":
        items = arithmetic.generate_items(config.operands, count, data_seed)
    else:
        known = "generated" if task_name == "arithmetic" else "embedded"
        raise ConfigError(f"config: tasks.{task_name}.data = {config.data!r}: unknown data; use {known!r}")
    order = generator(data_seed, task_name, "split").permutation(count)
    shuffled = [items[index] for index in order]
    return shuffled[: config.train_items], shuffled[config.train_items :]


def write_items(path: Path, items: Iterable[Item]) -> None:
    """Writes a file of items, one JSON object a line; a crash leaves the old file or the new one."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        for item in items:
            file.write(json.dumps(item, ensure_ascii=False) + "\n")


def read_items(path: Path) -> list[Item]:
    """Reads a file of items, one JSON object a line.

    Raises:
        DataError: There is no such file, or a line of it is not an item.
    """
    try:
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); delete it and run the workflow again") from None
    items: list[Item] = []
    for number, line in enumerate(lines, 1):
        try:
            item = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}, line {number}: {error}; delete the file and run the workflow again") from None
        if not isinstance(item, dict) or "id" not in item:
            raise DataError(f"{path}, line {number}: not an item; delete the file and run the workflow again")
        items.append(item)
    return items
