"""How the time of a round grows with the number of slots and with the length of prompts.

    python benchmarks/growth.py --out benchmarks/out

Measures whole rounds (response, grade, update) of a small Llama of random weights; writes `growth.json`, `growth.svg`.
The exponent that is printed is the slope between the two largest sizes on logarithmic axes: 1 is linear growth.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import matplotlib

matplotlib.use("svg")

import matplotlib.pyplot as plt
import numpy as np
import torch
import yaml
from transformers import AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM

from wireheading.policy.chat import Chat
from wireheading.policy.device import prepare_device
from wireheading.policy.model import prepare
from wireheading.policy.policy import Policy
from wireheading.policy.update import Turn, Width
from wireheading.study.config import load_study
from wireheading.study.sections import LoraConfig, OptimizerConfig

ROOT = Path(__file__).parents[1]
SLOTS = (1, 3, 9, 18, 36, 72)
PROMPTS = (32, 64, 128, 256, 512)
RESPONSE, GRADING, GRADE = 8, 10, 3
VOCABULARY = 1024


def main() -> None:
    """Measures both, prints the exponents, and draws them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "out")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    device = prepare_device(arguments.threads)
    by_slots = [round_seconds(device, slots, 64, arguments.repeats) for slots in SLOTS]
    by_prompt = [round_seconds(device, 9, prompt, arguments.repeats) for prompt in PROMPTS]
    rows = [{"slots": slots, "prompt": 64, "seconds": time_} for slots, time_ in zip(SLOTS, by_slots, strict=True)]
    rows += [{"slots": 9, "prompt": prompt, "seconds": time_} for prompt, time_ in zip(PROMPTS, by_prompt, strict=True)]
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "growth.json").write_text(json.dumps(rows, indent=1) + "\n")
    draw(arguments.out / "growth.svg", by_slots, by_prompt)
    for name, sizes, times in (("slots", SLOTS, by_slots), ("prompt tokens", PROMPTS, by_prompt)):
        print(
            f"{name}: " + ", ".join(f"{size} → {1000 * time_:.1f} ms" for size, time_ in zip(sizes, times, strict=True))
        )
        exponent = math.log(times[-1] / times[-2]) / math.log(sizes[-1] / sizes[-2])
        print(f"  exponent at the end: {exponent:.2f}")


def round_seconds(device: torch.device, slots: int, prompt: int, repeats: int) -> float:
    """The least time of one round, in seconds."""
    torch.manual_seed(0)
    shape = LlamaConfig(
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        vocab_size=VOCABULARY,
        max_position_embeddings=1024,
    )
    model = LlamaForCausalLM._from_config(shape, dtype=torch.float32).to(device)
    prepare(model)
    demo = load_study(yaml.safe_load((ROOT / "config" / "demo.yaml").read_text(encoding="utf-8")))
    chat = Chat(AutoTokenizer.from_pretrained(ROOT / demo.model_folder("tiny")), GenerationConfig())
    # No token ends a text, so every text has its full length.
    chat.stop_tokens = frozenset([VOCABULARY])
    policy = Policy(model, chat, slots=slots, chunk=12, lora=LoraConfig(), optimizer=OptimizerConfig(), temperature=1.0)
    for slot in range(slots):
        policy.adapters.initialise(slot, slot)
    random = np.random.default_rng(0)
    contexts = random.integers(1, 700, (slots, prompt)).tolist()
    gradings = random.integers(1, 700, (slots, GRADING)).tolist()
    every = range(slots)
    times = []
    for _ in range(repeats + 1):
        if device.type == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        session = policy.open_session(slots, prompt + RESPONSE + 1 + GRADING + GRADE)
        said = policy.sample(session, every, contexts, prompt, list(random.random((slots, RESPONSE))), RESPONSE)
        nexts = [[one.tokens[-1], *grading] for one, grading in zip(said, gradings, strict=True)]
        grades = policy.sample(session, every, nexts, 1 + GRADING, list(random.random((slots, GRADE))), GRADE)
        turns = [
            (Turn(tuple(contexts[row]), said[row].tokens, True), Turn(tuple(gradings[row]), grades[row].tokens, True))
            for row in every
        ]
        policy.update(every, [([Width(prompt, RESPONSE), Width(GRADING, GRADE)], turns)], [0.5] * slots)
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return min(times[1:])


def draw(path: Path, by_slots: list[float], by_prompt: list[float]) -> None:
    """Draws the time of a round, and of a run's share in it, against both sizes."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    left.loglog(SLOTS, [1000 * time_ for time_ in by_slots], "o-", label="a round of all runs")
    shares = [1000 * time_ / slots for time_, slots in zip(by_slots, SLOTS, strict=True)]
    left.loglog(SLOTS, shares, "s-", label="a run's share")
    left.set(xlabel="slots", ylabel="milliseconds", xticks=SLOTS, xticklabels=SLOTS)
    left.legend(frameon=False)
    right.loglog(PROMPTS, [1000 * time_ for time_ in by_prompt], "o-")
    right.set(xlabel="prompt tokens (9 slots)", ylabel="milliseconds a round", xticks=PROMPTS, xticklabels=PROMPTS)
    for axes in (left, right):
        axes.minorticks_off()
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
