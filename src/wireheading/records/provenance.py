"""What a record was made on and by: machine, versions, code and engine settings. It never makes a record stale."""

from __future__ import annotations

import importlib.metadata
import platform
from datetime import UTC, datetime
from typing import Any

from wireheading.files import code_digest
from wireheading.study.config import Study

PACKAGES = ("torch", "transformers", "tokenizers", "peft", "numpy", "rouge-score")
"""The libraries whose versions can change a run's numbers."""


def provenance(study: Study, *, slot: int, slots: int, chunk: int, threads: int, device: str) -> dict[str, Any]:
    """What a run's record says of where it comes from.

    Args:
        study: The study's settings.
        slot: The run's slot.
        slots: The job's number of slots.
        chunk: Runs that were updated together: the config's, unless memory ran out.
        threads: Threads that PyTorch used on a CPU.
        device: What it was computed on.
    """
    return {
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "code": code_digest(),
        "slot": slot,
        "slots": slots,
        "batch": study.engine.batch,
        "chunk": chunk,
        "evaluation_batch": study.engine.evaluation_batch,
        "threads": threads,
        "device": device,
        "python": platform.python_version(),
        **{package: importlib.metadata.version(package) for package in PACKAGES},
    }
