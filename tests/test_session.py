"""Sessions: which tokens are sampled, where completions end, and the scores of texts."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from families import PLAIN, family_generation, family_tokenizer
from policies import FAMILIES, allowed_logprobs, make_policy, stir
from torch import Tensor
from toys import toy_model
from transformers import PretrainedConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.models.llama.modeling_llama import eager_attention_forward

from wireheading.policy.allowed import AllowedTokens
from wireheading.policy.attention import attention
from wireheading.policy.chat import Chat
from wireheading.policy.masks import causal, group_of, model_mask, positions_of
from wireheading.policy.sampling import draw
from wireheading.policy.scoring import text_probabilities
from wireheading.policy.session import Session
from wireheading.tasks import TASKS


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
    # A model that would only sample the opening of a turn.
    policy.model.lm_head = torch.nn.Linear(32, len(policy.chat.tokenizer), dtype=torch.float64)
    policy.model.lm_head.bias.data.zero_()[1] = 50.0
    session = policy.open_session(2, 24)
    completions = policy.sample(session, range(2), [(5,), (9, 9)], 4, [np.random.default_rng(5).random(20)] * 2, 20)
    session.restart()
    session.prefill([(5,), (9, 9)], 4)
    for completion in [*completions, *session.decode(None, 20, 0.8)]:
        assert not {*completion.tokens} & ({*policy.chat.special_tokens.values()} - policy.chat.stop_tokens)


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
    completions = policy.sample(
        policy.open_session(2, 24), range(2), [(5,), (9, 9)], 4, [np.random.default_rng(5).random(20)] * 2, 20
    )
    for completion in completions:
        assert completion.stopped
        assert completion.tokens[-1] in policy.chat.stop_tokens
        assert not set(completion.tokens[:-1]) & policy.chat.stop_tokens
    policy.chat.stop_tokens = frozenset([100_000])
    completions = policy.sample(
        policy.open_session(2, 24), range(2), [(5,), (9, 9)], 4, [np.zeros(20), np.zeros(3)], 20
    )
    assert [(len(completion.tokens), completion.stopped) for completion in completions] == [(20, False), (3, False)]


@pytest.mark.parametrize("theirs", ["eager", "sdpa"])
@pytest.mark.parametrize("family", ["llama", "mistral-window", "qwen3", "own keys"])
def test_heads_that_share_keys_attend_as_in_transformers(family: str, theirs: str) -> None:
    """Six heads on two, or on six, with a mask with holes, and their gradients."""
    generator = torch.Generator().manual_seed(0)
    model: Any = toy_model("llama" if family == "own keys" else family)
    shared, rows, columns, size = 6 if family == "own keys" else 2, 3, 21, 8
    config = copy.deepcopy(model.config)
    config.num_attention_heads, config.num_key_value_heads = 6, shared
    filled = torch.rand(rows, columns, generator=generator) > 0.3
    positions = positions_of(filled)
    module = model.model.layers[0].self_attn
    module.num_key_value_groups = 6 // shared
    for first in (0, columns - 4, columns - 1):
        visible, asking = causal(filled, first, columns), positions[:, first:]
        mask = model_mask(config, torch.float64, visible, asking, positions)
        mask = mask["full_attention"] if isinstance(mask, dict) else mask
        if family == "mistral-window":
            visible = visible & (asking[:, :, None] - positions[:, None] < 9)
        queries = columns - first
        assert mask.shape == (rows, 1, queries * (6 // shared if queries > 1 else 1), columns)
        query, key, value = (
            torch.randn(rows, heads, many, size, dtype=torch.float64, generator=generator).requires_grad_()
            for heads, many in ((6, queries), (shared, columns), (shared, columns))
        )
        plain = torch.zeros(visible.shape, dtype=torch.float64).masked_fill(~visible, -torch.inf)[:, None]
        usual: Any = eager_attention_forward if theirs == "eager" else sdpa_attention_forward
        expected, _ = usual(module, query, key, value, plain, scaling=0.3, dropout=0.0)
        given = torch.randn(expected.shape, dtype=torch.float64, generator=generator)
        gradients = torch.autograd.grad(expected, (query, key, value), given)
        # Capped far above all scores, they are what they were.
        for cap, tolerance in ((None, 1e-12), (1e6, 1e-7)):
            attended, _ = attention(module, query, key, value, mask, 0.3, cap)
            # Theirs computes the softmax in float32.
            tolerance = max(tolerance, 1e-6 if theirs == "eager" else 0)
            assert torch.allclose(attended, expected, rtol=0, atol=tolerance)
            ours = torch.autograd.grad(attended, (query, key, value), given)
            for one, other in zip(ours, gradients, strict=True):
                assert torch.allclose(one, other, rtol=0, atol=tolerance * 10)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_with_exact_attention_is_that_of_transformers(family: str) -> None:
    """With masks of its own and of ours, for rows with holes, and with the gradient of what is fed."""
    model = toy_model(family)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(4, 200, (3, 30), generator=generator)
    filled = torch.rand(3, 30, generator=generator) > 0.2
    filled[:, -1] = True
    positions = positions_of(filled)
    fed = model.get_input_embeddings()(tokens).detach().requires_grad_()
    masked = model_mask(model.config, torch.float64, causal(filled, 0, 30), positions, positions)
    ours = model(inputs_embeds=fed, position_ids=positions, attention_mask=masked, use_cache=False).logits[:, -1]
    (gradient,) = torch.autograd.grad(ours.square().sum(), fed)
    unmasked = model(tokens, use_cache=False).logits
    model.set_attn_implementation("eager")
    assert torch.allclose(unmasked, model(tokens, use_cache=False).logits, rtol=0, atol=1e-5)
    for row, kept in enumerate(filled):
        own = fed[row : row + 1, kept].detach().requires_grad_()
        theirs = model(inputs_embeds=own, use_cache=False).logits[0, -1]
        # Their softmax is in float32, hence the tolerances.
        assert torch.allclose(ours[row], theirs, rtol=0, atol=1e-5)
        (expected,) = torch.autograd.grad(theirs.square().sum(), own)
        assert torch.allclose(gradient[row, kept], expected[0], rtol=1e-4, atol=1e-4)
        assert not gradient[row, ~kept].any()


def test_groups_of_heads_are_read_from_a_config() -> None:
    config: Any = PretrainedConfig()
    config.num_attention_heads = 6
    assert group_of(config) == 1
    config.num_key_value_heads = None
    assert group_of(config) == 1
    config.num_key_value_heads = 2
    assert group_of(config) == 3


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_of_texts_are_products_of_their_tokens_probabilities(family: str) -> None:
    policy = make_policy(2, family=family)
    stir(policy)
    contexts = [(5, 6, 7), (8, 9, 10, 11, 12)]
    texts = [(20,), (20, 21), (20, 22, 23), (30, 31)]
    policy.adapters.select(range(2))
    session = policy.open_session(2, 16)
    session.prefill(contexts, 6)
    greedy = session.decode(None, 4, 0.8)
    session.restart()
    scores = text_probabilities(session, contexts, 6, texts, 0.8)
    mark = session.mark()
    for one, other in zip(session.decode(None, 4, 0.8), greedy, strict=True):
        assert one.tokens == other.tokens, "scoring leaves nothing"
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-9)
    # A context is followed by others, as after a prefill.
    session.rewind(mark)
    again = text_probabilities(session, [(13,), (14, 15)], 2, texts, 0.8)
    session.restart()
    longer = [(*context, *more) for context, more in zip(contexts, [(13,), (14, 15)], strict=True)]
    assert torch.allclose(again, text_probabilities(session, longer, 8, texts, 0.8), rtol=1e-9, atol=0)
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
    written = torch.tensor([*policy.chat.tokens(text), *policy.chat.stop_tokens])

    def certain(position_ids: torch.Tensor, **others: Any) -> Any:
        """Gives all probability to this text, whatever the tokens before."""
        output = forward(position_ids=position_ids, **others)
        wanted = written[position_ids[:, -output.logits.shape[1] :].clamp(max=len(written) - 1)]
        output.logits = 50.0 * torch.nn.functional.one_hot(wanted, output.logits.shape[-1]).double()
        return output

    policy.model.forward = certain
    policy.select(range(1), adapted=True)
    session = policy.open_session(1, 64)
    texts = {policy.chat.tokens(way): value for value, ways in TASKS[task].GRADES.items() for way in ways}
    probabilities = text_probabilities(session, [(5,)], 1, [*texts], 0.8)[0].tolist()
    soft = sum(probability * value for probability, value in zip(probabilities, texts.values(), strict=True))
    assert sum(probabilities) == pytest.approx(1.0)
    assert soft == pytest.approx(grade)


def logits_after(session: Session, contexts: Sequence[Sequence[int]], width: int) -> Tensor:
    session.prefill(contexts, width)
    assert session.logits is not None
    return session.logits.clone()


def passes(session: Session, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """A list that receives the rows and columns of each pass."""
    seen: list[tuple[int, ...]] = []
    feed = session.feed

    def feeding(start: int, tokens: Tensor, *rest: Any) -> Tensor:
        seen.append(tuple(tokens.shape))
        return feed(start, tokens, *rest)

    monkeypatch.setattr(session, "feed", feeding)
    return seen


def test_a_decode_step_knows_between_which_columns_each_row_attends(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = make_policy(4)
    session = policy.open_session(4, 40)
    forward, seen = session._forward, 0

    def forwarding(tokens: Tensor, queries: Tensor, keys: Tensor, visible: Tensor, *rest: Any) -> Tensor:
        nonlocal seen
        if tokens.shape[1] == 1:
            seen += 1
            assert session.cache.bounds is session.bounds
            for row, (first, end) in enumerate(session.bounds.tolist()):
                columns = visible[row, 0].nonzero().squeeze(1).tolist()
                assert (first, end) == ((columns[0], columns[-1] + 1) if session.running[row] else (0, 0))
        return forward(tokens, queries, keys, visible, *rest)

    monkeypatch.setattr(session, "_forward", forwarding)
    # The last row is a dummy; in the second turn a row begins that was one in the first.
    for contexts in ([(5, 6, 7), (), (8,), ()], [(9,), (9, 9, 9), (9, 9), ()]):
        draws = [np.random.default_rng(row).random(limit) for row, limit in enumerate((6, 3, 2, 6))]
        policy.sample(session, range(4), contexts, 5, draws, 6)
    assert seen == 10


@pytest.mark.parametrize("family", FAMILIES)
def test_long_contexts_are_fed_in_passes_that_give_what_one_gives(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = make_policy(2, family=family)
    stir(policy)
    policy.select(range(2), adapted=True)
    contexts = [tuple(range(20, 50)), (9, 9, 8)]
    session = policy.open_session(2, 48)
    whole = logits_after(session, contexts, 30)
    # Two rows of at most eight columns.
    monkeypatch.setattr("wireheading.policy.session.MOST_WORK", 16 * session.parameters)
    fed = passes(session, monkeypatch)
    session.restart()
    assert torch.allclose(logits_after(session, contexts, 30), whole, rtol=0, atol=1e-9)
    assert fed == [(2, 8), (2, 8), (2, 8), (2, 6)]
    assert session.present.tolist() == [True, True]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_first_turn_that_slots_share_is_fed_once(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = make_policy(3, family=family)
    stir(policy)
    first, then = [(5, 6, 7), (8, 9, 10, 11)], [(20, 21), (22,), (23, 24), (25,), (26,), (27, 28)]
    session = policy.open_session(6, 16)
    policy.select(range(3), adapted=False)
    session.prefill(first * 3, 5)
    expected = logits_after(session, then, 2)
    session.restart()
    fed = passes(session, monkeypatch)
    policy.select(range(1), adapted=False)
    session.prefill(first, 5)
    policy.select(range(3), adapted=False)
    assert torch.allclose(logits_after(session, then, 2), expected, rtol=0, atol=1e-9)
    assert fed == [(2, 5), (6, 2)]
    with pytest.raises(ValueError, match="2 contexts for 6 rows can only be a first turn"):
        session.prefill(first, 5)


@pytest.mark.parametrize("family", FAMILIES)
def test_prompts_of_tasks_are_fed_in_their_own_columns_and_sampled_together(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = make_policy(3, family=family)
    stir(policy)
    contexts = [(5, 6, 7), (8,), (*range(20, 30),)]
    draws = [np.random.default_rng(slot).random(6) for slot in range(3)]
    session = policy.open_session(3, 32)
    whole = policy.sample(session, range(3), contexts, 12, draws, 6)
    session.restart()
    fed = passes(session, monkeypatch)
    parts = [(range(2), 4), (range(2, 3), 12)]
    apart = policy.sample(session, range(3), contexts, 12, draws, 6, parts=parts)
    assert fed == [(2, 4), (1, 12)]
    for one, other in zip(apart, whole, strict=True):
        assert one.tokens == other.tokens
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-9)
    # The next turn is everyone's again.
    assert policy.sample(session, range(3), [(9, 9)] * 3, 4, draws, 6) != whole
    assert fed[2] == (3, 4)


def test_texts_are_scored_the_same_a_few_rows_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = make_policy(3)
    stir(policy)
    policy.select(range(3), adapted=True)
    session = policy.open_session(3, 16)
    contexts, texts = [(5, 6, 7), (8,), (9, 10)], [(20,), (20, 21), (30, 31)]
    whole = text_probabilities(session, contexts, 6, texts, 0.8)
    session.restart()
    monkeypatch.setattr("wireheading.policy.scoring.LOGITS", 1)
    assert torch.equal(text_probabilities(session, contexts, 6, texts, 0.8), whole)
