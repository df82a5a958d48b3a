"""What all tests share."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

# Read when Triton is imported, which PyTorch may do.
if shutil.which("nvidia-smi") is None:
    os.environ["TRITON_INTERPRET"] = "1"

import pytest
import torch
from workplace import Workplace


@pytest.fixture(autouse=True)
def _subnormal_numbers() -> Iterator[None]:
    """Ends what a run that a test made in this process has set: hypothesis draws no floats without subnormal ones."""
    yield
    torch.set_flush_denormal(False)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    workplace = Workplace(tmp_path_factory.mktemp("workflow"))
    workplace.snakemake()
    assert len([*workplace.folder.glob("results/**/*.checkpoint")]) == 12
    # Checkpoints go when a later invocation has found the records valid.
    workplace.snakemake("-n")
    assert len([*workplace.folder.glob("results/**/*.checkpoint")]) == 12
    assert "Nothing to be done" in workplace.snakemake()
    return workplace


@pytest.fixture
def workplace(finished: Workplace, tmp_path: Path) -> Workplace:
    """A copy of the finished work without what Snakemake remembers of it."""
    for name in ("results", "resources", "reports"):
        shutil.copytree(finished.folder / name, tmp_path / name)
    return Workplace(tmp_path)
