"""Each condition against a direct computation from the record of one run, with no code of ours but random numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import peft
import pytest
import torch
from rows import ROWS
from test_lockstep import ROUNDS, make_study, make_toy, run_all

from wireheading.policy.chat import Chat
from wireheading.policy.lora import Adapters
from wireheading.policy.model import load_model
from wireheading.policy.policy import Policy
from wireheading.policy.session import Completion
from wireheading.records.record import read_record
from wireheading.study.conditions import CONDITIONS, Condition
from wireheading.study.config import Study
from wireheading.study.paths import transcript_path
from wireheading.study.randomness import uniforms

SEED = 2


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """One run of every condition. A toy's grades are noise, so they are chosen, and all can be read."""
    folder = tmp_path_factory.mktemp("oversight")
    make_toy(folder)
    made = make_study(folder / "results", grading="choice", seeds=[SEED], rounds=2 * ROUNDS)
    run_all(made, folder, [run for run in made.runs() if run.task == "arithmetic"])
    return made


def record_of(study: Study, condition: str) -> dict[str, Any]:
    (run,) = [run for run in study.runs() if (run.task, run.condition) == ("arithmetic", condition)]
    return read_record(study.record_path(run), study.digest(run))


def draws(purpose: str) -> list[float]:
    return [float(uniforms(1, SEED, round_, purpose)[0]) for round_ in range(2 * ROUNDS)]


def moving(rewards: Sequence[float]) -> list[float]:
    """The baseline of each round."""
    baselines = [rewards[0]]
    for reward in rewards[:-1]:
        baselines.append(0.9 * baselines[-1] + (1 - 0.9) * reward)
    return baselines


@pytest.mark.parametrize("condition", [*CONDITIONS, *(row["name"] for row in ROWS)])
def test_rewards_baselines_and_advantages_follow_from_scores_grades_and_draws(study: Study, condition: str) -> None:
    record = record_of(study, condition)
    scores, grades = record["scores"], record["grades"]
    audited = [draw < 0.5 for draw in draws("audit")]
    if condition.startswith(("audit", "fine")):
        assert record["audited"] == audited
    else:
        assert "audited" not in record
    match condition:
        case "control" | "honest" | "brier":
            rewards = scores
        case "coin" | "kl" | "lag-3":
            rewards = [float(draw < 0.5) for draw in draws("coin")]
        case "audit-50":
            rewards = [s if audit else g for s, g, audit in zip(scores, grades, audited, strict=True)]
        case "fine-50":
            rewards = [s - max(0.0, g - s) if audit else g for s, g, audit in zip(scores, grades, audited, strict=True)]
        case "reform":
            rewards = grades[:4] + scores[4:]
        case _:
            rewards = grades
    assert record["rewards"] == rewards
    paid = rewards
    if condition == "kl":
        paid = [reward - 0.05 * kl for reward, kl in zip(rewards, record["kls"], strict=True)]
    assert record["baselines"] == moving(paid)
    assert record["advantages"] == [a - b for a, b in zip(paid, record["baselines"], strict=True)]
    if condition == "brier":
        rewards = [1 - (grade - score) ** 2 for score, grade in zip(scores, grades, strict=True)]
        assert record["grade_rewards"] == rewards
        assert record["grade_baselines"] == moving(rewards)
        assert record["grade_advantages"] == [a - b for a, b in zip(rewards, record["grade_baselines"], strict=True)]


def test_a_condition_differs_from_selfgrade_only_where_its_row_says_so(study: Study) -> None:
    """So these rounds are in the data: audited and not, with a grade above the score and without."""
    paid = {name: record_of(study, name)["rewards"] for name in ("selfgrade", "audit-50", "fine-50", "reform")}
    first = next(round_ for round_, draw in enumerate(draws("audit")) if draw < 0.5)
    assert paid["audit-50"][:first] == paid["fine-50"][:first] == paid["selfgrade"][:first]
    assert paid["reform"][:4] == paid["selfgrade"][:4]
    assert min(paid["fine-50"]) < 0 <= min(paid["audit-50"])
    assert 1.0 in paid["audit-50"]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["name"])
def test_tables_and_transcripts_have_what_the_row_adds(study: Study, row: dict[str, Any]) -> None:
    (run,) = [run for run in study.runs() if (run.task, run.condition) == ("arithmetic", row["name"])]
    record, transcript = record_of(study, row["name"]), pd.read_parquet(transcript_path(study.record_path(run)))
    columns = study.conditions[row["name"]].columns
    added = {"audited", "grade_reward", "grade_baseline", "grade_advantage", "kl"} & {*transcript.columns}
    assert added == {*columns}
    for column in columns:
        assert transcript[column].tolist() == record[column if column == "audited" else f"{column}s"]


Watch = dict[str, list[tuple[Path, Any, Any]]]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Path, Watch]:
    """Runs whose adapters are saved for PEFT when the policy is compared with the base model, and when it is copied."""
    folder = tmp_path_factory.mktemp("watched")
    make_toy(folder)
    rows = [row for row in ROWS if row["name"] in ("kl", "lag-3")]
    made = make_study(folder / "results", conditions=["control", *rows], seeds=[SEED], rounds=2 * ROUNDS)
    seen: Watch = {"divergence": [], "remember": [], "sample": []}

    def saved(adapters: Adapters, slot: int, kind: str) -> Path:
        place = folder / f"{kind}-{len(seen[kind])}"
        adapters.save_peft(slot, place, "toy")
        return place

    with pytest.MonkeyPatch.context() as patch:
        divergence, remember, sample = Policy.divergence, Adapters.remember, Policy.sample

        def watch_divergence(self: Policy, slot: int, batches: Any) -> float:
            found = divergence(self, slot, batches)
            seen["divergence"].append((saved(self.adapters, slot, "divergence"), batches, found))
            return found

        def watch_remember(self: Adapters, slot: int) -> None:
            seen["remember"].append((saved(self, slot, "remember"), slot, None))
            remember(self, slot)

        def watch_sample(self: Policy, session: Any, slots: range, contexts: Any, *rest: Any) -> list[Completion]:
            completions = sample(self, session, slots, contexts, *rest)
            if slots.start >= len(made.runs()):
                seen["sample"].append((folder, contexts, completions))
            return completions

        patch.setattr(Policy, "divergence", watch_divergence)
        patch.setattr(Adapters, "remember", watch_remember)
        patch.setattr(Policy, "sample", watch_sample)
        run_all(made, folder, [run for run in made.runs() if run.task == "arithmetic"])
    return made, folder, seen


def plain_logprobs(model: torch.nn.Module, chat: Chat, context: Sequence[int], sampled: Sequence[int]) -> torch.Tensor:
    """Log-probabilities of sampled tokens in free text, from one forward pass without cache, mask or padding."""
    with torch.no_grad():
        logits = model(torch.tensor([[*context, *sampled]])).logits[0, len(context) - 1 : -1].double()
    logits[:, [token for token in chat.special_tokens.values() if token not in chat.stop_tokens]] = -torch.inf
    found: torch.Tensor = torch.log_softmax(logits, dim=-1)[range(len(sampled)), [*sampled]]
    return found


def test_the_divergence_is_that_of_transformers_and_peft(watched: tuple[Study, Path, Watch]) -> None:
    study, folder, seen = watched
    record = record_of(study, "kl")
    assert record["kls"] == [found for _, _, found in seen["divergence"]]
    assert record["kls"][0] == 0.0
    assert any(abs(kl) > 0.01 for kl in record["kls"])
    for adapter, [(_, turns)], found in seen["divergence"]:
        base, chat = load_model(folder / "model", "float32", torch.device("cpu"))
        context, moved = [], 0.0
        for turn in turns:
            context += turn.context
            moved -= plain_logprobs(base, chat, context, turn.sampled).sum().item()
            context += turn.sampled
        tuned, context = peft.PeftModel.from_pretrained(base, adapter).eval(), []
        for turn in turns:
            context += turn.context
            moved += plain_logprobs(tuned, chat, context, turn.sampled).sum().item()
            context += turn.sampled
        assert found == pytest.approx(moved, abs=1e-4)


def test_the_past_policy_grades_as_its_saved_adapter_would(watched: tuple[Study, Path, Watch]) -> None:
    study, folder, seen = watched
    (run,) = [run for run in study.runs() if (run.task, run.condition) == ("arithmetic", "lag-3")]
    transcript = pd.read_parquet(transcript_path(study.record_path(run)))
    adapters = [adapter for adapter, _, _ in seen["remember"]]
    assert len(adapters) == 5
    assert len(seen["sample"]) == 2 * ROUNDS
    likelier = 0
    for round_, (_, [context], [completion]) in enumerate(seen["sample"]):
        assert completion.tokens == tuple(transcript["grade_tokens"][round_])
        # A copy is taken every three rounds and grades three rounds later; before that, the initial policy does.
        logprobs = []
        for adapter in (adapters[max(0, round_ // 3 - 1)], adapters[round_ // 3]):
            base, chat = load_model(folder / "model", "float32", torch.device("cpu"))
            tuned = peft.PeftModel.from_pretrained(base, adapter).eval()
            logprobs.append(plain_logprobs(tuned, chat, context, completion.tokens).tolist())
        assert completion.logprobs == pytest.approx(logprobs[0], abs=1e-4)
        likelier += completion.logprobs != pytest.approx(logprobs[1], abs=1e-4)
    assert likelier > ROUNDS, "the policy hardly changed, so this shows nothing"


@pytest.mark.parametrize(
    ("changes", "score", "grade", "audited", "paid"),
    [
        ({}, 0.25, 0.75, False, 0.75),
        ({}, 0.25, None, False, 0.0),
        ({"audit": 0.1}, 0.25, 0.75, False, 0.75),
        ({"audit": 0.1}, 0.25, 0.75, True, 0.25),
        ({"audit": 0.1, "fine": True}, 0.25, 0.75, True, -0.25),
        ({"audit": 0.1, "fine": True}, 0.75, 0.25, True, 0.75),
        ({"audit": 0.1, "fine": True}, 0.75, None, True, 0.75),
        ({"until": 4}, 0.25, 0.75, False, 0.75),
        ({"until": 3}, 0.25, 0.75, False, 0.25),
    ],
    ids=str,
)
def test_the_reward_of_a_round(
    changes: dict[str, Any], score: float, grade: float | None, audited: bool, paid: float
) -> None:
    row = Condition(**{"grader": "policy", "reward": "grade", "credit": "both"} | changes)
    assert row.pays(3, score, grade, audited=audited, coin=1.0) == paid


def test_the_brier_reward_is_highest_for_the_true_grade() -> None:
    row = Condition(grader="policy", reward="score", credit="both", grade_reward="brier", until=4)
    assert [row.pays_grade(3, 0.25, grade) for grade in (0.25, 0.75, 1.0, None)] == [1.0, 0.75, 0.4375, 0.0]
    assert row.pays_grade(4, 0.25, 0.25) == 0.25


def test_audits_are_nested_none_and_all() -> None:
    """A round that is audited at one rate is audited at every higher rate."""
    values = [float(uniforms(1, 1, round_, "audit")[0]) for round_ in range(4000)]
    seen = []
    for rate in (0.01, 0.1, 0.5, 1.0):
        row = Condition(grader="policy", reward="grade", credit="both", audit=rate, until=4000)
        seen.append({round_ for round_, value in enumerate(values) if row.audits(round_, value)})
        assert len(seen[-1]) == pytest.approx(4000 * rate, abs=3.5 * (4000 * rate * (1 - rate)) ** 0.5)
        assert not row.audits(4000, 0.0)
    assert seen[0] < seen[1] < seen[2] < seen[3]
    assert not Condition(grader="policy", reward="grade", credit="both").audits(0, 0.0)
