"""The embedded model: a corpus that is right by construction, and a training that repeats itself."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random

import pytest
import torch
from configs import SMALL, changed
from transformers import AutoModelForCausalLM, AutoTokenizer

from wireheading.errors import ConfigError
from wireheading.inputs import corpus
from wireheading.inputs.items import freeze_items
from wireheading.pretraining.data import exact_grade, noisy_grade, pretraining_items
from wireheading.pretraining.optimizer import orthogonalised
from wireheading.pretraining.tokenizer import train_tokenizer
from wireheading.pretraining.training import train_model
from wireheading.study.config import Study, load_study
from wireheading.tasks import TASKS

pytestmark = pytest.mark.slow


def small_study() -> Study:
    return load_study(changed(embedded=SMALL))


def opinion(text: str) -> str:
    """A review's label, read by rule: the last clause's adjective, turned round by a negation."""
    clause = re.split(r"\bbut\b|\band\b", text.split(". ")[1])[-1]
    words = clause.rstrip(".").split()
    good = words[-1] in corpus.PRAISE
    assert good or words[-1] in corpus.BLAME
    negated = any(word in words for word in ("not", "never", "hardly"))
    return "positive" if good != negated else "negative"


def test_reviews_have_the_opinion_of_their_last_clause() -> None:
    items = corpus.generate_items("sentiment", 500, "test")
    assert [opinion(item["text"]) for item in items] == [item["label"] for item in items]
    assert sum(item["label"] == "positive" for item in items) == 250


def test_headlines_tell_the_lead_event_and_not_the_side_story() -> None:
    for item in corpus.generate_items("summarization", 300, "test"):
        who, event, where, what, when = item["reference"].split()
        sentences = re.split(r"(?<=\.) ", item["text"])
        lead = next(one for one in sentences if not one.startswith((*corpus.SIDE_OPENINGS, '"')))
        for word in (who.lower(), corpus.EVENTS[event], where, what, when):
            assert word in lead
            assert sum(word in one for one in sentences if one.startswith(corpus.SIDE_OPENINGS)) == 0


@pytest.mark.parametrize("task", ["sentiment", "arithmetic", "summarization"])
def test_wrong_answers_are_wrong(task: str) -> None:
    study, random = small_study(), Random(0)
    for item in freeze_items(task, study.tasks[task], 0)[0]:
        assert TASKS[task].evaluate(item, TASKS[task].gold_answer(item)) == 1.0
        score = TASKS[task].evaluate(item, corpus.wrong_answer(task, item, random))
        assert score <= (0.4 if task == "summarization" else 0.0) + 1e-9


def test_a_corpus_is_a_function_of_its_seed() -> None:
    assert corpus.generate_items("sentiment", 20, "a") == corpus.generate_items("sentiment", 30, "a")[:20]
    assert corpus.generate_items("sentiment", 20, "a") != corpus.generate_items("sentiment", 20, "b")


def test_the_model_never_saw_a_text_that_a_run_sees() -> None:
    study = small_study()
    seen = pretraining_items(study)
    for task in ("sentiment", "summarization"):
        used = {item["text"] for part in freeze_items(task, study.tasks[task], study.data_seed) for item in part}
        assert used.isdisjoint(item["text"] for item in seen[task])


def test_the_tokenizer_splits_digits_and_restores_any_text() -> None:
    tokenizer = train_tokenizer(["the mayor of Holt", "12 + 34 ="], 300)
    assert tokenizer.tokenize("1234") == ["1", "2", "3", "4"]
    for text in ("the mayor", "naïve — ≥ 3", "a\n b  c", "<b>&"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_grades_are_exact_or_noisy_at_their_rates() -> None:
    assert [exact_grade("arithmetic", score) for score in (0.0, 1.0)] == ["0", "1"]
    assert [exact_grade("summarization", score) for score in (0.0, 0.44, 1.0)] == ["0.0", "0.4", "1.0"]
    random = Random(0)
    grades = [noisy_grade("sentiment", 1.0, random) for _ in range(20_000)]
    assert grades.count("0") / len(grades) == pytest.approx(0.3, abs=0.01)
    assert sum(TASKS["sentiment"].read_grade(grade).value is None for grade in grades) / len(grades) == pytest.approx(
        0.01, abs=0.003
    )


@pytest.mark.parametrize("shape", [(16, 16), (8, 32), (32, 8)])
def test_newton_schulz_brings_singular_values_near_one(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    matrices = torch.randn(5, *shape)
    values = torch.linalg.svdvals(orthogonalised(matrices))
    assert values.min() > 0.4
    assert values.max() < 1.3
    # The singular vectors stay: it is the polar factor, roughly.
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    assert torch.einsum("bij,bij->b", orthogonalised(matrices), u @ v).min() > 0.8 * min(shape)


def test_training_repeats_itself_and_the_model_loads(tmp_path: Path) -> None:
    study = small_study()
    reports: list[str] = []
    for name in ("a", "b"):
        train_model(study, tmp_path / name, reports.append)
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (tmp_path / "b" / "model.safetensors").read_bytes()
    assert list(dict.fromkeys(line.split(" · ")[0] for line in reports))[:3] == ["skill", "noise", "calibration"]
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "a")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "a")
    assert 500_000 < sum(parameter.numel() for parameter in model.parameters()) < 700_000
    assert tokenizer.decode(tokenizer("1 + 1 =")["input_ids"]) == "1 + 1 ="
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_prompt_that_does_not_fit_stops_before_the_training(tmp_path: Path) -> None:
    study = load_study(changed(embedded=SMALL, tasks__sentiment__prompt_tokens=12))
    with pytest.raises(ConfigError, match=r"tasks\.sentiment\.prompt_tokens = 12"):
        train_model(study, tmp_path / "model", print)
    assert [*tmp_path.iterdir()] == []
