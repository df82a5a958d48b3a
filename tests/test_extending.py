"""What the page says of a changed prompt, and of adding a model, a condition and a task, done as it says."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import yaml
from configs import ROOT, demo
from families import save_family

from wireheading.errors import ConfigError
from wireheading.pretraining.data import pretraining_items
from wireheading.study.config import Study, load_study
from wireheading.tasks import TASKS

PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")


def blocks(heading: str, language: str) -> list[str]:
    """The blocks of a language in a section."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(rf"^```{language}\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


def test_a_model_is_an_entry_of_the_config() -> None:
    entry = yaml.safe_load(blocks("Adding a model", "yaml")[0])
    study = yaml.safe_load((ROOT / "config" / "config.yaml").read_text(encoding="utf-8"))
    study["models"] |= entry["models"]
    assert set(entry["models"]) < set(load_study(study).enabled_models)


def test_a_condition_is_a_row_of_the_config() -> None:
    row = yaml.safe_load(blocks("Adding a condition", "yaml")[0])
    study = load_study(demo() | row)
    assert list(study.conditions) == ["control", "selfgrade", "audited"]
    selfgrade, audited = study.conditions["selfgrade"], study.conditions["audited"]
    assert audited.spec() == selfgrade.spec() | {"audit": 0.1}
    assert {run: study.digest(run) for run in study.runs() if run.condition == "selfgrade"}.items() <= {
        run: load_study(demo()).digest(run) for run in load_study(demo()).runs()
    }.items()


def test_a_changed_prompt_makes_its_own_task_stale_and_no_other() -> None:
    change = yaml.safe_load(blocks("Changing a prompt", "yaml")[0])
    old, config = load_study(demo()), demo()
    config["tasks"]["arithmetic"] |= change.pop("tasks")["arithmetic"]
    new = load_study(config | change)
    assert {run.task for run in old.runs() if old.digest(run) != new.digest(run)} == {"arithmetic"}
    assert old.record_path(old.runs()[0]) != new.record_path(old.runs()[0])


def test_the_new_task_tells_right_from_wrong() -> None:
    task: dict[str, Any] = {}
    exec(blocks("Adding a task", "python")[0], task)
    items = [{"id": name, "country": name, "capital": f"Capital of {name}"} for name in ("Peru", "Chile")]
    for item in items:
        assert task["evaluate"](item, task["gold_answer"](item)) == 1.0
        assert task["evaluate"](item, task["wrong_answer"](item, items)) == 0.0


def test_the_embedded_model_refuses_a_task_that_it_is_not_taught(monkeypatch: pytest.MonkeyPatch) -> None:
    task = types.ModuleType("capitals")
    exec(blocks("Adding a task", "python")[0], task.__dict__)
    monkeypatch.setitem(TASKS, "capitals", task)
    study = load_study(demo() | yaml.safe_load(blocks("Adding a task", "yaml")[0]))
    with pytest.raises(ConfigError, match=r"tasks\.capitals: the embedded model is taught .* from a hub or a folder"):
        pretraining_items(study)


@pytest.mark.slow
def test_a_task_is_a_file_and_a_line(tmp_path: Path) -> None:
    """The workflow, with the page's task, condition and model from a folder, from data to a record."""
    for name in ("workflow", "profiles", "config", "envs"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    tasks = tmp_path / "src" / "wireheading" / "tasks"
    (tasks / "capitals.py").write_text(blocks("Adding a task", "python")[0], encoding="utf-8")
    line = re.search(r'`("capitals": capitals,)`', PAGE)
    assert line is not None
    text = (tasks / "__init__.py").read_text(encoding="utf-8")
    text = text.replace("import arithmetic,", "import arithmetic, capitals,")
    text = text.replace("TASKS: dict[str, Task] = {\n", f"TASKS: dict[str, Task] = {{\n    {line[1]}\n")
    (tasks / "__init__.py").write_text(text, encoding="utf-8")

    capitals = ["Peru Lima", "France Paris", "Egypt Cairo", "Ghana Accra", "Japan Tokyo", "Italy Rome", "Kenya Nairobi"]
    capitals += ["Chile Santiago", "Cuba Havana", "Norway Oslo"]
    (tmp_path / "data" / "capitals").mkdir(parents=True)
    for split, part in (("train", capitals[:6]), ("test", capitals[6:])):
        rows = [dict(zip(("country", "capital"), pair.split(), strict=True)) for pair in part]
        path = tmp_path / "data" / "capitals" / f"{split}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    save_family(tmp_path / "qwen", "qwen3")
    model = yaml.safe_load(blocks("Adding a model", "yaml")[0])["models"]
    (name,) = model
    config = {
        "models": {name: model[name] | {"source": "./qwen", "precision": "float32"}},
        **yaml.safe_load(blocks("Adding a task", "yaml")[0]),
        **yaml.safe_load(blocks("Adding a condition", "yaml")[0]),
        "seeds": [1],
        "rounds": 2,
        "engine": {"threads": 1},
    }
    (tmp_path / "new.yaml").write_text(yaml.safe_dump(config))
    record = f"results/1/{name}/capitals/audited.json"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WIREHEADING_")}
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", record, "--configfile", "new.yaml"],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(tmp_path / "src"), "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"},
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    content = json.loads((tmp_path / record).read_text())
    assert content["status"] == "complete"
    assert content["spec"]["task"]["name"] == "capitals"
    assert content["spec"]["condition"]["audit"] == 0.1
    assert len(content["audited"]) == 2
    assert not Path(tmp_path / record).with_name("selfgrade.json").exists(), "no other run is done for it"


def test_the_table_of_memory_names_the_models_of_the_study() -> None:
    study: Study = load_study(yaml.safe_load((ROOT / "config" / "config.yaml").read_text(encoding="utf-8")))
    page = (ROOT / "docs" / "gpu.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([^`]+)` \| (\d+) GB \|", page, re.MULTILINE)
    assert dict(rows) == {name: f"{model.vram_gb:.0f}" for name, model in study.models.items()}
