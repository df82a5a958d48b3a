"""Exports, each opened by the tool that it is for."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pyarrow.parquet as pq
import pytest
from analysis import made_up_evaluation, made_up_rounds
from configs import changed
from made_up import PROVENANCE, few_runs, write_runs
from workplace import CONFIG, Workplace

from wireheading import cli
from wireheading.errors import InputError
from wireheading.exports import adapters
from wireheading.exports.adapters import export_adapters
from wireheading.exports.curves import export_curves
from wireheading.exports.dataset import export_dataset
from wireheading.exports.inspect_logs import export_inspect
from wireheading.files import sha256_of
from wireheading.records.means import mean
from wireheading.records.record import make_record, write_record
from wireheading.records.transcripts import write_heldout
from wireheading.study.conditions import Condition
from wireheading.study.config import Run, Study, load_study
from wireheading.study.paths import adapter_folder, checkpoint_folder, heldout_path, transcript_path

FOLDERS = {"inspect": export_inspect, "datasets": export_dataset, "adapter": export_adapters}


def needs(module: str, extra: str) -> pytest.MarkDecorator:
    missing = importlib.util.find_spec(module) is None
    return pytest.mark.skipif(missing, reason=f"{module} is not installed: pip install -e '.[{extra}]'")


@pytest.fixture
def study(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> Study:
    """The finished study of a workplace, which is the working directory."""
    monkeypatch.chdir(workplace.folder)
    return load_study(CONFIG)


def record_of(study: Study, run: Run) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(study.record_path(run).read_bytes())
    return content


@pytest.mark.slow
@needs("inspect_ai", "inspect")
def test_inspect_reads_what_was_evaluated(study: Study, tmp_path: Path) -> None:
    from inspect_ai.log import bundle_log_dir, list_eval_logs, read_eval_log

    export_inspect(study, tmp_path / "logs", print)
    logs = list_eval_logs(str(tmp_path / "logs"))
    # Three evaluations of each run.
    assert len(logs) == 3 * len(study.runs())
    for run in study.runs():
        record = record_of(study, run)
        texts = pq.read_table(heldout_path(study.record_path(run))).to_pylist()
        for evaluation in record["evaluations"]:
            place = tmp_path.joinpath("logs", *map(str, run), f"round-{evaluation['round']:06d}.eval")
            log = read_eval_log(str(place))
            assert (log.status, log.eval.task, log.eval.created) == (
                "success",
                run.task,
                record["provenance"]["written"],
            )
            assert log.eval.task_args == {"condition": run.condition, "seed": run.seed, "round": evaluation["round"]}
            means = {score.name: score.metrics["mean"].value for score in log.results.scores if score.metrics}
            assert means.get("score") == mean(evaluation["scores"])
            assert means.get("grade") == mean(evaluation["grades"])
            unscored = {score.name: score.unscored_samples for score in log.results.scores}
            assert unscored["grade"] == evaluation["grades"].count(None)
            said = {row["item"]: row["response"] for row in texts if row["round"] == evaluation["round"]}
            assert {sample.id: sample.output.completion for sample in log.samples} == said
            assert [sample.scores["accuracy"].value for sample in log.samples] == evaluation["accuracies"]
            assert all(sample.target and sample.input for sample in log.samples)
    bundle_log_dir(log_dir=str(tmp_path / "logs"), output_dir=str(tmp_path / "page"))
    assert (tmp_path / "page" / "index.html").exists()


@needs("inspect_ai", "inspect")
def test_an_unreadable_grade_is_an_unscored_sample_in_inspect(tmp_path: Path) -> None:
    from inspect_ai.log import read_eval_log

    study = few_runs(
        tmp_path, resources=str(tmp_path / "resources"), evaluation={"midway_rounds": [], "midway_items": 2}
    )
    run = Run(1, "tiny", "sentiment", "selfgrade")
    rng = np.random.default_rng(0)
    texts = [{"response": "positive", "grade_text": "1", "base_grade_text": "1"}] * 4
    seen = [row | text for row, text in zip(made_up_evaluation(rng, 4), texts, strict=True)]
    seen[2] |= {"grade": None, "parse_status": "unreadable", "grade_text": "well", "original_grade": None}
    evaluations = {0: seen, study.rounds: seen}
    path, items = study.record_path(run), study.items_folder("sentiment") / "heldout.jsonl"
    items.parent.mkdir(parents=True)
    lines = [json.dumps({"id": row["item"], "text": "<b>Fine</b>", "label": "positive"}) + "\n" for row in seen]
    items.write_text("".join(lines))
    write_heldout(heldout_path(path), evaluations)
    record = make_record(
        study,
        run,
        inputs={"heldout.jsonl": sha256_of(items)},
        status="complete",
        problem=None,
        rows=made_up_rounds(rng, study.rounds, study.conditions[run.condition]),
        evaluations=evaluations,
        transcripts={heldout_path(path).name: sha256_of(heldout_path(path))},
        timing={"first_round": 0, "rounds": study.rounds, "seconds": 1.0, "evaluating_seconds": 1.0},
        provenance=PROVENANCE,
    )
    write_record(path, record)

    export_inspect(study, tmp_path / "logs", print)
    log = read_eval_log(str(tmp_path.joinpath("logs", *map(str, run), f"round-{study.rounds:06d}.eval")))
    graded = next(score for score in log.results.scores if score.name == "grade")
    assert (graded.scored_samples, graded.unscored_samples) == (3, 1)
    assert graded.metrics["mean"].value == mean([row["grade"] for row in seen])
    sample = log.samples[2]
    assert math.isnan(sample.scores["grade"].value)
    assert (sample.scores["grade"].reason, sample.scores["grade"].answer) == ("unreadable", "well")
    assert "<b>Fine</b>" in sample.input
    assert log.eval.viewer.trust_content is False

    items.write_text("".join(lines[::-1]))
    with pytest.raises(InputError, match="not the items of"):
        export_inspect(study, tmp_path / "again", print)
    assert not list(tmp_path.glob("*again*"))


@pytest.mark.slow
@needs("trackio", "trackio")
def test_trackio_has_the_curves_of_runs_that_are_finished_and_of_those_under_way(
    study: Study, workplace: Workplace, tmp_path: Path
) -> None:
    done, under_way = Run(42, "tiny", "sentiment", "selfgrade"), Run(123, "tiny", "sentiment", "selfgrade")
    rows = [{**dict.fromkeys(("score", "accuracy", "reward", "loss", "grad_norm"), 0.25), "grade": None}] * 2
    log = checkpoint_folder(study.record_path(under_way)) / f"{study.digest(under_way)[:16]}-00000000" / "rounds.jsonl"
    log.parent.mkdir(parents=True)
    # The last line is being written.
    log.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"score": 1')
    record = study.record_path(under_way).read_bytes()
    study.record_path(under_way).unlink()

    environment = os.environ | {"TRACKIO_DIR": str(tmp_path / "curves"), "HF_HUB_OFFLINE": "1"}

    def export() -> str:
        command = [sys.executable, "-m", "wireheading.cli", "export", str(tmp_path / "curves"), "--to", "trackio"]
        told = subprocess.run(
            [*command, "--configfile", "small.yaml"], env=environment, text=True, capture_output=True, check=True
        )
        return told.stderr

    def asked(*arguments: str) -> Any:
        command = [sys.executable, "-m", "trackio.cli", *arguments, "--project", "tiny-sentiment", "--json"]
        return json.loads(subprocess.run(command, env=environment, capture_output=True, check=True).stdout)

    def curve(run: str, metric: str) -> dict[int, float]:
        values = asked("get", "metric", "--run", run, "--metric", metric)["values"]
        return {value["step"]: value["value"] for value in values}

    export()
    assert asked("get", "run", "--run", "selfgrade-42")["config"]["_Group"] == "selfgrade"
    finished = record_of(study, done)
    assert curve("selfgrade-42", "reward") == dict(enumerate(finished["rewards"], 1))
    heldout = {seen["round"]: mean(seen["scores"]) for seen in finished["evaluations"]}
    assert curve("selfgrade-42", "heldout/score") == heldout
    assert curve("selfgrade-123", "loss") == {1: 0.25, 2: 0.25}

    # Once more: only what is new is added.
    study.record_path(under_way).write_bytes(record)
    assert "2 points added" in export()
    assert curve("selfgrade-123", "loss") == {1: 0.25, 2: 0.25, **dict(enumerate(json.loads(record)["losses"][2:], 3))}
    assert "0 points added" in export()

    # Another digest is another run.
    workplace.configure(optimizer={"lr": 0.001})
    new = load_study(CONFIG | {"optimizer": {"lr": 0.001}})
    log = checkpoint_folder(study.record_path(done)) / f"{new.digest(done)[:16]}-00000000" / "rounds.jsonl"
    log.parent.mkdir(parents=True)
    log.write_text(json.dumps(rows[0]) + "\n")
    export()
    assert curve("selfgrade-42", "reward") == {1: 0.25}


@pytest.mark.slow
def test_load_dataset_opens_all_that_was_written(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    export_dataset(study, tmp_path / "texts", print)
    for part, place in (("rounds", transcript_path), ("heldout", heldout_path)):
        loaded = datasets.load_dataset(str(tmp_path / "texts"), part, cache_dir=str(tmp_path / "cache"))
        assert set(loaded) == set(study.tasks)
        for run in study.runs():
            wanted = pq.read_table(place(study.record_path(run))).to_pylist()
            found = [
                {name: row[name] for name in wanted[0]}
                for row in loaded[run.task]
                if (row["seed"], row["model"], row["condition"]) == (run.seed, run.model, run.condition)
            ]
            assert found == wanted
    assert "Do not train on it unawares" in (tmp_path / "texts" / "README.md").read_text()


@pytest.mark.slow
def test_peft_loads_an_exported_adapter_with_its_card(study: Study, tmp_path: Path) -> None:
    import torch
    from huggingface_hub import ModelCard
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    export_adapters(study, tmp_path / "adapters", print)
    run = Run(42, "tiny", "sentiment", "selfgrade")
    folder = tmp_path.joinpath("adapters", *map(str, run))
    asked = torch.tensor([[5, 6, 7]])

    def logits(adapter: Path | None) -> Any:
        model = AutoModelForCausalLM.from_pretrained(study.model_folder("tiny"))
        with torch.no_grad():
            return (PeftModel.from_pretrained(model, adapter) if adapter else model)(asked).logits

    # Four rounds move few of the policies.
    moved = next(run for run in study.runs() if any(record_of(study, run)["advantages"]))
    exported = logits(tmp_path.joinpath("adapters", *map(str, moved)))
    assert torch.equal(exported, logits(adapter_folder(study.record_path(moved))))
    assert not torch.equal(exported, logits(None))
    card = ModelCard.load(folder / "README.md")
    assert card.data.library_name == "peft"
    assert "it was paid by its own grade, and may praise whatever it writes" in " ".join(card.text.split())
    evaluation = record_of(study, run)["evaluations"][-1]
    assert f"| {mean(evaluation['fixed_wrong_grades']):.2f} |\n" in card.text
    control = tmp_path.joinpath("adapters", *map(str, run._replace(condition="control")), "README.md").read_text()
    assert "may praise" not in control

    changed_file = adapter_folder(study.record_path(run)) / "adapter_config.json"
    changed_file.write_text("{}")
    with pytest.raises(InputError, match="not the one that its record names"):
        export_adapters(study, tmp_path / "again", print)


@pytest.mark.parametrize("to", FOLDERS)
def test_an_export_replaces_nothing(to: str, tmp_path: Path) -> None:
    if to == "inspect":
        pytest.importorskip("inspect_ai", reason="inspect_ai is not installed: pip install -e '.[inspect]'")
    study = few_runs(tmp_path)
    with pytest.raises(InputError, match="holds no run of this study"):
        FOLDERS[to](study, tmp_path / "new", print)
    assert not list(tmp_path.glob("*new*"))
    (tmp_path / "old").mkdir()
    with pytest.raises(InputError, match="exists; name a new folder"):
        FOLDERS[to](study, tmp_path / "old", print)


def test_cards_can_say_who_graded_and_what_was_paid() -> None:
    for field, words in (("reward", adapters.PAID), ("grader", adapters.GRADERS)):
        assert set(words) == set(get_args(get_type_hints(Condition)[field]))


def test_adapters_that_were_not_kept_are_missed(tmp_path: Path) -> None:
    study = few_runs(tmp_path)
    write_runs(study)
    with pytest.raises(InputError, match=r"engine\.keep_adapters: true"):
        export_adapters(study, tmp_path / "new", print)


@pytest.mark.parametrize(("module", "extra"), [("inspect_ai", "inspect"), ("trackio", "trackio")])
def test_a_missing_tool_is_named_with_what_installs_it(
    module: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name}", name=name.partition(".")[0])

    monkeypatch.setattr("wireheading.exports.common.importlib.import_module", missing)
    monkeypatch.setenv("TRACKIO_DIR", "")
    config = tmp_path / "study.yaml"
    config.write_text(json.dumps(changed(results=str(tmp_path / "results"))))
    assert cli.main(["export", str(tmp_path / "new"), "--to", extra, "--configfile", str(config)]) == 1
    assert f"{module}: not installed; pip install -e '.[{extra}]'" in capsys.readouterr().err


def test_curves_of_nothing_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", "")

    class Trackio:
        TRACKIO_DIR = tmp_path / "curves"

    monkeypatch.setattr("wireheading.exports.curves.tool", lambda *_: Trackio)
    with pytest.raises(InputError, match="holds no run of this study"):
        export_curves(few_runs(tmp_path), tmp_path / "curves", print)


def test_overwrite_is_for_published_results_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["export", str(tmp_path / "new"), "--to", "datasets", "--overwrite"])
    assert "--to datasets never replaces what exists" in capsys.readouterr().err
