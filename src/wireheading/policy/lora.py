"""LoRA adapters of many runs, stacked: a slot each, computed in one batched product.

The factors of all layers lie in one flat tensor `[slots, parameters]`, with the gradient and AdamW's moments beside it
in the same shape. A layer's `A [slots, rank, in]` and `B [slots, out, rank]` are views into it. So clipping and AdamW
are a few operations on whole slots, and nothing is ever reduced across them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from peft import LoraConfig as PeftLoraConfig
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from wireheading.config import LoraConfig
from wireheading.errors import InputError
from wireheading.streams import uniforms

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")


class Joint:
    """Frozen linear layers that read the same input, such as query, key and value, with an adapter for each slot.

    They are computed as one. An input's leading axis counts rows, slot after slot: `[slots * rows a slot, tokens, in]`.
    The owner of the adapters decides which slots are in the batch (`Adapters.select`).

    Attributes:
        a: The layers' first factors, one above the other: `[slots, layers * rank, in]`.
        bs: Each layer's second factor, `[slots, out, rank]`.
        gate: For each slot 1 or 0, `[slots, 1, 1]`; None where all adapters are on.
    """

    def __init__(self, layers: Sequence[nn.Linear], scale: float):
        """Joins the layers; their weights become parts of one matrix."""
        self.layers = layers
        self.scale = scale
        self.outs = [layer.out_features for layer in layers]
        self.a: Tensor
        self.bs: Sequence[Tensor]
        self.gate: Tensor | None = None
        # Layers that hold their weights in 4 bits, or only some of which have a bias, are computed one by one.
        plain = all(type(layer) is nn.Linear for layer in layers) and len({layer.bias is None for layer in layers}) == 1
        self.weight = _joined(layers, "weight") if plain else None
        self.bias = _joined(layers, "bias") if plain and layers[0].bias is not None else None
        self._input: Tensor | None = None
        self._outputs: list[Tensor] = []

    def output(self, x: Tensor, layer: int) -> Tensor:
        """One layer's output. The layers are asked in turn, with the same input."""
        if layer == 0:
            self._input, self._outputs = x, self._compute(x)
        assert x is self._input, "layers that were joined are given different inputs"
        output = self._outputs[layer]
        if layer == len(self.layers) - 1:
            # Nothing of a pass is kept after it.
            self._input, self._outputs = None, []
        return output

    def _compute(self, x: Tensor) -> list[Tensor]:
        """`W x + scale * B A x` of every layer."""
        inner, ys = self._inner(x), self._base(x)
        parts = inner.chunk(len(self.layers), dim=-1)
        return [self._add(y, part, b.transpose(1, 2)) for y, part, b in zip(ys, parts, self.bs, strict=True)]

    def _base(self, x: Tensor) -> Sequence[Tensor]:
        if self.weight is None:
            return [layer(x) for layer in self.layers]
        return list(functional.linear(x, self.weight, self.bias).split(self.outs, dim=-1))

    def _inner(self, x: Tensor) -> Tensor:
        slots = self.a.shape[0]
        inner = torch.bmm(x.reshape(slots, -1, x.shape[-1]).to(self.a.dtype), self.a.transpose(1, 2))
        return inner if self.gate is None else inner * self.gate.to(inner.dtype)

    def _add(self, y: Tensor, inner: Tensor, b: Tensor) -> Tensor:
        delta = torch.bmm(inner, b).view(y.shape)
        if torch.is_grad_enabled():
            return torch.add(y, delta, alpha=self.scale).to(y.dtype)
        return y.add_(delta, alpha=self.scale)


def _joined(layers: Sequence[nn.Linear], name: str) -> Tensor:
    """The layers' weights or biases one above the other, of which the layers keep parts instead of copies."""
    parts = [getattr(layer, name) for layer in layers]
    whole = torch.cat([part.detach() for part in parts])
    for layer, part in zip(layers, whole.split([len(part) for part in parts]), strict=True):
        setattr(layer, name, nn.Parameter(part, requires_grad=False))
    return whole


class StackedLora(nn.Module):
    """Stands in a model's place for one of some joined layers."""

    def __init__(self, joint: Joint, layer: int):
        super().__init__()
        self.base = joint.layers[layer]
        self.joint = joint
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output with each slot's adapter."""
        return self.joint.output(x, self.layer)


class Group:
    """Layers that read the same input, and the place of their factors in the flat tensor.

    Attributes:
        names: The layers' names.
        shapes: Shapes of the matrices that lie one after the other: the joint A, then each layer's B.
        size: Parameters of all of them.
        joint: The layers.
    """

    def __init__(self, names: tuple[str, ...], layers: Sequence[nn.Linear], rank: int, scale: float):
        self.names = names
        self.shapes = [(len(names) * rank, layers[0].in_features), *((layer.out_features, rank) for layer in layers)]
        self.size = sum(math.prod(shape) for shape in self.shapes)
        self.joint = Joint(layers, scale)

    def matrices(self, part: Tensor) -> list[Tensor]:
        """Views of the matrices in this group's part of the flat tensor, `[slots, size]`."""
        matrices = part.split([math.prod(shape) for shape in self.shapes], dim=1)
        return [matrix.view(-1, *shape) for matrix, shape in zip(matrices, self.shapes, strict=True)]


class Adapters:
    """The adapters of all slots of a model, with their gradients and AdamW's state.

    Attributes:
        values: The adapters' parameters, `[slots, parameters]`.
        spoken: The same parameters in the base model's type, with which the policy samples: what rounding them changes
            is less than what rounding their sum with the base layer's output changes.
        grads: Their gradients in the same shape; a backward pass adds to them.
        exp_avg: AdamW's first moments, likewise.
        exp_avg_sq: AdamW's second moments, likewise.
        steps: Updates that each slot has had, `[slots]`.
        gate: For each slot 1 where its adapter is on and 0 where the base model speaks, while gates are in use.
        selected: What `select` chose: first slot, one past the last, whether gated. Where two selections are equal,
            so are all addresses that a forward pass reads.
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
        groups: dict[str, list[str]] = {}
        for name in targets:
            # The output projection reads another input than the other three.
            parent, _, child = name.rpartition(".")
            groups.setdefault(name if child == "o_proj" else parent, []).append(name)
        self.groups = [
            Group(tuple(names), [targets[name] for name in names], config.rank, self.scale) for names in groups.values()
        ]
        size = sum(group.size for group in self.groups)
        self.values = torch.zeros(slots, size, dtype=dtype, device=parameter.device)
        self.spoken = self.values if parameter.dtype == dtype else self.values.to(parameter.dtype)
        self.grads = torch.zeros_like(self.values)
        self.exp_avg = torch.zeros_like(self.values)
        self.exp_avg_sq = torch.zeros_like(self.values)
        self.steps = torch.zeros(slots, dtype=torch.int64)
        self.gate = torch.ones(slots, dtype=dtype, device=parameter.device)
        self.selected: tuple[int, int, bool] = (0, 0, False)
        for group in self.groups:
            for index, name in enumerate(group.names):
                parent, _, child = name.rpartition(".")
                setattr(model.get_submodule(parent), child, StackedLora(group.joint, index))

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
        self.publish(slice(slot, slot + 1))

    def select(self, slots: range, *, gate: Tensor | None = None, trained: bool = False) -> None:
        """Puts a range of slots into the layers for the next forward pass.

        Args:
            slots: The slots, in the order of the batch's rows.
            gate: For each of them 1 where the adapter is on and 0 where the base model speaks; all on if None.
            trained: Whether a backward pass follows, which then adds to `grads`; else the policy speaks.
        """
        self.gate[slots.start : slots.stop] = 1.0 if gate is None else gate
        part = slice(slots.start, slots.stop)
        values = self._matrices((self.values if trained else self.spoken)[part])
        grads = self._matrices(self.grads[part])
        for group, leaves, leaf_grads in zip(self.groups, values, grads, strict=True):
            if trained:
                for leaf, grad in zip(leaves, leaf_grads, strict=True):
                    leaf.requires_grad_()
                    # The gradient is accumulated in place, in the slots' part of the flat tensor.
                    leaf.grad = grad
            group.joint.a, *group.joint.bs = leaves
            group.joint.gate = None if gate is None else self.gate[part].view(-1, 1, 1)
        self.selected = (slots.start, slots.stop, gate is not None)

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
        self.publish(slice(slot, slot + 1))

    def publish(self, part: slice) -> None:
        """Lets the policy of some slots speak with their new parameters."""
        if self.spoken is not self.values:
            self.spoken[part] = self.values[part]

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

    def _matrices(self, whole: Tensor) -> list[list[Tensor]]:
        """For each group of layers the views `[slots, out, in]` of its matrices: the joint A, then each layer's B."""
        parts = whole.detach().split([group.size for group in self.groups], dim=1)
        return [group.matrices(part) for group, part in zip(self.groups, parts, strict=True)]

    def _views(self, whole: Tensor) -> dict[tuple[str, str], Tensor]:
        """The factors of each layer by its name and `a` or `b`."""
        views: dict[tuple[str, str], Tensor] = {}
        for group, (a, *bs) in zip(self.groups, self._matrices(whole), strict=True):
            for name, own_a, b in zip(group.names, a.chunk(len(bs), dim=1), bs, strict=True):
                views |= {(name, "a"): own_a, (name, "b"): b}
        return views
