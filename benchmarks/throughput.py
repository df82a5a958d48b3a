"""How many run-rounds a second: the engine against the published study's loop and against `generate` with PEFT.

    python benchmarks/throughput.py --json FILE [--models demo,llama-110m] [--repeats 2]

Every case is measured in a process of its own, one after the other and all of them again for each repeat, so that a
machine's moods meet them alike. All cases are asked the same questions with the same random numbers.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from setting import CONDITIONS, Setting, demo_setting, random_setting
from transformers import PreTrainedModel
from ways import Clock, batched, engine, one_by_one

from wireheading.policy.device import prepare_device
from wireheading.policy.lora import TARGETS


@dataclass(frozen=True)
class Case:
    """One measurement: a way to compute, a model, how many slots, for how many rounds, and whether with CUDA graphs."""

    case: str
    model: str
    slots: int
    rounds: int
    graphs: bool = True


CASES = {
    "demo": [
        Case("original", "demo", 1, 3),
        Case("generate", "demo", 1, 3),
        *(Case("engine", "demo", slots, 6) for slots in (1, 3, 9, 27, 36)),
    ],
    "llama-110m": [
        Case("original", "llama-110m", 1, 2),
        Case("generate", "llama-110m", 1, 2),
        Case("engine", "llama-110m", 1, 2),
        Case("engine", "llama-110m", 9, 2),
    ],
    "smollm2-135m": [Case("engine", "smollm2-135m", slots, 5) for slots in (1, 9, 36)],
    "llama-1b": [Case("engine", "llama-1b", slots, 5) for slots in (1, 9, 36)],
    "llama-8b": [
        Case("original", "llama-8b", 1, 2),
        Case("generate", "llama-8b", 1, 2),
        *(Case("engine", "llama-8b", slots, 3) for slots in (1, 9, 27, 36, 54)),
        Case("engine", "llama-8b", 36, 2, graphs=False),
    ],
    "llama-70b-nf4": [Case("engine", "llama-70b-nf4", slots, 2) for slots in (1, 9)],
    "mistral-7b": [Case("original", "mistral-7b", 1, 2), Case("engine", "mistral-7b", 36, 3)],
    "gemma-2-9b": [Case("original", "gemma-2-9b", 1, 2), Case("engine", "gemma-2-9b", 36, 3)],
}


def main() -> None:
    """Measures every case in turn, prints a table and writes the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True, help="file for the rows")
    parser.add_argument("--models", default="demo,llama-110m", help=f"of {', '.join(CASES)}")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    prepare_device(arguments.threads)
    if arguments.one:
        arguments.json.write_text(json.dumps(measure(Case(**json.loads(arguments.one)))))
        return

    cases = [case for model in arguments.models.split(",") for case in CASES[model]]
    measured = defaultdict(list)
    for _repeat, case in itertools.product(range(arguments.repeats), cases):
        with tempfile.NamedTemporaryFile(suffix=".json") as file:
            one = [sys.executable, __file__, "--json", file.name, "--threads", str(arguments.threads)]
            subprocess.run([*one, "--one", json.dumps(asdict(case))], check=True)
            measured[case].append(json.loads(file.read()))
        print(f"{case.model} {case.case} {case.slots}: {measured[case][-1]['run_rounds_per_s']:.3g} run-rounds/s")
    rows = [combine(measured[case]) for case in cases]
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    print(table(rows))


def combine(repeats: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The median of a case's repeats by its rate, and the largest peak."""
    ordered = sorted(repeats, key=lambda row: float(row["run_rounds_per_s"]))
    rates = [row["run_rounds_per_s"] for row in ordered]
    peak = max(row["peak_mb"] for row in ordered)
    return {**ordered[len(ordered) // 2], "run_rounds_per_s": statistics.median(rates), "rates": rates, "peak_mb": peak}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as Markdown, with each rate as a multiple of the published loop's on the same model."""
    lines = [
        "| model | case | slots | run-rounds/s | × original | × generate | peak MB | MB a slot "
        "| prefill / decoding / updating / rest, ms a round | ms a run-round | roofline ms |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        one = {other["case"]: other["run_rounds_per_s"] for other in rows if other["model"] == row["model"]}
        rate = row["run_rounds_per_s"]
        times = " / ".join(f"{row['ms_a_round'][part]:.0f}" for part in ("prefill", "decoding", "updating", "rest"))
        ratios = " | ".join(f"{rate / one[case]:.1f}" if case in one else "" for case in ("original", "generate"))
        name = row["case"] if row["graphs"] else f"{row['case']}, no graphs"
        lines.append(
            f"| {row['model']} | {name} | {row['slots']} | {rate:.3g} | {ratios} | {row['peak_mb']:.0f} "
            f"| {row['slot_mb']:.3g} | {times} | {1000 / rate:.3g} | {row['roofline_ms']:.3g} |"
        )
    return "\n".join(lines)


def measure(case: Case) -> dict[str, Any]:
    """Measures one case in this process."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    setting = set_up(case, device)
    model, study = setting.model, setting.study
    clock = Clock(device)
    # Before the projections are wrapped.
    parameters = sum(parameter.numel() for parameter in model.parameters())
    slot = slot_bytes(model, study.lora.rank)
    runs = study.runs()
    groups = [runs] if case.slots == len(runs) else list(batched(runs, case.slots, study))
    sampled: list[Any] = []
    if case.case == "engine":
        advance = engine(setting, groups, clock, sampled, graphs=case.graphs)
    else:
        advance = one_by_one(setting, groups, clock, sampled, case.case)
    # Steps are recorded when they are done for the second time.
    advance(3)
    clock.reset()
    seconds = advance(case.rounds)
    done = case.rounds * sum(len(group) for group in groups)
    given = statistics.mean(task.prompt_tokens + task.grading_prompt_tokens for task in study.tasks.values())
    size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    peak = torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else _peak_rss()
    bandwidth, rate = ceilings(device, model.dtype)
    shares = {part: value / (case.rounds * len(groups)) for part, value in clock.shares(seconds).items()}
    row = {
        **asdict(case),
        "task": "summarization" if case.model != "demo" else "grid",
        "runs": len(runs),
        "run_rounds_per_s": done / seconds,
        "peak_mb": peak,
        "slot_mb": slot / 2**20,
        "ms_a_round": shares,
        "roofline_ms": roofline(sampled, given, case.slots, parameters, size, bandwidth, rate) * 1000,
        "copy_gb_per_s": bandwidth / 1e9,
        "gflop_per_s": rate / 1e9,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else f"{platform.machine()} CPU",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    if case.case == "engine" and case.model != "demo":
        # Texts of full length: the first token of each comes out of the prefill, the others take a step each.
        (task,) = study.tasks.values()
        steps = task.response_tokens + task.grade_tokens - 2
        columns = task.prompt_tokens + task.response_tokens + task.grading_prompt_tokens + task.grade_tokens
        read = step_bytes(model, parameters, slot // 16, case.slots, columns)
        row["decode_step_ms"] = shares["decoding"] / steps
        row["decode_gb_per_s"] = read / row["decode_step_ms"] / 1e6
        row["update_gflop_per_s"] = 4 * parameters * columns * case.slots / shares["updating"] / 1e6
    return row


def set_up(case: Case, device: torch.device) -> Setting:
    """A case's model and study: the demo's own, or random weights with three conditions, or one where one run is."""
    fused = case.case == "engine"
    if case.model == "demo":
        return demo_setting(case.slots, device, fused=fused)
    conditions = CONDITIONS if case.slots > 1 else ["selfgrade"]
    return random_setting(case.model, conditions, -(-case.slots // 3), device, fused=fused)


def step_bytes(model: PreTrainedModel, parameters: int, adapter: int, slots: int, columns: int) -> int:
    """What a decode step must read at least: every weight but the embeddings, the slots' adapters and their cache."""
    output: torch.Tensor = model.get_output_embeddings().weight
    weights = parameters - (0 if output is model.get_input_embeddings().weight else output.numel())
    shape = model.config
    heads: int = shape.num_key_value_heads
    size: int = getattr(shape, "head_dim", None) or shape.hidden_size // shape.num_attention_heads
    cache: int = 2 * shape.num_hidden_layers * heads * size * columns
    read: int = output.element_size() * (weights + slots * (adapter + cache))
    return read


def slot_bytes(model: PreTrainedModel, rank: int) -> int:
    """What one slot holds: its adapter, gradient and two moments in float32; a copy in 16 bits comes on top of that."""
    return 16 * sum(
        rank * (module.in_features + module.out_features)
        for name, module in model.named_modules()
        if name.rsplit(".", 1)[-1] in TARGETS and isinstance(module, torch.nn.Linear)
    )


def ceilings(device: torch.device, dtype: torch.dtype) -> tuple[float, float]:
    """What the machine reaches at its best: bytes a second in a copy, and FLOP a second in a matrix product."""
    size = 2**27 if device.type == "cuda" else 2**25
    source, target = torch.ones(size, device=device), torch.empty(size, device=device)
    side = 8192 if device.type == "cuda" else 2048
    matrix = torch.ones(side, side, dtype=dtype, device=device)
    clock = Clock(device)

    def best(function: Callable[[], object]) -> float:
        function()
        times = []
        for _ in range(5):
            started = clock.now()
            function()
            times.append(clock.now() - started)
        return min(times)

    return 2 * 4 * size / best(lambda: target.copy_(source)), 2 * side**3 / best(lambda: matrix @ matrix)


def roofline(
    rows: Sequence[dict[str, Any]],
    given: float,
    slots: int,
    parameters: int,
    weights: int,
    bandwidth: float,
    rate: float,
) -> float:
    """The least seconds that a run-round can take with so many slots.

    Every decode step reads all weights once for all slots, or computes two FLOP a parameter and slot, whichever takes
    longer. Prefill computes two FLOP a parameter and token; the update two forward and two backward, since the frozen
    weights need no gradient.
    """
    total = 0.0
    for row in rows:
        decoded = len(row["response_tokens"]) + len(row["grade_tokens"] or ())
        step = max(weights / bandwidth, slots * 2 * parameters / rate)
        total += decoded * step / slots + given * 2 * parameters / rate + (given + decoded) * 4 * parameters / rate
    return total / len(rows)


def _peak_rss() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
