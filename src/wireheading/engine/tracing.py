"""Running the engine's code on tensors that have shapes and no content, and counting what it would hold."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves

from wireheading.policy.graphs import Graphs


class Tracer(TorchDispatchMode):
    """Counts the bytes of all tensors of the meta device that live, and the most that ever lived at once."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = 0
        self.peak = 0
        self._steps: list[tuple[str, float, int]] = []
        self._live: set[int] = set()
        self._made: dict[Hashable, tuple[torch.Size, tuple[int, ...], torch.dtype]] = {}

    def hold(self, tensors: Iterator[Tensor] | Sequence[Tensor]) -> int:
        """Counts tensors that were made before, and returns their bytes."""
        before = self.now
        for tensor in tensors:
            self._count(tensor)
        return self.now - before

    def restart(self) -> None:
        """Forgets the peak."""
        self.peak = self.now

    @contextmanager
    def following_steps(self) -> Iterator[None]:
        """Notes kind of each step that a GPU could record, its work, and the most bytes it takes for itself."""
        real = Graphs.run

        def run(graphs: Graphs, key: tuple[Hashable, ...], step: Callable[[], None], work: float = 0.0) -> None:
            before, self.peak = self.peak, self.now
            real(graphs, key, step, work)
            # What a first call leaves behind, such as a cache, is not its own.
            self._steps.append((str(key[0]), work, self.peak - self.now))
            self.peak = max(before, self.peak)

        Graphs.run = run  # type: ignore[method-assign, assignment]
        try:
            yield
        finally:
            Graphs.run = real  # type: ignore[method-assign]

    def taken_steps(self) -> dict[str, float]:
        """The `work` and the `transient` bytes of the steps that were noted since the last call, by kind and place."""
        found: dict[str, float] = {}
        for index, (key, work, transient) in enumerate(self._steps):
            found[f"work {key} {index}"], found[f"transient {key} {index}"] = work, transient
        self._steps = []
        return found

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Does an operation and counts what it made."""
        result = self._done(function, args, kwargs or {})
        for value in tree_leaves(result):
            if isinstance(value, Tensor):
                self._count(value)
        return result

    def _done(self, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """The result of an operation, whose shape is worked out once for all arguments of the same shapes.

        A trace consists of few operations that are repeated in every layer, and working out a shape takes PyTorch far
        longer than making a tensor of it.
        """
        leaves, form = tree_flatten((args, kwargs))
        key = (function, form, tuple(_likeness(leaf) for leaf in leaves))
        made = self._made.get(key)
        if made is not None:
            return torch.empty_strided(*made[:2], dtype=made[2], device="meta")
        result = function(*args, **kwargs)
        given = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        if isinstance(result, Tensor) and all(tensor.is_meta for tensor in (result, *given)):
            storages = {tensor.untyped_storage()._cdata for tensor in given}
            # Else it is an argument, or a view of one.
            if result.untyped_storage()._cdata not in storages:
                self._made[key] = result.shape, result.stride(), result.dtype
        return result

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if tensor.device.type == "meta" and key not in self._live:
            self._live.add(key)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._live.discard(key)
        self.now -= size


def _likeness(leaf: Any) -> Hashable:
    """What of an argument decides the shape of a result."""
    if isinstance(leaf, Tensor):
        return leaf.shape, leaf.stride(), leaf.dtype, leaf.device
    # Numbers of different types may be equal.
    return type(leaf), leaf


@contextmanager
def fused_attention() -> Iterator[None]:
    """Lets PyTorch's attention take the memory of its fused kernels, which the meta device does not have."""
    functional: Any = nn.functional
    real = functional.scaled_dot_product_attention

    def fused(query: Tensor, key: Tensor, value: Tensor, **_: object) -> Tensor:
        result: Tensor = _Fused.apply(query, key, value)  # type: ignore[no-untyped-call]
        return result

    functional.scaled_dot_product_attention = fused
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = real


class _Fused(torch.autograd.Function):
    """An attention that keeps its arguments, its result and one number for each query."""

    @staticmethod
    def forward(context: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        result = torch.empty_like(query)
        sums = torch.empty(query.shape[:-1], dtype=torch.float32, device=query.device)
        context.save_for_backward(query, key, value, result, sums)
        return result

    @staticmethod
    def backward(context: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value, _, _ = context.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


class Characters:
    """A tokenizer for the trace: a token is a character, which no real grade exceeds."""

    chat_template = None
    name_or_path = "trace"
    eos_token_id = 0
    pad_token_id = 0
    all_special_ids: Sequence[int] = ()
    added_tokens_decoder: Mapping[int, object] = {}

    def get_vocab(self) -> dict[str, int]:
        """No token has a name."""
        return {}

    get_added_vocab = get_vocab

    def __call__(self, text: str, **_: object) -> dict[str, list[int]]:
        """A token for each character."""
        return {"input_ids": [ord(character) for character in text]}
