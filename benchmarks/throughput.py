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
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from baselines import Generate, OneRun, TokenByToken
from transformers import AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from wireheading.config import Run, Study, load_study
from wireheading.data import read_items
from wireheading.experiment import EndRound, GradeNext, Respond, Update, experiment
from wireheading.lockstep import Job, Live
from wireheading.policy.chat import Chat
from wireheading.policy.device import prepare_device
from wireheading.policy.lora import TARGETS
from wireheading.policy.model import load_model, prepare
from wireheading.policy.policy import Policy
from wireheading.tasks import Item

ROOT = Path(__file__).parents[1]
DEMO_MODEL = ROOT / "resources" / "models" / "tiny"
DEMO_DATA = ROOT / "resources" / "data"
SEEDS = [42, 123, 456, 789]
CONDITIONS = ["control", "selfgrade", "honest"]

SHAPES: dict[str, dict[str, Any]] = {
    "llama-110m": {
        "hidden_size": 768,
        "intermediate_size": 2048,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "vocab_size": 32000,
        "tie_word_embeddings": True,
    },
    "llama-8b": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "tie_word_embeddings": False,
    },
}
"""Models of random weights. They never stop of themselves, so every text has its full length."""


@dataclass(frozen=True)
class Case:
    """One measurement: a way to compute, a model, how many slots, and for how many rounds."""

    case: str
    model: str
    slots: int
    rounds: int


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
    "llama-8b": [
        Case("original", "llama-8b", 1, 2),
        Case("generate", "llama-8b", 1, 2),
        *(Case("engine", "llama-8b", slots, 3) for slots in (1, 9, 27, 36, 54)),
    ],
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
        "| model | case | slots | run-rounds/s | × original | × generate | peak MB | ms a round | roofline ms |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        one = {other["case"]: other["run_rounds_per_s"] for other in rows if other["model"] == row["model"]}
        rate = row["run_rounds_per_s"]
        times = " / ".join(f"{row['ms_a_round'][part]:.0f}" for part in ("sampling", "updating", "rest"))
        lines.append(
            f"| {row['model']} | {row['case']} | {row['slots']} | {rate:.3g} | {rate / one['original']:.1f} "
            f"| {rate / one['generate']:.1f} | {row['peak_mb']:.0f} | {times} | {row['roofline_ms']:.3g} |"
        )
    return "\n".join(lines)


def measure(case: Case) -> dict[str, Any]:
    """Measures one case in this process."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model, chat, study, data = set_up(case, device)
    clock = Clock(device)
    runs = study.runs()
    groups = [runs] if case.slots == len(runs) else list(batched(runs, case.slots, study))
    sampled: list[Any] = []
    if case.case == "engine":
        advance = engine(study, groups, model, chat, data, clock, sampled)
    else:
        advance = one_by_one(study, groups, model, chat, data, clock, sampled, case.case)
    advance(1)
    clock.reset()
    seconds = advance(case.rounds)
    done = case.rounds * sum(len(group) for group in groups)
    given = statistics.mean(task.prompt_tokens + task.grading_prompt_tokens for task in study.tasks.values())
    size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    bandwidth, rate = ceilings(device, model.dtype)
    per_round = 1 / (case.rounds * len(groups))
    peak = torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else _peak_rss()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {
        **asdict(case),
        "task": "summarization" if case.model != "demo" else "grid",
        "runs": len(runs),
        "run_rounds_per_s": done / seconds,
        "peak_mb": peak,
        "slot_mb": slot_bytes(model, study.lora.rank) / 2**20,
        "ms_a_round": {name: value * per_round for name, value in clock.shares(seconds).items()},
        "roofline_ms": roofline(sampled, given, case.slots, parameters, size, bandwidth, rate) * 1000,
        "copy_gb_per_s": bandwidth / 1e9,
        "gflop_per_s": rate / 1e9,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else f"{platform.machine()} CPU",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def set_up(case: Case, device: torch.device) -> tuple[PreTrainedModel, Chat, Study, dict[str, list[Item]]]:
    """A case's model and study: the demo's own, or random weights with summarization's lengths."""
    config = yaml.safe_load((ROOT / "config" / "demo.yaml").read_text())
    # So many rounds that none is the last, which would be written to disk.
    config["conditions"], config["rounds"] = CONDITIONS, 10**6
    config["engine"]["checkpoint_every"] = 10**6
    config["evaluation"] = {"midway_rounds": []}
    if case.model == "demo":
        config["seeds"] = SEEDS[: max(1, case.slots // 9)]
        model, chat = load_model(DEMO_MODEL, "float32", device)
        study = load_study(config)
        return model, chat, study, {task: read_items(DEMO_DATA / task / "train.jsonl") for task in study.tasks}
    config["seeds"] = list(range(-(-case.slots // 3)))
    limits = {"prompt_tokens": 256, "response_tokens": 96, "grading_prompt_tokens": 32, "grade_tokens": 10}
    config["tasks"] = {"summarization": config["tasks"]["summarization"] | limits}
    config["conditions"] = CONDITIONS if case.slots > 1 else ["selfgrade"]
    torch.manual_seed(0)
    with device:
        shape = LlamaConfig(**SHAPES[case.model])
        model = LlamaForCausalLM._from_config(shape, dtype=torch.bfloat16 if device.type == "cuda" else torch.float32)
    prepare(model)
    chat = Chat(AutoTokenizer.from_pretrained(DEMO_MODEL), GenerationConfig())
    chat.stop_tokens = frozenset([SHAPES[case.model]["vocab_size"]])
    items = read_items(DEMO_DATA / "summarization" / "train.jsonl")
    return model, chat, load_study(config), {"summarization": [{**item, "text": item["text"] * 8} for item in items]}


def batched(runs: Sequence[Run], size: int, study: Study) -> Iterator[list[Run]]:
    """The grid in lockstep groups: all of it, a seed's nine cells, a task's three conditions, or runs alone."""
    ordered = sorted(runs, key=lambda run: (run.seed, list(study.tasks).index(run.task)))
    for start in range(0, len(ordered), size):
        group = ordered[start : start + size]
        yield [run for run in runs if run in group]


def engine(
    study: Study,
    groups: Sequence[Sequence[Run]],
    model: PreTrainedModel,
    chat: Chat,
    data: dict[str, list[Item]],
    clock: Clock,
    sampled: list[Any],
) -> Callable[[int], float]:
    """The engine, a job for each group in turn on one model."""
    policy = Policy(
        model,
        chat,
        slots=max(len(group) for group in groups),
        chunk=study.engine.chunk if model.device.type == "cpu" else 9,
        lora=study.lora,
        optimizer=study.optimizer,
        temperature=study.temperature,
    )
    policy.sample = clock.timed("sampling", policy.sample)  # type: ignore[method-assign]
    policy.update = clock.timed("updating", policy.update)  # type: ignore[method-assign]

    def advance(rounds: int) -> float:
        seconds = 0.0
        for group in groups:
            for slot, run in enumerate(group):
                policy.adapters.initialise(slot, run.seed)
            job = Job(study, group, policy, {}, {}, lambda _: None)
            live = [
                Live(run, slot, experiment(study, run, chat, data[run.task], []), []) for slot, run in enumerate(group)
            ]
            started = clock.now()
            for _ in range(rounds):
                job.play_round(live)
            seconds += clock.now() - started
            sampled.extend(row for run in live for row in run.rows)
        return seconds

    return advance


def one_by_one(
    study: Study,
    groups: Sequence[Sequence[Run]],
    model: PreTrainedModel,
    chat: Chat,
    data: dict[str, list[Item]],
    clock: Clock,
    sampled: list[Any],
    name: str,
) -> Callable[[int], float]:
    """A baseline, run after run."""
    kind: type[OneRun] = {"original": TokenByToken, "generate": Generate}[name]

    def advance(rounds: int) -> float:
        seconds = 0.0
        for run in itertools.chain.from_iterable(groups):
            one = kind(model, chat, study)
            steps = experiment(study, run, chat, data[run.task], [])
            started = clock.now()
            ask = next(steps)
            done = 0
            while done < rounds:
                if isinstance(ask, Respond):
                    ask = steps.send(clock.timed("sampling", one.respond)(ask.context, ask.draws))
                elif isinstance(ask, GradeNext):
                    ask = steps.send(clock.timed("sampling", one.grade)(ask.context, ask.draws))
                elif isinstance(ask, Update):
                    ask = steps.send(clock.timed("updating", one.update)(ask.conversations[0], ask.advantage))
                else:
                    assert isinstance(ask, EndRound)
                    sampled.append(ask.row)
                    done += 1
                    ask = next(steps)
            seconds += clock.now() - started
            one.model.unload()
        return seconds

    return advance


class Clock:
    """Adds up the time that is spent in named parts."""

    def __init__(self, device: torch.device):
        self.device = device
        self.reset()

    def reset(self) -> None:
        """Forgets what was added up."""
        self.parts: dict[str, float] = defaultdict(float)

    def now(self) -> float:
        """The time when the device has done what it was told."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, its time added to a part."""

        def timing(*args: Any, **kwargs: Any) -> Any:
            started = self.now()
            result = function(*args, **kwargs)
            self.parts[part] += self.now() - started
            return result

        return timing

    def shares(self, seconds: float) -> dict[str, float]:
        """Milliseconds of each part, and of the rest of so many seconds."""
        parts = {part: self.parts[part] * 1000 for part in ("sampling", "updating")}
        return {**parts, "rest": seconds * 1000 - sum(parts.values())}


def slot_bytes(model: PreTrainedModel, rank: int) -> int:
    """What one slot holds: its adapter, gradient and two moments in float32."""
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
