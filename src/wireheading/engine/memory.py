"""How much device memory a job needs, found without a device before anything is loaded.

The engine's own code is traced on tensors that have shapes and no content (PyTorch's `meta` device), and what it would
hold is counted operation by operation. So the estimate follows the code: it knows the architecture, the cache, the
chunk, and whether activations are kept. A model is traced with two and with four layers; every part of what it needs
grows by the same amount with each further pair.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import AutoModelForCausalLM, GenerationConfig, PretrainedConfig, PreTrainedModel

from wireheading.engine.evaluation import open_session
from wireheading.engine.layout import groups_of, widths_of
from wireheading.engine.prompts import choices, grade_texts
from wireheading.engine.tracing import Characters, Tracer, fused_attention
from wireheading.errors import InputError
from wireheading.policy.chat import Chat
from wireheading.policy.model import prepare, read_config
from wireheading.policy.policy import Policy
from wireheading.policy.sampling import draw
from wireheading.policy.session import Session
from wireheading.policy.update import Chunk, Width, adamw
from wireheading.study.config import Run, Study

GB = 1e9

CONTEXT_BYTES = int(1.0 * GB)
"""What the CUDA context, its libraries' workspaces and recorded graphs take."""

FRAGMENTATION = 1.05
"""What the allocator holds, relative to what is in use: freed blocks do not all fit what is asked for next."""

NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes of a weight in NF4: half a byte, a byte of scale for each 64 weights, four for each 256 scales."""

SMALL, LARGE = 2, 4
"""Layers of the two traces: pairs, since Gemma's layers alternate."""


@dataclass(frozen=True)
class Estimate:
    """Device memory of a job, in bytes.

    Attributes:
        weights: The frozen base model.
        slots: The adapters of all runs with gradients and optimizer state.
        caches: The keys and values of the sessions that the policy keeps.
        update: The most that an update takes beyond these: activations, logits and their gradients.
        sampling: The most that reading and sampling take beyond these, held-out evaluation included.
    """

    weights: int
    slots: int
    caches: int
    update: int
    sampling: int

    @property
    def total(self) -> int:
        """What the device must have free."""
        held = self.weights + self.slots + self.caches + max(self.update, self.sampling)
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
            )
        )
        return f"{self.total / GB:.1f} GB ({', '.join(parts)})"


@contextmanager
def checking_memory(study: Study, axes: Sequence[Run], folder: Path, report: Callable[[str], None]) -> Iterator[None]:
    """Checks that a job fits into the GPU before it does anything, and reports afterwards what it took.

    Args:
        study: The study's settings.
        axes: All runs that share the job.
        folder: The model's folder.
        report: Writes both figures.

    Raises:
        InputError: It does not fit.
    """
    if not torch.cuda.is_available():
        yield
        return
    free, total = torch.cuda.mem_get_info()
    own = study.models[axes[0].model].vram_gb
    if study.engine.share_devices and own is not None:
        free = min(free, int(own * GB))
    needed = check_memory(study, axes, folder, free, total, torch.cuda.get_device_name())
    report(f"memory expected: {needed}")
    yield
    report(f"memory at the peak: {torch.cuda.max_memory_reserved() / GB:.1f} GB, of {needed.total / GB:.1f} expected")


def estimate(study: Study, axes: Sequence[Run], config: PretrainedConfig) -> Estimate:
    """Estimates the device memory of a job.

    Args:
        study: The study's settings.
        axes: All runs that share the job: they number the slots.
        config: The configuration of their model.
    """
    small, large = (_trace(study, axes, _with_layers(config, layers)) for layers in (SMALL, LARGE))
    pairs = (config.num_hidden_layers - SMALL) / (LARGE - SMALL)
    whole = {name: small[name] + (large[name] - small[name]) * pairs for name in small}
    precision = study.models[axes[0].model].precision
    linear, other = whole["linear"], whole["other"]
    each = 4 if precision == "float32" else 2
    weights = linear * NF4_BYTES + other * each if precision == "nf4" else (linear + other) * each
    # A quantized layer is expanded while it is computed.
    expanded = small["widest"] * 2 if precision == "nf4" else 0
    return Estimate(
        weights=int(weights),
        slots=int(whole["slots"]),
        caches=int(whole["caches"]),
        update=int(max(value for name, value in whole.items() if name.startswith("update ")) + expanded),
        sampling=int(max(value for name, value in whole.items() if name.startswith("sampling ")) + expanded),
    )


def check_memory(study: Study, axes: Sequence[Run], folder: Path, free: int, total: int, device: str) -> Estimate:
    """Checks before a model is loaded that its job fits.

    Args:
        study: The study's settings.
        axes: All runs that share the job.
        folder: The model's folder.
        free: Bytes that are free on the device.
        total: Bytes that it has.
        device: Its name.

    Returns:
        What the job needs.

    Raises:
        InputError: It does not fit. The text has both figures and says what to change.
    """
    config = read_config(folder)
    needed = estimate(study, axes, config)
    if needed.total > free:
        raise InputError(
            f"{axes[0].model}: {len(axes)} runs in lockstep need {needed}, but {device} has {free / GB:.1f} of "
            f"{total / GB:.1f} GB free; {remedy(study, axes, config, free)}"
        )
    return needed


def remedy(study: Study, axes: Sequence[Run], config: PretrainedConfig, free: int) -> str:
    """What to change so that a job fits into so many bytes: the mildest change that is enough."""
    name, chunk = axes[0].model, study.engine.chunk
    for checkpointing in dict.fromkeys((study.models[name].activation_checkpointing, True)):
        changes = [f"models.{name}.activation_checkpointing: true"] * checkpointing
        for size in dict.fromkeys(max(1, fewer) for fewer in (chunk // 2, chunk // 4, 1)):
            batch = min(size, study.engine.evaluation_batch)
            tried = with_engine(with_checkpointing(study, name, checkpointing), chunk=size, evaluation_batch=batch)
            needed = estimate(tried, axes, config)
            if needed.total <= free:
                changes += [f"engine.chunk: {size}", f"engine.evaluation_batch: {batch}"]
                return f"set {', '.join(changes)}: that needs {needed.total / GB:.1f} GB"
    one = estimate(tried, axes[:1], config)
    if one.total <= free:
        changes += ["engine.lockstep: []", "engine.chunk: 1", "engine.evaluation_batch: 1"]
        return f"set {', '.join(changes)}: one run a job needs {one.total / GB:.1f} GB"
    return "use a device with more memory, or a precision of nf4"


def with_checkpointing(study: Study, name: str, checkpointing: bool) -> Study:
    """A study in which a model's activations are checkpointed, or not."""
    model = study.models[name].model_copy(update={"activation_checkpointing": checkpointing})
    return study.model_copy(update={"models": {**study.models, name: model}})


def with_engine(study: Study, **changes: Any) -> Study:
    """A study with other engine settings."""
    return study.model_copy(update={"engine": study.engine.model_copy(update=changes)})


def _with_layers(config: PretrainedConfig, layers: int) -> PretrainedConfig:
    config = copy.deepcopy(config)
    config.num_hidden_layers = layers
    if getattr(config, "layer_types", None) is not None:
        config.layer_types = config.layer_types[:layers]
    return config


def _trace(study: Study, axes: Sequence[Run], config: PretrainedConfig) -> dict[str, float]:
    """What a job with a model of these few layers holds: numbers of weights, and bytes of everything else."""
    precision = study.models[axes[0].model].precision
    with torch.device("meta"):
        dtype = torch.float32 if precision == "float32" else torch.bfloat16
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype)
    prepare(model)
    head = model.get_output_embeddings()
    sizes = [
        module.weight.numel() for module in model.modules() if isinstance(module, nn.Linear) and module is not head
    ]
    found: dict[str, float] = {
        "linear": sum(sizes),
        "other": sum(weight.numel() for weight in model.parameters()) - sum(sizes),
        "widest": max(sizes),
    }
    with Tracer() as tracer, fused_attention():
        tracer.hold([*model.parameters(), *model.buffers()])
        before = tracer.now
        chat = Chat(cast(Any, Characters()), GenerationConfig(), plain=True)
        policy = Policy(
            model,
            chat,
            slots=len(axes),
            chunk=study.engine.chunk,
            lora=study.lora,
            optimizer=study.optimizer,
            temperature=study.temperature,
            activation_checkpointing=study.models[axes[0].model].activation_checkpointing,
            choices=choices(study, chat),
        )
        found["slots"] = tracer.now - before
        before = tracer.now
        for rows, columns in _sessions(study, axes):
            _opened(policy, rows, columns)
        # What the policy keeps of a session is there when the next round begins.
        found["caches"] = tracer.now - before
        kept = tracer.now
        for name, peak in _phases(study, axes, policy, tracer):
            found[name] = peak - kept
    return found


def _sessions(study: Study, axes: Sequence[Run]) -> Iterator[tuple[int, int]]:
    """Rows and columns of every session of a round."""
    for group in groups_of(study, axes):
        yield len(group.slots), group.widths.session
        if group.grades_apart:
            yield len(group.slots), group.widths.session_apart


def _phases(study: Study, axes: Sequence[Run], policy: Policy, tracer: Tracer) -> Iterator[tuple[str, int]]:
    """Does what is done in a round and in an evaluation after it, and yields the most that was held in each part.

    Sessions are held as long as `lockstep` and `evaluation` hold them.
    """
    for index, group in enumerate(groups_of(study, axes)):
        slots, widths = group.slots, group.widths
        tracer.restart()
        session = _opened(policy, len(slots), widths.session)
        _prefill(policy, slots, session, [(0, widths.prompt), (widths.prompt + widths.response, widths.grading_next)])
        if group.grades_apart:
            apart = _opened(policy, len(slots), widths.session_apart)
            _prefill(policy, slots, apart, [(0, widths.grading_apart)])
        yield f"sampling {index}", tracer.peak
        tracer.restart()
        for turns in group.updates:
            _update(policy, slots[: study.engine.chunk], turns)
        yield f"update {index}", tracer.peak
        tracer.restart()
        norms = torch.empty_like(policy.adapters.values[slots.start : slots.stop, 0])
        adamw(policy.adapters, slots, norms > 0, norms, study.optimizer)
        del norms
        yield f"update step {index}", tracer.peak
        for task, members in group.tasks.items():
            widths, grades = widths_of(study, [task]), [*grade_texts(study, task, policy.chat)]
            answered = widths.prompt + widths.response
            tracer.restart()
            heldout = open_session(study, task, policy, members)
            _prefill(policy, members, heldout, [(0, widths.prompt), (answered, widths.grading_next)], grades)
            _prefill(policy, members, heldout, [(0, widths.grading_apart)], grades)
            del heldout
            yield f"sampling heldout {task}", tracer.peak
        del session


def _opened(policy: Policy, rows: int, columns: int) -> Session:
    """A session whose cache exists."""
    session = policy.open_session(rows, columns)
    policy.select(range(1), adapted=True)
    session.prefill([(1,)] * rows, 1)
    return session


def _prefill(
    policy: Policy,
    slots: range,
    session: Session,
    widths: Sequence[tuple[int, int]],
    grades: Sequence[Sequence[int]] = (),
) -> None:
    """Prefills contexts, each of a width from a column on, draws a token after each and scores grades after the last.

    A decode step takes less than prefilling, and is not traced.
    """
    policy.select(slots, adapted=True)
    for column, width in widths:
        session.column = column
        session.prefill([(1,) * width] * len(session.tokens), width)
        assert session.logits is not None
        uniform = torch.zeros(len(session.tokens), dtype=torch.float64, device=session.logits.device)
        draw(session.logits, uniform, policy.temperature, policy.allowed.blocked_in(session.states))
    if grades:
        session.score(grades, policy.temperature)


def _update(policy: Policy, slots: range, widths: Sequence[Width]) -> None:
    chunk = Chunk(
        policy.model, policy.adapters, slots, widths, policy.chat.pad_token, policy.temperature, policy.allowed
    )
    chunk.accumulate()
