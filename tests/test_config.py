from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from configs import ROOT, changed, demo
from snakemake.utils import update_config

from wireheading.errors import ConfigError
from wireheading.study.config import Run, Study, json_schema, load_study
from wireheading.study.reading import read_config

CONFIGS = sorted((ROOT / "config").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_config_of_the_repository_is_valid(path: Path) -> None:
    config = read_config(path)
    if "tasks" not in config:
        # It is laid over the study.
        whole = yaml.safe_load((ROOT / "config" / "config.yaml").read_text(encoding="utf-8"))
        update_config(whole, config)
        config = whole
    load_study(config)


def test_the_schema_in_the_repository_is_the_one_of_the_code() -> None:
    path = ROOT / "workflow" / "schemas" / "config.schema.json"
    assert path.read_text(encoding="utf-8") == json_schema(), f"run: python -m wireheading.study.config > {path}"


def test_every_key_is_described() -> None:
    def undescribed(schema: Mapping[str, Any], name: str) -> list[str]:
        return [
            f"{name}.{key}"
            for key, value in schema.get("properties", {}).items()
            if "description" not in value and "$ref" not in value
        ]

    schema = Study.model_json_schema()
    assert undescribed(schema, "Study") == []
    for name, section in schema["$defs"].items():
        assert section["description"], name
        assert undescribed(section, name) == []


def test_the_study_has_the_published_settings() -> None:
    study = load_study(yaml.safe_load((ROOT / "config" / "config.yaml").read_text(encoding="utf-8")))
    assert study.seeds == (42, 123, 456, 789)
    assert (study.rounds, study.temperature) == (500, 1.0)
    assert (study.lora.rank, study.lora.alpha) == (8, 32)
    assert (study.optimizer.lr, study.optimizer.clip_norm, study.optimizer.baseline_decay) == (2e-5, 1.0, 0.9)
    assert study.enabled_models == ["llama-3.1-8b", "mistral-7b", "gemma-2-9b"]
    off = {name: model for name, model in study.models.items() if not model.enabled}
    assert set(off) == {"llama-3.1-70b", "mistral-nemo-12b"}
    assert all(model.note and model.precision == "nf4" for model in off.values())
    assert len(study.runs()) == 3 * 3 * 5 * 4


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"roundz": 3}, ["roundz", "3", "unknown key"]),
        ({"optimizer__lrr": 0.1}, ["optimizer.lrr", "0.1", "unknown key"]),
        ({"rounds": "many"}, ["rounds", "many", "integer"]),
        ({"rounds": -5}, ["rounds", "-5", "greater than 0"]),
        ({"rounds": 0}, ["rounds", "0", "greater than 0"]),
        ({"optimizer__lr": -1.0}, ["optimizer.lr", "-1.0"]),
        ({"optimizer__lr": float("nan")}, ["optimizer.lr", "nan"]),
        ({"optimizer__lr": float("inf")}, ["optimizer.lr", "inf"]),
        ({"temperature": float("inf")}, ["temperature", "inf"]),
        ({"seeds": []}, ["seeds", "at least one"]),
        ({"seeds": [42, 42]}, ["seeds", "42", "distinct"]),
        ({"seeds": [-1]}, ["seeds", "-1"]),
        ({"seeds": 42}, ["seeds", "42"]),
        ({"seeds": [True]}, ["seeds", "True"]),
        ({"conditions": []}, ["conditions", "at least one"]),
        ({"conditions": ["selfgrades"]}, ["conditions", "selfgrades", "control, selfgrade, honest"]),
        ({"conditions": ["honest", "honest"]}, ["conditions", "'honest' is given twice", "distinct"]),
        ({"models": {}}, ["models", "at least one"]),
        ({"models": {"../x": {"source": "embedded"}}}, ["models", "'../x'", "lower-case letters"]),
        ({"models": {"..": {"source": "embedded"}}}, ["models", "'..'"]),
        ({"models": {"Big": {"source": "embedded"}}}, ["models", "'Big'", "lower-case letters"]),
        ({"models": {"big\n": {"source": "embedded"}}}, ["models", "lower-case letters"]),
        ({"models__tiny__precision": "int8"}, ["models.tiny.precision", "int8", "nf4"]),
        ({"models__tiny__enabled": False}, ["models", "enabled: true"]),
        ({"tasks": {}}, ["tasks", "at least one"]),
        ({"tasks__chess": demo()["tasks"]["sentiment"]}, ["tasks", "chess", "sentiment, arithmetic, summarization"]),
        ({"tasks__sentiment__prompt": "{txt}"}, ["tasks.sentiment.prompt", "txt", "text"]),
        ({"tasks__sentiment__prompt": "{text"}, ["tasks.sentiment.prompt", "{text"]),
        ({"tasks__sentiment__prompt": "{text.__class__}"}, ["tasks.sentiment.prompt", "text.__class__"]),
        ({"tasks__sentiment__response_tokens": 0}, ["tasks.sentiment.response_tokens", "0"]),
        ({"tasks__arithmetic__operands": {}}, ["tasks.arithmetic.operands"]),
        ({"tasks__arithmetic__operands": {"/": [1, 2]}}, ["tasks.arithmetic.operands", "'/'", "+, -, *"]),
        ({"tasks__arithmetic__operands": {"+": [5, 2]}}, ["tasks.arithmetic.operands", "[5, 2]", "low <= high"]),
        ({"tasks__sentiment__operands": {"+": [1, 2]}}, ["tasks.sentiment.operands"]),
        ({"engine__lockstep": ["seeds"]}, ["engine.lockstep", "seeds"]),
        ({"engine__lockstep": ["model"]}, ["engine.lockstep", "'model'", "'seed', 'task' or 'condition'"]),
        ({"engine__lockstep": ["seed", "seed"]}, ["engine.lockstep", "distinct"]),
        ({"engine__chunk": 0}, ["engine.chunk", "0"]),
        ({"evaluation__midway_rounds": [0]}, ["evaluation.midway_rounds", "0"]),
        ({"tasks__arithmetic__train_items": 1000}, ["tasks.arithmetic.operands", "1040", "fewer items"]),
        ({"results": "{seed}"}, ["results", "{seed}"]),
        ({"results": ""}, ["results"]),
        ({"optimizer__betas": [1.5, -3.0]}, ["optimizer.betas", "1.5", "less than 1"]),
        ({"optimizer__betas": [0.9, 1.0]}, ["optimizer.betas", "1.0", "less than 1"]),
        ({"optimizer__lr": True}, ["optimizer.lr", "True", "not true or false"]),
        ({"temperature": 1e-320}, ["temperature", "1e-320", "0.01"]),
        ({"lora__alpha": 10**300}, ["lora.alpha", "integer"]),
        ({"lora__rank": 10**6}, ["lora.rank", "1024"]),
        ({"seeds": [2**63]}, ["seeds", str(2**63)]),
        ({"engine__threads": 10**6}, ["engine.threads", "1024"]),
        ({"engine__evaluation_batch": 10**6}, ["engine.evaluation_batch", "10000"]),
        ({"analysis__onset_window": 10**9}, ["analysis.onset_window", "100000"]),
        ({"analysis__reliability_bins": 10**9}, ["analysis.reliability_bins", "1000"]),
        ({"tasks__sentiment__prompt_tokens": 10**9}, ["tasks.sentiment.prompt_tokens", "131072"]),
        ({"tasks__sentiment__train_items": 10**9}, ["tasks.sentiment.train_items", "1000000"]),
        ({"tasks__arithmetic__operands": {"+": [0, 10**400]}}, ["tasks.arithmetic.operands", "integer"]),
        ({"tasks__arithmetic__operands": {"+": [0, 10**9]}}, ["tasks.arithmetic.operands", "1000000"]),
        ({"tasks__sentiment__prompt": "{text:d}"}, ["tasks.sentiment.prompt", "{text:d}", "{text} alone"]),
        ({"tasks__sentiment__prompt": "{text!q}"}, ["tasks.sentiment.prompt", "{text!q}", "{text} alone"]),
        ({"tasks__sentiment__prompt": "{text:{text}}"}, ["tasks.sentiment.prompt", "{text} alone"]),
        ({"tasks__sentiment__prompt": "{text:>999999999}"}, ["tasks.sentiment.prompt", "{text} alone"]),
        ({"tasks__sentiment__prompt": "Hello"}, ["tasks.sentiment.prompt", "'Hello'", "must name {text}"]),
        ({"tasks__sentiment__prompt": "\ud800{text}"}, ["tasks.sentiment.prompt", "cannot be written"]),
        ({"models__tiny__source": "a\0b"}, ["models.tiny.source", "cannot be written"]),
        ({"grading_context": "fresh"}, ["tasks.sentiment.grading_prompt", "must name {response}"]),
        ({"results": "x'$(touch gone)'"}, ["results", "$(touch gone)", "only letters, digits"]),
        ({"reports": "a b"}, ["reports", "'a b'", "only letters, digits"]),
        ({"resources": "x" * 5000}, ["resources", "1000 characters"]),
        ({"resources": "x" * 300}, ["resources", "200 characters"]),
        ({"models": ["tiny"]}, ["models = ['tiny']", "enabled: false"]),
        ({"optimizer": 3}, ["optimizer = 3", "keys and values"]),
        ({"seeds": 42}, ["seeds = 42", "[42]"]),
        ({"partial": "perhaps"}, ["partial", "true or false"]),
        ({"seed": [1]}, ["seed", "unknown key", "did you mean seeds?"]),
        ({"optimizer__learning_rate": 1}, ["optimizer.learning_rate", "unknown key"]),
        ({"optimizer__beta": [0, 0]}, ["optimizer.beta", "did you mean optimizer.betas?"]),
        ({"lr": 1e-4}, ["lr = 0.0001", "did you mean optimizer.lr?"]),
        ({"tasks__sentiment__promt": "x"}, ["tasks.sentiment.promt", "did you mean tasks.sentiment.prompt?"]),
    ],
    ids=str,
)
def test_bad_values_are_told_in_one_line_that_names_key_value_and_remedy(
    changes: dict[str, Any], told: list[str]
) -> None:
    with pytest.raises(ConfigError) as raised:
        load_study(changed(**changes))
    text = str(raised.value)
    assert "\n" not in text
    for part in told:
        assert part in text, text


def test_a_number_that_python_would_not_print_is_told_by_its_key() -> None:
    with pytest.raises(ConfigError, match=r"^config: rounds: an integer of 20000 bits; write a smaller one$"):
        load_study(changed(rounds=2**20_000 - 1))


def test_a_missing_section_is_told_with_the_remedy() -> None:
    config = demo()
    del config["models"]
    with pytest.raises(ConfigError, match=r"^config: models: missing; .*--configfile$"):
        load_study(config)


def test_words_of_the_command_line_are_read_as_values() -> None:
    """What Snakemake finds nested in `--config` it hands over as text."""
    off = {"source": "embedded", "enabled": "false", "vram_gb": "null"}
    study = load_study(changed(models__other=off, tasks__sentiment__characters="null", partial="True"))
    assert study.enabled_models == ["tiny"]
    assert (study.models["other"].vram_gb, study.tasks["sentiment"].characters, study.partial) == (None, None, True)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "holds no settings"),
        ("[1, 2]", "holds no settings"),
        ("rounds: 1\nrounds: 2", "rounds is given twice"),
        ("optimizer: {lr: 1, lr: 2}", "lr is given twice"),
        ("rounds: [", "not YAML"),
        (f"rounds: {'9' * 5000}", "not YAML"),
        ("[" * 5000, "not YAML"),
    ],
    ids=lambda text: text[:20],
)
def test_a_file_that_is_no_configuration_is_told_in_one_line(tmp_path: Path, content: str, told: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError) as raised:
        read_config(path)
    assert "\n" not in str(raised.value)
    assert told in str(raised.value)
    assert str(path) in str(raised.value)


def test_a_digest_names_what_can_change_a_result_and_nothing_else() -> None:
    study = load_study(demo())
    run = Run(42, "tiny", "sentiment", "honest")
    digest = study.digest(run)
    assert re.fullmatch("[0-9a-f]{64}", digest)
    unchanged: list[dict[str, Any]] = [
        {"seeds": [42, 7]},
        {"conditions": ["honest"]},
        {"tasks__arithmetic__response_tokens": 9},
        {"engine": {"lockstep": [], "chunk": 3, "threads": 1}},
        {"results": "elsewhere"},
        {"models__tiny__note": "small"},
    ]
    for changes in unchanged:
        assert load_study(changed(**changes)).digest(run) == digest, changes
    other: list[dict[str, Any]] = [
        {"rounds": 399},
        {"optimizer__lr": 1e-4},
        {"tasks__sentiment__prompt": "{text}"},
        {"tasks__sentiment__heldout_items": 99},
        {"evaluation__midway_items": 9},
        {"models__tiny__revision": "v2"},
        {"embedded__seed": 1},
    ]
    digests = [load_study(changed(**changes)).digest(run) for changes in other]
    assert len({digest, *digests}) == 1 + len(other)
    assert len({study.digest(one) for one in study.runs()}) == len(study.runs())
