"""The items of a task, frozen to files before any run reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_items(path: Path) -> list[dict[str, Any]]:
    """Reads a file of items, one JSON object a line."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]
