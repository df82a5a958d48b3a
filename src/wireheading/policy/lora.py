"""LoRA adapters of many runs, stacked: one slot per run, computed in batched products.

The factors of all layers lie in one flat tensor `[slots, parameters]`, with the gradient and AdamW's moments beside it
in the same shape. A layer's `A [slots, rank, in]` and `B [slots, out, rank]` are views into it. So clipping and AdamW
are a few operations on whole slots, and nothing is ever reduced across slots.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from wireheading.errors import InputError
from wireheading.files import replacing
from wireheading.policy.adapted import Joint, StackedLora
from wireheading.study.randomness import uniforms
from wireheading.study.sections import LoraConfig

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")


class Group:
    """Layers that read the same input, and the place of their factors in the flat tensor.

    Attributes:
        names: The layers' names.
        shapes: Shapes of the matrices that lie one after the other: the joint A, then each layer's B.
        size: Parameters of all of them.
        joint: The layers.
        sampling: The factors of all slots that sampling multiplies with: the joint's `a` and `b`.
    """

    def __init__(
        self, names: tuple[str, ...], layers: Sequence[nn.Linear], config: LoraConfig, slots: int, dtype: torch.dtype
    ):
        """Joins the layers and allocates the sampling factors of all slots."""
        self.names = names
        self.rank = rank = config.rank
        self.shapes = [(len(names) * rank, layers[0].in_features), *((layer.out_features, rank) for layer in layers)]
        self.size = sum(math.prod(shape) for shape in self.shapes)
        rows, columns = self.shapes[0]
        self.joint = Joint(layers, config.alpha / rank, slots * rows)
        device = layers[0].weight.device
        if self.joint.base.whole is None:
            a = torch.zeros(slots, rows, columns, dtype=dtype, device=device)
        else:
            a = self.joint.base.whole[-slots * rows :].view(slots, rows, columns)
        b = torch.zeros(slots, rows, sum(self.joint.outs), dtype=dtype, device=device)
        self.sampling = a, b

    def publish(self, part: Tensor, slots: slice) -> None:
        """Copies some slots' parameters, in their part of the flat tensor, to the sampling factors."""
        sampling_a, sampling_b = (matrix[slots] for matrix in self.sampling)
        # Every row is multiplied with all slots' factors: zero times infinity would reach a neighbour.
        a, *bs = self.matrices(part.nan_to_num(0.0, 0.0, 0.0))
        sampling_a.copy_(a)
        column = 0
        for index, b in enumerate(bs):
            rows = slice(index * self.rank, (index + 1) * self.rank)
            sampling_b[:, rows, column : column + b.shape[1]] = b.transpose(1, 2) * self.joint.scale
            column += b.shape[1]

    def matrices(self, part: Tensor) -> list[Tensor]:
        """Views of the matrices in this group's part of the flat tensor, `[slots, size]`."""
        matrices = part.split([math.prod(shape) for shape in self.shapes], dim=1)
        return [matrix.view(-1, *shape) for matrix, shape in zip(matrices, self.shapes, strict=True)]


class Adapters:
    """The adapters of all slots of a model, with their gradients and AdamW's state.

    Behind the slots lie past adapters, one for each slot that keeps some: what the slot's adapter was some time ago, to
    be sampled from like any other and never updated.

    Attributes:
        past: The row of the past adapter of each slot that keeps one.
        copies: The copies that become past adapters next, `[slots that keep one, parameters]`.
        values: The adapters' parameters, `[slots, parameters]`. Sampling uses a copy in the base model's type
            (`Group.sampling`), whose rounding matters less than that of its sum with the base layer's output.
        grads: Their gradients, in the same shape; a backward pass adds to them.
        exp_avg: AdamW's first moments, in the same shape.
        exp_avg_sq: AdamW's second moments, in the same shape.
        steps: Number of updates of each slot, `[slots]`.
        finite: 1 for each slot, or NaN if one of its parameters is not finite: `[slots]`.
        slot_mask: `finite` on the diagonal, with 0 where an adapter is off; 0 elsewhere: `[slots, slots]`.
        selected: The slots that `select` chose. With equal selections a forward pass reads the same addresses.
    """

    def __init__(self, model: nn.Module, config: LoraConfig, slots: int, lagged: Sequence[int] = ()):
        """Wraps the model's q/k/v/o projections in place.

        Args:
            model: The model.
            config: Shape and scale of the adapters.
            slots: Number of slots.
            lagged: The slots that keep past adapters.

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
        self.past = {slot: slots + index for index, slot in enumerate(lagged)}
        slots += len(self.past)
        groups: dict[str, list[str]] = {}
        for name in targets:
            # The output projection reads another input than the other three.
            parent, _, child = name.rpartition(".")
            groups.setdefault(name if child == "o_proj" else parent, []).append(name)
        self.groups = [
            Group(tuple(names), [targets[name] for name in names], config, slots, parameter.dtype)
            for names in groups.values()
        ]
        size = sum(group.size for group in self.groups)
        self.values = torch.zeros(slots, size, dtype=dtype, device=parameter.device)
        self.copies = self.values[slots - len(self.past) :].clone()
        self.grads = torch.zeros_like(self.values)
        self.exp_avg = torch.zeros_like(self.values)
        self.exp_avg_sq = torch.zeros_like(self.values)
        self.steps = torch.zeros(slots, dtype=torch.int64, device=parameter.device)
        self.slot_mask = torch.eye(slots, dtype=parameter.dtype, device=parameter.device)
        self.finite = torch.ones_like(self.slot_mask[0])
        self.selected, self._trained = range(0), False
        for group in self.groups:
            for index, name in enumerate(group.names):
                parent, _, child = name.rpartition(".")
                setattr(model.get_submodule(parent), child, StackedLora(group.joint, index))

    def initialise(self, slot: int, seed: int) -> None:
        """Sets a slot's adapter to the initial one of a seed, the same for all its runs.

        As in PEFT, A is uniform in ±1/sqrt(in), Kaiming's with a = sqrt(5), and B is zero: the policy starts as the
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
        if slot in self.past:
            self._set_past(slot, self.values[slot], self.values[slot])

    def remember(self, slot: int) -> None:
        """Makes the last copy of a slot's adapter its past adapter, and takes another copy."""
        self._set_past(slot, self._copy(slot), self.values[slot])

    def _copy(self, slot: int) -> Tensor:
        return self.copies[self.past[slot] - len(self.values)]

    def _set_past(self, slot: int, past: Tensor, copy: Tensor) -> None:
        row = self.past[slot]
        self.values[row] = past
        self._copy(slot).copy_(copy)
        self.publish(slice(row, row + 1))

    def select(self, slots: range, *, gate: Tensor | None = None, trained: bool = False) -> None:
        """Selects the slots of the next forward pass.

        Args:
            slots: The slots, in the order of the batch's rows.
            gate: For each slot 1 if its adapter is on, 0 if the base model is sampled; all are on if None.
            trained: Whether a backward pass follows, which adds to `grads`; if not, the pass samples.
        """
        part = slice(slots.start, slots.stop)
        if not trained:
            self.slot_mask.diagonal()[part] = (
                self.finite[part] if gate is None else self.finite[part] * gate.to(self.slot_mask)
            )
        if (slots, trained) == (self.selected, self._trained):
            return
        self.selected, self._trained = slots, trained
        for group in self.groups:
            joint = group.joint
            joint.a, joint.b = (matrix[part] for matrix in group.sampling)
            joint.first, joint.leaves = slots.start, []
            joint.finite, joint.slot_mask = self.finite[part], self.slot_mask[part, part]
        if trained:
            parts = zip(self.groups, self._matrices(self.values[part]), self._matrices(self.grads[part]), strict=True)
            for group, leaves, grads in parts:
                for leaf, grad in zip(leaves, grads, strict=True):
                    leaf.requires_grad_()
                    # The gradient is accumulated in place, in the slots' part of the flat tensor.
                    leaf.grad = grad
                group.joint.leaves = leaves

    def state(self, slot: int) -> dict[str, Tensor]:
        """A copy of all that a slot's next rounds depend on."""
        state = {name: getattr(self, name)[slot] for name in ("values", "exp_avg", "exp_avg_sq", "steps")}
        if slot in self.past:
            state |= {"past": self.values[self.past[slot]], "copy": self._copy(slot)}
        return {name: tensor.to("cpu", copy=True) for name, tensor in state.items()}

    def restore(self, slot: int, state: dict[str, Tensor]) -> None:
        """Restores a slot from what `state` returned."""
        for name in state.keys() - {"past", "copy"}:
            getattr(self, name)[slot] = state[name]
        if "past" in state:
            self._set_past(slot, state["past"], state["copy"])
        self.grads[slot] = 0
        self.publish(slice(slot, slot + 1))

    def publish(self, part: slice) -> None:
        """Makes sampling use the new parameters of some slots."""
        values = self.values[part]
        self.finite[part] = torch.ones_like(self.finite[part]).masked_fill_(~values.sum(dim=1).isfinite(), torch.nan)
        for group, parameters in zip(self.groups, self._parts(values), strict=True):
            group.publish(parameters, part)

    def save_peft(self, slot: int, folder: Path, base: str, revision: str | None = None) -> list[Path]:
        """Writes a slot's adapter so that `PeftModel.from_pretrained` loads it.

        Args:
            slot: The slot.
            folder: Where the files go.
            base: Hub id or folder of the base model.
            revision: Its commit on the hub.

        Returns:
            The files.

        Raises:
            WriteError: The disk is full, or the folder may not be written to.
        """
        from peft import LoraConfig as PeftLoraConfig  # here, because importing it takes seconds

        config = PeftLoraConfig(
            r=self.config.rank,
            lora_alpha=self.config.alpha,
            target_modules=list(TARGETS),
            lora_dropout=0.0,
            task_type="CAUSAL_LM",
            base_model_name_or_path=base,
            revision=revision,
            inference_mode=True,
        )
        tensors = {
            f"base_model.model.{name}.lora_{factor.upper()}.weight": view[slot].detach().cpu().contiguous()
            for (name, factor), view in self._views(self.values).items()
        }
        files = [folder / "adapter_config.json", folder / "adapter_model.safetensors"]
        with replacing(files[0]) as temporary, tempfile.TemporaryDirectory() as scratch:
            config.save_pretrained(scratch)
            content = json.loads(Path(scratch, files[0].name).read_bytes())
            # PEFT keeps them as a set, whose order differs from one process to the next; the record has their digest.
            content["target_modules"].sort()
            temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        with replacing(files[1]) as temporary:
            save_file(tensors, temporary, metadata={"format": "pt"})
        return files

    def _matrices(self, whole: Tensor) -> list[list[Tensor]]:
        """For each group of layers the views `[slots, out, in]` of its matrices: the joint A, then each layer's B."""
        return [group.matrices(part) for group, part in zip(self.groups, self._parts(whole), strict=True)]

    def _parts(self, whole: Tensor) -> Sequence[Tensor]:
        """For each group of layers its part of a flat tensor, `[slots, size]`."""
        parts: Sequence[Tensor] = whole.detach().split([group.size for group in self.groups], dim=1)
        return parts

    def _views(self, whole: Tensor) -> dict[tuple[str, str], Tensor]:
        """The factors of each layer by its name and `a` or `b`."""
        views: dict[tuple[str, str], Tensor] = {}
        for group, (a, *bs) in zip(self.groups, self._matrices(whole), strict=True):
            for name, own_a, b in zip(group.names, a.chunk(len(bs), dim=1), bs, strict=True):
                views |= {(name, "a"): own_a, (name, "b"): b}
        return views
