"""How long the analysis of many records takes, and how much memory: made-up records, the workflow's own functions.

python benchmarks/analysis.py                        # 1,000 records of 500 rounds
python benchmarks/analysis.py --records 10000 --json benchmarks/out/analysis.json
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from wireheading.analysis.figures.heldout import write_heldout_figures
from wireheading.analysis.figures.training import write_figures
from wireheading.analysis.report import write_analysis
from wireheading.analysis.tables import write_tables
from wireheading.records.record import make_record, write_record
from wireheading.study.conditions import Condition
from wireheading.study.config import Run, Study, load_study
from wireheading.study.paths import Analysis, Tables

ROOT = Path(__file__).parents[1]
RUNS_A_SEED = 5 * 2 * 5


def study_of(folder: Path, records: int) -> Study:
    """A study with about so many runs: five models, two tasks, five conditions, and as many seeds as it takes."""
    config = yaml.safe_load((ROOT / "config" / "config.yaml").read_text(encoding="utf-8"))
    config["tasks"] = {name: config["tasks"][name] for name in ("sentiment", "arithmetic")}
    config["models"] = {f"model-{index}": {"source": "made-up"} for index in range(5)}
    config["seeds"] = list(range(max(1, records // RUNS_A_SEED)))
    return load_study(config | {"results": str(folder / "results"), "reports": str(folder / "reports")})


def made_up_rounds(rng: np.random.Generator, count: int, condition: Condition) -> list[dict[str, Any]]:
    """Rounds of a run of a condition that never was."""
    scores, grades = rng.integers(0, 2, count).astype(float).tolist(), rng.integers(0, 2, count).astype(float).tolist()
    readable = (rng.random(count) < 0.98).tolist()
    others = rng.random((count, 5)).tolist()
    rows = []
    for index, (score, value, read, values) in enumerate(zip(scores, grades, readable, others, strict=True)):
        grade, audited = value if read else None, condition.audits(index, values[1])
        rows.append(
            {
                "item": f"item-{index % 400}",
                "reward": condition.pays(index, score, grade, audited=audited, coin=score),
                "score": score,
                "accuracy": int(score),
                "grade": grade,
                "parse_status": "readable" if read else "unreadable",
                "truncated": False,
                "advantage": values[0] - 0.5,
                "baseline": values[1],
                "loss": values[2] - 0.5,
                "grad_norm": values[3],
                "logprob_gap": values[4] * 1e-5,
                "original_score": score,
                "original_grade": grade,
                "audited": audited,
                "grade_reward": condition.pays_grade(index, score, grade),
                "grade_baseline": values[1],
                "grade_advantage": values[0] - 0.5,
                "kl": values[2],
            }
        )
    return rows


def made_up_evaluation(
    rng: np.random.Generator, count: int, score: float = 0.5, inflation: float = 0.0
) -> list[dict[str, Any]]:
    """A held-out evaluation that never was, by a policy with this mean score and inflation."""
    right = (rng.random(count) < score).astype(float)
    base = np.clip(0.4 + 0.3 * right + rng.normal(0, 0.1, count), 0, 1)
    own = np.clip(base + inflation, 0, 1)
    sampled = (rng.random(count) < own).astype(float)
    gold, wrong = (np.clip(value + inflation + rng.normal(0, 0.05, count), 0, 1) for value in (0.7, 0.4))
    columns = [values.tolist() for values in (right, base, own, sampled, gold, wrong)]
    return [
        {
            "item": f"heldout-{index}",
            "score": was_right,
            "accuracy": int(was_right),
            "greedy_accuracy": int(was_right),
            "truncated": False,
            "grade": grade,
            "parse_status": "readable",
            "soft_grade": own_grade,
            "soft_mass": 0.99,
            "base_grade": grade,
            "base_parse_status": "readable",
            "base_soft_grade": base_grade,
            "base_soft_mass": 0.99,
            "fixed_base_grade": own_grade,
            "fixed_gold_grade": own_gold,
            "fixed_wrong_grade": own_wrong,
            "original_score": was_right,
            "original_grade": grade,
        }
        for index, (was_right, base_grade, own_grade, grade, own_gold, own_wrong) in enumerate(
            zip(*columns, strict=True)
        )
    ]


def write_made_up(study: Study, run: Run, rounds: list[dict[str, Any]], evaluations: Mapping[int, Any]) -> None:
    """Writes the record of a run that never was."""
    record = make_record(
        study,
        run,
        inputs={},
        status="complete",
        problem=None,
        rows=rounds,
        evaluations=evaluations,
        transcripts={},
        timing={"first_round": 0, "rounds": len(rounds), "seconds": 600.0, "evaluating_seconds": 60.0},
        provenance={
            **{"written": "2026-01-01T00:00:00+00:00", "code": "made-up", "device": "none", "python": "3.13"},
            **{"slot": 0, "slots": 1, "batch": "task", "chunk": 1, "threads": 1},
        },
    )
    write_record(study.record_path(run), record)


def measure(study: Study, folder: Path) -> dict[str, float]:
    """Seconds of each step in this process, and the seconds of processor time among them."""
    tables, analysis, figures = Tables.of(study), Analysis.of(study), Path(study.reports, "figures")

    def draw() -> None:
        write_figures(study, tables, figures)
        write_heldout_figures(study, tables, analysis, figures)

    steps: dict[str, Callable[[], None]] = {
        "aggregate": lambda: write_tables(study, tables, lambda _: None),
        "analyse": lambda: write_analysis(study, tables, analysis, folder, lambda _: None),
        "figures": draw,
    }
    seconds = {}
    for name, step in steps.items():
        started, busy = time.perf_counter(), time.process_time()
        step()
        seconds[name] = round(time.perf_counter() - started, 2)
        seconds[f"{name}_cpu"] = round(time.process_time() - busy, 2)
    return seconds


def _measured(study: Study, folder: Path) -> dict[str, float]:
    seconds = measure(study, folder)
    # Linux states it in KiB.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    totals = {
        f"total{kind}": round(sum(seconds[f"{step}{kind}"] for step in ("aggregate", "analyse", "figures")), 2)
        for kind in ("", "_cpu")
    }
    return {**seconds, **totals, "peak_mb": round(peak)}


def main() -> None:
    """Makes up records, analyses them in a process of its own, and tells what that took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1000, help="records to make up (1000)")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        study = study_of(folder, options.records)
        rng = np.random.default_rng(0)
        runs = study.runs()
        kinds = {
            condition: (
                made_up_rounds(rng, study.rounds, row),
                {
                    0: made_up_evaluation(rng, 200),
                    250: made_up_evaluation(rng, 50, 0.6),
                    500: made_up_evaluation(rng, 200, 0.7, 0.3 if condition == "selfgrade" else 0.0),
                },
            )
            for condition, row in study.conditions.items()
        }
        for run in runs:
            write_made_up(study, run, *kinds[run.condition])
        # A fresh process, so that its peak is that of the analysis alone.
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found = {"records": len(runs), "rounds": study.rounds, **pool.apply(_measured, (study, folder))}
    print(json.dumps(found, indent=2))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps([found], indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
