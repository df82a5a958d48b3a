"""What each shortcut of the engine gives on a CPU: the demo's grid of 36 runs without it, against the engine as it is.

    python benchmarks/ablation.py [--repeats 5]

Every case is measured in a process of its own, all of them in turn for each repeat. The best of its repeats counts:
whatever else a machine does can only slow it down.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from throughput import Case, measure
from torch import Tensor, nn

from wireheading.policy import fusing, lora
from wireheading.policy.device import prepare_device
from wireheading.policy.joint import JointLinear

CASE = Case("engine", "demo", 36, 6)


class Separate(JointLinear):
    """Layers that are computed one by one, as those are whose weights do not allow more."""

    def __init__(self, layers: Sequence[nn.Linear]):
        self.layers, self.weight = layers, None


def _left_as_it_is(_: object) -> None:
    """Takes the place of what fuses a part of a model."""


def _usual_norm(norm: Any, x: Tensor) -> Any:
    """Takes the place of what fuses norms."""
    return type(norm).forward(norm, x)


def _filled() -> None:
    torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]


WITHOUT: dict[str, Callable[[], None]] = {
    "all of them": lambda: None,
    "norms in one operation": lambda: setattr(fusing, "_normalise", _usual_norm),
    "rotary embedding in five operations": lambda: setattr(fusing, "_fuse_rotation", _left_as_it_is),
    "a gated layer's two projections in one product": lambda: setattr(fusing, "_fuse_gate", _left_as_it_is),
    "query, key and value in one product": lambda: setattr(lora, "JointLinear", Separate),
    "memory that is not filled before it is written": _filled,
}


def main() -> None:
    """Measures the engine as it is and without each shortcut, and prints what each gives."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        prepare_device(2)
        WITHOUT[arguments.one]()
        print(json.dumps(measure(CASE)["run_rounds_per_s"]))
        return
    rates = defaultdict(list)
    for _, name in itertools.product(range(arguments.repeats), WITHOUT):
        done = subprocess.run([sys.executable, __file__, "--one", name], check=True, stdout=subprocess.PIPE, text=True)
        rates[name].append(float(done.stdout.splitlines()[-1]))
    whole = max(rates["all of them"])
    print(f"| with | run-rounds/s |\n|---|---|\n| all of them | {whole:.0f} |")
    for name in list(WITHOUT)[1:]:
        rate = max(rates[name])
        print(f"| all but {name} | {rate:.0f} ({100 * (rate / whole - 1):+.0f} %) |")


if __name__ == "__main__":
    main()
