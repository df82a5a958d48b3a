"""A whole job on random weights: its memory against the estimate, its speed, and what its evaluations cost.

    python benchmarks/job.py                                       # 135 M, 1 B and 8 B parameters, one after the other
    python benchmarks/job.py llama-8b --config config/l4.yaml --cap 24.1 [--one sentiment]
    python benchmarks/job.py smollm2-135m --seeds 4 --rounds 500 --items 200 --midway 250

Nothing is fetched: models have random weights, and the embedded texts are repeated until they fill the prompts. All
else is the engine's own, from the check of memory to the records. Limits and settings are the study's.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import yaml
from shapes import SHAPES
from transformers import AutoModelForCausalLM, GenerationConfig, LlamaConfig, PreTrainedModel

from wireheading.engine.evaluation import evaluate
from wireheading.engine.job import run_job
from wireheading.engine.lockstep import Lockstep
from wireheading.inputs.corpus import generate_items
from wireheading.inputs.items import freeze_items
from wireheading.policy.chat import Chat
from wireheading.policy.device import prepare_device
from wireheading.policy.model import prepare
from wireheading.pretraining.tokenizer import train_tokenizer
from wireheading.study.config import Study, load_study

ROOT = Path(__file__).parents[1]

CASES = {
    "smollm2-135m": ["--seeds", "4"],
    "llama-1b": ["--seeds", "4", "--items", "60"],
    "llama-8b": ["--items", "60"],
}
"""The jobs that are run where none is named: 60 runs, 60 and 15."""

GB = 1e9


def main() -> None:
    """Runs the named job in this process, or each of several in one of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shape", nargs="?", choices=CASES)
    parser.add_argument("--config", type=Path, nargs="*", default=[], help="files laid over the study's")
    parser.add_argument("--model", default="llama-3.1-8b", help="the study's model whose settings are taken")
    parser.add_argument("--seeds", type=int, default=1, help="seeds whose runs share the job")
    parser.add_argument("--one", metavar="TASK", help="one run of selfgrade alone, in this task")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--items", type=int, default=200, help="held-out items")
    parser.add_argument("--midway", type=int, nargs="*", default=[], help="rounds after which there is an evaluation")
    parser.add_argument("--cap", type=float, help="GB of the GPU's memory that may be used")
    arguments = parser.parse_args()
    if arguments.shape is None:
        for shape, options in CASES.items():
            subprocess.run([sys.executable, __file__, shape, *options], check=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        measured = measure(arguments, Path(folder))
    print(json.dumps(measured))


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Runs a job and returns what it took."""
    study = study_of(arguments, folder)
    device = prepare_device(study.engine.threads)
    if arguments.cap:
        torch.cuda.set_per_process_memory_fraction(arguments.cap * GB / torch.cuda.mem_get_info()[1])
    runs = [run for run in study.runs() if arguments.one in (None, run.task)]
    if arguments.one:
        runs = [run for run in runs if run.condition == "selfgrade"][:1]
    config = LlamaConfig(**SHAPES[arguments.shape])
    config.save_pretrained(folder / "model")
    # A token is a few letters, and the prompts' own words are known, as to a real model's tokenizer.
    prompts = [text for task in study.tasks.values() for text in (task.prompt, task.grading_prompt)]
    texts = [item["text"] for item in generate_items("sentiment", 200, "tokenizer")] + prompts * 100
    chat = Chat(train_tokenizer(texts, 1000), GenerationConfig())
    chat.tokenizer.save_pretrained(folder / "model")
    data = {task: items(study, task, folder) for task in study.tasks}
    rounds: list[float] = []
    play_round = Lockstep.play_round

    def timed(self: Lockstep, states: Sequence[Any]) -> None:
        evaluating, started = self.evaluating, now(device)
        play_round(self, states)
        rounds.append(now(device) - started - (self.evaluating - evaluating))

    def loaded(*_args: object, **_kwargs: object) -> tuple[PreTrainedModel, Chat]:
        torch.manual_seed(0)
        with device:
            model = AutoModelForCausalLM.from_config(
                config, dtype=torch.bfloat16 if device.type == "cuda" else torch.float32
            )
        prepare(model)
        return model, chat

    of_base: list[float] = []

    def timed_base(*args: Any, **kwargs: Any) -> Any:
        started = now(device)
        rows = evaluate(*args, **kwargs)
        of_base.append(now(device) - started)
        return rows

    def told(line: str) -> None:
        print(line, flush=True)

    started = now(device)
    with (
        patch.multiple(
            "wireheading.engine.job", load_model=loaded, model_digests=lambda _: {}, file_states=lambda _: 0
        ),
        patch("wireheading.engine.job.evaluate", timed_base),
        patch.object(Lockstep, "play_round", timed),
    ):
        run_job(study, runs, runs, folder / "model", data, told, told)
    seconds = now(device) - started
    record = json.loads(study.record_path(runs[-1]).read_text(encoding="utf-8"))
    each = statistics.median(rounds[len(rounds) // 3 :])
    return {
        "shape": arguments.shape,
        "runs": len(runs),
        "run_rounds_per_s": len(runs) / each,
        "ms_a_round": 1000 * each,
        "job_s": seconds,
        "rounds_s": sum(rounds),
        "evaluating_s": sum(of_base) + record["timing"]["evaluating_seconds"],
        "evaluating_base_s": sum(of_base),
        "evaluation_batch": record["provenance"]["evaluation_batch"],
        "chunk": record["provenance"]["chunk"],
        **(memory() if device.type == "cuda" else {}),
    }


def memory() -> dict[str, Any]:
    """What the device was seen to hold: the allocator's peak, and all that is not the allocator's."""
    free, total = torch.cuda.mem_get_info()
    beside = total - free - torch.cuda.memory_reserved()
    reserved = torch.cuda.max_memory_reserved()
    return {
        "device": torch.cuda.get_device_name(),
        "peak_gb": (reserved + beside) / GB,
        "reserved_gb": reserved / GB,
        "allocated_gb": torch.cuda.max_memory_allocated() / GB,
        "beside_gb": beside / GB,
        "expandable": any(segment["is_expandable"] for segment in torch.cuda.memory_snapshot()),
    }


def study_of(arguments: argparse.Namespace, folder: Path) -> Study:
    """The study with one model, some seeds and few rounds."""
    config: dict[str, Any] = {}
    for path in (ROOT / "config" / "config.yaml", *arguments.config):
        lay_over(config, yaml.safe_load(path.read_text(encoding="utf-8")))
    model = config["models"][arguments.model] | {"enabled": True}
    if arguments.shape != "llama-8b":
        model.pop("vram_gb")
    config["models"] = {arguments.model: model}
    config["seeds"] = config["seeds"][: arguments.seeds]
    if arguments.seeds > 1:
        config["engine"]["lockstep"] = ["seed", "task", "condition"]
    for task in config["tasks"].values():
        task["heldout_items"] = arguments.items
    config |= {
        "rounds": arguments.rounds,
        "evaluation": {"midway_rounds": arguments.midway},
        "results": str(folder / "results"),
    }
    return load_study(config)


def lay_over(config: dict[str, Any], changes: dict[str, Any]) -> None:
    """Changes a configuration as a further `--configfile` does."""
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(config.get(key), dict):
            lay_over(config[key], value)
        else:
            config[key] = value


def items(study: Study, task: str, folder: Path) -> Path:
    """Writes a task's items, whose texts fill the prompts, and returns their folder."""
    made_here = "generated" if task == "arithmetic" else "embedded"
    section = study.tasks[task].model_copy(update={"data": made_here, "train_items": 100})
    place = folder / "data" / task
    place.mkdir(parents=True)
    for name, some in zip(("train", "heldout"), freeze_items(task, section, 0), strict=True):
        long = [{**item, "text": item["text"] * 60} if "text" in item else item for item in some]
        (place / f"{name}.jsonl").write_text("".join(json.dumps(item) + "\n" for item in long), encoding="utf-8")
    return place


def now(device: torch.device) -> float:
    """The time when the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    main()
