"""Files of results of the published study's code: which shapes they have, and which runs are in them.

`all_results.json` and the checkpoints are objects of seeds, models, tasks and conditions, with a list of one episode
for each run; an export of the tracking service has an entry for each run, with its history.
"""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from wireheading.errors import InputError
from wireheading.records.schema import Finite, Share
from wireheading.study.config import Run, Study

_SEED = re.compile(r"(?:seed_?)?([0-9]{1,9})")
_TRACKED_RUN = re.compile(r"(.+)_([^_]+)_(?!seed_)([^_]+)_((?:seed_?)?[0-9]{1,9})", re.DOTALL)
_CHECKPOINT = re.compile(r"checkpoint_(seed_?[0-9]{1,9})(?:_(.+))?", re.DOTALL)


T = TypeVar("T")


class ResultsFileError(InputError):
    """Results that cannot be imported or exported. Its text is one line: file, place in it, problem, remedy."""


class Episode(BaseModel):
    """What the published code kept of a run: lists with a value a round, all empty where the run failed."""

    model_config = ConfigDict(frozen=True)

    rewards: list[Share] = []
    accuracies: list[Share] = []
    grades: list[Share | None] = []
    losses: list[Finite | None] = []

    @model_validator(mode="before")
    @classmethod
    def _without_losses(cls, lists: Any) -> Any:
        """Losses may be missing."""
        if isinstance(lists, Mapping) and not lists.get("losses") and isinstance(lists.get("rewards"), list):
            return {**lists, "losses": [None] * len(lists["rewards"])}
        return lists

    @model_validator(mode="after")
    def _of_one_length(self) -> Episode:
        for name, values in self:
            if len(values) != self.rounds:
                raise ValueError(
                    f"{len(values)} {name} and {self.rounds} rewards; cut them to the rounds that have both"
                )
        return self

    @property
    def rounds(self) -> int:
        """Number of rounds."""
        return len(self.rewards)


class History(BaseModel):
    """What the tracking service logged of a run, with steps that are no rounds, where nothing has a value."""

    reward: list[float | None] = []
    accuracy: list[float | None] = []
    grade: list[float | None] = []
    loss: list[float | None] = []

    def episode(self) -> dict[str, list[float | None]]:
        """The lists of an `Episode`, without the steps that are no rounds."""
        logged = {
            name: [None if value != value else value for value in values]
            for name, values in zip(Episode.model_fields, (values for _, values in self), strict=True)
        }
        lists = {name: values for name, values in logged.items() if any(value is not None for value in values)}
        if len({len(values) for values in lists.values()}) != 1:
            return lists
        steps = [step for step in zip(*lists.values(), strict=True) if any(value is not None for value in step)]
        return {name: [step[column] for step in steps] for column, name in enumerate(lists)}


class TrackedRun(BaseModel):
    """An entry of an export of the tracking service."""

    history: History


Episodes = Annotated[list[Episode], Field(max_length=1)]
NESTED = TypeAdapter(dict[str, dict[str, dict[str, dict[str, Episodes]]]])
"""Seeds, in them models, in them tasks, in them conditions, in each of them a list of at most one episode."""

TRACKED = TypeAdapter(dict[str, TrackedRun])
"""An entry `<model>_<task>_<condition>_<seed>` for each run."""

EPISODE = TypeAdapter(Episode)


def read_results(study: Study, name: str, data: bytes) -> dict[Run, tuple[str, Episode]]:
    """Reads the runs in a file of results.

    Args:
        study: The study, which knows the names of seeds, models, tasks and conditions.
        name: The file's name, which says whose checkpoint it is.
        data: Its content.

    Returns:
        The keys that lead to each run, joined by slashes, and its episode.

    Raises:
        ResultsFileError: Names the place of the first thing that is not as it should be, but not the file.
    """
    try:
        content = json.loads(data, object_pairs_hook=_distinct)
    except RecursionError:
        raise ResultsFileError("is nested too deeply; give a file of results") from None
    except ResultsFileError:
        raise
    except ValueError as error:
        raise ResultsFileError(f"is not JSON ({error}); it may be truncated, so fetch it again") from None
    found: dict[Run, tuple[str, Episode]] = {}
    for place, run, episode in _read_runs(study, name, content):
        if run in found:
            raise ResultsFileError(f"{place}: is the same run as {found[run][0]}; keep one of them")
        if episode.rounds > study.rounds:
            raise ResultsFileError(
                f"{place}: {episode.rounds} rounds, and a run of the config has {study.rounds}; give the config of "
                "that protocol"
            )
        found[run] = (place, episode)
    if not found:
        raise ResultsFileError("holds no run; give a file of results")
    return found


def _read_runs(study: Study, name: str, content: Any) -> Iterator[tuple[str, Run, Episode]]:
    """Place, run and episode of everything in a file."""
    if isinstance(content, dict) and any(isinstance(entry, dict) and "history" in entry for entry in content.values()):
        for key, entry in _checked(TRACKED, content).items():
            named = _TRACKED_RUN.fullmatch(key)
            place = _shown(key)
            if named is None:
                raise ResultsFileError(f"{place}: is not <model>_<task>_<condition>_<seed>; rename it or take it out")
            run = _run_named(study, place, named[4], named[1], named[2], named[3])
            yield place, run, _checked(EPISODE, entry.history.episode(), place)
        return
    checkpoint = _CHECKPOINT.fullmatch(name.removesuffix(".json"))
    if isinstance(content, dict) and checkpoint is not None and not all(map(_SEED.fullmatch, content)):
        # The published code wrote a checkpoint from the model down, and what is above into the file's name.
        if checkpoint[2] is not None and all(task in study.tasks for task in content):
            content = {checkpoint[2]: content}
        content = {checkpoint[1]: content}
    for seed, models in _checked(NESTED, content).items():
        for model, tasks in models.items():
            for task, conditions in tasks.items():
                for condition, episodes in conditions.items():
                    place = "/".join(map(_shown, (seed, model, task, condition)))
                    run = _run_named(study, place, seed, model, task, condition)
                    yield place, run, episodes[0] if episodes else Episode()


def _checked(shape: TypeAdapter[T], content: Any, place: str = "") -> T:
    """Content in the shape that it should have.

    Raises:
        ResultsFileError: It has another. The text names the first place where it does.
    """
    try:
        return shape.validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
    at = "/".join(filter(None, [place, *(_shown(str(part)) for part in first["loc"])])) or "the file"
    problem = first["msg"].removeprefix("Value error, ")
    if first["type"] not in ("value_error", "too_long"):  # These tell it.
        problem += f", not {reprlib.repr(first['input'])}"
    raise ResultsFileError(
        f"{at}: {problem}; a run is a list of one object that holds the lists "
        f"{', '.join(Episode.model_fields)}, and an empty list leaves it out"
    )


def _run_named(study: Study, place: str, seed: str, model: str, task: str, condition: str) -> Run:
    """The run that these names stand for in the file.

    Raises:
        ResultsFileError: The study does not know one of them.
    """
    _known(place, "task", task, study.tasks)
    _known(place, "condition", condition, study.conditions)
    return Run(_seed_named(study, place, seed), _model_named(study, place, model), task, condition)


def _seed_named(study: Study, place: str, key: str) -> int:
    named = _SEED.fullmatch(key)
    if named is None or int(named[1]) not in study.seeds:
        known = ", ".join(map(str, study.seeds))
        raise ResultsFileError(f"{place}: unknown seed {_shown(key)}; the config's `seeds` are {known}")
    return int(named[1])


def _model_named(study: Study, place: str, key: str) -> str:
    """The config's name of a model that a file calls by that name or by its source, whole or in part."""
    if key in study.models:
        return key
    wanted = key.casefold()
    models = {
        name: (model.source, model.source.replace("/", "_"), model.source.rpartition("/")[2])
        for name, model in study.models.items()
    }
    fitting = [name for name, forms in models.items() if wanted in map(str.casefold, forms)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise ResultsFileError(f"{place}: {_shown(key)} is the source of {' and of '.join(fitting)}; name one of them")
    known = ", ".join(f"{name} ({model.source})" for name, model in study.models.items())
    raise ResultsFileError(f"{place}: unknown model {_shown(key)}; known are {known}")


def _known(place: str, kind: str, name: str, known: Iterable[str]) -> None:
    if name not in known:
        raise ResultsFileError(f"{place}: unknown {kind} {_shown(name)}; known are {', '.join(known)}")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in members if keys.count(key) > 1)
        raise ResultsFileError(f"names {_shown(twice)} twice in one object; keep one of them")
    return members


def _shown(text: str) -> str:
    """A text of the file as it may stand in a message of one line."""
    return text if text.isprintable() and len(text) <= 80 else reprlib.repr(text)
