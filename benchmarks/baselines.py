"""Two other ways to compute a run, which the engine is measured against: they answer the requests that it answers.

Both take one run at a time through PEFT and `torch.optim.AdamW`. They draw with the same random numbers and sample the
same tokens as the engine, so like is compared with like; `tests/test_baselines.py` checks it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import peft
import torch
from torch import Tensor
from transformers import DynamicCache, LogitsProcessor, LogitsProcessorList, PreTrainedModel

from wireheading.policy.allowed import AllowedTokens
from wireheading.policy.chat import Chat
from wireheading.policy.lora import TARGETS
from wireheading.policy.sampling import draw
from wireheading.policy.session import Completion
from wireheading.policy.update import Step, Turn
from wireheading.study.config import Study


class OneRun:
    """A PEFT model with its optimizer; how it samples and where its loss comes from is for the subclasses."""

    def __init__(self, model: PreTrainedModel, chat: Chat, study: Study):
        """Wraps a model with a fresh adapter."""
        adapter = peft.LoraConfig(r=study.lora.rank, lora_alpha=study.lora.alpha, target_modules=list(TARGETS))
        self.model = peft.get_peft_model(model, adapter).eval()
        self.chat = chat
        self.config = config = study.optimizer
        self.temperature = study.temperature
        self.blocked = AllowedTokens(chat, model.config.vocab_size, model.device, {}).blocked
        self.parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=config.lr, betas=config.betas, eps=config.eps, weight_decay=config.weight_decay
        )

    def respond(self, context: Sequence[int], draws: np.ndarray) -> Completion:
        """Samples a response to a prompt."""
        raise NotImplementedError

    def grade(self, context: Sequence[int], draws: np.ndarray) -> Completion:
        """Samples a grade as the next turn; its context begins with the response's last token."""
        raise NotImplementedError

    def logprobs(self, turns: Sequence[Turn]) -> Tensor:
        """Log-probabilities of the sampled tokens, with their graph."""
        raise NotImplementedError

    def update(self, turns: Sequence[Turn], advantage: float) -> Step:
        """One step of REINFORCE."""
        logprobs = self.logprobs(turns)
        loss = -advantage * logprobs.mean()
        self.optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.config.clip_norm)
        self.optimizer.step()
        return Step(loss.item(), norm.item(), tuple(logprobs.tolist()), True)


class TokenByToken(OneRun):
    """The published study's way: a Python loop over tokens that keeps the graph through the key-value cache."""

    def respond(self, context: Sequence[int], draws: np.ndarray) -> Completion:
        """Samples with gradients on; the log-probabilities wait for the update."""
        self.cache = DynamicCache(config=self.model.config)
        self.kept: list[Tensor] = []
        return self._loop(context, draws)

    def grade(self, context: Sequence[int], draws: np.ndarray) -> Completion:
        """Goes on with the same cache and the same graph."""
        return self._loop(context, draws)

    def logprobs(self, turns: Sequence[Turn]) -> Tensor:
        """Those that sampling kept."""
        return torch.stack(self.kept)

    def _loop(self, context: Sequence[int], draws: np.ndarray) -> Completion:
        device = self.model.device
        fed = torch.tensor([list(context)], device=device)
        tokens: list[int] = []
        values: list[float] = []
        for uniform in draws:
            logits = self.model(input_ids=fed, past_key_values=self.cache, use_cache=True, logits_to_keep=1).logits
            draws_at = torch.tensor([uniform], device=device)
            token, logprob, _ = draw(logits[:, -1].float(), draws_at, self.temperature, self.blocked)
            self.kept.append(logprob[0])
            tokens.append(int(token))
            values.append(logprob.item())
            if tokens[-1] in self.chat.stop_tokens:
                break
            fed = token.unsqueeze(0)
        return Completion(tuple(tokens), tuple(values), tokens[-1] in self.chat.stop_tokens, True)


class Generate(OneRun):
    """What a careful user of the libraries writes: `generate` without gradients, then one teacher-forced pass."""

    def respond(self, context: Sequence[int], draws: np.ndarray) -> Completion:
        """Samples with transformers' own loop."""
        self.said = list(context)
        return self._generate(draws)

    def grade(self, context: Sequence[int], draws: np.ndarray) -> Completion:
        """Samples after the whole conversation; the response's last token is already in it."""
        self.said += context[1:]
        return self._generate(draws)

    def logprobs(self, turns: Sequence[Turn]) -> Tensor:
        """Recomputed in one forward pass, logits only where tokens were sampled."""
        tokens = [token for turn in turns for token in turn.context + turn.sampled]
        positions: list[int] = []
        at = 0
        for turn in turns:
            at += len(turn.context)
            positions += range(at, at + len(turn.sampled))
            at += len(turn.sampled)
        device = self.model.device
        keep = torch.tensor(positions, device=device)
        ids = torch.tensor([tokens], device=device)
        logits = self.model(input_ids=ids[:, :-1], use_cache=False, logits_to_keep=keep - 1).logits[0].float()
        logits = (logits / self.temperature).masked_fill(self.blocked, -torch.inf)
        return torch.log_softmax(logits, dim=-1).gather(1, ids[0, keep].unsqueeze(1)).squeeze(1)

    def _generate(self, draws: np.ndarray) -> Completion:
        drawing = _Drawing(draws, len(self.said), self.temperature, self.blocked)
        ids = torch.tensor([self.said], device=self.model.device)
        with torch.no_grad():
            whole = self.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=len(draws),
                do_sample=False,
                eos_token_id=sorted(self.chat.stop_tokens),
                pad_token_id=self.chat.pad_token,
                logits_processor=LogitsProcessorList([drawing]),
            )
        tokens = whole[0, len(self.said) :].tolist()
        self.said += tokens
        return Completion(
            tuple(tokens), tuple(drawing.values[: len(tokens)]), tokens[-1] in self.chat.stop_tokens, True
        )


class _Drawing(LogitsProcessor):
    """Makes `generate` take the token that the run's own random number draws."""

    def __init__(self, draws: np.ndarray, start: int, temperature: float, blocked: Tensor):
        self.draws, self.start, self.temperature, self.blocked = draws, start, temperature, blocked
        self.values: list[float] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        uniform = torch.tensor([self.draws[input_ids.shape[1] - self.start]], device=scores.device)
        token, logprob, _ = draw(scores.float(), uniform, self.temperature, self.blocked)
        self.values.append(float(logprob))
        return torch.full_like(scores, -torch.inf).scatter_(1, token.unsqueeze(1), 0.0)
