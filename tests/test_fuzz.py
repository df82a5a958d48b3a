"""Some hundred files of each kind, damaged at random; `fuzz.py` has the long form."""

from __future__ import annotations

import pytest
from fuzz import Fuzz, attempt

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def fuzz(tmp_path_factory: pytest.TempPathFactory) -> Fuzz:
    return Fuzz(tmp_path_factory.mktemp("fuzz"))


@pytest.mark.parametrize(
    ("kind", "attempts"), [("records", 30), ("checkpoints", 300), ("configs", 100), ("imports", 300)]
)
def test_damaged_files_end_in_a_line_and_never_pass_for_valid(fuzz: Fuzz, kind: str, attempts: int) -> None:
    outcomes = {attempt(fuzz, kind, number) for number in range(attempts)}
    assert len(outcomes) > 1, "the damage is always the same"
