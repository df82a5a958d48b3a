"""Models and data in the hub's layout through the whole workflow: fetched first, run without a network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from configs import ROOT
from families import save_family
from hub import COMMIT, serving
from hub_data import save_cnn, save_imdb

from wireheading.records.record import read_record
from wireheading.study.config import Run, Study, load_study

pytestmark = pytest.mark.slow

SECRET = "hf_this_must_not_be_told"
LIMITS = {"train_items": 5, "heldout_items": 3, "response_tokens": 4, "grade_tokens": 3}
CHAT = {"prompt_tokens": 160, "grading_prompt_tokens": 120, **LIMITS}


def snakemake(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the workflow in a folder, with a cache of its own and an account's token."""
    for name in ("workflow", "profiles", "config", "envs", "src"):
        if not (folder / name).exists():
            (folder / name).symlink_to(ROOT / name)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WIREHEADING_", "HF_"))}
    return subprocess.run(
        [sys.executable, "-m", "snakemake", *arguments],
        cwd=folder,
        env=kept | {"HF_HOME": str(folder / "hf"), "HF_TOKEN": SECRET} | environment,
        text=True,
        capture_output=True,
        check=False,
    )


def make_config(models: dict[str, dict[str, str]], **changes: object) -> dict[str, object]:
    return {
        "models": models,
        "tasks": {
            "sentiment": {"data": "data/imdb", "prompt": "{text} Good?", "grading_prompt": "Right? 1 or 0", **CHAT},
            "summarization": {
                "data": "data/cnn",
                "subset": "3.0.0",
                "prompt": "{text} In short:",
                "grading_prompt": "How good? 0.0 to 1.0",
                **CHAT,
            },
        },
        "conditions": ["selfgrade", "frozen"],
        "seeds": [1],
        "rounds": 2,
        "optimizer": {"lr": 0.01},
        "evaluation": {"midway_rounds": []},
        "engine": {"threads": 1, "evaluation_batch": 3},
    } | changes


def records(study: Study) -> list[str]:
    return [str(study.record_path(run)) for run in study.runs()]


def test_five_architectures_go_from_fetching_to_records_without_a_network(tmp_path: Path) -> None:
    save_imdb(tmp_path / "data" / "imdb")
    save_cnn(tmp_path / "data" / "cnn")
    for family in ("llama", "mistral", "gemma2", "qwen3"):
        save_family(tmp_path / "hub" / "org" / family, family)
    save_family(tmp_path / "hub" / "org" / "wide", "llama", wide=True)
    models = {
        "llama": {"source": "org/llama", "precision": "float32"},
        "mistral": {"source": "hub/org/mistral", "precision": "float32"},
        "gemma2": {"source": str(tmp_path / "hub" / "org" / "gemma2"), "precision": "bfloat16"},
        "qwen3": {"source": "./hub/org/qwen3", "precision": "float32"},
        "llama-nf4": {"source": "hub/org/wide", "precision": "nf4"},
    }
    config = make_config(models)
    (tmp_path / "real.yaml").write_text(yaml.safe_dump(config))
    study = load_study(config)
    common = ("--profile", "profiles/default", "--configfile", "real.yaml")

    inputs = [str(study.model_folder(name)) for name in models]
    items = [str(study.items_folder(task) / "train.jsonl") for task in study.tasks]
    with serving(tmp_path / "hub") as hub:
        fetched = snakemake(tmp_path, *inputs, *items, *common, HF_ENDPOINT=hub.address)
    assert fetched.returncode == 0, fetched.stdout + fetched.stderr
    done = snakemake(tmp_path, *records(study), *common, HF_ENDPOINT="http://127.0.0.1:1", HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stdout + done.stderr

    for run in study.runs():
        record = read_record(tmp_path / study.record_path(run), study.digest(run))
        assert record["status"] == "complete", run
        assert ("model_commit" in record["inputs"]) is (run.model == "llama")
        assert sum(name.endswith(".safetensors") for name in record["inputs"]) > 1
        # In 16 and in 4 bits the cached and the whole forward pass round differently.
        assert max(record["logprob_gaps"]) < (1e-3 if models[run.model]["precision"] == "float32" else 0.5), run
    assert read_record(tmp_path / records(study)[0], study.digest(study.runs()[0]))["inputs"]["model_commit"] == COMMIT
    for path in tmp_path.rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert SECRET.encode() not in path.read_bytes(), path
    assert SECRET not in fetched.stdout + fetched.stderr + done.stdout + done.stderr


def test_the_whole_study_is_planned(tmp_path: Path) -> None:
    planned = snakemake(tmp_path, "-n", "--profile", "profiles/default", HF_HUB_OFFLINE="1")
    assert planned.returncode == 0, planned.stderr
    told = planned.stdout + planned.stderr
    assert "records: 0 valid, 180 missing" in told
    assert "before: fetch llama-3.1-8b, mistral-7b, gemma-2-9b; freeze the items of sentiment, arithmetic, summ" in told
    study = load_study(yaml.safe_load((ROOT / "config" / "config.yaml").read_text(encoding="utf-8")))
    for name in study.enabled_models:
        memory = study.models[name].vram_gb
        assert f"{name}: 60 runs of 500 rounds in 4 jobs, each {memory:.0f} GB of a GPU, 32 GB of memory and at" in told
    assert "steps: 3 fetch_model, 3 freeze_data, 12 rl_run, 1 aggregate, 1 analyse, 1 figures" in told
    assert len(told.splitlines()) <= 10


def test_a_gated_model_without_access_stops_with_the_page_and_the_variable(tmp_path: Path) -> None:
    save_family(tmp_path / "hub" / "org" / "llama", "llama")
    (tmp_path / "real.yaml").write_text(yaml.safe_dump(make_config({"llama": {"source": "org/llama"}})))
    folder = load_study(yaml.safe_load((tmp_path / "real.yaml").read_text())).model_folder("llama")
    with serving(tmp_path / "hub", gated=frozenset({"org/llama"})) as hub:
        refused = snakemake(
            tmp_path, str(folder), "--profile", "profiles/default", "--configfile", "real.yaml", HF_ENDPOINT=hub.address
        )
        told = (
            "config: models.llama.source = 'org/llama': access is granted on request; ask for it at "
            f"{hub.address}/org/llama, then set HF_TOKEN to a token of that account\n"
        )
    assert refused.returncode == 1
    assert told in refused.stderr
    assert "Traceback" not in refused.stderr
    assert (tmp_path / "logs" / "fetch_model" / f"{folder.name}.log").read_text() == told
    assert SECRET not in refused.stdout + refused.stderr


@pytest.mark.parametrize("name", ["original", "quick", "smollm", "qwen"])
def test_the_other_studies_are_planned_with_results_of_their_own(tmp_path: Path, name: str) -> None:
    config = yaml.safe_load((ROOT / "config" / f"{name}.yaml").read_text(encoding="utf-8"))
    study = load_study(config)
    planned = snakemake(tmp_path, "-n", "--profile", "profiles/default", "--configfile", f"config/{name}.yaml")
    assert planned.returncode == 0, planned.stderr
    assert f"{len(study.runs())} missing" in planned.stdout + planned.stderr
    assert all(path.startswith(f"results/{name}/") for path in records(study))


def test_the_original_protocol_runs_on_a_toy(tmp_path: Path) -> None:
    """Plain prompts, a fixed order of items, published readers, a baseline from zero."""
    save_imdb(tmp_path / "data" / "imdb")
    save_family(tmp_path / "mistral", "mistral")
    config = yaml.safe_load((ROOT / "config" / "original.yaml").read_text(encoding="utf-8"))
    changes = {"data": "data/imdb", "train_items": 3, "heldout_items": 2, "characters": 30,
               "response_tokens": 4, "grading_prompt_tokens": 224}  # fmt: skip
    config |= {
        "models": {"toy": {"source": "./mistral", "precision": "float32"}},
        "tasks": {"sentiment": config["tasks"]["sentiment"] | changes},
        "seeds": [1, 2],
        "conditions": ["selfgrade"],
        "rounds": 5,
        "evaluation": {"midway_rounds": []},
        "engine": {"lockstep": ["seed"], "threads": 1},
    }
    (tmp_path / "real.yaml").write_text(yaml.safe_dump(config))
    study = load_study(config)
    done = snakemake(
        tmp_path, *records(study), "--profile", "profiles/default", "--configfile", "real.yaml", HF_HUB_OFFLINE="1"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    one, other = (read_record(tmp_path / study.record_path(run), study.digest(run)) for run in study.runs())
    items = [json.loads(line)["id"] for line in (tmp_path / study.items_folder("sentiment") / "train.jsonl").open()]
    assert one["items"] == other["items"] == [*items, *items[:2]]
    assert one["baselines"][0] == 0.0
    assert one["rewards"] == [grade or 0.0 for grade in one["original_grades"]]
    assert Run(**one["run"]) == study.runs()[0]
