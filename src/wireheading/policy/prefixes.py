"""The prefixes of some texts, each once: a tree that is fed in one pass, in which a token sees its ancestors alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Prefixes:
    """All prefixes of some texts. A prefix stands for its last token and comes behind those that it begins with.

    Attributes:
        nodes: The prefixes.
        tokens: The last token of each, `[prefixes]`.
        depths: How many tokens come before it, `[prefixes]`.
        ancestors: Whether a prefix, the first index, begins with another or is it, `[prefixes, prefixes]`, bool.
    """

    nodes: Sequence[tuple[int, ...]]
    tokens: Tensor
    depths: Tensor
    ancestors: Tensor

    def __len__(self) -> int:
        """Number of prefixes."""
        return len(self.nodes)


def prefixes_of(texts: Sequence[Sequence[int]], device: torch.device) -> Prefixes:
    """The prefixes of texts, of one token or more each."""
    nodes = sorted({tuple(text[:end]) for text in texts for end in range(1, len(text) + 1)})
    return Prefixes(
        nodes,
        torch.tensor([node[-1] for node in nodes], device=device),
        torch.tensor([len(node) - 1 for node in nodes], device=device),
        torch.tensor([[other == node[: len(other)] for other in nodes] for node in nodes], device=device),
    )
