"""What checkpoints cost in the study: the time to write those of one run, as a share of the run's own time.

    python benchmarks/checkpoints.py [--round-seconds 0.04] [--folder results]

It takes an adapter of Llama-3.1-8B's shape through the calls that a job makes, on the disk of `--folder`. The time of a
round of one run is what `benchmarks/throughput.py` measured with 36 runs on an H200, evaluation left out.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
import yaml
from torch import Tensor

from wireheading.engine.checkpoints import save_checkpoint
from wireheading.study.config import Study, load_study

LAYERS, WIDTH, KEY_WIDTH = 32, 4096, 1024
"""Llama-3.1-8B: decoder layers, hidden size, and the width of its keys and values."""

ROW_BYTES = 4000
"""What a round leaves in `rounds.jsonl`: prompt, response and token ids of a summary."""

LIMIT = 0.03
"""The largest share of a run's time that checkpoints may take."""


def parameters(rank: int) -> int:
    """Parameters of an adapter on the query, key, value and output projections."""
    return LAYERS * rank * 2 * ((WIDTH + WIDTH) + (WIDTH + KEY_WIDTH))


def seconds_of_a_run(study: Study, adapter: dict[str, Tensor], folder: Path) -> tuple[int, float]:
    """Writes every checkpoint of one run and returns how many there are and how long they take together."""
    every, rounds = study.engine.checkpoint_every, study.rounds
    points = [*range(every, rounds, every), rounds]
    rows = [{"round": round_, "text": "x" * ROW_BYTES} for round_ in range(rounds)]
    seconds, before = 0.0, 0
    for done in points:
        start = time.perf_counter()
        # As a job does: a copy on the CPU, and of a finished run the adapter without its optimizer.
        names = ["values"] if done == rounds else list(adapter)
        state = {name: adapter[name].to("cpu", copy=True) for name in names}
        save_checkpoint(folder, "identity", rows[before:done], done, state)
        seconds += time.perf_counter() - start
        before = done
    return len(points), seconds


def main() -> None:
    """Prints the cost and fails where it is above the limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--round-seconds", type=float, default=0.04, help="time of a round of one run")
    parser.add_argument("--folder", type=Path, default=Path(), help="where checkpoints are written")
    options = parser.parse_args()
    study = load_study(yaml.safe_load(Path("config/config.yaml").read_text(encoding="utf-8")))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = parameters(study.lora.rank)
    adapter = {name: torch.randn(size, device=device) for name in ("values", "exp_avg", "exp_avg_sq")}
    measured = []
    for _ in range(5):
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            count, seconds = seconds_of_a_run(study, adapter, Path(folder))
            measured.append(seconds)
    run = study.rounds * options.round_seconds
    share = statistics.median(measured) / run
    sys.stdout.write(
        f"{device}: {size / 1e6:.1f} M parameters, {count} checkpoints in {study.rounds} rounds "
        f"(every {study.engine.checkpoint_every}): {statistics.median(measured):.2f} s "
        f"(5 runs: {min(measured):.2f} to {max(measured):.2f}) of {run:.1f} s = {share:.1%}; the limit is {LIMIT:.0%}\n"
    )
    sys.exit(share > LIMIT)


if __name__ == "__main__":
    main()
