"""Updates a second of what people would use instead, and of the engine: all in one process, taking turns.

    python benchmarks/others.py --json FILE [--shape tiny] [--repeats 5]

Every update is a step of REINFORCE on an adapter of rank 8, by AdamW. All but TRL's come from a round of `selfgrade`: a
response and its grade. TRL has two answers to a prompt and no second turn; `rloo.py` says how it is counted.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import statistics
import traceback
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
import trl
from rloo import rloo
from setting import Setting, random_setting
from shapes import LENGTHS, SHAPES
from transformers.models.llama import modeling_llama
from ways import Advance, Clock, engine, one_by_one

from wireheading.policy.device import prepare_device

TRL = {"TRL's RLOO, 2 × 60 tokens": 1, "TRL's RLOO, 2 × 30 tokens": 2}
ENGINE = {"engine, 1 slot": 1, "engine, 36 slots": 36}
BASELINES = {"published loop": "original", "`generate` + PEFT": "generate"}


PLAIN = modeling_llama.apply_rotary_pos_emb
"""What the others rotate with. Whoever prepares a model for the engine replaces it in the module, for all models."""


def main() -> None:
    """Lets all take turns, prints a table and writes the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True, help="file for the rows")
    parser.add_argument("--shape", default="tiny", choices=[shape for shape in SHAPES if shape not in LENGTHS])
    parser.add_argument("--updates", type=int, default=2, help="of the others in a turn")
    parser.add_argument("--rounds", type=int, default=2, help="of the engine in a turn")
    parser.add_argument("--repeats", type=int, default=5, help="turns that count")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    names = [*TRL, *BASELINES, *ENGINE]
    failed: dict[str, str] = {}
    while True:
        # A GPU that failed serves nobody else in the same process: the others begin again in another.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            rows, fault = pool.submit(taking_turns, names, arguments).result()
        if fault is None:
            break
        failed |= [fault]
        print(f"{fault[0]} failed: {fault[1]}", flush=True)
        names.remove(fault[0])
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    faults = [{"contender": name, "shape": arguments.shape, "failed": why} for name, why in failed.items()]
    arguments.json.write_text(json.dumps([*rows, *faults], indent=1) + "\n", encoding="utf-8")
    print(table(rows))
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


def taking_turns(
    names: Sequence[str], arguments: argparse.Namespace
) -> tuple[list[dict[str, Any]], tuple[str, str] | None]:
    """The rows of those named, or which of them failed first and why."""
    device = prepare_device(arguments.threads)
    contenders = all_of(names, arguments.shape, device)
    fused = modeling_llama.apply_rotary_pos_emb
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(arguments.repeats + 1):
        for name, advance in contenders.items():
            # The others' users have no reason to ask for the one, and none of them has the other.
            torch.use_deterministic_algorithms(name in ENGINE)
            modeling_llama.apply_rotary_pos_emb = fused if name in ENGINE else PLAIN
            # Graphs are recorded when a step is done for the second time.
            warming = 2 if name in ENGINE else 1
            rounds = warming if turn == 0 else arguments.rounds if name in ENGINE else arguments.updates
            try:
                seconds = advance(rounds)
            except Exception as error:
                traceback.print_exc()
                return [], (name, f"{type(error).__name__}: {error}".splitlines()[0])
            if turn > 0:
                rates[name].append(rounds * ENGINE.get(name, 1) / seconds)
                print(f"turn {turn}, {name}: {rates[name][-1]:.3g} updates/s", flush=True)
    rows = [
        {
            "contender": name,
            "shape": arguments.shape,
            "updates_per_s": statistics.median(rates[name]),
            "engine_times": {
                ours: statistics.median(one / two for one, two in zip(rates[ours], rates[name], strict=True))
                for ours in ENGINE
                if ours in rates
            },
            "rates": rates[name],
            "device": torch.cuda.get_device_name() if device.type == "cuda" else f"{platform.machine()} CPU",
            "threads": torch.get_num_threads(),
            **{package.__name__: package.__version__ for package in (torch, transformers, peft, trl)},
        }
        for name in contenders
    ]
    return rows, None


def all_of(names: Sequence[str], shape: str, device: torch.device) -> dict[str, Advance]:
    """The contenders of these names, each with a model of its own, all of the same weights."""
    clock = Clock(device)
    contenders = {}
    for name in names:
        setting = selfgrade(shape, ENGINE.get(name, 1), device, fused=name in ENGINE)
        runs, rows = [setting.study.runs()], list[Any]()
        if name in TRL:
            contenders[name] = rloo(setting, clock, TRL[name])
        elif name in BASELINES:
            contenders[name] = checked(one_by_one(setting, runs, clock, rows, BASELINES[name]), rows)
        else:
            contenders[name] = checked(engine(setting, runs, clock, rows, graphs=True), rows)
    return contenders


def selfgrade(shape: str, runs: int, device: torch.device, *, fused: bool) -> Setting:
    """So many runs that sample and train both turns."""
    return random_setting(shape, ["selfgrade"], runs, device, fused=fused)


def checked(advance: Advance, rows: list[Any]) -> Advance:
    """The same, which fails if a round sampled fewer tokens than it may."""

    def advance_and_check(rounds: int) -> float:
        seconds = advance(rounds)
        assert {(len(row["response_tokens"]), len(row["grade_tokens"])) for row in rows} == {(50, 10)}
        return seconds

    return advance_and_check


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as Markdown, with how many times as many updates the engine does."""
    lines = [
        "| | updates/s | " + " | ".join(f"{ours}, ×" for ours in ENGINE) + " |",
        "|---|---|" + "---|" * len(ENGINE),
    ]
    for row in rows:
        times = " | ".join(
            f"{row['engine_times'][ours]:.3g}" if ours in row["engine_times"] else "–" for ours in ENGINE
        )
        lines.append(f"| {row['contender']} | {row['updates_per_s']:.3g} | {times} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
