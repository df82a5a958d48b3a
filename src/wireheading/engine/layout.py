"""The layout of a round: which slots are computed together, how wide their turns are, and the sessions they open.

A job, its held-out evaluations and the estimate of its memory all take it from here. The config fixes it: it never
depends on which runs are there.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from wireheading.policy.update import Width
from wireheading.study.config import Run, Study


@dataclass(frozen=True)
class Widths:
    """The columns of the turns of one round, the same for every row of a batch.

    Attributes:
        prompt: Columns of the prompt.
        response: Columns of the response.
        grading: Columns of the tokens that ask for a grade.
        grade: Columns of the grade.
        fresh: Whether a grade is asked for in a session of its own, without the prompt and the response.
    """

    prompt: int
    response: int
    grading: int
    grade: int
    fresh: bool

    @property
    def grading_next(self) -> int:
        """What is prefilled for a grade as the next turn: the response's last token was never fed, so it leads."""
        return 1 + self.grading

    @property
    def grading_apart(self) -> int:
        """What is prefilled for a grade in a session of its own."""
        return self.grading if self.fresh else self.prompt + self.response + self.grading

    @property
    def grading_fixed(self) -> int:
        """What is prefilled after the prompt for the grade of a fixed answer."""
        return self.grading if self.fresh else self.response + self.grading

    @property
    def session(self) -> int:
        """Columns of the session in which the policy responds and, as the next turn, grades."""
        return self.prompt + self.response + self.grading_next + self.grade

    @property
    def session_apart(self) -> int:
        """Columns of a session that is opened for a grade alone."""
        return self.grading_apart + self.grade


@dataclass(frozen=True)
class Part:
    """The slots of one task in a group, which are prompted and updated in the columns of that task.

    Attributes:
        slots: The slots.
        widths: The turns of the task.
        trains_grade: Whether the update of any of them has the grade's turn in it.
    """

    slots: range
    widths: Widths
    trains_grade: bool

    @property
    def updates(self) -> list[list[Width]]:
        """The turns of each batch of an update: one batch for each session whose turns are trained."""
        widths = self.widths
        response, grade = Width(widths.prompt, widths.response), Width(widths.grading, widths.grade)
        if not self.trains_grade:
            return [[response]]
        return [[response], [grade]] if widths.fresh else [[response, grade]]


@dataclass(frozen=True)
class Group:
    """Slots whose tokens are sampled together.

    Attributes:
        slots: The slots.
        widths: The widest turns of their tasks.
        parts: The slots of each task.
        apart: The slots that open a session for a grade alone, one for each of its rows.
        past: The rows of the past adapters that grade in any of them.
    """

    slots: range
    widths: Widths
    parts: dict[str, Part]
    apart: Sequence[int]
    past: range

    @property
    def prompts(self) -> list[tuple[range, int]]:
        """The slots of each task, and the columns of their prompts."""
        return [(part.slots, part.widths.prompt) for part in self.parts.values()]

    @property
    def apart_adapters(self) -> range:
        """The slots whose adapters the rows apart get: their own, or any where the base grades, which has them off."""
        return self.slots if self.widths.fresh else range(len(self.apart))


def groups_of(study: Study, axes: Sequence[Run]) -> list[Group]:
    """The groups of a job.

    Args:
        study: The study's settings.
        axes: All runs that share the job by the config, in its order: they number the slots, task after task.
    """
    tasks: dict[str, list[int]] = {}
    for slot, run in enumerate(axes):
        tasks.setdefault(run.task, []).append(slot)
    ranges = {task: range(slots[0], slots[-1] + 1) for task, slots in tasks.items()}
    together = [{task: slots} for task, slots in ranges.items()] if study.engine.batch == "task" else [ranges]
    return [_group(study, axes, each) for each in together]


def _group(study: Study, axes: Sequence[Run], tasks: dict[str, range]) -> Group:
    slots = range(min(own.start for own in tasks.values()), max(own.stop for own in tasks.values()))
    conditions = {slot: study.conditions[axes[slot].condition] for slot in slots}
    widths, lagged = widths_of(study, tasks), lagged_slots(study, axes)
    return Group(
        slots,
        widths,
        {
            task: Part(own, widths_of(study, [task]), any(conditions[slot].trains_grade for slot in own))
            for task, own in tasks.items()
        },
        apart=slots if widths.fresh else [slot for slot in slots if conditions[slot].grader == "base"],
        past=range(*(len(axes) + sum(slot < end for slot in lagged) for end in (slots.start, slots.stop))),
    )


def lagged_slots(study: Study, axes: Sequence[Run]) -> list[int]:
    """The slots of a job that keep past adapters. These lie behind all slots, in the same order."""
    return [slot for slot, run in enumerate(axes) if study.conditions[run.condition].grader_lag is not None]


def widths_of(study: Study, tasks: Collection[str]) -> Widths:
    """The widest turns of some tasks."""
    sections = [study.tasks[task] for task in tasks]
    return Widths(
        prompt=max(section.prompt_tokens for section in sections),
        response=max(section.response_tokens for section in sections),
        grading=max(section.grading_prompt_tokens for section in sections),
        grade=max(section.grade_tokens for section in sections),
        fresh=study.grading_context == "fresh",
    )


def heldout_widths(study: Study, task: str, grades: Collection[Sequence[int]]) -> Widths:
    """The turns of a held-out evaluation.

    Args:
        study: The study's settings.
        task: The task.
        grades: The tokens of every text that is scored as a grade. The tree of their beginnings takes the columns that
            the sampled grade takes afterwards.
    """
    widths = widths_of(study, [task])
    tree = {tuple(grade[:end]) for grade in grades for end in range(1, len(grade) + 1)}
    return Widths(widths.prompt, widths.response, widths.grading, max(widths.grade, len(tree)), widths.fresh)


def evaluation_batch(study: Study) -> int:
    """The most held-out items of each run in a batch, once the job has settled it."""
    assert study.engine.evaluation_batch is not None, "the job settles it"
    return study.engine.evaluation_batch


def batches(items: int, most: int) -> list[list[int]]:
    """The items of each batch, by their places. The last one is filled up with the last item, which counts but once."""
    size = batch_size(items, most)
    return [[min(place, items - 1) for place in range(start, start + size)] for start in range(0, items, size)]


def batch_size(items: int, most: int) -> int:
    """Held-out items in each of the fewest batches, all of one size, that hold at most so many."""
    return math.ceil(items / math.ceil(items / most))
