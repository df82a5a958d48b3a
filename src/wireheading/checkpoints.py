"""The checkpoint of a run: enough to go on as if nothing had happened, and proof that it is whole.

A checkpoint's folder holds `rounds.jsonl`, to which finished rounds are appended, and the two latest states. A state is
one safetensors file: the adapter and its optimizer, and in its metadata how much of `rounds.jsonl` belongs to it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from wireheading.errors import InputError
from wireheading.files import replacing, sha256_of

KEPT = 2
"""States that are kept: should the latest be damaged, the run goes on from the one before."""


@dataclass(frozen=True)
class Checkpoint:
    """Where a run goes on from.

    Attributes:
        rows: What is kept of each finished round.
        baseline: The baseline that the next round starts from.
        tensors: The adapter and its optimizer.
    """

    rows: list[dict[str, Any]]
    baseline: float | None
    tensors: dict[str, Tensor]


def save_checkpoint(
    folder: Path,
    identity: str,
    new_rows: Sequence[Mapping[str, Any]],
    done: int,
    baseline: float,
    tensors: dict[str, Tensor],
) -> None:
    """Appends rounds to a checkpoint and writes the state after them.

    Args:
        folder: The checkpoint's folder.
        identity: What the run is a function of; a checkpoint of another identity is not gone on with.
        new_rows: The rounds since the last checkpoint.
        done: Rounds finished in all.
        baseline: The baseline that the next round starts from.
        tensors: The adapter and its optimizer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "rounds.jsonl"
    with log.open("ab") as file:
        for row in new_rows:
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    metadata = {
        "identity": identity,
        "bytes": str(log.stat().st_size),
        "log": sha256_of(log),
        "baseline": repr(baseline),
        "tensors": _digest(tensors),
    }
    with replacing(folder / f"state-{done:06d}.safetensors") as temporary:
        save_file(tensors, temporary, metadata=metadata)
    for old in _states(folder)[KEPT:]:
        old.unlink()


def load_checkpoint(folder: Path, identity: str, report: Callable[[str], None]) -> Checkpoint | None:
    """Loads the latest whole state of a checkpoint, and cuts its rounds back to those that belong to it.

    Args:
        folder: The checkpoint's folder.
        identity: What the run is a function of.
        report: Is told of states that are damaged or belong to other settings.

    Returns:
        The checkpoint, or None where there is none to go on from; its remains are then removed.
    """
    for path in _states(folder):
        try:
            return _load(path, identity)
        except (CheckpointError, SafetensorError, OSError) as error:
            report(f"{path}: {error}; going on from the state before it, if there is one")
    if folder.exists():
        shutil.rmtree(folder)
    return None


class CheckpointError(InputError):
    """A state that cannot be gone on from."""


def _load(path: Path, identity: str) -> Checkpoint:
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    if metadata["identity"] != identity:
        raise CheckpointError("was made with other settings, weights or data")
    if metadata["tensors"] != _digest(tensors):
        raise CheckpointError("is damaged")
    log, size = path.with_name("rounds.jsonl"), int(metadata["bytes"])
    data = log.read_bytes()[:size]
    if hashlib.sha256(data).hexdigest() != metadata["log"]:
        raise CheckpointError(f"does not fit {log.name}")
    os.truncate(log, size)
    rows = [json.loads(line) for line in data.splitlines()]
    return Checkpoint(rows, float(metadata["baseline"]), tensors)


def _states(folder: Path) -> list[Path]:
    return sorted(folder.glob("state-*.safetensors"), reverse=True)


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].contiguous().numpy().tobytes())
    return digest.hexdigest()
