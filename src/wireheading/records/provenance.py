"""What a record was made on and by: machine, versions, code and engine settings. It never makes a record stale."""

from __future__ import annotations

import importlib.metadata
import platform
from datetime import UTC, datetime
from typing import Any

import torch

from wireheading.files import code_digest
from wireheading.study.config import Study

PACKAGES = ("torch", "transformers", "tokenizers", "peft", "numpy", "rouge-score")
"""The libraries whose versions can change a run's numbers."""


def provenance(study: Study, device: torch.device, *, slot: int, slots: int, chunk: int) -> dict[str, Any]:
    """What a run's record says of where it comes from.

    Args:
        study: The study's settings.
        device: Where the model was.
        slot: The run's slot.
        slots: The job's number of slots.
        chunk: Runs that were updated together: the config's, unless memory ran out.
    """
    return {
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "code": code_digest(),
        "slot": slot,
        "slots": slots,
        "batch": study.engine.batch,
        "chunk": chunk,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu(),
        "python": platform.python_version(),
        **{package: importlib.metadata.version(package) for package in PACKAGES},
    }


def _cpu() -> str:
    return f"{platform.machine()} CPU, {torch.backends.cpu.get_cpu_capability()}"
