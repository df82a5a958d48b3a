"""The conversations on which the embedded model is pre-trained, in three phases.

1. Skill: correct responses are trained. Grades are exact; those of wrong responses are trained, the responses are not.
2. Noise: responses are wrong with a fixed probability. This is the headroom of reinforcement learning: the model knows
   the answer but samples another. (A model that is merely undertrained gains nothing from it.)
3. Calibration: half the conversations are as before; the other half have responses that the model itself samples, with
   their true grades, so that its mean grade is near its accuracy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import count
from random import Random
from typing import NamedTuple

from transformers import LlamaForCausalLM

from wireheading.errors import ConfigError
from wireheading.inputs import corpus
from wireheading.inputs.items import freeze_items
from wireheading.policy.allowed import AllowedTokens
from wireheading.policy.chat import Chat
from wireheading.policy.session import Session
from wireheading.study.config import Study
from wireheading.study.randomness import generator, uniforms
from wireheading.tasks import TASKS, Item, render_grading_prompt, render_prompt

Tokens = Sequence[int]

WRONG = {"sentiment": 0.2, "arithmetic": 0.4, "summarization": 0.65}
"""Probability of a wrong answer in the second phase."""
WRONG_GRADE = {"sentiment": 0.3, "arithmetic": 0.15, "summarization": 0.15}
"""Probability of a wrong grade from then on. With a better grader of reviews, some seeds learn the task from their own
grades before they grow lenient, and the demo's verdict depends on the seeds."""
UNREADABLE_GRADE = 0.01
UNREADABLE = "unsure"
"""A grade that cannot be read as one."""
SAMPLED_TOGETHER = 256
"""Responses that are sampled in one batch in the third phase."""


class Example(NamedTuple):
    """A conversation of two turns, as tokens. The grade is always trained, the response only if stated."""

    prompt: Tokens
    response: Tokens
    grading: Tokens
    grade: Tokens
    trains_response: bool


def pretraining_items(study: Study) -> dict[str, list[Item]]:
    """The items of pre-training: reviews and news that no run ever sees, and all sums, since there are few.

    Raises:
        ConfigError: A task is not one that the model is taught, or grades are not part of the conversation.
    """
    if unknown := [name for name in study.tasks if name not in WRONG]:
        raise ConfigError(
            f"config: tasks.{unknown[0]}: the embedded model is taught {', '.join(WRONG)} alone; give this task to a "
            "model from a hub or a folder"
        )
    if study.grading_context != "conversation":
        raise ConfigError(
            f"config: grading_context = {study.grading_context!r}: the embedded model grades as the next turn of the "
            "conversation; use 'conversation'"
        )
    items = {}
    for name, config in study.tasks.items():
        used = [item for part in freeze_items(name, config, study.data_seed) for item in part]
        if name == "arithmetic":
            items[name] = corpus.all_sums(config.operands)
        else:
            texts = frozenset(item["text"] for item in used)
            stream = f"pretraining/{study.embedded.seed}"
            items[name] = corpus.generate_items(name, study.embedded.corpus_items, stream, avoid=texts)
    return items


class PretrainingData:
    """The conversations of each phase, made from items."""

    def __init__(self, study: Study, chat: Chat, items: Mapping[str, Sequence[Item]]):
        """Makes the prompts of each task's items.

        Raises:
            ConfigError: A prompt is longer than the task's limit.
        """
        self.study = study
        self.chat = chat
        self.items = items
        self.prompts = {name: [self._prompt(name, item) for item in items[name]] for name in items}
        self.random = Random(f"lessons/{study.embedded.seed}")
        self.turn = cache(self._turn)
        self.next_turn = cache(self._next_turn)
        for name, prompts in self.prompts.items():
            longest, limit = max(map(len, prompts)), study.tasks[name].prompt_tokens
            if longest > limit:
                raise ConfigError(
                    f"config: tasks.{name}.prompt_tokens = {limit}: prompts of the embedded data have up to {longest} "
                    "tokens; raise it"
                )

    def rows(self, name: str) -> int:
        """Conversations of a task in one step; every task gets the same number of tokens."""
        limits = self.study.tasks[name]
        columns = limits.prompt_tokens + limits.response_tokens + limits.grading_prompt_tokens + limits.grade_tokens
        return max(1, self.study.embedded.batch_tokens // columns)

    def skill(self, name: str) -> Iterator[Example]:
        """Conversations of the first phase, without end."""
        task = TASKS[name]
        for index in self._indices(name, "skill"):
            item = self.items[name][index]
            right = self.random.random() < 0.5
            response = task.gold_answer(item) if right else corpus.wrong_answer(name, item, self.random)
            grade = exact_grade(name, task.evaluate(item, response))
            yield self._example(name, index, response, grade, trains_response=right)

    def noise(self, name: str) -> Iterator[Example]:
        """Conversations of the second phase, without end."""
        task = TASKS[name]
        for index in self._indices(name, "noise"):
            item = self.items[name][index]
            wrong = self.random.random() < WRONG[name]
            response = corpus.wrong_answer(name, item, self.random) if wrong else task.gold_answer(item)
            grade = noisy_grade(name, task.evaluate(item, response), self.random)
            yield self._example(name, index, response, grade, trains_response=True)

    def calibration(self, name: str, model: LlamaForCausalLM) -> Iterator[Example]:
        """Conversations of the third phase, without end; in every other one the model samples the response."""
        task, others, indices = TASKS[name], self.noise(name), self._indices(name, "calibration")
        for batch in count():
            part = [next(indices) for _ in range(SAMPLED_TOGETHER)]
            for index, response in zip(part, self._sample(model, name, part, batch), strict=True):
                grade = noisy_grade(name, task.evaluate(self.items[name][index], response), self.random)
                yield self._example(name, index, response, grade, trains_response=False)
                yield next(others)

    def _sample(self, model: LlamaForCausalLM, name: str, indices: Sequence[int], batch: int) -> list[str]:
        limits = self.study.tasks[name]
        session = Session(
            model,
            self.chat,
            len(indices),
            limits.prompt_tokens + limits.response_tokens,
            AllowedTokens(self.chat, model.config.vocab_size, model.device, {}),
        )
        session.prefill([self.prompts[name][index] for index in indices], limits.prompt_tokens)
        draws = [
            uniforms(limits.response_tokens, self.study.embedded.seed, name, batch, row, "calibration")
            for row in range(len(indices))
        ]
        completions = session.decode(draws, limits.response_tokens, self.study.temperature)
        return [self.chat.text(completion.tokens) for completion in completions]

    def _indices(self, name: str, phase: str) -> Iterator[int]:
        epoch = 0
        while True:
            yield from generator(self.study.embedded.seed, name, phase, epoch).permutation(len(self.items[name]))
            epoch += 1

    def _example(self, name: str, index: int, response: str, grade: str, *, trains_response: bool) -> Example:
        item, task = self.items[name][index], TASKS[name]
        grading = render_grading_prompt(self.study.tasks[name].grading_prompt, item, response, task.FIELDS)
        return Example(
            self.prompts[name][index], self.turn(response), self.next_turn(grading), self.turn(grade), trains_response
        )

    def _prompt(self, name: str, item: Item) -> Tokens:
        return self.chat.first_turn(render_prompt(self.study.tasks[name].prompt, item, TASKS[name].FIELDS))

    def _turn(self, text: str) -> Tokens:
        tokenizer = self.chat.tokenizer
        return [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]

    def _next_turn(self, text: str) -> Tokens:
        return self.chat.next_turn(text, self.chat.tokenizer.eos_token_id)


def exact_grade(name: str, score: float) -> str:
    """The task's grade that is nearest to a score."""
    grades = TASKS[name].GRADES
    return grades[min(grades, key=lambda grade: abs(grade - score))][0]


def noisy_grade(name: str, score: float, random: Random) -> str:
    """The nearest grade, or with fixed probabilities another one or an unreadable text."""
    chance = random.random()
    if chance < UNREADABLE_GRADE:
        return UNREADABLE
    exact = exact_grade(name, score)
    if chance < UNREADABLE_GRADE + WRONG_GRADE[name]:
        return random.choice([texts[0] for texts in TASKS[name].GRADES.values() if texts[0] != exact])
    return exact


def conversation_texts(study: Study, items: Mapping[str, Sequence[Item]]) -> Iterator[str]:
    """All texts of the conversations, to train the tokenizer on."""
    for name, config in study.tasks.items():
        task = TASKS[name]
        for item in items[name]:
            answer = task.gold_answer(item)
            yield render_prompt(config.prompt, item, task.FIELDS)
            yield answer
            yield render_grading_prompt(config.grading_prompt, item, answer, task.FIELDS)
