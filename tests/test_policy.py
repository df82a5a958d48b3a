from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import peft
import pytest
import torch
from families import PLAIN, family_generation, family_tokenizer
from toys import toy_chat, toy_model

from wireheading.policy.allowed import AllowedTokens
from wireheading.policy.chat import Chat
from wireheading.policy.policy import Policy
from wireheading.policy.sampling import draw
from wireheading.policy.update import Turn, Width, lay_out, sampled_columns, teacher_forced
from wireheading.study.sections import LoraConfig, OptimizerConfig
from wireheading.tasks import TASKS

FAMILIES = ["llama", "mistral", "mistral-window", "gemma2", "qwen3"]
WIDTHS = [Width(8, 5), Width(7, 4)]


def make_policy(
    slots: int,
    *,
    family: str = "llama",
    dtype: torch.dtype = torch.float64,
    chunk: int = 4,
    lr: float = 1e-2,
    choices: Mapping[str, Sequence[Sequence[int]]] = MappingProxyType({}),
) -> Policy:
    policy = Policy(
        toy_model(family, dtype),
        toy_chat(),
        slots=slots,
        chunk=chunk,
        lora=LoraConfig(rank=3, alpha=7),
        optimizer=OptimizerConfig(lr=lr),
        temperature=0.8,
        choices=choices,
    )
    for slot in range(slots):
        policy.adapters.initialise(slot, seed=slot)
    return policy


def some_turns(rng: np.random.Generator, trained: tuple[bool, bool] = (True, True)) -> tuple[Turn, ...]:
    def tokens(most: int) -> tuple[int, ...]:
        return tuple(rng.integers(4, 200, rng.integers(1, most + 1)).tolist())

    return tuple(
        Turn(tokens(width.context), tokens(width.sampled), trained=turn_trained)
        for width, turn_trained in zip(WIDTHS, trained, strict=True)
    )


def allowed_logprobs(logits: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of a toy's tokens at the tests' temperature, without its special ones but the stop token."""
    special = torch.tensor([token for token in toy_chat().special_tokens.values() if token != 3])
    return torch.log_softmax((logits / 0.8).index_fill(-1, special, -torch.inf), dim=-1)


def stir(policy: Policy, seed: int = 0) -> None:
    """Gives every slot an adapter that does something."""
    torch.manual_seed(seed)
    policy.adapters.values.normal_(std=0.2)
    policy.adapters.publish(slice(None))


@pytest.mark.parametrize("family", FAMILIES)
def test_cached_sampling_and_the_update_see_the_same_policy_as_a_plain_forward_pass(family: str) -> None:
    policy = make_policy(3, family=family)
    stir(policy)
    slots = range(3)
    rng = np.random.default_rng(1)
    prompts = [tuple(rng.integers(4, 200, size).tolist()) for size in (8, 3, 5)]
    session = policy.open_session(3, 8 + 5 + 1 + 7 + 4)
    responses = policy.sample(session, slots, prompts, 8, [rng.random(5) for _ in slots], 5)
    suffixes = [tuple(rng.integers(4, 200, size).tolist()) for size in (2, 7, 4)]
    nexts = [(response.tokens[-1], *suffix) for response, suffix in zip(responses, suffixes, strict=True)]
    grades = policy.sample(session, slots, nexts, 8, [rng.random(4) for _ in slots], 4)
    for slot in slots:
        turns = (
            Turn(prompts[slot], responses[slot].tokens, trained=True),
            Turn(suffixes[slot], grades[slot].tokens, trained=True),
        )
        whole = torch.tensor([[token for turn in turns for token in turn.context + turn.sampled]])
        policy.adapters.select(range(slot, slot + 1))
        # Neither padding nor a cache nor a mask of ours.
        plain = allowed_logprobs(policy.model(whole, use_cache=False).logits[0])
        positions: list[int] = []
        at = 0
        for turn in turns:
            at += len(turn.context)
            positions += range(at, at + len(turn.sampled))
            at += len(turn.sampled)
        expected = plain[[p - 1 for p in positions], whole[0, positions]]
        sampled = torch.tensor(responses[slot].logprobs + grades[slot].logprobs, dtype=torch.float64)
        assert torch.allclose(sampled, expected, rtol=0, atol=1e-9)
        batch, columns = lay_out([turns], WIDTHS, 0, policy.allowed), sampled_columns(WIDTHS)
        forced = teacher_forced(policy.model, batch, columns, 0.8, policy.allowed)[0]
        assert torch.allclose(forced[batch.filled[0, columns]], expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("trained", [(True, True), (False, True)], ids=["both", "grade"])
def test_one_run_is_peft_and_torch_adamw(tmp_path: Path, trained: tuple[bool, bool]) -> None:
    """Loss, gradient norm and parameters over 20 updates, against the libraries that define them."""
    policy = make_policy(3)
    slot = 1
    policy.adapters.save_peft(slot, tmp_path / "start", "toy")
    oracle = peft.PeftModel.from_pretrained(toy_model(), tmp_path / "start", is_trainable=True)
    oracle.eval()
    parameters = {name: p for name, p in oracle.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(parameters.values(), lr=1e-2, weight_decay=0.01)
    rng = np.random.default_rng(0)
    base = {name: p.clone() for name, p in policy.model.named_parameters()}
    for _ in range(20):
        rows = [some_turns(rng, trained) for _ in range(3)]
        advantages = [float(value) for value in rng.normal(size=3)]
        step = policy.update(range(3), [(WIDTHS, rows)], list(advantages))[slot]

        tokens = [token for turn in rows[slot] for token in turn.context + turn.sampled]
        positions: list[int] = []
        at = 0
        for turn in rows[slot]:
            at += len(turn.context)
            positions += range(at, at + len(turn.sampled))
            at += len(turn.sampled)
        allowed = allowed_logprobs(oracle(torch.tensor([tokens])).logits[0])
        logprobs = allowed[[p - 1 for p in positions], [tokens[p] for p in positions]]
        credited = [turn.trained for turn in rows[slot] for _ in turn.sampled]
        loss = -advantages[slot] * logprobs[credited].mean()
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
        optimizer.step()

        assert step.loss == pytest.approx(loss.item(), rel=1e-8, abs=1e-10)
        assert step.grad_norm == pytest.approx(norm.item(), rel=1e-8)
        assert step.logprobs == pytest.approx(logprobs.tolist(), rel=1e-8)
    policy.adapters.save_peft(slot, tmp_path / "end", "toy")
    for name, value in peft.load_peft_weights(str(tmp_path / "end")).items():
        assert torch.allclose(value, parameters[name.replace(".weight", ".default.weight")], rtol=0, atol=1e-8), name
    for name, value in policy.model.named_parameters():
        assert torch.equal(value, base[name]), f"{name} moved"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_neighbours_change_no_bit(dtype: torch.dtype) -> None:
    """The same run among other neighbours, and among dummies, samples and learns the same bits."""

    def run(neighbours: int) -> list[object]:
        rng, mine = np.random.default_rng(neighbours), np.random.default_rng(0)
        policy = make_policy(5, dtype=dtype, chunk=2)
        seen: list[object] = []
        for _ in range(3):
            contexts = [tuple(rng.integers(4, 200, 6).tolist()) if neighbours else () for _ in range(5)]
            contexts[2] = tuple(mine.integers(4, 200, 5).tolist())
            draws = [rng.random(5) for _ in range(5)]
            draws[2] = mine.random(5)
            session = policy.open_session(5, 13)
            said = policy.sample(session, range(5), contexts, 8, draws, 5)[2]
            rows: list[tuple[Turn, ...]] = [some_turns(rng) if neighbours else () for _ in range(5)]
            rows[2] = (Turn(contexts[2], said.tokens, trained=True),)
            advantages: list[float | None] = [rng.normal() if neighbours else None for _ in range(5)]
            advantages[2] = 0.7
            step = policy.update(range(5), [(WIDTHS, rows)], advantages)[2]
            seen += [said, step, policy.adapters.values[2].numpy().tobytes()]
        return seen

    assert run(0) == run(1) == run(2)


def test_a_slot_that_is_not_updated_stays_as_it_is() -> None:
    policy = make_policy(3)
    rng = np.random.default_rng(0)
    rows = [some_turns(rng), some_turns(rng), some_turns(rng)]
    before = policy.adapters.state(1)
    policy.update(range(3), [(WIDTHS, rows)], [0.5, None, -0.5])
    assert all(torch.equal(before[name], value) for name, value in policy.adapters.state(1).items())
    assert int(policy.adapters.steps[0]) == 1
    assert not torch.equal(policy.adapters.values[0], make_policy(3).adapters.values[0])


def test_not_a_number_ends_one_run_and_leaves_its_neighbours_alone() -> None:
    rng = np.random.default_rng(0)
    rows = [some_turns(rng), some_turns(rng), some_turns(rng)]
    sound, broken = make_policy(3), make_policy(3)
    broken.adapters.values[1] = float("nan")
    broken.adapters.publish(slice(1, 2))
    advantages = [0.5, 0.5, -0.5]
    expected = sound.update(range(3), [(WIDTHS, rows)], list(advantages))
    steps = broken.update(range(3), [(WIDTHS, rows)], list(advantages))
    assert not steps[1].finite
    for slot in (0, 2):
        assert steps[slot] == expected[slot]
        assert torch.equal(broken.adapters.values[slot], sound.adapters.values[slot])
    said = broken.sample(broken.open_session(3, 9), range(3), [(5, 6)] * 3, 4, [np.full(5, 0.5)] * 3, 5)
    assert [sample.finite for sample in said] == [True, False, True]


def test_the_base_model_speaks_where_an_adapter_is_off() -> None:
    policy = make_policy(3)
    plain = policy.sample(policy.open_session(3, 9), range(3), [(5, 6)] * 3, 4, [np.full(5, 0.4)] * 3, 5)
    stir(policy)
    gated = policy.sample(
        policy.open_session(3, 9), range(3), [(5, 6)] * 3, 4, [np.full(5, 0.4)] * 3, 5, [True, False, True]
    )
    assert gated[1] == plain[1]
    assert gated[0] != plain[0]
    assert gated[2] != plain[2]


def test_a_restored_slot_goes_on_as_if_nothing_had_happened() -> None:
    rng = np.random.default_rng(0)
    batches = [[some_turns(rng) for _ in range(3)] for _ in range(4)]
    straight, broken = make_policy(3), make_policy(3)
    for policy in (straight, broken):
        for rows in batches[:2]:
            policy.update(range(3), [(WIDTHS, rows)], [0.5, -1.0, 0.2])
    state = broken.adapters.state(1)
    resumed = make_policy(3)
    resumed.adapters.restore(1, state)
    for rows in batches[2:]:
        straight.update(range(3), [(WIDTHS, rows)], [0.5, -1.0, 0.2])
        resumed.update(range(3), [(WIDTHS, rows)], [None, -1.0, None])
    assert torch.equal(straight.adapters.values[1], resumed.adapters.values[1])


def test_drawing_inverts_the_cumulative_distribution() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.0, 0.25, 0.25]], dtype=torch.float64))
    values = torch.tensor([0.0, 0.4999, 0.5, 0.7499, 0.75, 0.999999], dtype=torch.float64)
    none = torch.zeros((1, 4), dtype=torch.bool)
    tokens, logprobs, finite = draw(logits.expand(6, 4), values, 1.0, none)
    assert tokens.tolist() == [0, 0, 2, 2, 3, 3]
    assert torch.allclose(logprobs.exp(), torch.tensor([0.5, 0.5, 0.25, 0.25, 0.25, 0.25], dtype=torch.float64))
    assert not finite.any(), "a logit of minus infinity is not a finite one"


def test_special_tokens_are_never_sampled_nor_part_of_the_distribution() -> None:
    logits = torch.tensor([[5.0, 1.0, 9.0, 2.0]], dtype=torch.float64)
    blocked = torch.tensor([[False, False, True, True]])
    values = torch.linspace(0, 1, 1001, dtype=torch.float64)[:-1]
    tokens, logprobs, finite = draw(logits.expand(1000, 4), values, 1.0, blocked)
    assert set(tokens.tolist()) == {0, 1}
    assert logprobs[0].item() == pytest.approx(-np.log1p(np.exp(-4.0)))
    assert finite.all(), "what is blocked is finite all the same"
    assert draw(logits, None, 1.0, blocked)[0].tolist() == [0]

    policy = make_policy(2)
    # A model that would say nothing but the opening of a turn.
    policy.model.lm_head = torch.nn.Linear(32, len(policy.chat.tokenizer), dtype=torch.float64)
    policy.model.lm_head.bias.data.zero_()[1] = 50.0
    session = policy.open_session(2, 24)
    said = policy.sample(session, range(2), [(5,), (9, 9)], 4, [np.random.default_rng(5).random(20)] * 2, 20)
    session.restart()
    session.prefill([(5,), (9, 9)], 4)
    for sample in [*said, *session.decode(None, 20, 0.8)]:
        assert not {*sample.tokens} & ({*policy.chat.special_tokens.values()} - policy.chat.stop_tokens)


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2", "qwen3"])
def test_what_may_be_sampled_is_text_and_stop_tokens(family: str) -> None:
    chat = Chat(family_tokenizer(family), family_generation(family))
    size = len(chat.tokenizer)
    # Three logits more than there are tokens.
    allowed = (~AllowedTokens(chat, size + 3, torch.device("cpu"), {}).blocked[0]).nonzero().squeeze(1).tolist()
    assert set(allowed) == set(range(size)) - set(chat.special_tokens.values()) | chat.stop_tokens
    assert {chat.tokenizer.convert_tokens_to_ids(text) for text in PLAIN.get(family, [])} <= set(allowed)


def test_sampling_ends_at_stop_tokens_and_at_the_limit() -> None:
    policy = make_policy(2)
    policy.chat.stop_tokens = frozenset(range(4, 130))
    said = policy.sample(
        policy.open_session(2, 24), range(2), [(5,), (9, 9)], 4, [np.random.default_rng(5).random(20)] * 2, 20
    )
    for sample in said:
        assert sample.stopped
        assert sample.tokens[-1] in policy.chat.stop_tokens
        assert not set(sample.tokens[:-1]) & policy.chat.stop_tokens
    policy.chat.stop_tokens = frozenset([100_000])
    said = policy.sample(policy.open_session(2, 24), range(2), [(5,), (9, 9)], 4, [np.zeros(20), np.zeros(3)], 20)
    assert [(len(sample.tokens), sample.stopped) for sample in said] == [(20, False), (3, False)]


def test_plain_attention_is_what_transformers_computes() -> None:
    model = toy_model("gemma2")
    tokens = torch.randint(4, 200, (2, 30), generator=torch.Generator().manual_seed(0))
    ours = model(tokens, use_cache=False).logits
    model.set_attn_implementation("eager")
    # Their softmax is in float32, hence the tolerance.
    assert torch.allclose(ours, model(tokens, use_cache=False).logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_of_texts_are_products_of_their_tokens_probabilities(family: str) -> None:
    policy = make_policy(2, family=family)
    stir(policy)
    contexts = [(5, 6, 7), (8, 9, 10, 11, 12)]
    texts = [(20,), (20, 21), (20, 22, 23), (30, 31)]
    policy.adapters.select(range(2))
    session = policy.open_session(2, 16)
    session.prefill(contexts, 6)
    mark = session.mark()
    scores = session.score(texts, 0.8)
    assert torch.equal(session.score(texts, 0.8), scores), "scoring moves nothing"
    said = session.decode(None, 4, 0.8)
    session.rewind(mark)
    assert session.decode(None, 4, 0.8) == said
    for slot, context in enumerate(contexts):
        policy.adapters.select(range(slot, slot + 1))
        for text, score in zip(texts, scores[slot].tolist(), strict=True):
            logits = policy.model(torch.tensor([context + text]), use_cache=False).logits[0]
            probabilities = allowed_logprobs(logits).exp()[len(context) - 1 :]
            expected = probabilities[len(text), sorted(policy.chat.stop_tokens)].sum()
            for place, token in enumerate(text):
                expected = expected * probabilities[place, token]
            assert score == pytest.approx(expected.item(), rel=1e-9)


WRITTEN = [
    ("summarization", "1", 1.0),
    ("summarization", "1.0", 1.0),
    ("summarization", ".5", 0.5),
    ("summarization", "0.50", 0.5),
    ("sentiment", "0.", 0.0),
    ("arithmetic", "1.0", 1.0),
    ("arithmetic", "Yes.", 1.0),
]


@pytest.mark.parametrize(("task", "text", "grade"), WRITTEN)
def test_a_soft_grade_counts_every_way_of_writing_a_grade(task: str, text: str, grade: float) -> None:
    policy = make_policy(1)
    forward = policy.model.forward
    said = torch.tensor([*policy.chat.tokens(text), *policy.chat.stop_tokens])

    def says(position_ids: torch.Tensor, **others: Any) -> Any:
        """Says this text and nothing else, whatever stands at the place before."""
        output = forward(position_ids=position_ids, **others)
        wanted = said[position_ids[:, -output.logits.shape[1] :].clamp(max=len(said) - 1)]
        output.logits = 50.0 * torch.nn.functional.one_hot(wanted, output.logits.shape[-1]).double()
        return output

    policy.model.forward = says
    policy.select(range(1), adapted=True)
    session = policy.open_session(1, 64)
    session.prefill([(5,)], 1)
    texts = {policy.chat.tokens(way): value for value, ways in TASKS[task].GRADES.items() for way in ways}
    probabilities = session.score([*texts], 0.8)[0].tolist()
    soft = sum(probability * value for probability, value in zip(probabilities, texts.values(), strict=True))
    assert sum(probabilities) == pytest.approx(1.0)
    assert soft == pytest.approx(grade)


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_computing_activations_again_changes_no_bit(family: str) -> None:
    rng = np.random.default_rng(0)
    rows = [some_turns(rng) for _ in range(3)]
    kept, again = (
        Policy(
            toy_model(family),
            toy_chat(),
            slots=3,
            chunk=2,
            lora=LoraConfig(rank=2, alpha=8),
            optimizer=OptimizerConfig(lr=1e-2),
            temperature=0.8,
            activation_checkpointing=flag,
        )
        for flag in (False, True)
    )
    for policy in (kept, again):
        for slot in range(3):
            policy.adapters.initialise(slot, slot)
    for _ in range(2):
        steps = [policy.update(range(3), [(WIDTHS, rows)], [1.0, -0.5, 0.2]) for policy in (kept, again)]
        assert steps[0] == steps[1]
    assert torch.equal(kept.adapters.values, again.adapters.values)
