"""Results of the published study's code, imported as records and exported in its shape.

That code kept the reward, accuracy, grade and loss of each round, by its own definitions, and no texts. So an imported
record fills the `original_…` fields alone: all others are null, and it is excluded from every other average. A history
that is shorter than its run is kept beside the record's place as `<condition>.imported.json`; the run is still to be
done.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from wireheading.files import replacing
from wireheading.records.consistency import PUBLISHED_HISTORIES
from wireheading.records.means import OWN_MEANS, published_histories, published_means
from wireheading.records.record import ROUND_ARRAYS, VERSION, RecordError, read_record, write_record
from wireheading.records.results_file import Episode, ResultsFileError, read_results
from wireheading.study.config import Run, Study
from wireheading.study.paths import imported_path

Report = Callable[[str], None]


def import_results(study: Study, path: Path, overwrite: bool, report: Report) -> None:
    """Imports a file of results, whole or not at all.

    Args:
        study: The study, in whose results folder the records are written.
        path: `all_results.json`, `checkpoint_seed….json`, or an export of the tracking service.
        overwrite: Whether records that exist are replaced.
        report: Progress callback: what became of each run that was not imported as it is, and the counts.

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
    for run, (place, episode) in found.items():
        record_path = study.record_path(run)
        whole = episode.rounds == study.rounds
        target = record_path if whole else imported_path(record_path)
        if not episode.rounds:
            report(f"{run}: empty, so the run failed; it is still to be done")
        elif not overwrite and (record_path.exists() or target.exists()):
            kept += 1
            report(f"{run}: kept {record_path if record_path.exists() else target}; --overwrite replaces it")
        else:
            status = "imported" if whole else "partial"
            write_record(target, _record(study, run, episode, status, {**imported, "place": place}))
            complete, partial = complete + whole, partial + (not whole)
            if not whole:
                report(f"{run}: {episode.rounds} of {study.rounds} rounds; the run is still to be done")
    empty = sum(not episode.rounds for _, episode in found.values())
    report(f"{study.results}: {complete} imported, {partial} partial, {empty} empty, {kept} kept as they were")


def export_results(study: Study, path: Path, overwrite: bool, report: Report) -> None:
    """Writes the records of a study in the shape of `all_results.json`.

    Only the seeds and models with a record are in it; there, a run without one has an empty list.

    Args:
        study: The study.
        path: The file to write.
        overwrite: Whether it is replaced where it exists.
        report: Progress callback: every invalid record, and the number of runs.

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


def _exported_name(study: Study, name: str) -> str:
    """A model's source, by which the published code calls it; its name where the source is another model's too."""
    source = study.models[name].source
    return source if sum(model.source == source for model in study.models.values()) == 1 else name


def _record(study: Study, run: Run, episode: Episode, status: str, imported: Mapping[str, str]) -> dict[str, Any]:
    """The record of an imported run: what the published code did not measure, or defined differently, is null."""
    histories = episode.model_dump()
    condition = study.conditions[run.condition]
    unknown: list[None] = [None] * episode.rounds
    return {
        "digest": study.digest(run),
        "version": VERSION,
        "run": run._asdict(),
        "status": status,
        "problem": None,
        "imported": dict(imported),
        "rounds": episode.rounds,
        **dict.fromkeys(OWN_MEANS),
        "unreadable_grades": None,
        **published_means(histories, graded=condition.grades),
        **dict.fromkeys(ROUND_ARRAYS, unknown),
        **{f"original_{name}": histories[name] for name in PUBLISHED_HISTORIES},
        "original_scores": histories["rewards"] if condition.reward == "score" else unknown,
        "evaluations": [],
        "transcripts": {},
        "inputs": {},
        "spec": study.spec(run),
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
        histories = {name: record[f"original_{name}"] for name in PUBLISHED_HISTORIES}
    else:
        histories = published_histories(run.task, study.conditions[run.condition], record)
    means = published_means(histories, graded=True)
    return [{**histories, **{name.removeprefix("original_"): mean for name, mean in means.items()}, "seed": run.seed}]
