"""Pre-training of the embedded model, in three phases.

1. Skill: right answers; grades are exact, of right answers and of wrong ones, which are not themselves trained.
2. Noise: answers are wrong with a fixed probability. This is the headroom of reinforcement learning: the model knows
   the answer and samples another. (A model that is merely trained too little gains nothing from it.)
3. Calibration: half the conversations are as before, half have answers that the model itself samples, with their true
   grades: so its mean grade is near its accuracy.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import count
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from wireheading.errors import ConfigError
from wireheading.files import sync_folder
from wireheading.inputs import corpus
from wireheading.inputs.items import freeze_items
from wireheading.policy.allowed import AllowedTokens
from wireheading.policy.chat import Chat
from wireheading.policy.device import prepare_device
from wireheading.policy.session import Session
from wireheading.pretraining.optimizer import Muon
from wireheading.pretraining.tokenizer import train_tokenizer
from wireheading.study.config import Study
from wireheading.study.randomness import generator, uniforms
from wireheading.tasks import TASKS, Item, render_grading_prompt, render_prompt

Report = Callable[[str], None]
Tokens = Sequence[int]

VOCABULARY = 800
WRONG = {"sentiment": 0.3, "arithmetic": 0.4, "summarization": 0.65}
"""Probability of a wrong answer in the second phase."""
WRONG_GRADE = 0.15
UNREADABLE_GRADE = 0.01
UNREADABLE = "unsure"
"""A grade that cannot be read as one."""
MUON_LR, ADAMW_LR = 0.004, 0.003
WARMUP_STEPS = 20
SAMPLED_TOGETHER = 256
"""Responses that are sampled in one batch in the third phase."""
PROGRESS_SECONDS = 5.0


class Example(NamedTuple):
    """A conversation of two turns, as tokens. Loss is on the grade, and on the response where it is trained."""

    prompt: Tokens
    response: Tokens
    grading: Tokens
    grade: Tokens
    trains_response: bool


class Batch(NamedTuple):
    """Conversations of one task: their tokens, `[rows, columns]`, and which of these are trained, bool."""

    tokens: Tensor
    trained: Tensor


def train_model(study: Study, out: Path, report: Report) -> None:
    """Trains the embedded model on the study's tasks and saves it in the hub's layout.

    The result is a function of the settings, the threads, the machine and the library versions.

    Args:
        study: The study's settings.
        out: The model's folder, which appears when all of it is written.
        report: Is told of progress.

    Raises:
        ConfigError: A task's data or prompts are such that the model cannot be trained on them.
    """
    prepare_device(study.engine.threads)
    items = pretraining_items(study)
    tokenizer = train_tokenizer(_texts(study, items), VOCABULARY)
    model = new_model(tokenizer, study.embedded.seed)
    school = School(study, Chat(tokenizer, model.generation_config), items)
    train(model, school, report)
    save_model(model, tokenizer, out)


def pretraining_items(study: Study) -> dict[str, list[Item]]:
    """What the model is trained on: reviews and news that no run ever sees, and all sums, since there are few.

    Raises:
        ConfigError: A task has data from elsewhere, or asks for grades outside the conversation.
    """
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


def new_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """A model with random weights: 0.6 million parameters."""
    tokens = {"pad_token_id": tokenizer.pad_token_id, "bos_token_id": None, "eos_token_id": tokenizer.eos_token_id}
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        **tokens,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(do_sample=True, **tokens)
    return model


class School:
    """Makes the conversations of each phase from items."""

    def __init__(self, study: Study, chat: Chat, items: Mapping[str, Sequence[Item]]):
        """Takes the items of each task.

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
        """Conversations of a task in one step: every task gets the same number of tokens."""
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
        """Conversations of the third phase, without end: every other one has a response that the model samples now."""
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
        spoken = session.decode(draws, limits.response_tokens, self.study.temperature)
        return [self.chat.text(sampled.tokens) for sampled in spoken]

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
    """A grade that is now and then another one, or unreadable."""
    chance = random.random()
    if chance < UNREADABLE_GRADE:
        return UNREADABLE
    exact = exact_grade(name, score)
    if chance < UNREADABLE_GRADE + WRONG_GRADE:
        return random.choice([texts[0] for texts in TASKS[name].GRADES.values() if texts[0] != exact])
    return exact


def train(model: LlamaForCausalLM, school: School, report: Report) -> None:
    """Takes a model through the three phases."""
    config = school.study.embedded
    matrices = [parameter for name, parameter in model.named_parameters() if name.endswith("_proj.weight")]
    others = [parameter for name, parameter in model.named_parameters() if not name.endswith("_proj.weight")]
    optimizers = [
        Muon(matrices, MUON_LR),
        torch.optim.AdamW(others, ADAMW_LR, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
    ]
    schedule = learning_rates(config.skill_steps, config.noise_steps, config.calibration_steps)
    schedulers = [torch.optim.lr_scheduler.LambdaLR(optimizer, schedule.__getitem__) for optimizer in optimizers]
    phases: list[tuple[str, int, Callable[[str], Iterator[Example]]]] = [
        ("skill", config.skill_steps, school.skill),
        ("noise", config.noise_steps, school.noise),
        ("calibration", config.calibration_steps, lambda name: school.calibration(name, model)),
    ]
    rows = {name: school.rows(name) for name in school.items}
    done, total = 0, len(schedule) - 1
    started = reported = time.monotonic()
    for phase, steps, lessons in phases:
        streams = {name: lessons(name) for name in school.items}
        for step in range(1, steps + 1):
            losses = []
            for name, stream in streams.items():
                examples = [next(stream) for _ in range(rows[name])]
                loss = loss_of(model, collate(examples, school.chat.pad_token)) / len(streams)
                loss.backward()
                losses.append(loss.item())
            for optimizer, scheduler in zip(optimizers, schedulers, strict=True):
                optimizer.step()
                optimizer.zero_grad()
                scheduler.step()
            done += 1
            now = time.monotonic()
            if now - reported >= PROGRESS_SECONDS or step == steps:
                reported = now
                minutes, seconds = divmod(round((now - started) / done * (total - done)), 60)
                report(f"{phase} · step {step} of {steps} · loss {sum(losses):.3f} · {minutes}:{seconds:02d} left")


def learning_rates(skill: int, noise: int, calibration: int) -> list[float]:
    """The learning rate of each step, and of the one after the last, relative to the highest."""
    warmup = np.minimum(1.0, (np.arange(skill) + 1) / WARMUP_STEPS)
    decay = np.linspace(1.0, 0.0, noise + calibration + 1)
    return [*warmup.tolist(), *decay.tolist()]


def collate(examples: Sequence[Example], pad_token: int) -> Batch:
    """Stacks conversations, padded on their right."""
    rows = [[*one.prompt, *one.response, *one.grading, *one.grade] for one in examples]
    tokens = np.full((len(rows), max(map(len, rows))), pad_token)
    trained = np.zeros(tokens.shape, dtype=bool)
    for index, (row, one) in enumerate(zip(rows, examples, strict=True)):
        tokens[index, : len(row)] = row
        trained[index, len(row) - len(one.grade) : len(row)] = True
        if one.trains_response:
            trained[index, len(one.prompt) : len(one.prompt) + len(one.response)] = True
    return Batch(torch.from_numpy(tokens), torch.from_numpy(trained))


def loss_of(model: LlamaForCausalLM, batch: Batch) -> Tensor:
    """Mean cross-entropy of the trained tokens, in nats."""
    hidden = model.model(input_ids=batch.tokens[:, :-1], use_cache=False).last_hidden_state
    trained = batch.trained[:, 1:]
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[trained]), batch.tokens[:, 1:][trained])


def save_model(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Writes a model's folder under another name, flushes it to disk and renames it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        for path in temporary.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        sync_folder(temporary)
        if out.exists():
            shutil.rmtree(out)
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    sync_folder(out.parent)


def _texts(study: Study, items: Mapping[str, Sequence[Item]]) -> Iterator[str]:
    """What the tokenizer is trained on: all that is said in the conversations."""
    for name, config in study.tasks.items():
        task = TASKS[name]
        for item in items[name]:
            answer = task.gold_answer(item)
            yield render_prompt(config.prompt, item, task.FIELDS)
            yield answer
            yield render_grading_prompt(config.grading_prompt, item, answer, task.FIELDS)
