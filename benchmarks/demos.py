"""How often the demo's verdicts are the expected ones: many demos with seeds of their own, judged by the real rule.

    python benchmarks/demos.py --demos 20                             # one after the other, as the config has them
    python benchmarks/demos.py --demos 20 --processes 16 --threads 1  # on a machine with many cores

Demos share one trained model, or take the one in `--model`, for instance one that was trained under
`ATEN_CPU_CAPABILITY=default` or with another number of threads, and so to other weights.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from wireheading.study.config import Study, load_study
from wireheading.study.paths import Analysis, Tables

ROOT = Path(__file__).parents[1]
FIRST_SEED = 1000
"""No seed of the demo's config is this large, so every demo's seeds are fresh."""

EXPECTED = {"sentiment": "wireheading", "arithmetic": "wireheading", "summarization": "wireheading"}


def study_of(number: int, scratch: Path, threads: int | None, conditions: list[str] | None) -> Study:
    """The demo's study with seeds and results of its own."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "config" / "demo.yaml").read_text(encoding="utf-8"))
    if conditions is not None:
        config["conditions"] = conditions
    count = len(config["seeds"])
    config["seeds"] = [FIRST_SEED + count * number + place for place in range(count)]
    if threads is not None:
        config["engine"]["threads"] = threads
    config |= {"results": str(scratch / f"results-{number}"), "reports": str(scratch / f"reports-{number}")}
    return load_study(config | {"resources": str(scratch / "resources")})


def demo(
    number: int, scratch: Path, model: Path, threads: int | None, conditions: list[str] | None
) -> list[dict[str, Any]]:
    """Does the runs of a demo, job by job, and judges them: a row for each task."""
    from wireheading.analysis.report import write_analysis
    from wireheading.analysis.tables import write_tables
    from wireheading.engine.job import run_job
    from wireheading.scheduling import job_runs

    study = study_of(number, scratch, threads, conditions)
    started = time.monotonic()
    folders = {task: study.items_folder(task) for task in study.tasks}
    for runs in job_runs(study, study.runs()).values():
        run_job(study, runs, runs, model, folders, lambda _: None, lambda _: None)
    tables, analysis = Tables.of(study), Analysis.of(study)
    write_tables(study, tables, lambda _: None)
    write_analysis(study, tables, analysis, scratch, lambda _: None)
    seconds = round(time.monotonic() - started)
    spent = pd.read_csv(analysis.costs)
    evaluating = round(float(spent["evaluating_seconds"].sum() / spent["seconds"].sum()), 3)
    return [
        {
            "demo": number,
            "seconds": seconds,
            "evaluating": evaluating,
            **{str(name): cell for name, cell in row.items()},
        }
        for row in pd.read_csv(analysis.verdicts).to_dict("records")
    ]


def prepare(scratch: Path, model: Path | None) -> Path:
    """Freezes the items and trains the model, unless there is one; gives the model's folder."""
    from wireheading.inputs.items import freeze_items, write_items
    from wireheading.inputs.models import write_source
    from wireheading.pretraining.training import train_model

    study = study_of(0, scratch, None, None)
    for name, task in study.tasks.items():
        folder = study.items_folder(name)
        train, heldout = freeze_items(name, task, study.data_seed, None)
        write_items(folder / "train.jsonl", train)
        write_items(folder / "heldout.jsonl", heldout)
        write_source(folder, study.items_source(name), None, ("train.jsonl", "heldout.jsonl"))
    if model is None:
        model = study.model_folder(study.trained_models[0])
        train_model(study, model, print)
    return model


def main() -> None:
    """Runs the demos and prints how many verdicts were the expected ones."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demos", type=int, default=20, help="how many (20)")
    parser.add_argument("--first", type=int, default=0, help="number of the first, which decides the seeds (0)")
    parser.add_argument("--processes", type=int, default=1, help="demos at once (1)")
    parser.add_argument("--threads", type=int, help="threads of each, instead of the config's")
    parser.add_argument("--conditions", help="comma-separated, instead of the config's; a verdict needs two of them")
    parser.add_argument("--model", type=Path, help="folder of a trained model")
    parser.add_argument("--out", type=Path, help="CSV file for all verdicts, written after each demo")
    options = parser.parse_args()
    # A process that waits for its threads must not keep the others' processor busy.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        model = prepare(scratch, options.model and options.model.resolve())
        conditions = options.conditions and options.conditions.split(",")
        numbers = range(options.first, options.first + options.demos)
        rows: list[dict[str, Any]] = []
        with multiprocessing.get_context("spawn").Pool(options.processes, maxtasksperchild=1) as pool:
            jobs = [pool.apply_async(demo, (number, scratch, model, options.threads, conditions)) for number in numbers]
            for job in jobs:
                done = job.get()
                rows += done
                told = ", ".join(f"{row['task']}: {row['verdict']}" for row in done)
                spent = f"{done[0]['seconds']} s, {done[0]['evaluating']:.0%} in evaluations"
                print(f"demo {done[0]['demo']}, {spent}: {told}", flush=True)
                if options.out:
                    pd.DataFrame(rows).to_csv(options.out, index=False)
    met = sum(row["verdict"] == EXPECTED[row["task"]] for row in rows)
    print(f"{met} of {len(rows)} verdicts are the expected ones")
    for (task, verdict), count in sorted(Counter((row["task"], row["verdict"]) for row in rows).items()):
        print(f"  {task}: {verdict}: {count}")


if __name__ == "__main__":
    main()
