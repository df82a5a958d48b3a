"""The probability of each of some texts as the next completion, in every row of a session."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from wireheading.policy.allowed import FREE
from wireheading.policy.prefixes import prefixes_of
from wireheading.policy.sampling import wide
from wireheading.policy.session import Session

LOGITS = 2**26
"""Logits that are normalised at once: all of them in float32 would take several times their memory."""


@torch.no_grad()
def text_probabilities(
    session: Session,
    contexts: Sequence[Sequence[int]],
    width: int,
    texts: Sequence[Sequence[int]],
    temperature: float,
    start: int = FREE,
) -> Tensor:
    """Prefills contexts and gives the probability of each of some texts as the next completion, stop token included.

    Common prefixes are computed once. The session is left as if the contexts alone had been prefilled.

    Args:
        session: The session.
        contexts: Each row's new tokens; see `Session.prefill`.
        width: Columns that they take.
        texts: The tokens of each text, without a stop token.
        temperature: Divides the logits.
        start: The state of allowed tokens in which the texts begin.

    Returns:
        `[rows, texts]`, float64.
    """
    prefixes = prefixes_of(texts, session.device)
    logits = session.prefill(contexts, width, prefixes=prefixes)
    assert logits is not None
    assert session.logits is not None
    nodes, tokens, depths = prefixes.nodes, prefixes.tokens, prefixes.depths
    index = {node: place for place, node in enumerate(nodes)}
    device = session.device

    # A prefix's token follows its parent's, or the prefilled context.
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
        paths = torch.where(prefixes.ancestors[ends], steps[:, None], 0.0).sum(dim=-1)
        probabilities.append((paths + after(ends[:, None], session.stop_tokens).logsumexp(dim=-1)).exp())
    return torch.cat(probabilities)


def _blocked(session: Session, states: Sequence[int]) -> Tensor:
    return session.allowed.blocked_in(torch.tensor(states, device=session.device))


def _logprobs(logits: Tensor, blocked: Tensor, temperature: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Looks up log-probabilities, `[rows, …]` in float64, of tokens at places of `[rows, places, vocabulary]`."""
    allowed = (wide(logits) / temperature).masked_fill_(blocked, -torch.inf)
    total = allowed.logsumexp(dim=-1)
    return lambda places, tokens: allowed[:, places, tokens].double() - total[:, places].double()
