"""What all tests share."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers share the cores. Read when PyTorch is imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# Read when Triton is imported, which PyTorch may do.
if shutil.which("nvidia-smi") is None:
    os.environ["TRITON_INTERPRET"] = "1"

import pytest
import torch
from workplace import Workplace

SHARED = "PYTEST_XDIST_WORKER" in os.environ
"""Whether another worker runs a part of the tests at the same time."""

LONGEST = ["test_slurm.py", "test_workflow.py", "test_interruptions.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest files first, so that no worker is left alone with one of them at the end."""
    if SHARED:
        items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture(autouse=True)
def _subnormal_numbers() -> Iterator[None]:
    """Ends what a run that a test made in this process has set: hypothesis draws no floats without subnormal ones."""
    yield
    torch.set_flush_denormal(False)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """A small study that is done. Only the first worker that needs it does it; each has a copy."""
    base = tmp_path_factory.getbasetemp()
    made = (base.parent if SHARED else base) / "finished"
    with made.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            finish(Workplace(tmp_path_factory.mktemp("making"))).rename(made)
    workplace = Workplace(tmp_path_factory.mktemp("workflow"))
    for name in (".snakemake", "logs", "resources", "results", "reports"):
        shutil.copytree(made / name, workplace.folder / name)
    return workplace


def finish(workplace: Workplace) -> Path:
    workplace.snakemake()
    assert len([*workplace.folder.glob("results/**/*.checkpoint")]) == 12
    # Checkpoints go when a later invocation has found the records valid.
    workplace.snakemake("-n")
    assert len([*workplace.folder.glob("results/**/*.checkpoint")]) == 12
    assert "Nothing to be done" in workplace.snakemake()
    return workplace.folder


@pytest.fixture
def workplace(finished: Workplace, tmp_path: Path) -> Workplace:
    """A copy of the finished work without what Snakemake remembers of it."""
    for name in ("results", "resources", "reports"):
        shutil.copytree(finished.folder / name, tmp_path / name)
    return Workplace(tmp_path)
