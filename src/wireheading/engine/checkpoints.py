"""The checkpoint of a run: enough to resume as if nothing had happened, and proof that it is whole.

A run has a lock and a checkpoint for each identity: the settings, weights and data that it is a function of. So a job
with other settings leaves a checkpoint alone, and a job with the old settings resumes from it. A checkpoint's folder
holds `rounds.jsonl`, to which finished rounds and evaluations are appended, and the two latest states. A state is one
safetensors file: the adapter and its optimizer, and in its metadata how much of `rounds.jsonl` belongs to it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from wireheading.engine.folders import VERSION
from wireheading.errors import InputError
from wireheading.files import remove_leftovers, replacing, sha256_of, writing

KEPT = 2
"""States that are kept: if the latest is damaged, the run resumes from the one before."""


@dataclass(frozen=True)
class Checkpoint:
    """What a run resumes from.

    Attributes:
        log: What was kept of each finished round and evaluation, in their order.
        tensors: The adapter and its optimizer.
    """

    log: list[dict[str, Any]]
    tensors: dict[str, Tensor]


class CheckpointError(InputError):
    """A state that cannot be resumed."""


def save_checkpoint(
    folder: Path,
    identity: str,
    entries: Sequence[Mapping[str, Any]],
    done: int,
    tensors: Mapping[str, Tensor],
) -> None:
    """Appends rounds and evaluations to a checkpoint and writes the state after them.

    Args:
        folder: The checkpoint's folder.
        identity: What the run is a function of, as `identity_of` tells it.
        entries: The rounds and evaluations since the last checkpoint.
        done: Rounds finished in all.
        tensors: The adapter and its optimizer, on the CPU.

    Raises:
        WriteError: The disk is full, or the folder may not be written to. The states before stay as they are.
    """
    log = folder / "rounds.jsonl"
    with writing(log):
        folder.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            for entry in entries:
                file.write(json.dumps(entry, ensure_ascii=False, allow_nan=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
    metadata = {
        "version": str(VERSION),
        "identity": identity,
        "bytes": str(log.stat().st_size),
        "log": sha256_of(log),
    }
    with replacing(folder / f"state-{done:06d}.safetensors") as temporary:
        save_file(dict(tensors), temporary, metadata={**metadata, "checksum": _checksum(metadata, tensors)})
    for old in _states(folder)[KEPT:]:
        old.unlink()


def load_checkpoint(folder: Path, identity: str, report: Callable[[str], None]) -> Checkpoint | None:
    """Loads the latest whole state of a checkpoint, and cuts its log back to what belongs to it.

    Damaged states are removed. A file that exists but cannot be read just now is an error, and
    nothing is removed.

    Args:
        folder: The checkpoint's folder.
        identity: What the run is a function of.
        report: Writes a line about each damaged state.

    Returns:
        The checkpoint, or None where there is none to resume from.
    """
    remove_leftovers(folder, "state-")
    states = _states(folder)
    for index, path in enumerate(states):
        try:
            checkpoint = _load(path, identity)
        except (CheckpointError, SafetensorError, FileNotFoundError) as error:
            then = "resuming from the state before it" if index + 1 < len(states) else "starting from the first round"
            report(f"{path}: {error}; {then}")
            continue
        for unusable in states[:index]:
            unusable.unlink()
        return checkpoint
    for unusable in states:
        unusable.unlink()
    (folder / "rounds.jsonl").unlink(missing_ok=True)
    return None


def _load(path: Path, identity: str) -> Checkpoint:
    with safe_open(path, framework="pt") as file:
        metadata: dict[str, str] = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    checksum = metadata.pop("checksum", None)
    if metadata.get("version") != str(VERSION):
        raise CheckpointError(f"is of version {metadata.get('version')} of checkpoints, not {VERSION}")
    if checksum != _checksum(metadata, tensors):
        raise CheckpointError("is damaged")
    if metadata["identity"] != identity:
        raise CheckpointError("was made with other settings, weights or data")
    log, size = path.with_name("rounds.jsonl"), int(metadata["bytes"])
    data = log.read_bytes()[:size]
    if hashlib.sha256(data).hexdigest() != metadata["log"]:
        raise CheckpointError(f"does not fit {log.name}")
    os.truncate(log, size)
    entries = [json.loads(line) for line in data.splitlines()]
    return Checkpoint(entries, tensors)


def _states(folder: Path) -> list[Path]:
    return sorted(folder.glob("state-*.safetensors"), reverse=True)


def _checksum(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """Tells damage, not forgery: a cryptographic hash of a large adapter takes longer than writing it."""
    checksum = xxhash.xxh3_128(json.dumps(metadata, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        checksum.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        checksum.update(tensor.contiguous().numpy().data)
    return checksum.hexdigest()
