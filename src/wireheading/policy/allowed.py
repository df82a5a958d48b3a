"""Which tokens may be sampled next: all that are text, and those that end it.

A special token in a response would read as a turn that nobody took. So they are left out of the distribution, where it
is sampled from and where it is updated, and with them what the tokenizer has no text for.
"""

from __future__ import annotations

import torch
from torch import Tensor

from wireheading.policy.chat import Chat


def blocked_tokens(chat: Chat, vocabulary: int, device: torch.device) -> Tensor:
    """Whether a token may not be sampled, `[1, vocabulary]`, bool.

    Args:
        chat: The model's language of turns.
        vocabulary: How many logits the model has; some have more than their tokenizer has tokens.
        device: Where the result goes.
    """
    text = {*chat.tokenizer.get_vocab().values()} - {*chat.special_tokens.values()} | chat.stop_tokens
    blocked = torch.ones((1, vocabulary), dtype=torch.bool)
    blocked[0, [token for token in text if token < vocabulary]] = False
    return blocked.to(device)
