"""What all tests share."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def _subnormal_numbers() -> Iterator[None]:
    """Ends what a run that a test made in this process has set: hypothesis draws no floats without subnormal ones."""
    yield
    torch.set_flush_denormal(False)
