"""How much device memory a job needs, found without a device before anything is loaded.

The engine's own code is traced on tensors that have shapes and no content (PyTorch's `meta` device), and what it would
hold is counted operation by operation. So the estimate follows the code: it knows the architecture, the cache, the
chunk, and whether activations are kept. A model is traced with two and with four layers; every part of what it needs
grows by the same amount with each further pair.

What an evaluation takes is chosen: as many held-out items at once as leave the job within its memory.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import PretrainedConfig

from wireheading.engine.footprint import Footprint
from wireheading.errors import InputError
from wireheading.policy.chat import Chat
from wireheading.policy.graphs import worth_recording
from wireheading.policy.model import read_chat, read_config
from wireheading.study.config import Run, Study

GB = 1e9

CONTEXT_BYTES = int(1.0 * GB)
"""What the CUDA context, its libraries' workspaces and the recorded graphs themselves take."""

FRAGMENTATION = 1.05
"""What the allocator holds, relative to what is in use: freed blocks do not all fit what is asked for next."""

USABLE = 0.95
"""The part of a device's memory that a job may take where the config does not say how much."""

NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes of a weight in NF4: half a byte, a byte of scale for each 64 weights, four for each 256 scales."""

SMALL, LARGE = 2, 4
"""Layers of the two traces: pairs, since Gemma's layers alternate."""

BATCHES = sorted({factor * 2**power for power in range(10) for factor in (2, 3)} | {1})
"""Held-out items of each run that may be evaluated together: few numbers, so that devices of one kind that differ a
little in their memory compute the same."""

CPU_BATCH = 10
"""Held-out items of each run that are evaluated together on a CPU, which gains nothing by more."""


@dataclass(frozen=True)
class Estimate:
    """Device memory of a job, in bytes.

    Attributes:
        weights: The frozen base model.
        slots: The adapters of all runs with gradients and optimizer state.
        caches: The keys and values of the sessions that are open during training.
        update: The most that an update takes beyond these: activations, logits and their gradients.
        sampling: The most that reading and sampling in training take beyond these.
        evaluation: The most that a held-out evaluation takes, whose session replaces those of training.
        graphs: What recorded steps keep for themselves.
        graphs_beside_update: The part of that which is there when the largest update is made: a step is recorded when
            it is done again, so no update is if the largest will be.
    """

    weights: int
    slots: int
    caches: int
    update: int
    sampling: int
    evaluation: int
    graphs: int
    graphs_beside_update: int

    @property
    def total(self) -> int:
        """What the device must have free."""
        training = self.caches + max(self.update + self.graphs_beside_update, self.sampling + self.graphs)
        held = self.weights + self.slots + max(training, self.evaluation + self.graphs)
        return int(held * FRAGMENTATION) + CONTEXT_BYTES

    def __str__(self) -> str:
        parts = (
            f"{name} {value / GB:.1f}"
            for name, value in (
                ("weights", self.weights),
                ("adapters", self.slots),
                ("caches", self.caches),
                ("update", self.update),
                ("sampling", self.sampling),
                ("evaluation", self.evaluation),
                ("graphs", self.graphs),
            )
        )
        return f"{self.total / GB:.1f} GB ({', '.join(parts)})"


def estimate(study: Study, axes: Sequence[Run], config: PretrainedConfig, chat: Chat | None = None) -> Estimate:
    """Estimates the device memory of a job.

    Args:
        study: The study's settings. Where they leave the evaluation's batch open, it is one item of each run.
        axes: All runs that share the job: they number the slots.
        config: The configuration of their model.
        chat: Its chat format; without one a grade is taken to have as many tokens as characters.
    """
    return estimates(study, axes, config, chat)(study.engine.evaluation_batch or 1)


def estimates(
    study: Study, axes: Sequence[Run], config: PretrainedConfig, chat: Chat | None
) -> Callable[[int], Estimate]:
    """Traces what does not depend on the evaluation's batch, and returns what estimates a job with some batch."""
    traces = [Footprint(study, axes, config, layers, chat) for layers in (SMALL, LARGE)]
    pairs = (config.num_hidden_layers - SMALL) / (LARGE - SMALL)
    precision = study.models[axes[0].model].precision

    def of_batch(size: int) -> Estimate:
        small, large = (trace.training | trace.evaluation(size) for trace in traces)
        whole = {name: small[name] + (large[name] - small[name]) * pairs for name in small}
        return _summed(whole, precision, small["widest"])

    return cache(of_batch)


def _summed(whole: Mapping[str, float], precision: str, widest: float) -> Estimate:
    """The parts of an estimate from what was found of the whole model, whose widest layer has so many weights."""
    linear, rest = whole["linear"], whole["other"]
    each = 4 if precision == "float32" else 2
    weights = linear * NF4_BYTES + rest * each if precision == "nf4" else (linear + rest) * each
    # A quantized layer is expanded while it is computed.
    expanded = widest * 2 if precision == "nf4" else 0

    def most(kind: str) -> int:
        return int(max(value for name, value in whole.items() if name.startswith(f"{kind} ")) + expanded)

    steps = [
        (name.split()[1], whole[f"transient{name.removeprefix('work')}"] + expanded, worth_recording(work))
        for name, work in whole.items()
        if name.startswith("work ")
    ]
    graphs = max(kept for _, kept, recorded in steps if recorded)
    all_updates = all(recorded for kind, _, recorded in steps if kind == "update")
    other = max(kept for kind, kept, recorded in steps if recorded and kind not in ("update", "adamw"))
    return Estimate(
        weights=int(weights),
        slots=int(whole["slots"]),
        caches=int(whole["caches"]),
        update=most("update"),
        sampling=most("sampling"),
        evaluation=most("evaluation"),
        graphs=int(graphs),
        graphs_beside_update=int(other if all_updates else graphs),
    )


def fitted(study: Study, axes: Sequence[Run], folder: Path, device: torch.device) -> tuple[Study, Estimate | None]:
    """Checks that a job fits on its device, and settles how many held-out items are evaluated together.

    The number depends on the config, the model and the kind of device alone, never on what is free on it.

    Args:
        study: The study's settings.
        axes: All runs that share the job.
        folder: The model's folder.
        device: The device.

    Returns:
        The study with that number, and what the job needs on a GPU.

    Raises:
        InputError: It does not fit.
    """
    if device.type != "cuda":
        return with_engine(study, evaluation_batch=study.engine.evaluation_batch or CPU_BATCH), None
    free, total = torch.cuda.mem_get_info()
    own = study.models[axes[0].model].vram_gb
    budget = int(total * USABLE) if own is None else min(int(own * GB), int(total * USABLE))
    config = read_config(folder)
    chat = read_chat(folder, config, plain=study.prompting == "completion")
    of_batch = estimates(study, axes, config, chat)
    size = study.engine.evaluation_batch or largest_batch(study, axes, of_batch, budget)
    needed = of_batch(size)
    if study.engine.share_devices and own is not None:
        free = min(free, int(own * GB))
    check_memory(study, axes, config, chat, needed, free, total, torch.cuda.get_device_name())
    return with_engine(study, evaluation_batch=size), needed


def largest_batch(study: Study, axes: Sequence[Run], of_batch: Callable[[int], Estimate], budget: int) -> int:
    """The most held-out items of each run that may be evaluated together for a job to stay within so many bytes.

    Args:
        study: The study's settings.
        axes: All runs that share the job.
        of_batch: Estimates the job with some batch.
        budget: The bytes.
    """
    items = max(study.tasks[run.task].heldout_items for run in axes)
    sizes = [size for size in BATCHES if size < items] + [items]
    # One item is taken in any case: whether that fits is checked later.
    return sizes[bisect.bisect(sizes[1:], budget, key=lambda size: of_batch(size).total)]


def check_memory(
    study: Study,
    axes: Sequence[Run],
    config: PretrainedConfig,
    chat: Chat | None,
    needed: Estimate,
    free: int,
    total: int,
    device: str,
) -> None:
    """Checks before a model is loaded that its job fits.

    Args:
        study: The study's settings.
        axes: All runs that share the job.
        config: The configuration of their model.
        chat: Its chat format.
        needed: What the job needs.
        free: Bytes that are free on the device.
        total: Bytes that it has.
        device: Its name.

    Raises:
        InputError: It does not fit. The text has both figures and says what to change.
    """
    if needed.total > free:
        raise InputError(
            f"{axes[0].model}: {len(axes)} runs in lockstep need {needed}, but {device} has {free / GB:.1f} of "
            f"{total / GB:.1f} GB free; {remedy(study, axes, config, chat, free)}"
        )


def remedy(study: Study, axes: Sequence[Run], config: PretrainedConfig, chat: Chat | None, free: int) -> str:
    """What to change so that a job fits into so many bytes: the mildest change that is enough."""
    name, chunk = axes[0].model, study.engine.chunk
    open_batch = ["engine.evaluation_batch: null"] * (study.engine.evaluation_batch is not None)
    for checkpointing in dict.fromkeys((study.models[name].activation_checkpointing, True)):
        changes = [f"models.{name}.activation_checkpointing: true"] * checkpointing
        for size in dict.fromkeys(max(1, fewer) for fewer in (chunk, chunk // 2, chunk // 4, 1)):
            tried = with_engine(with_checkpointing(study, name, checkpointing), chunk=size, evaluation_batch=None)
            needed = estimate(tried, axes, config, chat)
            if needed.total <= free:
                changes += [f"engine.chunk: {size}"] * (size < chunk) + open_batch
                return f"set {', '.join(changes)}: that needs {needed.total / GB:.1f} GB"
    one = estimate(tried, axes[:1], config, chat)
    if one.total <= free:
        changes += ["engine.lockstep: []", "engine.chunk: 1", *open_batch]
        return f"set {', '.join(changes)}: one run a job needs {one.total / GB:.1f} GB"
    return "use a device with more memory, or a precision of nf4"


def with_checkpointing(study: Study, name: str, checkpointing: bool) -> Study:
    """A study in which a model's activations are checkpointed, or not."""
    model = study.models[name].model_copy(update={"activation_checkpointing": checkpointing})
    return study.model_copy(update={"models": {**study.models, name: model}})


def with_engine(study: Study, **changes: Any) -> Study:
    """A study with other engine settings."""
    return study.model_copy(update={"engine": study.engine.model_copy(update=changes)})
