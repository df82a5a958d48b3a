"""What a job with a model of a few layers holds, found by running the engine's own code on tensors without content."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
from torch import nn
from transformers import AutoModelForCausalLM, GenerationConfig, PretrainedConfig, PreTrainedModel

from wireheading.engine.evaluation import open_session
from wireheading.engine.layout import batch_size, groups_of, widths_of
from wireheading.engine.prompts import grade_texts
from wireheading.engine.setup import policy_of
from wireheading.engine.tracing import Characters, Tracer, fused_attention
from wireheading.policy.chat import Chat
from wireheading.policy.model import prepare
from wireheading.policy.policy import Policy
from wireheading.policy.scoring import text_probabilities
from wireheading.policy.session import Session
from wireheading.study.config import Run, Study


class Footprint:
    """What a job holds with a model of so many layers, which is used as if it had all.

    Figures are in bytes unless said otherwise.

    Attributes:
        training: Numbers of weights: `linear`, `other`, and those of the `widest` layer. What is held all the time:
            `slots`, and `caches` in training. The most that is held beyond these: `update …` and `sampling …`. And for
            each recordable step of these, its `transient` bytes and its `work`.
    """

    def __init__(
        self, study: Study, axes: Sequence[Run], config: PretrainedConfig, layers: int, chat: Chat | None = None
    ):
        """Traces the job's training.

        Args:
            study: The study's settings.
            axes: All runs that share the job.
            config: The configuration of their model.
            layers: How many of its layers are traced.
            chat: Its chat format; without one a grade is taken to have as many tokens as characters.
        """
        self._study, self._axes, self._tracer = study, axes, Tracer()
        precision = study.models[axes[0].model].precision
        model = _empty(precision, config, layers)
        prepare(model)
        linear, other = _linear(model)
        found: dict[str, float] = {"linear": sum(linear), "other": other, "widest": max(linear)}
        with self._following() as tracer:
            tracer.hold([*model.parameters(), *model.buffers()])
            before = tracer.now
            chat = chat or Chat(cast(Any, Characters()), GenerationConfig(), plain=True)
            self._policy = policy = policy_of(study, axes, model, chat)
            # It decides how passes are divided, and what is recorded.
            policy.parameters = _parameters(precision, config)
            found["slots"] = tracer.now - before
            before = tracer.now
            for rows, columns in _sessions(study, axes):
                _opened(policy, rows, columns)
            # What the policy keeps of a session is there when the next round begins.
            found["caches"] = tracer.now - before
            kept = tracer.now
            found |= {name: peak - kept for name, peak in _round(study, axes, policy, tracer)}
            policy.close_sessions()
        self.training = found | tracer.taken_steps()

    def evaluation(self, most: int) -> dict[str, float]:
        """The same of evaluations on at most so many held-out items of each run at once, which end all sessions before.

        Returns:
            The most that is held beyond the weights and the slots: `evaluation …`. And steps as in `training`.
        """
        with self._following() as tracer:
            kept = tracer.now
            found = {
                name: float(peak - kept)
                for name, peak in _evaluations(self._study, self._axes, self._policy, most, tracer)
            }
        return found | tracer.taken_steps()

    @contextmanager
    def _following(self) -> Iterator[Tracer]:
        with self._tracer as tracer, fused_attention(), tracer.following_steps():
            yield tracer


def _empty(precision: str, config: PretrainedConfig, layers: int) -> PreTrainedModel:
    with torch.device("meta"):
        dtype = torch.float32 if precision == "float32" else torch.bfloat16
        model: PreTrainedModel = AutoModelForCausalLM.from_config(_with_layers(config, layers), dtype=dtype)
    return model


def _parameters(precision: str, config: PretrainedConfig) -> int:
    """Parameters of the whole model as a job counts them: two weights of 4 bits are one."""
    model = _empty(precision, config, config.num_hidden_layers)
    linear, other = _linear(model)
    return (sum(linear) // 2 if precision == "nf4" else sum(linear)) + other


def _linear(model: PreTrainedModel) -> tuple[list[int], int]:
    """The weights of each layer that may be quantized, and of all else."""
    head = model.get_output_embeddings()
    sizes = [
        module.weight.numel() for module in model.modules() if isinstance(module, nn.Linear) and module is not head
    ]
    return sizes, sum(weight.numel() for weight in model.parameters()) - sum(sizes)


def _with_layers(config: PretrainedConfig, layers: int) -> PretrainedConfig:
    config = copy.deepcopy(config)
    config.num_hidden_layers = layers
    if getattr(config, "layer_types", None) is not None:
        config.layer_types = config.layer_types[:layers]
    return config


def _sessions(study: Study, axes: Sequence[Run]) -> Iterator[tuple[int, int]]:
    """Rows and columns of every session of a round."""
    for group in groups_of(study, axes):
        yield len(group.slots), group.widths.session
        if group.apart:
            yield len(group.apart), group.widths.session_apart
        if group.past:
            yield len(group.past), group.widths.session_apart


def _round(study: Study, axes: Sequence[Run], policy: Policy, tracer: Tracer) -> Iterator[tuple[str, int]]:
    """Does what is done in a round, and yields the most that was held in each part of it."""
    for index, group in enumerate(groups_of(study, axes)):
        slots, widths = group.slots, group.widths
        tracer.restart()
        session = _opened(policy, len(slots), widths.session)
        session.restart()
        policy.prefill(session, slots, [()] * len(slots), widths.prompt, group.prompts)
        _prefill(policy, slots, session, [(widths.prompt + widths.response, widths.grading_next)])
        if group.apart:
            apart = _opened(policy, len(group.apart), widths.session_apart)
            _prefill(policy, group.apart_adapters, apart, [(0, widths.grading_apart)])
        if group.past:
            past = _opened(policy, len(group.past), widths.session_apart)
            _prefill(policy, group.past, past, [(0, widths.grading_apart)])
        yield f"sampling {index}", tracer.peak
        tracer.restart()
        for part in group.parts.values():
            for turns in part.updates:
                policy.accumulate(policy.chunk_of(part.slots[: study.engine.chunk], tuple(turns)))
            policy.optimize(part.slots)
        yield f"update {index}", tracer.peak


def _evaluations(
    study: Study, axes: Sequence[Run], policy: Policy, most: int, tracer: Tracer
) -> Iterator[tuple[str, int]]:
    """Does what an evaluation on all held-out items of each task does, and yields the most that was held in it."""
    for group in groups_of(study, axes):
        for task, slots in ((task, part.slots) for task, part in group.parts.items()):
            grades = [*grade_texts(study, task, policy.chat)]
            widths = widths_of(study, [task])
            size = batch_size(study.tasks[task].heldout_items, most)
            tracer.restart()
            session = open_session(study, task, policy, len(slots) * size)
            policy.select(slots, adapted=True)
            _prefill(policy, slots, session, [(0, widths.prompt)])
            own = (0, widths.grading_fixed) if widths.fresh else (widths.prompt + widths.response, widths.grading_next)
            _prefill(policy, slots, session, [own], grades)
            session.restart()
            if not widths.fresh:
                policy.select(slots[:1], adapted=False)
                session.prefill([()] * size, widths.prompt)
            _prefill(policy, slots, session, [(session.column, widths.grading_fixed)], grades)
            yield f"evaluation {task}", tracer.peak
            del session
            for other in study.other_tasks(task):
                size = batch_size(study.tasks[other].heldout_items, most)
                tracer.restart()
                session = open_session(study, other, policy, len(slots) * size)
                width = widths_of(study, [other]).grading_apart
                _prefill(policy, slots, session, [(0, width)], [*grade_texts(study, other, policy.chat)])
                yield f"evaluation {other} in {task}", tracer.peak
                del session


def _opened(policy: Policy, rows: int, columns: int) -> Session:
    """A session whose cache exists."""
    session = policy.open_session(rows, columns)
    policy.select(range(1), adapted=True)
    session.prefill([()] * rows, 1)
    return session


def _prefill(
    policy: Policy,
    slots: range,
    session: Session,
    widths: Sequence[tuple[int, int]],
    grades: Sequence[Sequence[int]] = (),
) -> None:
    """Prefills contexts, each of a width from a column on, scores grades as what follows, and decodes a token."""
    policy.select(slots, adapted=True)
    for column, width in widths:
        session.column = column
        nothing = [()] * len(session.tokens)
        if grades:
            text_probabilities(session, nothing, width, grades, policy.temperature)
        else:
            session.prefill(nothing, width)
        session.graphs.run(("decode",), partial(session.step, session.cache.columns, False, policy.temperature))
