"""What a job sets up before its first round: the model with a slot for each run."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedModel

from wireheading.engine.layout import lagged_slots
from wireheading.engine.prompts import choices
from wireheading.policy.chat import Chat
from wireheading.policy.policy import Policy
from wireheading.study.config import Run, Study


def policy_of(study: Study, axes: Sequence[Run], model: PreTrainedModel, chat: Chat) -> Policy:
    """The policies of a job on a model, with a slot for each of its runs.

    Args:
        study: The study's settings.
        axes: All runs that share the job.
        model: Their model, which is changed in place.
        chat: Its chat format.
    """
    return Policy(
        model,
        chat,
        slots=len(axes),
        chunk=study.engine.chunk,
        lora=study.lora,
        optimizer=study.optimizer,
        temperature=study.temperature,
        activation_checkpointing=study.models[axes[0].model].activation_checkpointing,
        choices=choices(study, chat),
        lagged=lagged_slots(study, axes),
    )
