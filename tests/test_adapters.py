"""Trained adapters that are kept: what `PeftModel.from_pretrained` makes of them answers as the run did."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from test_lockstep import make_study, make_toy, run_all

from wireheading.check import check_records
from wireheading.engine.prompts import prompt_tokens
from wireheading.files import sha256_of
from wireheading.inputs.items import read_items
from wireheading.policy.model import load_model
from wireheading.policy.session import Completion, Session
from wireheading.study.paths import adapter_folder
from wireheading.tasks import TASKS


def test_a_kept_adapter_gives_the_records_greedy_answers_through_peft(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two seeds, their adapters loaded as anyone would."""
    make_toy(tmp_path)
    engine = make_study(tmp_path).engine.model_dump() | {"keep_adapters": True}
    study = make_study(tmp_path / "results", conditions=["coin"], engine=engine, optimizer={"lr": 0.1})
    decode, greedy = Session.decode, []

    def watched(self: Session, draws: Any, *rest: Any) -> list[Completion]:
        completions = decode(self, draws, *rest)
        if draws is None:
            greedy.append(completions)
        return completions

    monkeypatch.setattr(Session, "decode", watched)
    run_all(study, tmp_path)
    answers: dict[str, set[tuple[int, ...]]] = {}
    for run in study.runs():
        record = json.loads(study.record_path(run).read_bytes())
        folder = adapter_folder(study.record_path(run))
        assert record["adapter"] == {path.name: sha256_of(path) for path in sorted(folder.iterdir())}
        # In an order of its own, PEFT's set of names would give the file another digest in every process.
        names = json.loads((folder / "adapter_config.json").read_bytes())["target_modules"]
        assert names == sorted(names)
        model, chat = load_model(tmp_path / "model", "float32", torch.device("cpu"))
        tuned = peft.PeftModel.from_pretrained(model, folder).eval()
        forbidden = [token for token in chat.special_tokens.values() if token not in chat.stop_tokens]
        task = TASKS[run.task]
        items = read_items(tmp_path / "data" / run.task / "heldout.jsonl", run.task)
        # The last greedy batches are arithmetic's two, then sentiment's, each of two items for both seeds.
        first, second = greedy[-4:-2] if run.task == "arithmetic" else greedy[-2:]
        row = 2 * study.seeds.index(run.seed)
        evaluated = record["evaluations"][-1]
        accuracies = zip(items, [*first[row : row + 2], second[row]], evaluated["greedy_accuracies"], strict=True)
        for item, completion, accuracy in accuracies:
            tokens = list(prompt_tokens(study, run.task, chat, item))
            start = len(tokens)
            while len(tokens) - start < study.tasks[run.task].response_tokens and tokens[-1] not in chat.stop_tokens:
                with torch.no_grad():
                    logits = tuned(torch.tensor([tokens])).logits[0, -1]
                logits[forbidden] = -torch.inf
                tokens.append(int(logits.argmax()))
            assert tuple(tokens[start:]) == completion.tokens
            assert accuracy == int(task.accurate(task.evaluate(item, chat.text(completion.tokens))))
            answers.setdefault(item["id"], set()).add(completion.tokens)
    assert any(len(tokens) == 2 for tokens in answers.values()), "the seeds learnt the same, so this shows nothing"

    (folder / "adapter_config.json").write_text("{}")
    assert [finding.state for finding in check_records(study)].count("corrupt") == 1
