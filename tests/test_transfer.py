"""Transfer: policies grade the fixed answers of the tasks that they were not trained on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from configs import changed
from made_up import reseal
from test_lockstep import make_study, make_toy, run_all, same
from toys import toy_model

from wireheading.engine.evaluation import fixed_answers
from wireheading.engine.job import run_job
from wireheading.engine.memory import estimate
from wireheading.engine.prompts import grade_context, grade_texts, grading_tokens, prompt_tokens
from wireheading.engine.transfer import grade_fixed
from wireheading.errors import ConfigError, InputError
from wireheading.inputs.items import read_items
from wireheading.policy.chat import Chat
from wireheading.policy.model import load_model
from wireheading.records.record import RecordError, read_record
from wireheading.study.config import Run, Study, load_study
from wireheading.study.paths import adapter_folder

CONDITIONS = ["control", "frozen", "coin"]


def study_in(results: Path, **changes: Any) -> Study:
    asked = {"midway_rounds": [4], "midway_items": 2, "transfer": True}
    return make_study(results, **({"conditions": CONDITIONS, "seeds": [1], "evaluation": asked} | changes))


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    make_toy(folder)
    return folder


@pytest.fixture(scope="module")
def undisturbed(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    results = tmp_path_factory.mktemp("undisturbed")
    engine = make_study(results).engine.model_dump() | {"keep_adapters": True}
    study = study_in(results, engine=engine, optimizer={"lr": 0.1})
    run_all(study, toy)
    return study


def again(undisturbed: Study, results: Path) -> Study:
    return undisturbed.model_copy(update={"results": str(results)})


def recorded(study: Study, run: Run) -> dict[str, Any]:
    return read_record(study.record_path(run), study.digest(run))


@pytest.mark.parametrize("context", ["conversation", "fresh"])
def test_the_grades_are_those_of_the_kept_adapter_and_of_the_base_model_by_a_plain_forward_pass(
    undisturbed: Study, toy: Path, tmp_path: Path, context: str
) -> None:
    study = undisturbed
    if context == "fresh":
        tasks = {
            name: task | {"grading_prompt": "{response} ok?"} for name, task in study.model_dump()["tasks"].items()
        }
        study = study_in(
            tmp_path,
            engine=study.engine.model_dump(),
            optimizer={"lr": 0.1},
            grading_context="fresh",
            tasks={name: task | {"grading_prompt_tokens": 24} for name, task in tasks.items()},
        )
        run_all(study, toy)
    moved = 0
    for run in study.runs():
        record = recorded(study, run)
        (other,) = record["transfer"]
        assert {run.task, other} == set(study.tasks)
        model, chat = load_model(toy / "model", "float32", torch.device("cpu"))
        items = read_items(toy / "data" / other / "heldout.jsonl", other)
        texts = grade_texts(study, other, chat)

        contexts = []
        for item, answers in zip(items, fixed_answers(study, other, chat, items), strict=True):
            for name in ("gold", "wrong"):
                prompt = prompt_tokens(study, other, chat, item)
                grading = grading_tokens(study, other, chat, item, answers[name])
                contexts.append([*grade_context(study, prompt, answers[name], grading, goes_on=False)])
        found = record["transfer"][other]
        assert found["items"] == [item["id"] for item in items]
        for prefix in ("base_", ""):
            policy = (
                model
                if prefix
                else peft.PeftModel.from_pretrained(model, adapter_folder(study.record_path(run))).eval()
            )
            expected = [soft_grade(policy, chat, texts, context) for context in contexts]
            assert found[f"{prefix}gold_grades"] == pytest.approx(expected[0::2], abs=1e-4)
            assert found[f"{prefix}wrong_grades"] == pytest.approx(expected[1::2], abs=1e-4)
        moved += found["wrong_grades"] != pytest.approx(found["base_wrong_grades"], abs=1e-3)
    assert moved, "no policy learnt anything, so this shows nothing"


def soft_grade(policy: Any, chat: Chat, texts: Mapping[tuple[int, ...], float], context: list[int]) -> float:
    """The mean of grades weighted by their probabilities, each text in a forward pass of its own."""
    forbidden = [token for token in chat.special_tokens.values() if token not in chat.stop_tokens]
    masses = {}
    for text in texts:
        with torch.no_grad():
            logits = policy(torch.tensor([[*context, *text]])).logits[0, len(context) - 1 :]
        logits[:, forbidden] = -torch.inf
        logprobs = logits.double().log_softmax(-1)
        along = sum(float(logprobs[place, token]) for place, token in enumerate(text))
        masses[text] = torch.exp(along + logprobs[len(text), sorted(chat.stop_tokens)].logsumexp(-1)).item()
    return sum(texts[text] * mass for text, mass in masses.items()) / sum(masses.values())


@pytest.mark.parametrize("kept", [[1], [0, 4]])
def test_the_runs_of_one_task_alone_give_the_same_bytes(
    undisturbed: Study, toy: Path, tmp_path: Path, kept: list[int]
) -> None:
    study = again(undisturbed, tmp_path)
    runs = [study.runs()[index] for index in kept]
    run_all(study, toy, runs)
    same(study, undisturbed, runs)


@pytest.mark.parametrize("calls", [1, 2])
def test_a_job_killed_while_it_grades_goes_on_to_the_same_bytes(
    undisturbed: Study, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    study, grade = again(undisturbed, tmp_path), grade_fixed
    left = calls

    def killed(*arguments: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            raise KeyboardInterrupt
        return grade(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("wireheading.engine.lockstep.grade_fixed", killed)
        with pytest.raises(KeyboardInterrupt):
            run_all(study, toy)
    run_all(study, toy)
    same(study, undisturbed, study.runs())
    assert recorded(study, study.runs()[0])["timing"]["rounds"] == 0, "no round was done twice"


def test_grades_that_are_not_finite_end_the_run_as_diverged(
    undisturbed: Study, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, grade = again(undisturbed, tmp_path), grade_fixed

    def poisoned(*arguments: Any) -> Any:
        rows = grade(*arguments)
        rows[1][0]["finite"] = False
        return rows

    monkeypatch.setattr("wireheading.engine.lockstep.grade_fixed", poisoned)
    run_all(study, toy)
    record = recorded(study, study.runs()[1])
    assert record["status"] == "diverged"
    assert record["problem"] == "round 6: logits in the grading of other tasks' answers were not finite"
    assert "transfer" not in record
    same(study, undisturbed, study.runs()[:1])


def test_a_base_model_that_is_not_finite_ends_the_job_in_a_line(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_in(tmp_path)
    monkeypatch.setattr("wireheading.engine.transfer.mean_grades", lambda rows, _: [(None, float("nan"))] * len(rows))
    with pytest.raises(InputError, match="held-out items of sentiment are not finite") as caught:
        run_all(study, toy, study.runs()[:1])
    assert "\n" not in str(caught.value)


def test_a_record_names_the_items_that_it_was_graded_on(undisturbed: Study) -> None:
    record = recorded(undisturbed, Run(1, "toy", "arithmetic", "control"))
    other = recorded(undisturbed, Run(1, "toy", "sentiment", "control"))
    assert record["inputs"]["sentiment.heldout.jsonl"] == other["inputs"]["heldout.jsonl"]
    assert "sentiment.train.jsonl" not in record["inputs"]


def test_the_settings_of_all_tasks_are_part_of_the_digest_only_where_transfer_is_asked_for(tmp_path: Path) -> None:
    def digests(**changes: Any) -> list[str]:
        study = study_in(tmp_path, **changes)
        return [study.digest(run) for run in study.runs()]

    with_transfer, without = digests(), digests(evaluation={"midway_rounds": [4], "midway_items": 2})
    assert without == digests(evaluation={"midway_rounds": [4], "midway_items": 2, "transfer": False})
    assert not set(with_transfer) & set(without)
    spec = json.dumps(make_study(tmp_path).spec(make_study(tmp_path).runs()[0]))
    assert "transfer" not in spec, "a record of a study that does not ask for it keeps its digest"
    tasks = study_in(tmp_path).model_dump()["tasks"]
    tasks["sentiment"]["prompt"] = "{text}??"
    assert not set(with_transfer) & set(digests(tasks=tasks))
    plain = digests(tasks=tasks, evaluation={"midway_rounds": [4], "midway_items": 2})
    assert plain[:3] == without[:3], "without transfer a task's prompt is its own affair"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            b'{"sentiment": {"items": ["s5", ',
            b'{"sentiment": {"items": [',
            "transfer.sentiment.gold_grades has 3 values",
        ),
        (b'{"sentiment": {"items"', b'{"arithmetic": {"items"', "transfer has arithmetic and not sentiment"),
        (b'"wrong_grades": [', b'"wrong_grades": [7.0, ', "is not valid"),
    ],
)
def test_a_record_whose_transfer_does_not_fit_is_refused(
    undisturbed: Study, toy: Path, tmp_path: Path, old: bytes, new: bytes, told: str
) -> None:
    study, run = again(undisturbed, tmp_path), undisturbed.runs()[0]
    path = study.record_path(run)
    path.parent.mkdir(parents=True)
    path.write_bytes(undisturbed.record_path(run).read_bytes())
    assert old in path.read_bytes()
    reseal(path, old, new)
    with pytest.raises(RecordError, match=told):
        recorded(study, run)


def test_one_task_alone_has_no_others(tmp_path: Path) -> None:
    tasks = study_in(tmp_path).model_dump()["tasks"]
    with pytest.raises(ConfigError, match=r"evaluation\.transfer = true: there is one task alone"):
        study_in(tmp_path, tasks={"sentiment": tasks["sentiment"]})


def test_a_job_of_one_task_reads_the_items_of_the_others(undisturbed: Study, toy: Path, tmp_path: Path) -> None:
    study = again(undisturbed, tmp_path)
    runs = [run for run in study.runs() if run.task == "sentiment"]
    data = {task: toy / "data" / task for task in study.tasks}
    run_job(study, runs, runs[:1], toy / "model", data, lambda _: None, lambda _: None)
    assert recorded(study, runs[0])["transfer"]["arithmetic"]["items"] == ["a5", "a6", "a7"]


@pytest.mark.slow
def test_the_estimate_of_memory_counts_the_longest_task_that_is_graded() -> None:
    """A job of reviews alone, whose policies also grade summaries of long articles."""

    def evaluation(**changes: Any) -> int:
        config = changed(seeds=[1], engine__evaluation_batch=2, tasks__summarization__prompt_tokens=400, **changes)
        study = load_study(config)
        axes = [run for run in study.runs() if run.task == "sentiment"]
        return estimate(study, axes, toy_model().config).evaluation

    without = evaluation(evaluation__transfer=False)
    assert evaluation(evaluation__transfer=True) > 2 * without


def test_a_run_that_grades_other_tasks_is_redone_from_its_record(undisturbed: Study, toy: Path) -> None:
    from redo import redo

    run = next(run for run in undisturbed.runs() if run.condition == "coin")
    (row,) = redo(undisturbed.record_path(run), toy / "model", toy / "data", 1, "float32", 1)
    assert (row["unequal"], row["same"]) == ("", row["tokens"])
