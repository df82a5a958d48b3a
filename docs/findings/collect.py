"""Collects the tables of a finished study that are committed: `python docs/findings/collect.py CONFIG NAME`.

It reads the study's records and what the workflow made of them, and writes `docs/findings/NAME/`: the config, and the
tables of which `make findings` makes the page and its figures. Records are not committed.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from wireheading.analysis.figures.result import curves_table
from wireheading.analysis.pages.examples import cut
from wireheading.analysis.pages.reading import gold_answer, read_heldout, read_items
from wireheading.errors import InputError
from wireheading.records.record import read_record, recorded_inputs
from wireheading.study.config import Run, Study, load_study
from wireheading.study.oversight import oversight_figures
from wireheading.study.paths import Analysis, Oversight, Tables
from wireheading.study.reading import read_config
from wireheading.tasks import TASKS

HERE = Path(__file__).parent
TRANSCRIPTS = 3
"""Items of each model and task whose answers are shown: the first held-out ones, whatever they show."""


def main() -> None:
    """Collects the tables of a study."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path, help="the study's config; its results and reports are there")
    parser.add_argument("name", help="of the folder of its tables")
    arguments = parser.parse_args()
    try:
        collect(arguments.config, HERE / arguments.name)
    except InputError as error:
        raise SystemExit(str(error)) from None


def collect(config: Path, folder: Path) -> None:
    """Writes the tables of a study, and its config beside them.

    Raises:
        InputError: The study is not finished, or something of it is not here.
    """
    study = load_study(read_config(config))
    tables = tables_of(study)
    folder.mkdir(exist_ok=True)
    for name, table in tables.items():
        table.to_parquet(folder / f"{name}.parquet", index=False, compression="zstd")
    shutil.copyfile(config, folder / "config.yaml")


def tables_of(study: Study) -> dict[str, pd.DataFrame]:
    """The tables of a study by name. Those that the workflow made are as it made them.

    Raises:
        InputError: The study is not finished, or something of it is not here.
    """
    tables, analysis, oversight = Tables.of(study), Analysis.of(study), Oversight.of(study)
    paths = {
        "records": tables.records,
        "estimates": analysis.estimates,
        "verdicts": analysis.verdicts,
        "seeds": analysis.contrasts,
        "signature": analysis.signature,
        "costs": analysis.costs,
    }
    if oversight_figures(study):
        paths |= {
            "oversight": oversight.effects,
            "oversight_seeds": oversight.seeds,
            "transfer": oversight.transfer,
            "onsets": analysis.onsets,
        }
    for path in (tables.rounds, *paths.values()):
        if not path.exists():
            raise InputError(f"{path}: no such file; run the study first")
    rounds = pd.read_parquet(tables.rounds, columns=[*Run._fields, "round", "reward", "score", "grade"])
    found = {
        name: pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path) for name, path in paths.items()
    }
    return {
        **found,
        "curves": curves_table(rounds),
        "inputs": pd.DataFrame(inputs(study)).drop_duplicates(),
        "answers": pd.DataFrame(commonest(study)),
        "transcripts": pd.DataFrame(transcripts(study)),
    }


def inputs(study: Study) -> Iterator[dict[str, Any]]:
    """The SHA-256 of every file that the runs read."""
    for run in study.runs():
        for file, sha256 in recorded_inputs(study.record_path(run)).items():
            yield {"model": run.model, "task": run.task, "file": file, "sha256": sha256}


def commonest(study: Study) -> Iterator[dict[str, Any]]:
    """What each run answered most often in each held-out evaluation, and to what part of the items."""
    for run in study.runs():
        for round_, rows in _heldout(study, run).groupby("round"):
            counts = rows["response"].value_counts()
            share = float(counts.iloc[0] / len(rows))
            yield {**run._asdict(), "round": round_, "answer": cut(str(counts.index[0]), 60), "share": share}


def transcripts(study: Study) -> Iterator[dict[str, Any]]:
    """What was said of the first held-out items, in the first seed: before training, and after it in both arms.

    Raises:
        InputError: The items are not here, or are others.
    """
    for model, task in itertools.product(study.enabled_models, study.enabled_tasks):
        run = Run(study.seeds[0], model, task, "selfgrade")
        items = read_items(study, task, "heldout", recorded_inputs(study.record_path(run)))
        if not items:
            raise InputError(f"{study.items_folder(task)}: the items of {run} are not here, or are others; fetch them")
        for condition, round_ in (("selfgrade", 0), ("selfgrade", study.rounds), ("control", study.rounds)):
            seen = _heldout(study, run._replace(condition=condition))
            for row in seen[seen["round"] == round_].head(TRANSCRIPTS).to_dict("records"):
                item = items[row["item"]]
                yield {
                    **run._replace(condition=condition)._asdict(), "round": round_, "item": row["item"],
                    "question": cut(" ".join(str(item[field]) for field in TASKS[task].FIELDS)),
                    "gold": cut(str(gold_answer(task, item))), "response": cut(row["response"]),
                    "truncated": row["truncated"], "score": row["score"], "grade_text": cut(row["grade_text"] or ""),
                    "grade": row["grade"],
                }  # fmt: skip


def _heldout(study: Study, run: Run) -> pd.DataFrame:
    record = read_record(study.record_path(run), study.digest(run))
    table: pd.DataFrame = read_heldout(study, run, record).to_pandas()
    return table


if __name__ == "__main__":
    main()
