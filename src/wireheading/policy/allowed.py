"""Which tokens may be sampled next: a table of states.

In free text these are the stop tokens and all tokens but special ones, which would look like turns that nobody took.
Tokens that the tokenizer does not know are left out as well. In a choice among texts, they are the tokens that continue
one of the texts, or stop tokens once it is complete; each common prefix is a state.

Sampling and updates leave all other tokens out of the distribution, so both concern the same policy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from wireheading.policy.chat import Chat

FREE = 0
"""The state of free text."""


class AllowedTokens:
    """The tokens that a policy may sample.

    Attributes:
        blocked: Whether a token may not be sampled in a state: `[states, vocabulary]`, bool.
        follow: The state after a token, int16, in the same shape.
        starts: The state in which each choice begins, by its name.
    """

    def __init__(
        self, chat: Chat, vocabulary: int, device: torch.device, choices: Mapping[str, Sequence[Sequence[int]]]
    ):
        """Builds the table.

        Args:
            chat: The model's chat format.
            vocabulary: The model's number of logits, which may exceed the tokenizer's number of tokens.
            device: Where the table goes.
            choices: Named sets of texts, as tokens, of which one is chosen.
        """
        stops = [token for token in chat.stop_tokens if token < vocabulary]
        self._moves: dict[tuple[int, int], int] = {}
        self.starts: dict[str, int] = {}
        whole: list[int] = []
        states = 1
        for name, texts in choices.items():
            self.starts[name] = states
            states += 1
            for text in texts:
                state = self.starts[name]
                for token in text:
                    if (state, token) not in self._moves:
                        self._moves[state, token] = states
                        states += 1
                    state = self._moves[state, token]
                whole.append(state)
        blocked = torch.ones((states, vocabulary), dtype=torch.bool)
        follow = torch.zeros((states, vocabulary), dtype=torch.int16)
        text_tokens = {*chat.tokenizer.get_vocab().values()} - {*chat.special_tokens.values()}
        blocked[FREE, [token for token in text_tokens if token < vocabulary] + stops] = False
        for (state, token), after in self._moves.items():
            blocked[state, token], follow[state, token] = False, after
        for state in whole:
            blocked[state, stops] = False
        self.blocked, self.follow = blocked.to(device), follow.to(device)

    def blocked_in(self, states: Tensor) -> Tensor:
        """Whether each token is blocked in each of some states, `[..., vocabulary]`."""
        # Without choices one row serves all.
        return self.blocked if len(self.blocked) == 1 else self.blocked[states]

    def walk(self, start: int, tokens: Sequence[int]) -> list[int]:
        """The states before each of some tokens, and the one after the last."""
        states = [start]
        for token in tokens:
            states.append(self._moves.get((states[-1], token), FREE))
        return states
