"""TRL's RLOO with PEFT as another way to compute updates; `pip install 'wireheading[benchmarks]'` brings TRL."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import Any

import peft
from datasets import Dataset
from setting import Setting
from transformers import PrinterCallback, TrainerCallback
from trl import RLOOConfig, RLOOTrainer
from ways import Advance, Clock

from wireheading.policy.lora import TARGETS

ANSWERS = 2
"""To a prompt: the fewest that the trainer takes, since each is the other's baseline."""


def rloo(setting: Setting, clock: Clock, share: int) -> Advance:
    """Updates from two answers to one prompt.

    The trainer has no second turn in which an answer is graded, so each answer is given and samples as many tokens as
    both turns of a round, or a share of them. There is no reference model and no activation checkpointing, both of
    which the trainer has by default.

    Args:
        setting: What is measured.
        clock: Tells the time.
        share: With 1, an answer has a round's tokens, so that an update has twice as many; with 2, an update has as
            many as a round, but takes half as many decode steps, since its answers are sampled together.
    """
    study, device = setting.study, setting.model.device
    ((name, task),) = study.tasks.items()
    given = (task.prompt_tokens + task.grading_prompt_tokens) // share
    limit = (task.response_tokens + task.grade_tokens) // share
    folder = tempfile.TemporaryDirectory()
    config = RLOOConfig(
        output_dir=folder.name,
        num_generations=ANSWERS,
        per_device_train_batch_size=ANSWERS,
        max_completion_length=limit,
        generation_kwargs={"min_new_tokens": limit},
        temperature=study.temperature,
        beta=0.0,
        gradient_checkpointing=False,
        learning_rate=study.optimizer.lr,
        weight_decay=study.optimizer.weight_decay,
        max_grad_norm=study.optimizer.clip_norm,
        lr_scheduler_type="constant",
        bf16=device.type == "cuda",
        use_cpu=device.type == "cpu",
        report_to="none",
        logging_strategy="no",
        save_strategy="no",
        disable_tqdm=True,
    )

    def reward(completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float]:
        assert [len(tokens) for tokens in completion_ids] == [limit] * ANSWERS
        return [sum(token % 2 for token in tokens) / limit for tokens in completion_ids]

    times: list[float] = []

    class Times(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            times.append(clock.now())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            times.append(clock.now())

    trainer = RLOOTrainer(
        model=setting.model,
        reward_funcs=reward,
        args=config,
        # A byte is a token.
        train_dataset=Dataset.from_list([{"prompt": item["text"][:given]} for item in setting.data[name]]),
        processing_class=setting.chat.tokenizer,
        peft_config=peft.LoraConfig(r=study.lora.rank, lora_alpha=study.lora.alpha, target_modules=list(TARGETS)),
        callbacks=[Times()],
    )
    trainer.remove_callback(PrinterCallback)

    def advance(rounds: int) -> float:
        times.clear()
        trainer.args.max_steps = rounds
        trainer.train()
        # What the trainer does before its first step is left out.
        return times[-1] - times[0]

    return advance
