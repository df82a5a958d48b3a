"""The device that computes, and the settings that make its results reproducible."""

from __future__ import annotations

import os
import platform

import torch


def prepare_device(threads: int) -> torch.device:
    """Sets up PyTorch for the whole process.

    Args:
        threads: Threads that PyTorch uses on a CPU; another number may change the last bits of a result.

    Returns:
        The GPU if there is one, else the CPU.
    """
    torch.set_num_threads(threads)
    # PyTorch reads this when it first allocates on a GPU. Freed memory then serves whatever comes next: 15 runs of a
    # model of 8 billion parameters fit into 24 GB with it, and not without.
    os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    # cuBLAS is deterministic with a workspace of fixed size; it reads this on first use.
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    torch.use_deterministic_algorithms(True)
    # Every operation used here writes its whole result; filling memory first would cost a twentieth of an update.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    # A confident policy has gradients below 1e-38. A CPU is a hundred times slower with them, and they change nothing:
    # a step of the embedded model's training took 0.10 s at its beginning and 0.27 s at its end.
    torch.set_flush_denormal(True)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_name(device: torch.device) -> str:
    """What records call a device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {torch.backends.cpu.get_cpu_capability()}"
