"""Configurations of small studies."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]

SMALL = {"corpus_items": 60, "batch_tokens": 256, "skill_steps": 3, "noise_steps": 2, "calibration_steps": 2}
"""Settings with which the embedded model is trained in seconds."""


def demo() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / "config" / "demo.yaml").read_text(encoding="utf-8"))
    return content


def changed(**changes: Any) -> dict[str, Any]:
    """The demo's configuration with some values changed; `__` separates the parts of a key."""
    config = copy.deepcopy(demo())
    for key, value in changes.items():
        *path, last = key.split("__")
        section = config
        for part in path:
            section = section.setdefault(part, {})
        section[last] = value
    return config
