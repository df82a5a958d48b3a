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
import transformers
import yaml
from baselines import Generate, OneRun, TokenByToken
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma2Config,
    GenerationConfig,
    LlamaConfig,
    PreTrainedModel,
)

from wireheading.engine.experiment import EndRound, GradeNext, Respond, Update, experiment
from wireheading.engine.keeping import Keeper
from wireheading.engine.lockstep import Lockstep
from wireheading.engine.progress import Progress
from wireheading.engine.state import RunState
from wireheading.engine.stopping import Stop
from wireheading.inputs.items import read_items
from wireheading.policy.chat import Chat
from wireheading.policy.device import prepare_device
from wireheading.policy.lora import TARGETS
from wireheading.policy.model import prepare
from wireheading.policy.policy import Policy
from wireheading.policy.session import Session
from wireheading.study.config import Run, Study, load_study
from wireheading.tasks import Item

ROOT = Path(__file__).parents[1]
DEMO = load_study(yaml.safe_load((ROOT / "config" / "demo.yaml").read_text(encoding="utf-8")))
DEMO_MODEL = ROOT / DEMO.model_folder("tiny")
DEMO_DATA = {task: ROOT / DEMO.items_folder(task) for task in DEMO.tasks}
SEEDS = [42, 123, 456, 789]
CONDITIONS = ["control", "selfgrade", "honest"]

SHAPES: dict[str, dict[str, Any]] = {
    "smollm2-135m": {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": 49152,
        "tie_word_embeddings": True,
    },
    "llama-1b": {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "vocab_size": 128256,
        "tie_word_embeddings": True,
    },
    "llama-110m": {
        "hidden_size": 768,
        "intermediate_size": 2048,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "vocab_size": 32000,
        "tie_word_embeddings": True,
    },
    "mistral-7b": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 32768,
        "tie_word_embeddings": False,
    },
    "llama-70b-nf4": {
        "architecture": "llama-nf4",
        "hidden_size": 8192,
        "intermediate_size": 28672,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "tie_word_embeddings": False,
    },
    "gemma-2-9b": {
        "architecture": "gemma2",
        "hidden_size": 3584,
        "intermediate_size": 14336,
        "num_hidden_layers": 42,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 256,
        "query_pre_attn_scalar": 256,
        "vocab_size": 256000,
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

LENGTHS = {
    "llama-110m": {"prompt_tokens": 256, "response_tokens": 96, "grading_prompt_tokens": 32, "grade_tokens": 10},
    "large": {"prompt_tokens": 150, "response_tokens": 50, "grading_prompt_tokens": 40, "grade_tokens": 10},
}
"""Tokens of a round: those of summarization for the smaller shape, and the published study's for the large ones."""


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
    model, chat, study, data = set_up(case, device)
    clock = Clock(device)
    # Before the projections are wrapped.
    parameters = sum(parameter.numel() for parameter in model.parameters())
    slot = slot_bytes(model, study.lora.rank)
    runs = study.runs()
    groups = [runs] if case.slots == len(runs) else list(batched(runs, case.slots, study))
    sampled: list[Any] = []
    if case.case == "engine":
        advance = engine(study, groups, model, chat, data, clock, sampled, graphs=case.graphs)
    else:
        advance = one_by_one(study, groups, model, chat, data, clock, sampled, case.case)
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


def set_up(case: Case, device: torch.device) -> tuple[PreTrainedModel, Chat, Study, dict[str, list[Item]]]:
    """A case's model and study: the demo's own, or random weights with summarization's lengths."""
    made_ready = prepare if case.case == "engine" else stock
    config = yaml.safe_load((ROOT / "config" / "demo.yaml").read_text())
    # So many rounds that none is the last, which would be written to disk.
    config["conditions"], config["rounds"] = CONDITIONS, 10**6
    config["engine"]["checkpoint_every"] = 10**6
    config["evaluation"] = {"midway_rounds": []}
    if case.model == "demo":
        config["seeds"] = SEEDS[: max(1, case.slots // 9)]
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            DEMO_MODEL, dtype=torch.float32, device_map={"": device}
        )
        made_ready(model)
        chat = Chat(AutoTokenizer.from_pretrained(DEMO_MODEL), model.generation_config)
        study = load_study(config)
        return model, chat, study, {task: read_items(DEMO_DATA[task] / "train.jsonl", task) for task in study.tasks}
    config["seeds"] = list(range(-(-case.slots // 3)))
    limits = LENGTHS.get(case.model, LENGTHS["large"])
    config["tasks"] = {"summarization": config["tasks"]["summarization"] | limits}
    config["conditions"] = CONDITIONS if case.slots > 1 else ["selfgrade"]
    torch.manual_seed(0)
    with device:
        shape = dict(SHAPES[case.model])
        architecture = shape.pop("architecture", "llama")
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        if architecture == "llama-nf4":
            # What it needs is not installed wherever the other shapes can be measured.
            from quantized import quantized_llama

            model = quantized_llama(LlamaConfig(**shape), device)
        else:
            config_class = {"llama": LlamaConfig, "gemma2": Gemma2Config}[architecture]
            model = AutoModelForCausalLM.from_config(config_class(**shape), dtype=dtype)
    made_ready(model)
    chat = Chat(AutoTokenizer.from_pretrained(DEMO_MODEL), GenerationConfig())
    chat.stop_tokens = frozenset([SHAPES[case.model]["vocab_size"]])
    items = read_items(DEMO_DATA["summarization"] / "train.jsonl", "summarization")
    return model, chat, load_study(config), {"summarization": [{**item, "text": item["text"] * 8} for item in items]}


def stock(model: PreTrainedModel) -> None:
    """Freezes a model and leaves it as transformers gives it, for the baselines."""
    model.requires_grad_(False).eval()
    torch.backends.cuda.matmul.allow_tf32 = model.dtype == torch.bfloat16


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
    *,
    graphs: bool,
) -> Callable[[int], float]:
    """The engine, a job for each group in turn on one model."""
    policy = Policy(
        model,
        chat,
        slots=max(len(group) for group in groups),
        chunk=study.engine.chunk if model.device.type == "cpu" else 18,
        lora=study.lora,
        optimizer=study.optimizer,
        temperature=study.temperature,
    )
    policy.update = clock.timed("updating", policy.update)  # type: ignore[method-assign]
    open_session = policy.open_session

    def timed_session(rows: int, columns: int) -> Session:
        session = open_session(rows, columns)
        if "prefill" not in vars(session):
            session.graphs.recorded &= graphs
            session.prefill = clock.timed("prefill", session.prefill)  # type: ignore[method-assign]
            session.decode = clock.timed("decoding", session.decode)  # type: ignore[method-assign]
        return session

    policy.open_session = timed_session  # type: ignore[method-assign]

    def advance(rounds: int) -> float:
        seconds = 0.0
        for group in groups:
            for slot, run in enumerate(group):
                policy.adapters.initialise(slot, run.seed)
            keeper = Keeper(study, policy, {}, lambda _: None)
            job = Lockstep(study, group, policy, keeper, {}, Progress(study, group, keeper.report), Stop())
            states = [
                RunState(run, slot, experiment(study, run, chat, data[run.task], [])) for slot, run in enumerate(group)
            ]
            started = clock.now()
            for _ in range(rounds):
                job.play_round(states)
            seconds += clock.now() - started
            sampled.extend(row for state in states for row in state.rows)
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
                    ask = steps.send(clock.timed("decoding", one.respond)(ask.context, ask.draws))
                elif isinstance(ask, GradeNext):
                    ask = steps.send(clock.timed("decoding", one.grade)(ask.context, ask.draws))
                elif isinstance(ask, Update):
                    ask = steps.send(clock.timed("updating", one.update)(ask.sessions[0], ask.advantage))
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
        parts = {part: self.parts[part] * 1000 for part in ("prefill", "decoding", "updating")}
        return {**parts, "rest": seconds * 1000 - sum(parts.values())}


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
