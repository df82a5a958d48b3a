"""A part of a study: the runs of some of its seeds, models, tasks and conditions."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from typing import TYPE_CHECKING

from wireheading.errors import ConfigError
from wireheading.study.sections import Section, Seed

if TYPE_CHECKING:
    from wireheading.study.config import Study

LONG = 100
"""Characters of a folder's name above which it is a digest of what it would say."""


class Selection(Section):
    """The part of the study to run and to report on. An axis without names is not restricted."""

    seeds: tuple[Seed, ...] = ()
    """Seeds, of those of the study."""
    models: tuple[str, ...] = ()
    """Names of enabled models."""
    tasks: tuple[str, ...] = ()
    """Names of tasks."""
    conditions: tuple[str, ...] = ()
    """Names of conditions, of those of the study."""

    def __bool__(self) -> bool:
        return any(names for _, names in self)

    def __str__(self) -> str:
        return "; ".join(f"{axis} {', '.join(map(str, names))}" for axis, names in self if names)


def part_of(study: Study) -> Study:
    """A study that is restricted to what its key `only` selects, with a folder of reports of its own.

    Tasks stay, as the embedded model learns them all: see `Study.enabled_tasks`.

    Raises:
        ConfigError: The study has no such seed, model, task or condition.
    """
    if not study.only:
        return study
    chosen: dict[str, list[int | str]] = {}
    for axis, known in (_axes(study) | {"tasks": list(study.tasks)}).items():
        names = getattr(study.only, axis)
        for name in names:
            if name not in known:
                raise ConfigError(f"config: only.{axis} names {name!r}; known are {', '.join(map(str, known))}")
        chosen[axis] = [name for name in known if name in names or not names]
    text = "-".join("+".join(map(str, chosen[axis])) for axis, names in study.only if names)
    folder = text if len(text) <= LONG else hashlib.sha256(text.encode()).hexdigest()[:16]
    return study.model_copy(
        update={
            "seeds": tuple(chosen["seeds"]),
            "models": {
                name: model.model_copy(update={"enabled": name in chosen["models"]})
                for name, model in study.models.items()
            },
            "conditions": {name: row for name, row in study.conditions.items() if name in chosen["conditions"]},
            "reports": f"{study.reports}/part-{folder}",
        }
    )


def left_out(study: Study, whole: Study) -> dict[str, list[int | str]]:
    """What selects a study's runs from those of a whole one: names by axis, where they are fewer.

    Args:
        study: The study as its config files and `--config` give it.
        whole: The study as its config files alone give it.
    """
    all_axes = _axes(whole)
    return {axis: list(names) for axis, names in _axes(study).items() if set(names) < set(all_axes[axis])}


def _axes(study: Study) -> dict[str, Collection[int | str]]:
    return {
        "seeds": study.seeds,
        "models": study.enabled_models,
        "tasks": study.enabled_tasks,
        "conditions": study.conditions,
    }
