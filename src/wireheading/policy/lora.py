"""LoRA adapters of many runs, stacked: a slot each, computed in one batched product.

The factors of all layers lie in one flat tensor `[slots, parameters]`, with the gradient and AdamW's moments beside it
in the same shape. A layer's `A [slots, rank, in]` and `B [slots, out, rank]` are views into it. So clipping and AdamW
are a few operations on whole slots, and nothing is ever reduced across them.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from peft import LoraConfig as PeftLoraConfig
from safetensors.torch import save_file
from torch import Tensor, nn

from wireheading.config import LoraConfig
from wireheading.errors import InputError
from wireheading.streams import uniforms

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")


class StackedLora(nn.Module):
    """A frozen linear layer with one adapter per slot.

    Its input's leading axis counts rows, slot after slot: `[slots * rows per slot, tokens, in]`. The owner of the
    adapters decides which slots are in the batch (`Adapters.select`).
    """

    def __init__(self, base: nn.Linear, adapters: Adapters, name: str):
        super().__init__()
        self.base = base
        self.name = name
        self.scale = adapters.scale
        self.a: Tensor
        self.b: Tensor
        self.gate: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Adds each slot's `scale * B A x` to the base layer's output."""
        y: Tensor = self.base(x)
        slots = self.a.shape[0]
        rows = x.reshape(slots, -1, x.shape[-1]).to(self.a.dtype)
        inner = torch.bmm(rows, self.a.transpose(1, 2))
        if self.gate is not None:
            inner = inner * self.gate
        if y.dtype == self.a.dtype:
            sum_ = torch.baddbmm(y.view(slots, -1, y.shape[-1]), inner, self.b.transpose(1, 2), alpha=self.scale)
        else:
            sum_ = y.view(slots, -1, y.shape[-1]) + (torch.bmm(inner, self.b.transpose(1, 2)) * self.scale).to(y.dtype)
        return sum_.view(y.shape)


class Adapters:
    """The adapters of all slots of a model, with their gradients and AdamW's state.

    Attributes:
        values: The adapters' parameters, `[slots, parameters]`.
        grads: Their gradients in the same shape; a backward pass adds to them.
        exp_avg: AdamW's first moments, likewise.
        exp_avg_sq: AdamW's second moments, likewise.
        steps: Updates that each slot has had, `[slots]`.
    """

    def __init__(self, model: nn.Module, config: LoraConfig, slots: int):
        """Wraps the model's q/k/v/o projections in place.

        Raises:
            InputError: The model has no such projections.
        """
        targets = {
            name: module
            for name, module in model.named_modules()
            if name.rsplit(".", 1)[-1] in TARGETS and isinstance(module, nn.Linear)
        }
        if not targets:
            raise InputError(
                f"{type(model).__name__} has no {'/'.join(TARGETS)} linear layers to adapt; use another model"
            )
        parameter = next(model.parameters())
        dtype = torch.float64 if parameter.dtype == torch.float64 else torch.float32
        self.config = config
        self.scale = config.alpha / config.rank
        self.shapes = {
            (name, factor): shape
            for name, module in targets.items()
            for factor, shape in (
                ("a", (config.rank, module.in_features)),
                ("b", (module.out_features, config.rank)),
            )
        }
        size = sum(math.prod(shape) for shape in self.shapes.values())
        self.values = torch.zeros(slots, size, dtype=dtype, device=parameter.device)
        self.grads = torch.zeros_like(self.values)
        self.exp_avg = torch.zeros_like(self.values)
        self.exp_avg_sq = torch.zeros_like(self.values)
        self.steps = torch.zeros(slots, dtype=torch.int64)
        self.layers = {name: StackedLora(module, self, name) for name, module in targets.items()}
        for name, layer in self.layers.items():
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, layer)

    def initialise(self, slot: int, seed: int) -> None:
        """Gives a slot the adapter that every run of a seed starts from.

        As PEFT does: A uniform in ±1/sqrt(in), which is Kaiming's with a = sqrt(5); B zero, so that the policy is the
        base model.
        """
        for (name, factor), view in self._views(self.values).items():
            if factor == "a":
                bound = 1 / math.sqrt(view.shape[-1])
                draws = torch.from_numpy(uniforms(view[slot].numel(), seed, "lora", name))
                view[slot] = (draws.view(view[slot].shape) * 2 - 1) * bound
            else:
                view[slot] = 0
        for state in (self.grads, self.exp_avg, self.exp_avg_sq, self.steps):
            state[slot] = 0

    def select(self, slots: range, *, gate: Tensor | None = None, trained: bool = False) -> None:
        """Puts a range of slots into the layers for the next forward pass.

        Args:
            slots: The slots, in the order of the batch's rows.
            gate: For each of them 1 where the adapter is on and 0 where the base model speaks; all on if None.
            trained: Whether a backward pass follows, which then adds to `grads`.
        """
        values, grads = (self._views(whole[slots.start : slots.stop]) for whole in (self.values, self.grads))
        for (name, factor), view in values.items():
            leaf = view.detach()
            if trained:
                leaf.requires_grad_()
                # The gradient is accumulated in place, in the slots' part of the flat tensor.
                leaf.grad = grads[name, factor]
            setattr(self.layers[name], factor, leaf)
        for layer in self.layers.values():
            layer.gate = None if gate is None else gate.view(-1, 1, 1)

    def state(self, slot: int) -> dict[str, Tensor]:
        """A copy of everything that a slot's next update depends on."""
        return {
            "values": self.values[slot].to("cpu", copy=True),
            "exp_avg": self.exp_avg[slot].to("cpu", copy=True),
            "exp_avg_sq": self.exp_avg_sq[slot].to("cpu", copy=True),
            "steps": self.steps[slot].clone(),
        }

    def restore(self, slot: int, state: dict[str, Tensor]) -> None:
        """Puts a slot back into a state that `state` gave."""
        for name, tensor in state.items():
            getattr(self, name)[slot] = tensor
        self.grads[slot] = 0

    def save_peft(self, slot: int, folder: Path, base: str) -> None:
        """Writes a slot's adapter so that `PeftModel.from_pretrained` loads it."""
        config = PeftLoraConfig(
            r=self.config.rank,
            lora_alpha=self.config.alpha,
            target_modules=list(TARGETS),
            lora_dropout=0.0,
            task_type="CAUSAL_LM",
            base_model_name_or_path=base,
            inference_mode=True,
        )
        tensors = {
            f"base_model.model.{name}.lora_{factor.upper()}.weight": view[slot].detach().cpu().contiguous()
            for (name, factor), view in self._views(self.values).items()
        }
        folder.mkdir(parents=True, exist_ok=True)
        config.save_pretrained(str(folder))
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})

    def _views(self, whole: Tensor) -> dict[tuple[str, str], Tensor]:
        sizes = [math.prod(shape) for shape in self.shapes.values()]
        parts = whole.split(sizes, dim=1)
        return {key: part.view(-1, *shape) for (key, shape), part in zip(self.shapes.items(), parts, strict=True)}
