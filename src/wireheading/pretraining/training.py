"""Pre-training of the embedded model: its architecture, the loop over the three phases of `data`, and its files."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from wireheading.files import sync_folder
from wireheading.policy.chat import Chat
from wireheading.policy.device import prepare_device
from wireheading.pretraining.data import Example, PretrainingData, conversation_texts, pretraining_items
from wireheading.pretraining.optimizer import Muon
from wireheading.pretraining.tokenizer import train_tokenizer
from wireheading.study.config import Study

Report = Callable[[str], None]

VOCABULARY = 800
MUON_LR, ADAMW_LR = 0.004, 0.003
WARMUP_STEPS = 20
PROGRESS_SECONDS = 20.0


class Batch(NamedTuple):
    """Conversations of one task: their tokens, `[rows, columns]`, and which of these are trained, bool."""

    tokens: Tensor
    trained: Tensor


def train_model(study: Study, out: Path, report: Report) -> None:
    """Trains the embedded model on the study's tasks and saves it in the hub's layout.

    The result is a function of the settings, the threads, the machine and the library versions.

    Args:
        study: The study's settings.
        out: The model's folder; it appears once it is complete.
        report: A callback for progress messages.

    Raises:
        ConfigError: The model cannot be trained on a task's data or prompts.
    """
    prepare_device(study.engine.threads)
    items = pretraining_items(study)
    tokenizer = train_tokenizer(conversation_texts(study, items), VOCABULARY)
    model = new_model(tokenizer, study.embedded.seed)
    data = PretrainingData(study, Chat(tokenizer, model.generation_config), items)
    train(model, data, report)
    save_model(model, tokenizer, out)


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


def train(model: LlamaForCausalLM, data: PretrainingData, report: Report) -> None:
    """Trains a model through the three phases."""
    config = data.study.embedded
    matrices = [parameter for name, parameter in model.named_parameters() if name.endswith("_proj.weight")]
    others = [parameter for name, parameter in model.named_parameters() if not name.endswith("_proj.weight")]
    optimizers = [
        Muon(matrices, MUON_LR),
        torch.optim.AdamW(others, ADAMW_LR, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
    ]
    schedule = learning_rates(config.skill_steps, config.noise_steps, config.calibration_steps)
    schedulers = [torch.optim.lr_scheduler.LambdaLR(optimizer, schedule.__getitem__) for optimizer in optimizers]
    phases: list[tuple[str, int, Callable[[str], Iterator[Example]]]] = [
        ("skill", config.skill_steps, data.skill),
        ("noise", config.noise_steps, data.noise),
        ("calibration", config.calibration_steps, lambda name: data.calibration(name, model)),
    ]
    rows = {name: data.rows(name) for name in data.items}
    done, total = 0, len(schedule) - 1
    started = reported = time.monotonic()
    for phase, steps, conversations in phases:
        streams = {name: conversations(name) for name in data.items}
        for step in range(1, steps + 1):
            losses = []
            for name, stream in streams.items():
                examples = [next(stream) for _ in range(rows[name])]
                loss = loss_of(model, collate(examples, data.chat.pad_token)) / len(streams)
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
    """Writes a model's folder under a temporary name, flushes it to disk and renames it."""
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
