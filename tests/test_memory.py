"""What a job needs is found by tracing the engine's own code."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from configs import ROOT, changed
from job import lay_over
from memory import DEVICES, seed_runs, shape_of
from shapes import LENGTHS, SHAPES
from toys import save_toy, toy_model
from transformers import AutoConfig, AutoTokenizer, Gemma2Config, GenerationConfig, LlamaConfig, PretrainedConfig

from wireheading.engine import memory
from wireheading.engine.memory import (
    GB,
    Estimate,
    check_memory,
    estimate,
    estimates,
    fitted,
    largest_batch,
    with_engine,
)
from wireheading.engine.tracing import Tracer
from wireheading.errors import InputError
from wireheading.policy.chat import Chat
from wireheading.pretraining.tokenizer import train_tokenizer
from wireheading.study.config import Run, Study, load_study

pytestmark = pytest.mark.slow


def job(**changes: Any) -> tuple[Study, list[Run]]:
    config = changed(
        **{"seeds": [1], "conditions": ["control", "selfgrade", "honest"], "engine__evaluation_batch": 2} | changes
    )
    config["tasks"] = {"sentiment": config["tasks"]["sentiment"]}
    study = load_study(config)
    return study, study.runs()


def shape(family: str = "llama", **changes: Any) -> PretrainedConfig:
    config = toy_model(family, torch.float32).config
    for name, value in changes.items():
        setattr(config, name, value)
    if getattr(config, "layer_types", None) is not None:
        config.layer_types = (config.layer_types * config.num_hidden_layers)[: config.num_hidden_layers]
    return config


def test_tensors_are_counted_while_they_live() -> None:
    with Tracer() as tracer:
        held = torch.empty(1000, device="meta")
        view = held[10:]
        both = held + view.sum()
        assert (tracer.now, tracer.peak) == (8000, 8004)
        del held
        assert tracer.now == 8000, "a view keeps its storage"
        del view, both
        assert (tracer.now, tracer.peak) == (0, 8004)
        tracer.restart()
        assert tracer.peak == 0


@pytest.mark.parametrize("family", ["llama", "gemma2", "qwen2"])
def test_two_traces_tell_of_any_number_of_layers(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    study, axes = job()
    config = shape(family, num_hidden_layers=8)
    told = estimate(study, axes, config)
    monkeypatch.setattr(memory, "SMALL", 6)
    monkeypatch.setattr(memory, "LARGE", 8)
    exact = estimate(study, axes, config)
    assert (exact.weights, exact.slots, exact.caches) == (told.weights, told.slots, told.caches)
    # Nearly: what is the peak in a shallow model may not be it in a deep one.
    assert (exact.update, exact.sampling, exact.evaluation, exact.graphs) == pytest.approx(
        (told.update, told.sampling, told.evaluation, told.graphs), rel=0.05
    )


def test_weights_and_adapters_are_counted_exactly() -> None:
    study, axes = job(lora={"rank": 3, "alpha": 6}, models__tiny__precision="bfloat16")
    config = shape(num_hidden_layers=6)
    told = estimate(study, axes, config)
    model = toy_model("llama", torch.float32)
    layers = sum(parameter.numel() for name, parameter in model.named_parameters() if ".layers." in name)
    rest = sum(parameter.numel() for name, parameter in model.named_parameters() if ".layers." not in name)
    assert told.weights == 2 * (rest + layers // 2 * 6)
    # q and o are 32 x 32, k and v 32 x 16; values, gradients and two moments of four bytes.
    each = 6 * 3 * (4 * 32 + 2 * (32 + 16)) * 4 * 4
    assert len(axes) * each <= told.slots <= 1.3 * len(axes) * each


def test_an_update_of_more_runs_and_a_wider_prompt_take_more() -> None:
    config = shape()
    few = estimate(*job(engine__chunk=1), config)
    many = estimate(*job(engine__chunk=3), config)
    wide = estimate(*job(engine__chunk=3, tasks__sentiment__prompt_tokens=360), config)
    assert 2 * few.update < many.update < 3.1 * few.update
    assert wide.update > 3 * many.update
    assert wide.sampling > 2 * many.sampling
    assert (few.weights, few.slots) == (many.weights, many.slots)


def test_checkpointing_keeps_a_part_of_the_activations() -> None:
    config = shape(num_hidden_layers=12)
    kept = estimate(*job(), config).update
    recomputed = estimate(*job(models__tiny__activation_checkpointing=True), config).update
    assert recomputed < 0.6 * kept


@pytest.mark.parametrize(("name", "slots"), [("llama-8b", 36), ("llama-1b", 36)])
def test_the_estimate_is_what_was_measured(name: str, slots: int) -> None:
    """Against peaks that an H100 reported for the throughput benchmark's own runs."""
    measured = next(
        row["peak_mb"] * 2**20
        for row in json.loads((ROOT / "benchmarks" / "measured" / "h100.json").read_text(encoding="utf-8"))
        if (row["case"], row["model"], row["slots"], row["graphs"]) == ("engine", name, slots, True)
    )
    config = changed(
        seeds=list(range(slots // 3)),
        conditions=["control", "selfgrade", "honest"],
        models__tiny__precision="bfloat16",
        engine__chunk=18,
    )
    config["tasks"] = {"summarization": config["tasks"]["summarization"] | LENGTHS["large"]}
    study = load_study(config)
    figures = dict(SHAPES[name])
    kind = Gemma2Config if figures.pop("architecture", "llama") == "gemma2" else LlamaConfig
    told = estimate(study, study.runs(), kind(**figures))
    # The benchmark evaluates nothing on held-out items.
    assert told.weights + told.slots + told.caches + told.update == pytest.approx(measured, rel=0.05)


STUDY = load_study(yaml.safe_load((ROOT / "config" / "config.yaml").read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "name", [name if name == "llama-3.1-8b" else pytest.param(name, marks=pytest.mark.slow) for name in STUDY.models]
)
def test_the_study_asks_for_what_its_models_take(name: str) -> None:
    """For devices that are shared and for schedulers: no less than a job takes, and not a GB more."""
    told = estimate(with_engine(STUDY, evaluation_batch=10), seed_runs(STUDY, name), shape_of(STUDY, name))
    assert STUDY.models[name].vram_gb == math.ceil(told.total / GB)


def test_a_grade_that_is_asked_for_in_a_session_of_its_own_takes_less() -> None:
    config = shape(num_hidden_layers=6)
    told = estimate(*job(), config)
    asked = "{response} Correct? 1/0"
    apart = estimate(*job(grading_context="fresh", tasks__sentiment__grading_prompt=asked), config)
    assert apart.update < told.update
    assert apart.evaluation < told.evaluation


def test_past_adapters_are_counted_with_their_session() -> None:
    lagged = {"name": "lag", "grader": "policy", "reward": "grade", "credit": "response", "grader_lag": 9}
    config = shape(num_hidden_layers=4)
    without = estimate(*job(conditions=["control", "responseonly"]), config)
    told = estimate(*job(conditions=["control", lagged]), config)
    # To two adapters, each with a gradient, two moments and the factors for sampling, comes one more, and a copy.
    assert told.slots == pytest.approx(without.slots * (3 * 5 + 1) / (2 * 5), rel=0.02)
    assert told.caches > 1.3 * without.caches


def test_four_bits_take_a_quarter_of_sixteen() -> None:
    config = shape(num_hidden_layers=8, intermediate_size=4096)
    half = estimate(*job(models__tiny__precision="bfloat16"), config).weights
    quarter = estimate(*job(models__tiny__precision="nf4"), config).weights
    assert 0.255 < quarter / half < 0.30


def test_what_does_not_fit_is_told_with_both_figures_and_a_remedy_that_fits(tmp_path: Path) -> None:
    save_toy(tmp_path)
    study, axes = job(engine__chunk=3, engine__evaluation_batch=None)
    config = AutoConfig.from_pretrained(tmp_path)
    needed = estimate(study, axes, config)
    check_memory(study, axes, config, None, needed, needed.total, 2 * needed.total, "a card")
    with pytest.raises(InputError) as raised:
        check_memory(study, axes, config, None, needed, needed.total - 1, 10**12, "a card")
    text = str(raised.value)
    assert "\n" not in text
    assert text.startswith(f"tiny: {len(axes)} runs in lockstep need {needed}, but a card has ")
    assert "of 1000.0 GB free; set engine.chunk: 1: that needs 1.0 GB" in text
    assert estimate(*job(engine__chunk=1, engine__evaluation_batch=1), config).total < needed.total
    given = with_engine(study, evaluation_batch=1)
    with pytest.raises(InputError, match=r"set engine\.chunk: 1, engine\.evaluation_batch: null: that needs"):
        check_memory(given, axes, config, None, needed, needed.total - 1, 10**12, "a card")
    with pytest.raises(InputError, match="use a device with more memory"):
        check_memory(study, axes, config, None, needed, 1000, 10**12, "a card")


def test_an_estimate_tells_its_parts() -> None:
    told = Estimate(
        weights=10**10,
        slots=10**9,
        caches=10**9,
        update=4 * 10**9,
        sampling=2 * 10**9,
        evaluation=3 * 10**9,
        graphs=10**9,
        graphs_beside_update=0,
    )
    assert told.total == int(16 * 10**9 * 1.05) + 10**9
    assert str(told) == (
        "17.8 GB (weights 10.0, adapters 1.0, caches 1.0, update 4.0, sampling 2.0, evaluation 3.0, graphs 1.0)"
    )
    # Training's sessions are closed meanwhile, but what recorded steps keep stays.
    assert replace(told, evaluation=5 * 10**9).total == int(17 * 10**9 * 1.05) + 10**9


def test_an_evaluation_takes_as_many_items_as_leave_a_job_within_its_memory() -> None:
    study, axes = job(tasks__sentiment__heldout_items=40)
    of_batch = estimates(study, axes, shape(), None)
    for size, more in ((1, 2), (6, 8), (32, 40)):
        assert largest_batch(study, axes, of_batch, of_batch(more).total - 1) == size
        assert largest_batch(study, axes, of_batch, of_batch(more).total) == more
    assert largest_batch(study, axes, of_batch, 10**15) == 40, "all there are"
    assert largest_batch(study, axes, of_batch, 0) == 1, "the check tells that it is too much"


@pytest.mark.parametrize(("family", "precision"), [("llama", "float32"), ("gemma2", "bfloat16"), ("llama", "nf4")])
def test_a_job_is_traced_once_for_all_batches(family: str, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    study, axes = job(models__tiny__precision=precision, tasks__sentiment__heldout_items=40)
    config = shape(family, num_hidden_layers=6)
    of_batch = estimates(study, axes, config, None)
    found = {size: of_batch(size) for size in (3, 1, 40)}
    # One by one, and every operation done: what was worked out before is not used.
    monkeypatch.setattr(Tracer, "_done", lambda _, function, args, kwargs: function(*args, **kwargs))
    assert found == {size: estimate(with_engine(study, evaluation_batch=size), axes, config) for size in found}


def test_a_job_is_checked_with_its_models_own_tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A grade of several letters may be one token: an evaluation holds logits of each, and a column of the cache."""
    save_toy(tmp_path)
    train_tokenizer(["Yes No True False Correct Incorrect"] * 100, 400).save_pretrained(tmp_path)
    study, axes = job(engine__evaluation_batch=None, tasks__sentiment__heldout_items=30)
    config = AutoConfig.from_pretrained(tmp_path)
    chat = Chat(AutoTokenizer.from_pretrained(tmp_path), GenerationConfig())
    needed = estimates(study, axes, config, chat)(30)
    by_letters = estimates(study, axes, config, None)(30)
    assert needed.evaluation < 0.8 * by_letters.evaluation
    # The card has just enough for that.
    total = int(needed.total / memory.USABLE) + 10
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (total, total))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a card")
    settled, told = fitted(study, axes, tmp_path, torch.device("cuda"))
    assert (settled.engine.evaluation_batch, told) == (30, needed)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (10**6, total))
    with pytest.raises(InputError, match=r"but a card has 0\.0 of "):
        fitted(study, axes, tmp_path, torch.device("cuda"))


@pytest.mark.parametrize(
    ("overlay", "name", "device"), [("l4", "llama-3.1-8b", "L4"), ("a100-40gb", "gemma-2-9b", "A100 40 GB")]
)
def test_the_settings_for_a_small_card_take_all_runs_of_a_seed(overlay: str, name: str, device: str) -> None:
    config = yaml.safe_load((ROOT / "config" / "config.yaml").read_text(encoding="utf-8"))
    lay_over(config, yaml.safe_load((ROOT / "config" / f"{overlay}.yaml").read_text(encoding="utf-8")))
    study = load_study(config)
    runs = seed_runs(study, name)
    assert len(runs) == 15
    told = estimate(with_engine(study, evaluation_batch=2), runs, shape_of(study, name))
    most = study.models[name].vram_gb
    assert most is not None
    assert told.total <= most * GB < DEVICES[device] * 2**30
