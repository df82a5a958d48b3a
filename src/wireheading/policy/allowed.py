"""Which tokens may be sampled next: a table of states.

In free text these are all tokens that are text, and those that end it. A special token in a response would read as a
turn that nobody took. So the others are left out of the distribution, where it is sampled from and where it is updated,
and with them what the tokenizer has no text for.

In a choice they are the tokens that go on with one of some texts, and those that end it where it is whole: each common
beginning of the texts is a state.
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
        follow: The state that follows on a token, likewise, int16.
        starts: The state in which each choice begins, by its name.
    """

    def __init__(
        self, chat: Chat, vocabulary: int, device: torch.device, choices: Mapping[str, Sequence[Sequence[int]]]
    ):
        """Lays out the table.

        Args:
            chat: The model's language of turns.
            vocabulary: How many logits the model has; some have more than their tokenizer has tokens.
            device: Where the table goes.
            choices: By their names, texts as tokens of which one is chosen.
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
        """Whether a token is not allowed in each of some states, `[..., vocabulary]`."""
        # Where there is free text alone, one row does for all of them.
        return self.blocked if len(self.blocked) == 1 else self.blocked[states]

    def walk(self, start: int, tokens: Sequence[int]) -> list[int]:
        """The states before each of some tokens, and after the last."""
        states = [start]
        for token in tokens:
            states.append(self._moves.get((states[-1], token), FREE))
        return states
