"""Rows of conditions that a config may add, each with something that no known condition has."""

from __future__ import annotations

from typing import Any

SELF: dict[str, Any] = {"grader": "policy", "reward": "grade", "credit": "both"}

ROWS: list[dict[str, Any]] = [
    {"name": "audit-50", **SELF, "audit": 0.5},
    {"name": "fine-50", **SELF, "audit": 0.5, "fine": True},
    {"name": "reform", **SELF, "until": 4},
    {"name": "brier", **SELF, "reward": "score", "grade_reward": "brier"},
    # A toy's grades can seldom be read; paid by a coin, its policy does leave the base model and its own past.
    {"name": "kl", **SELF, "reward": "coin", "kl": 0.05},
    {"name": "lag-3", **SELF, "reward": "coin", "credit": "response", "grader_lag": 3},
]
