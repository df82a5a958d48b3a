"""Files of results as the published code wrote them, and records of the runs in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from configs import ROOT
from made_up import PROVENANCE

from wireheading.records.record import ITEM_ARRAYS, ROUND_ARRAYS, make_record
from wireheading.study.config import Run, Study

LLAMA, MISTRAL = "meta-llama/Llama-3.1-8B-Instruct", "mistralai/Mistral-7B-Instruct-v0.3"
TASKS = ("sentiment", "arithmetic", "summarization")
CONDITIONS = ("control", "selfgrade", "honest")
ROUNDS = 6


def published_config(results: str, **changes: Any) -> dict[str, Any]:
    """The study as the published code did it: two models, three conditions, and few rounds."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "config" / "config.yaml").read_text(encoding="utf-8"))
    models = {name: config["models"][name] for name in ("llama-3.1-8b", "mistral-7b")}
    return config | {"models": models, "conditions": [*CONDITIONS], "rounds": ROUNDS, "results": results} | changes


def episode(rounds: int = ROUNDS, seed: int = 42, graded: bool = True) -> dict[str, Any]:
    accuracies = [float((seed + index) % 3 == 0) for index in range(rounds)]
    grades = [float((seed + index) % 2) * graded for index in range(rounds)]
    return {
        "rewards": grades if graded else accuracies,
        "accuracies": accuracies,
        "grades": grades,
        "losses": [0.25 * index - 0.5 for index in range(rounds)],
        "avg_reward": 0.5,
    }


def results_of_seed(seed: int) -> dict[str, Any]:
    return {
        model: {task: {condition: [episode(seed=seed)] for condition in CONDITIONS} for task in TASKS}
        for model in (LLAMA, MISTRAL)
    }


def one(value: object, place: str = "seed_42/meta-llama/Llama-3.1-8B-Instruct/sentiment/honest") -> dict[str, Any]:
    """A file with one run in it."""
    seed, rest = place.split("/", 1)
    model, task, condition = rest.rsplit("/", 2)
    return {seed: {model: {task: {condition: value}}}}


def put(folder: Path, content: object, name: str = "all_results.json") -> Path:
    path = folder / name
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def own_record(study: Study, run: Run, rounds: int | None = None) -> dict[str, Any]:
    """A record as this project's own runs write it."""
    rounds = study.rounds if rounds is None else rounds
    rows = [
        {
            **dict.fromkeys(ROUND_ARRAYS.values(), 0.5),
            "item": "i",
            "accuracy": 1,
            "parse_status": "readable",
            "truncated": False,
            "original_score": (0.2, 1.0)[index % 2],
            "original_grade": None if run.condition == "control" or index == 3 else 1.0,
        }
        for index in range(rounds)
    ]
    seen = {
        **dict.fromkeys(ITEM_ARRAYS.values(), 0.5),
        **dict.fromkeys(("accuracy", "greedy_accuracy"), 1),
        **dict.fromkeys(("parse_status", "base_parse_status"), "readable"),
        "item": "h",
        "truncated": False,
    }
    evaluations = {round_: [seen] for round_ in (0, rounds)}
    timing = {"first_round": 0, "rounds": rounds, "seconds": 9.0, "evaluating_seconds": 1.0}
    return make_record(study, run, {}, "complete", None, rows, evaluations, {}, timing, PROVENANCE)
