"""How equal a run is on another machine: redoes the first rounds of finished runs and compares them with their records.

    python benchmarks/redo.py RECORD… --model FOLDER --items FOLDER --rounds 4 --table FILE.parquet

All but the weights and the items comes from the record: its settings, and so its random numbers, and its transcript.
Each token is drawn here with the same random number, and compared with the record's; then the record's is taken. So one
token on the other side of a rounding error does not hide what comes after it: every further token, loss and update
follows the same texts.

A token is drawn where the cumulative probability exceeds the random number. How far the random number lies outside the
recorded token's part of the cumulative probability here is the *shift*: 0 for the same token, small for one that
rounding explains, and of the order of .3 for one that has nothing to do with the record.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd
import torch
from torch import Tensor

from wireheading.engine.experiment import experiment
from wireheading.engine.keeping import Keeper
from wireheading.engine.lockstep import Lockstep
from wireheading.engine.progress import Progress
from wireheading.engine.setup import policy_of
from wireheading.engine.state import RunState
from wireheading.engine.stopping import Stop
from wireheading.errors import InputError
from wireheading.inputs.items import Items
from wireheading.inputs.models import model_digests
from wireheading.policy.device import device_name, prepare_device
from wireheading.policy.model import load_model
from wireheading.policy.sampling import draw
from wireheading.records.record import read_record
from wireheading.records.transcripts import read_transcript
from wireheading.study.config import SPEC_KEYS, Run, Study, load_study
from wireheading.study.paths import transcript_path

EXACT = ("item", "prompt", "response", "truncated", "score", "grade", "parse_status", "reward", "baseline", "advantage")
"""What must be equal to the last bit, given the same tokens."""

ROUNDED = ("loss", "grad_norm", "logprob_gap")
"""What is equal but for rounding."""


def main() -> None:
    """Redoes the runs and prints what is equal."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("records", type=Path, nargs="+", help="records of one model, their transcripts beside them")
    parser.add_argument("--model", type=Path, required=True, help="folder of the weights that the runs read")
    parser.add_argument("--items", type=Path, required=True, help="folder with a folder of frozen items for each task")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--precision", choices=["bfloat16", "float32"], default="bfloat16", help="of the weights here")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--table", type=Path, help="file for a row for each round")
    arguments = parser.parse_args()
    rows = []
    for path in arguments.records:
        try:
            own = redo(path, arguments.model, arguments.items, arguments.rounds, arguments.precision, arguments.threads)
        except InputError as error:
            raise SystemExit(str(error)) from None
        print(f"{path}\n" + "\n".join(map(told, own)), flush=True)
        rows += own
    if arguments.table:
        pd.DataFrame(rows).to_parquet(arguments.table, index=False)


def study_of(spec: Mapping[str, Any]) -> tuple[Study, Run]:
    """The study of one run, and the run, from the spec in its record."""
    model, task = dict(spec["model"]), dict(spec["task"])
    names = model.pop("name"), task.pop("name")
    embedded = {"embedded": model.pop("embedded")} if "embedded" in model else {}
    others = spec.get("transfer", {})
    settings = {key: spec[key] for key in SPEC_KEYS}
    settings["evaluation"] = {**settings["evaluation"], "transfer": bool(others)}
    parts = {"models": {names[0]: model}, "tasks": {names[1]: task, **others}, "conditions": [spec["condition"]]}
    # Nothing is to be written.
    engine = {"checkpoint_every": 1_000_000}
    study = load_study({**parts, "seeds": [spec["seed"]], **settings, **embedded, "engine": engine})
    return study, Run(spec["seed"], *names, spec["condition"]["name"])


class Followed:
    """Draws a record's tokens instead of this machine's own, and notes how these differ.

    Attributes:
        left: Tokens of the record that are still to come in this completion.
        shifts: The shift of each token that was drawn.
    """

    def __init__(self) -> None:
        self.left: list[int] = []
        self.shifts: list[float] = []

    def draw(self, logits: Tensor, uniform: Tensor, temperature: float, blocked: Tensor) -> tuple[Tensor, ...]:
        """Draws a token of the only row, as `sampling.draw` does."""
        token, logprob, good = draw(logits, uniform, temperature, blocked)
        if not self.left:
            return token, logprob, good  # The text is over; what else is drawn is dropped.
        known = self.left.pop(0)
        logprobs = torch.log_softmax((logits / temperature).masked_fill(blocked, -torch.inf), dim=-1)[0]
        ends = logprobs.double().exp().cumsum(0)
        at, end = float(uniform[0] * ends[-1]), float(ends[known])
        self.shifts.append(0.0 if int(token) == known else max(end - float(logprobs[known].exp()) - at, at - end, 0.0))
        return torch.full_like(token, known), logprobs[known : known + 1].to(logprob), good


def redo(path: Path, model: Path, folder: Path, rounds: int, precision: str, threads: int) -> list[dict[str, Any]]:
    """Redoes the first rounds of a run.

    Args:
        path: The record; its transcript lies beside it.
        model: Folder of its weights.
        folder: Folder with the frozen items of its task in a folder of the task's name.
        rounds: How many rounds; they must end before the first evaluation.
        precision: How the weights are held.
        threads: Threads of PyTorch.

    Returns:
        A row for each round: what is equal, and the record's figures beside those of this machine.

    Raises:
        InputError: The record is not valid, or the weights or items here are not those that it names.
    """
    try:
        spec = json.loads(path.read_bytes())["spec"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: is no record ({error})") from None
    study, run = study_of(spec)
    record = read_record(path, study.digest(run))
    recorded = read_transcript(path, record, transcript_path(path)).to_pylist()
    if rounds > (most := min([*study.evaluation.midway_rounds, study.rounds]) - 1):
        raise InputError(f"--rounds {rounds}: {path} is evaluated after round {most + 1}; give at most {most}")
    items = Items.read(folder / run.task, run.task)
    here, read = model_digests(model) | items.digests, record["inputs"]
    for other in study.other_tasks(run.task):
        # Answers of other tasks are graded at the end alone, which is not redone.
        here[f"{other}.heldout.jsonl"] = read[f"{other}.heldout.jsonl"]
    # A tokenizer's files are written anew by each version of transformers; the prompts show whether they mean the same.
    differing = sorted(name for name in read if here.get(name) != read[name])
    for name in differing:
        if name.endswith((".safetensors", ".jsonl")):
            raise InputError(f"{path}: was made of another {name} (SHA-256 {read[name][:8]}…); give the folder with it")
    device = prepare_device(threads)
    loaded, chat = load_model(model, precision, device, plain=study.prompting == "completion")
    policy = policy_of(study, [run], loaded, chat)
    policy.adapters.initialise(0, run.seed)
    keeper = Keeper(study, policy, {}, print, print)
    job = Lockstep(study, [run], policy, keeper, {}, {}, Progress(study, [run], print, print), Stop())
    state = RunState(run, 0, experiment(study, run, chat, items.train, items.heldout))
    followed, sample = Followed(), policy.sample
    rows = []
    for known in recorded[:rounds]:
        texts = iter([known["response_tokens"], known["grade_tokens"]])

        def following(*arguments: Any, texts: Any = texts) -> Any:
            followed.left = list(next(texts))
            return sample(*arguments)

        followed.shifts.clear()
        with (
            mock.patch("wireheading.policy.session.draw", followed.draw),
            mock.patch.object(policy, "sample", following),
        ):
            job.play_round([state])
        row = state.rows[-1]
        rows.append(
            {
                **run._asdict(), "round": row["round"], "recorded_on": record["provenance"]["device"],
                "device": device_name(device), "precision": precision, "files_differing": ", ".join(differing),
                "unequal": ", ".join(name for name in EXACT if row[name] != known[name]),
                "tokens": len(followed.shifts), "same": followed.shifts.count(0.0),
                "largest_shift": max(followed.shifts), "advantage": row["advantage"],
                **{f"{name}_recorded": known[name] for name in ROUNDED},
                **{f"{name}_here": row[name] for name in ROUNDED},
            }
        )  # fmt: skip
    return rows


def told(row: Mapping[str, Any]) -> str:
    """A round in a line."""
    exact = f"unequal: {row['unequal']}" if row["unequal"] else "texts, grade, score and reward equal"
    rounded = (f"{name} {row[f'{name}_recorded']:.5f} → {row[f'{name}_here']:.5f}" for name in ROUNDED)
    drawn = f"{row['same']} of {row['tokens']} tokens drawn alike, largest shift {row['largest_shift']:.4f}"
    return f"  round {row['round']}: {exact}; {drawn}; {', '.join(rounded)}"


if __name__ == "__main__":
    main()
