"""Results of the published study's code: taken in as records that say so, and written in its shape.

That code kept reward, accuracy, grade and loss of each round, by its own definitions, and no texts. So an imported
record fills the `original_…` fields alone; all others are null, and it enters no average but those of that name. A
history that is shorter than its run lies beside the record's place, `<condition>.imported.json`: nothing of it is lost,
and the run is still to be done.
"""

from __future__ import annotations

import hashlib
import json
import re
import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from wireheading.errors import InputError
from wireheading.files import replacing
from wireheading.records.consistency import ORIGINAL_HISTORIES
from wireheading.records.means import OWN_MEANS, original_histories, original_means
from wireheading.records.record import ROUND_ARRAYS, VERSION, RecordError, read_record, write_record
from wireheading.study.conditions import CONDITIONS
from wireheading.study.config import Run, Study
from wireheading.study.paths import imported_path

Report = Callable[[str], None]

TRACKED = dict(zip(ORIGINAL_HISTORIES, ("reward", "accuracy", "grade", "loss"), strict=True))
"""The tracking service's name of each history."""

_SEED = re.compile(r"(?:seed_?)?([0-9]{1,9})")
_TRACKED_RUN = re.compile(r"(.+)_([^_]+)_(?!seed_)([^_]+)_((?:seed_?)?[0-9]{1,9})", re.DOTALL)
_CHECKPOINT = re.compile(r"checkpoint_(seed_?[0-9]{1,9})(?:_(.+))?", re.DOTALL)


class ResultsFileError(InputError):
    """Results that cannot be taken in or written. Its text is one line: file, place in it, problem, remedy."""


@dataclass(frozen=True)
class Found:
    """A run that was found in a file.

    Attributes:
        run: Which run it is.
        place: The keys that lead to it, joined by slashes.
        histories: A list for each name of `ORIGINAL_HISTORIES`, a value a round, all of one length. Grades and losses
            may be null.
    """

    run: Run
    place: str
    histories: dict[str, list[float | None]]

    @property
    def rounds(self) -> int:
        """Number of rounds."""
        return len(self.histories["rewards"])


def import_results(study: Study, path: Path, overwrite: bool, report: Report) -> None:
    """Takes in a file of results, whole or not at all.

    Args:
        study: The study, in whose results folder the records are written.
        path: `all_results.json`, `checkpoint_seed….json`, or an export of the tracking service.
        overwrite: Whether records that exist are replaced.
        report: Is told what became of each run that was not simply imported, and of the numbers of runs.

    Raises:
        ResultsFileError: The file is of another shape, or holds what the study does not know. Nothing is written.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ResultsFileError(f"{path}: no such file") from None
    try:
        found = read_results(study, path.name, data)
    except ResultsFileError as error:
        raise ResultsFileError(f"{path}: {error}") from None
    imported = {"source": path.name, "sha256": hashlib.sha256(data).hexdigest()}
    complete = partial = kept = 0
    for cell in found:
        record_path = study.record_path(cell.run)
        whole = cell.rounds == study.rounds
        target = record_path if whole else imported_path(record_path)
        if not cell.rounds:
            report(f"{cell.run}: empty, so the run failed; it is still to be done")
        elif not overwrite and (record_path.exists() or target.exists()):
            kept += 1
            report(f"{cell.run}: kept {record_path if record_path.exists() else target}; --overwrite replaces it")
        else:
            status = "imported" if whole else "partial"
            write_record(target, _record(study, cell, status, {**imported, "place": cell.place}))
            complete, partial = complete + whole, partial + (not whole)
            if not whole:
                report(f"{cell.run}: {cell.rounds} of {study.rounds} rounds; the run is still to be done")
    empty = sum(not cell.rounds for cell in found)
    report(f"{study.results}: {complete} imported, {partial} partial, {empty} empty, {kept} kept as they were")


def export_results(study: Study, path: Path, overwrite: bool, report: Report) -> None:
    """Writes the records of a study in the shape of `all_results.json`.

    Only the seeds and models with a record are in it; there, a run without one has an empty list.

    Args:
        study: The study.
        path: The file to write.
        overwrite: Whether it is replaced where it exists.
        report: Is told of every record that is not believed, and of the number of runs.

    Raises:
        ResultsFileError: The file exists, or there is nothing to write.
    """
    if path.exists() and not overwrite:
        raise ResultsFileError(f"{path}: exists; --overwrite replaces it")
    episodes = {run: _episodes(study, run, report) for run in study.runs()}
    if not any(episodes.values()):
        raise ResultsFileError(
            f"{study.results}: holds no record of this study, so there is nothing to export; name the config of its "
            "records with --configfile"
        )
    present = {(run.seed, run.model) for run, held in episodes.items() if held}
    results: dict[str, Any] = {}
    for run, held in episodes.items():
        if (run.seed, run.model) in present:
            models = results.setdefault(f"seed_{run.seed}", {})
            models.setdefault(_exported_name(study, run.model), {}).setdefault(run.task, {})[run.condition] = held
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(results, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    report(f"{path}: {sum(map(len, episodes.values()))} of {len(episodes)} runs exported")


def read_results(study: Study, name: str, data: bytes) -> list[Found]:
    """Reads the runs in a file of results.

    Args:
        study: The study, which knows the names of seeds, models, tasks and conditions.
        name: The file's name, which says whose checkpoint it is.
        data: Its content.

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
    found: dict[Run, Found] = {}
    for cell in _read_runs(study, name, _members("the file", content, "seeds")):
        if cell.run in found:
            raise ResultsFileError(f"{cell.place}: is the same run as {found[cell.run].place}; keep one of them")
        found[cell.run] = cell
    if not found:
        raise ResultsFileError("holds no run; give a file of results")
    return list(found.values())


def _read_runs(study: Study, name: str, content: Mapping[str, Any]) -> Iterator[Found]:
    if any(isinstance(entry, dict) and "history" in entry for entry in content.values()):
        return _read_tracked(study, content)
    checkpoint = _CHECKPOINT.fullmatch(name.removesuffix(".json"))
    if checkpoint is not None and not all(map(_SEED.fullmatch, content)):
        # The published code wrote a checkpoint from the model down, and what is above into the file's name.
        if checkpoint[2] is not None and all(task in study.tasks for task in content):
            content = {checkpoint[2]: content}
        content = {checkpoint[1]: content}
    return _read_nested(study, content)


def _read_nested(study: Study, content: Mapping[str, Any]) -> Iterator[Found]:
    """Seeds, in them models, in them tasks, in them conditions, in each of them a list of at most one episode."""
    for seed_key, models in content.items():
        place = _shown(seed_key)
        seed = _seed_named(study, place, seed_key)
        for model_key, tasks in _members(place, models, "models").items():
            at_model = f"{place}/{_shown(model_key)}"
            model = _model_named(study, at_model, model_key)
            for task, conditions in _members(at_model, tasks, "tasks").items():
                at_task = f"{at_model}/{_shown(task)}"
                _known(at_task, "task", task, study.tasks)
                for condition, episodes in _members(at_task, conditions, "conditions").items():
                    at = f"{at_task}/{_shown(condition)}"
                    _known(at, "condition", condition, study.conditions)
                    run = Run(seed, model, task, condition)
                    yield Found(run, at, _histories(study, at, _only_episode(at, episodes)))


def _read_tracked(study: Study, content: Mapping[str, Any]) -> Iterator[Found]:
    """An entry `<model>_<task>_<condition>_<seed>` a run, each with an object `history`."""
    for key, entry in content.items():
        at = _shown(key)
        named = _TRACKED_RUN.fullmatch(key)
        if named is None:
            raise ResultsFileError(f"{at}: is not <model>_<task>_<condition>_<seed>; rename it or take it out")
        _known(at, "task", named[2], study.tasks)
        _known(at, "condition", named[3], study.conditions)
        run = Run(_seed_named(study, at, named[4]), _model_named(study, at, named[1]), named[2], named[3])
        history = _members(f"{at}/history", _members(at, entry, "fields").get("history"), "lists")
        lists = {name: history[tracked] for name, tracked in TRACKED.items() if tracked in history}
        yield Found(run, at, _histories(study, at, _logged_rounds(at, lists)))


def _logged_rounds(place: str, lists: Mapping[str, Any]) -> dict[str, Any]:
    """Leaves out the steps at which no round was logged: the service lists them too, without any value."""
    arrays = {name: _array(f"{place}: {TRACKED[name]}", values) for name, values in lists.items()}
    if len({len(values) for values in arrays.values()}) != 1:
        return arrays
    steps = [step for step in zip(*arrays.values(), strict=True) if not all(map(_absent, step))]
    columns = {name: [step[column] for step in steps] for column, name in enumerate(arrays)}
    return {name: values for name, values in columns.items() if not all(map(_absent, values))}


def _absent(value: object) -> bool:
    return value is None or value != value


def _only_episode(place: str, episodes: object) -> Mapping[str, Any]:
    held = _array(place, episodes)
    if len(held) > 1:
        raise ResultsFileError(
            f"{place}: is a list of {len(held)} entries, and a run is a list of one object that holds the lists "
            f"{', '.join(ORIGINAL_HISTORIES)}; if these are rounds, make lists of their values; if runs, keep one"
        )
    return _members(place, held[0], "lists") if held else {}


def _histories(study: Study, place: str, lists: Mapping[str, Any]) -> dict[str, list[float | None]]:
    """Checks the lists of one run.

    Args:
        study: The study, which knows how long a run is.
        place: Where the lists are.
        lists: Those of `ORIGINAL_HISTORIES`; losses may be missing. None at all are a run of no rounds.
    """
    arrays = {name: _array(f"{place}: {name}", lists[name]) for name in ORIGINAL_HISTORIES if name in lists}
    if not any(arrays.values()):
        return {name: [] for name in ORIGINAL_HISTORIES}
    for name in ORIGINAL_HISTORIES[:3]:
        if name not in arrays:
            raise ResultsFileError(f"{place}: has no {name}; fetch the run's history again")
    rounds = len(arrays["rewards"])
    for name, values in arrays.items():
        if len(values) != rounds:
            raise ResultsFileError(
                f"{place}: {len(values)} {name} and {rounds} rewards; cut them to the rounds that have both"
            )
    if rounds > study.rounds:
        raise ResultsFileError(
            f"{place}: {rounds} rounds, and a run of the config has {study.rounds}; give the config of that protocol"
        )
    return {
        name: [_number(place, name, index, value) for index, value in enumerate(arrays.get(name, [None] * rounds))]
        for name in ORIGINAL_HISTORIES
    }


def _number(place: str, name: str, index: int, value: object) -> float | None:
    if value is None and name in ("grades", "losses"):
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        if name == "losses" and abs(value) < 1e300:
            return float(value)
        if name != "losses" and 0 <= value <= 1:
            return float(value)
    wanted = "a finite number" if name == "losses" else "a number from 0 to 1"
    raise ResultsFileError(
        f"{place}: {name}[{index}] = {reprlib.repr(value)} is not {wanted}; empty the run's list to leave the run out"
    )


def _members(place: str, value: object, members: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ResultsFileError(f"{place}: is {_kind(value)} and not an object of {members}; give a file of results")
    return value


def _array(place: str, value: object) -> Sequence[Any]:
    if not isinstance(value, list):
        raise ResultsFileError(f"{place}: is {_kind(value)} and not a list; give a file of results")
    return value


def _kind(value: object) -> str:
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")


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


def _exported_name(study: Study, name: str) -> str:
    """A model's source, by which the published code calls it; its name where the source is another model's too."""
    source = study.models[name].source
    return source if sum(model.source == source for model in study.models.values()) == 1 else name


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


def _record(study: Study, found: Found, status: str, imported: Mapping[str, str]) -> dict[str, Any]:
    """The record of an imported run: what the published code did not measure, or measured otherwise, is null."""
    histories = found.histories
    condition = CONDITIONS[found.run.condition]
    unknown: list[None] = [None] * found.rounds
    return {
        "digest": study.digest(found.run),
        "version": VERSION,
        "run": found.run._asdict(),
        "status": status,
        "problem": None,
        "imported": dict(imported),
        "rounds": found.rounds,
        **dict.fromkeys(OWN_MEANS),
        "unreadable_grades": None,
        **original_means(histories, graded=condition.grader != "none"),
        **dict.fromkeys(ROUND_ARRAYS, unknown),
        **{f"original_{name}": histories[name] for name in ORIGINAL_HISTORIES},
        "original_scores": histories["rewards"] if condition.reward == "score" else unknown,
        "evaluations": [],
        "transcripts": {},
        "inputs": {},
        "spec": study.spec(found.run),
        "timing": {"seconds": None},
        "provenance": {"written": datetime.now(UTC).isoformat(timespec="seconds"), "code": None},
    }


def _episodes(study: Study, run: Run, report: Report) -> list[dict[str, Any]]:
    """What is known of a run, as the published code kept it: a list of one episode, or of none."""
    path = study.record_path(run)
    if not path.exists():
        path = imported_path(path)
        if not path.exists():
            return []
    try:
        record = read_record(path, study.digest(run))
    except RecordError as error:
        report(str(error))
        return []
    if "imported" in record:
        histories = {name: record[f"original_{name}"] for name in ORIGINAL_HISTORIES}
    else:
        histories = original_histories(run.task, run.condition, record)
    means = original_means(histories, graded=True)
    return [{**histories, **{name.removeprefix("original_"): mean for name, mean in means.items()}, "seed": run.seed}]
