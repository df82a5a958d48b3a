"""The probability of each of some texts as the next completion, in every row of a session."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from wireheading.policy.allowed import FREE
from wireheading.policy.masks import positions_of
from wireheading.policy.sampling import wide
from wireheading.policy.session import Session

LOGITS = 2**26
"""Logits that are normalised at once: all of them in float32 would take several times their memory."""


@torch.no_grad()
def text_probabilities(
    session: Session, texts: Sequence[Sequence[int]], temperature: float, start: int = FREE
) -> Tensor:
    """Probability of each of some texts as the next completion, stop token included: `[rows, texts]`, float64.

    Common prefixes are computed once: the tree of all prefixes is fed in one forward pass, in which a token attends to
    its ancestors alone. The session is left as it was.

    Args:
        session: The session, after a prefill.
        texts: The tokens of each text, without a stop token.
        temperature: Divides the logits.
        start: The state of allowed tokens in which the texts begin.
    """
    assert session.logits is not None
    assert session.logits_at == session.column, "nothing was prefilled"
    device, rows, column = session.device, len(session.tokens), session.column
    nodes = sorted({tuple(text[:end]) for text in texts for end in range(1, len(text) + 1)})
    index = {node: place for place, node in enumerate(nodes)}
    ancestors = torch.tensor([[other == node[: len(other)] for other in nodes] for node in nodes], device=device)
    past = session.filled[:, :column]
    visible = torch.cat(
        [past[:, None].expand(rows, len(nodes), column), ancestors.expand(rows, len(nodes), len(nodes))], dim=2
    )
    depths = torch.tensor([len(node) - 1 for node in nodes], device=device)
    queries = past.sum(dim=1, keepdim=True) + depths
    tokens = torch.tensor([node[-1] for node in nodes], device=device)
    keys = torch.cat([positions_of(past), queries], dim=1)
    logits = session.feed(column, tokens.expand(rows, -1), queries, keys, visible, keep=0)

    # A node's token follows its parent's, or the prefilled context.
    parents = torch.tensor([index.get(node[:-1], 0) for node in nodes], device=device)
    ends = torch.tensor([index[tuple(text)] for text in texts], device=device)
    blocked = _blocked(session, [start])
    blocked_after = _blocked(session, [session.allowed.walk(start, node)[-1] for node in nodes])
    probabilities = []
    size = max(1, LOGITS // logits[0].numel())
    for some_first, some_logits in zip(session.logits[:, None].split(size), logits.split(size), strict=True):
        first = _logprobs(some_first, blocked, temperature)
        after = _logprobs(some_logits, blocked_after, temperature)
        steps = torch.where(depths == 0, first(torch.zeros_like(parents), tokens), after(parents, tokens))
        paths = torch.where(ancestors[ends], steps[:, None], 0.0).sum(dim=-1)
        probabilities.append((paths + after(ends[:, None], session.stop_tokens).logsumexp(dim=-1)).exp())
    return torch.cat(probabilities)


def _blocked(session: Session, states: Sequence[int]) -> Tensor:
    return session.allowed.blocked_in(torch.tensor(states, device=session.device))


def _logprobs(logits: Tensor, blocked: Tensor, temperature: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Looks up log-probabilities, `[rows, …]` in float64, of tokens at places of `[rows, places, vocabulary]`."""
    allowed = (wide(logits) / temperature).masked_fill_(blocked, -torch.inf)
    total = allowed.logsumexp(dim=-1)
    return lambda places, tokens: allowed[:, places, tokens].double() - total[:, places].double()
