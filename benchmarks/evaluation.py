"""Where the time of a held-out evaluation goes: of all runs of a study, on a model's own weights.

    python benchmarks/evaluation.py CONFIG --model FOLDER --items FOLDER --count 50

Adapters are as they are before training. After a first evaluation of each task the faster of two counts. Then comes one
with a clock at each phase, and on a GPU one that shows which kernels take longest. The digest is that of all that was
found: two versions of the engine that print the same one gave the same answers and grades.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from ways import Clock

from wireheading.engine import evaluation
from wireheading.engine.evaluation import evaluate, fixed_answers
from wireheading.engine.layout import groups_of
from wireheading.engine.setup import policy_of
from wireheading.inputs.items import Items
from wireheading.policy.device import prepare_device
from wireheading.policy.model import load_model
from wireheading.policy.session import Session
from wireheading.study.config import Study, load_study
from wireheading.study.reading import read_config

KERNELS = 12
"""Kernels that are named."""


def main() -> None:
    """Evaluates every task and prints what it took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path, help="a study of one model, all of whose runs share a job")
    parser.add_argument("--model", type=Path, required=True, help="folder of its weights")
    parser.add_argument("--items", type=Path, required=True, help="folder with a folder of frozen items for each task")
    parser.add_argument("--count", type=int, default=50, help="held-out items, evaluated in one batch")
    arguments = parser.parse_args()
    study = load_study(read_config(arguments.config))
    device = prepare_device(study.engine.threads)
    precision = "bfloat16" if device.type == "cuda" else "float32"
    model, chat = load_model(arguments.model, precision, device, plain=study.prompting == "completion")
    policy = policy_of(study, study.runs(), model, chat)
    for slot, run in enumerate(study.runs()):
        policy.adapters.initialise(slot, run.seed)
    for task in study.tasks:
        evaluated = ready(study, task, policy, Items.read(arguments.items / task, task), arguments.count)
        measure(task, evaluated, Clock(device))


def ready(study: Study, task: str, policy: Any, items: Items, count: int) -> Callable[[], list[Any]]:
    """What evaluates all slots of a task."""
    heldout = items.heldout[:count]
    slots = next(group.parts[task].slots for group in groups_of(study, study.runs()) if task in group.parts)
    answers = fixed_answers(study, task, policy.chat, heldout)
    (base,) = evaluate(study, task, policy, range(1), heldout, answers, count, lambda: None, base=True)
    known = [row["answers"] for row in base]
    return lambda: evaluate(study, task, policy, slots, heldout, known, count, lambda: None)


def measure(task: str, evaluated: Callable[[], list[Any]], clock: Clock) -> None:
    """Prints how long an evaluation takes, in which phases, and in which kernels."""
    evaluated()
    times = [clock.now()]
    for _ in range(2):
        rows = evaluated()
        times.append(clock.now())
    digest = hashlib.sha256(repr(rows).encode()).hexdigest()
    seconds = min(after - before for before, after in itertools.pairwise(times))
    print(f"{task}: {len(rows)} runs, {len(rows[0])} items: {seconds:.2f} s, digest {digest[:12]}", flush=True)
    spent: dict[str, float] = defaultdict(float)
    with ExitStack() as patches:
        for owner, name in ((Session, "prefill"), (Session, "decode"), (evaluation, "text_probabilities")):
            patches.enter_context(patch.object(owner, name, clocked(name, getattr(owner, name), spent, clock)))
        started = clock.now()
        evaluated()
        spent["all else"] = clock.now() - started - sum(spent.values())
    print("  " + ", ".join(f"{name} {seconds:.2f} s" for name, seconds in spent.items()), flush=True)
    if clock.device.type == "cuda":
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            evaluated()
        kernels = sorted(profile.key_averages(), key=lambda kernel: -kernel.self_device_time_total)
        print(f"  device busy for {sum(kernel.self_device_time_total for kernel in kernels) / 1e6:.2f} s, of it")
        for kernel in kernels[:KERNELS]:
            print(f"  {kernel.self_device_time_total / 1e3:8.1f} ms {kernel.count:6d} × {kernel.key[:90]}", flush=True)


def clocked(name: str, usual: Callable[..., Any], spent: dict[str, float], clock: Clock) -> Callable[..., Any]:
    """A function that adds its seconds to those of its phase, less those of the phases within."""

    def function(*arguments: Any, **named: Any) -> Any:
        phase = name if name != "decode" else "decode greedily" if arguments[1] is None else f"decode {arguments[2]}"
        started, before = clock.now(), sum(spent.values())
        result = usual(*arguments, **named)
        spent[phase] += clock.now() - started - (sum(spent.values()) - before)
        return result

    return function


if __name__ == "__main__":
    main()
