"""Evaluators: gold answers score 1.0, known-wrong ones 0.0, and tables of what models say in between."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from wireheading.inputs import corpus
from wireheading.tasks import TASKS, arithmetic, sentiment, summarization

# The same examples every time, however slow the machine.
STEADY = settings(derandomize=True, deadline=None)

POSITIVE = {"id": "p", "text": "A joy.", "label": "positive"}
NEGATIVE = {"id": "n", "text": "A bore.", "label": "negative"}
REFERENCE = "The mayor opened a bridge over the river on Monday"
NEWS = {"id": "s", "text": "It rained.", "reference": REFERENCE}


def question(text: str, answer: int) -> dict[str, Any]:
    return {"id": text, "question": text, "answer": answer}


SUM, DIFFERENCE, PRODUCT = question("45 + 23", 68), question("12 - 19", -7), question("54 * 77", 4158)

GOLD = [
    ("sentiment", POSITIVE),
    ("sentiment", NEGATIVE),
    ("arithmetic", SUM),
    ("arithmetic", DIFFERENCE),
    ("arithmetic", PRODUCT),
    ("arithmetic", question("7 - 7", 0)),
    ("summarization", NEWS),
    ("summarization", {"id": "l", "text": "", "reference": "Storm hits coast .\nTwo are hurt, say police's chiefs ."}),
]


@pytest.mark.parametrize(("task", "item"), GOLD)
def test_gold_answers_score_one_under_both_evaluators(task: str, item: dict[str, Any]) -> None:
    gold = TASKS[task].gold_answer(item)
    assert TASKS[task].evaluate(item, gold) == 1.0
    assert TASKS[task].evaluate_published(item, gold) == 1.0
    assert TASKS[task].accurate(1.0)
    assert not TASKS[task].accurate(0.0)


@pytest.mark.parametrize(("task", "item"), GOLD)
@pytest.mark.parametrize("response", ["", " ", "\n", "?", "...", "I do not know", "Yes", "Well done!", "\u2603"])
def test_empty_and_idle_responses_score_zero(task: str, item: dict[str, Any], response: str) -> None:
    assert TASKS[task].evaluate(item, response) == 0.0


def test_wrong_answers_score_zero_and_never_change() -> None:
    sums = arithmetic.generate_items({"+": (0, 12), "-": (0, 12), "*": (0, 12)}, 300, seed=0)
    for task, items in (("sentiment", [POSITIVE, NEGATIVE]), ("arithmetic", sums)):
        for item in items:
            wrong = TASKS[task].wrong_answer(item, items)
            assert wrong == TASKS[task].wrong_answer(dict(item), items[::-1])
            assert TASKS[task].evaluate(item, wrong) == 0.0
    assert len({int(TASKS["arithmetic"].wrong_answer(item, sums)) - item["answer"] for item in sums}) == 6


def test_the_wrong_summary_is_another_items_and_scores_far_lower() -> None:
    items = [{"id": name, "text": "", "reference": name} for name in ("red cat runs", "red cat runs", "blue dog sits")]
    assert [summarization.wrong_answer(item, items) for item in items] == [items[2]["reference"]] * 2 + ["red cat runs"]
    news = corpus.generate_items("summarization", 100, "wrong")
    scores = [summarization.evaluate(item, summarization.wrong_answer(item, news)) for item in news]
    assert sum(scores) / len(scores) < 0.2
    assert max(scores) < 0.9
    with pytest.raises(ValueError, match="no other item has another reference"):
        summarization.wrong_answer(items[0], items[:2])


@pytest.mark.parametrize("task", TASKS)
def test_fields_never_hold_the_gold_answer(task: str) -> None:
    for name, item in GOLD:
        if name == task:
            assert {*TASKS[task].FIELDS} <= {*item} - {"label", "answer", "reference"}


def test_importing_the_tasks_is_cheap() -> None:
    code = "import sys, wireheading.tasks; print(sorted({'numpy', 'rouge_score', 'nltk', 'torch'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# --- sentiment ---

# Text, and the label that it states.
SENTIMENTS: list[tuple[str, str | None]] = [
    # What real models wrote.
    ("This is a positive movie review.", "positive"),
    ("Positive film review", "positive"),
    ("This review is marked as positive because \u2026", "positive"),
    ("This review is positive but slightly negative.", "positive"),
    ("This review contains both positive and negative aspects. Positive aspects are praised", None),
    ("This is a mixed review", None),
    ("It is a mix of positive and negative, with a negative reading overall.", "negative"),
    ("It seems negative at first, but it is positive.", "positive"),
    ("It may sound negative, but it is positive.", "positive"),
    ("It looks positive on the surface, but it's actually negative.", "negative"),
    ("Positive. Sorry, I meant negative.", "negative"),
    ("The question is whether it is positive or negative. Therefore the answer is negative.", "negative"),
    ("There is nothing positive about it.", "negative"),
    # A label alone, dressed in various ways.
    ("Positive", "positive"),
    ("negative", "negative"),
    ("Positive.", "positive"),
    ("NEGATIVE!", "negative"),
    (" positive\n", "positive"),
    ("**Positive**", "positive"),
    ("_negative_", "negative"),
    ('"positive"', "positive"),
    ("<answer>negative</answer>", "negative"),
    ("Sentiment: **Negative**", "negative"),
    ("The answer is:\n\nPositive", "positive"),
    ("The review is positive.", "positive"),
    ("It's negative!", "negative"),
    ("This is a positive review.", "positive"),
    ("A NEGATIVE REVIEW", "negative"),
    ("expresses positive sentiment", "positive"),
    ("Positive (5/5)", "positive"),
    ("positive because the plot is good", "positive"),
    ("Negative - the film is not good", "negative"),
    ("Positive The review praises the cast", "positive"),
    ("The reviewer did not like the film and it is negative", "negative"),
    # A guess is an answer.
    ("probably negative", "negative"),
    ("positive, I think", "positive"),
    ("mixed, but mostly positive", "positive"),
    ("no doubt positive", "positive"),
    # The other label is denied, compared, asked for, or describes a part.
    ("The review is negative, not positive.", "negative"),
    ("Negative. Not positive.", "negative"),
    ("Not positive. Negative.", "negative"),
    ("not positive but negative", "negative"),
    ("It isn\u2019t positive, it\u2019s negative", "negative"),
    ("Positive, not negative", "positive"),
    ("negative rather than positive", "negative"),
    ("more negative than positive", "negative"),
    ("Is the review positive or negative? Negative.", "negative"),
    ("Negative. It starts with some positive remarks.", "negative"),
    ("Positive, despite some negative aspects", "positive"),
    ("Positive\n\nReview: A bore.\n\nSentiment: Negative", "positive"),
    # Both.
    ("positive and negative", None),
    ("positive or negative", None),
    ("negative/positive", None),
    ("Negative Positive", None),
    ("positive negative", None),
    ("negative, positive", None),
    ("It is positive about the cast but negative overall", "negative"),
    ("Both positive and negative.\n\nNegative", None),
    # Neither: a label denied does not affirm the other.
    ("It is neither positive nor negative", None),
    ("neither", None),
    ("neutral", None),
    ("mixed", None),
    ("Not positive", "negative"),
    ("Not negative", "positive"),
    ("not a positive review", "negative"),
    ("not very negative", "positive"),
    ("isn't really negative", "positive"),
    ("I don't think it is positive", "negative"),
    ("It cannot be called negative", "positive"),
    ("anything but positive", "negative"),
    ("far from negative", "positive"),
    ("less positive than negative", None),
    ("non-negative", "positive"),
    ("hard to say whether it is positive", None),
    ("Positive?", None),
    ("some negative remarks", None),
    ("good", None),
    ("thumbs up", None),
    ("4/5", None),
]


def test_the_tables_are_long_and_have_no_row_twice() -> None:
    for table in ([row[0] for row in SENTIMENTS], [(row[0]["id"], row[1]) for row in RESULTS]):
        assert len(set(table)) == len(table) >= 60


@pytest.mark.parametrize(("response", "label"), SENTIMENTS)
def test_sentiment(response: str, label: str | None) -> None:
    for item in (POSITIVE, NEGATIVE):
        assert sentiment.evaluate(item, response) == (item["label"] == label)


@STEADY
@given(
    st.lists(st.sampled_from([row[0] for row in SENTIMENTS] + ["and", "not", "\n\n", ","])).map(" ".join) | st.text()
)
def test_no_response_is_both_positive_and_negative(response: str) -> None:
    for evaluate in (sentiment.evaluate, sentiment.evaluate_published):
        assert evaluate(POSITIVE, response) + evaluate(NEGATIVE, response) in (0.0, 1.0)


@STEADY
@given(st.text(" \t\n*_`\"'()[]{}!.,:;~\u201c\u2026"), st.text(" \t\n*_`\"'()[]{}!.,:;~\u201c\u2026"))
def test_punctuation_and_markup_around_a_label_change_nothing(before: str, after: str) -> None:
    for item in (POSITIVE, NEGATIVE):
        assert sentiment.evaluate(item, before + item["label"].title() + after) == 1.0


# --- arithmetic ---

# Item, response, and its score.
RESULTS: list[tuple[dict[str, Any], str, int]] = [
    (SUM, "68", 1),
    (SUM, "68.", 1),
    (SUM, " 68\n", 1),
    (SUM, "+68", 1),
    (SUM, "= 68", 1),
    (SUM, "=> 68", 1),
    (SUM, "68.0", 1),
    (SUM, "68 apples", 1),
    (SUM, "**68**", 1),
    (SUM, "$68$", 1),
    (SUM, "\\boxed{68}", 1),
    (SUM, "<answer>68</answer>", 1),
    (SUM, "The answer is 68", 1),
    (SUM, "Answer:\n68. I added them.", 1),
    (SUM, "45 + 23 = 68", 1),
    (SUM, "45+23=68", 1),
    (SUM, "23 + 45 = 68", 1),
    (SUM, "45 + 23 is 68", 1),
    (SUM, "45 + 23 can only result in 68.", 1),
    (SUM, "78\n\nSorry, the answer is 68.", 1),
    (SUM, "Multiply 45 and 23 by 68", 0),
    (DIFFERENCE, "12 - 19 equals -7 because 19 - 12 equals 7.", 1),
    (SUM, "45 plus 23 is 68", 1),
    (SUM, "\\(45 + 23 = 68\\)", 1),
    (SUM, "45 + 23 = ?\n68", 1),
    (SUM, "68 = 45 + 23", 1),
    (SUM, "Adding 45 and 23 gives 68", 1),
    (SUM, "The sum of 45 and 23 is **68**.", 1),
    (SUM, "Add 23 to 45 to get 68", 1),
    # Working before and after the result, and further problems.
    (SUM, "45 + 23 = 40 + 20 + 5 + 3 = 60 + 8 = 68", 1),
    (SUM, "(40 + 20) + (5 + 3) = 68", 1),
    (SUM, "5 + 3 = 8, 40 + 20 = 60, 60 + 8 = 68", 1),
    (SUM, "First, 5 + 3 = 8. Then 40 + 20 = 60. So 68.", 1),
    (SUM, "Step 1: 5 + 3 = 8\n\nStep 2: 40 + 20 = 60\n\nThe answer is 68.", 1),
    (SUM, "1. 5 + 3 = 8\n2. 40 + 20 = 60\n3. 60 + 8 = 68", 1),
    (SUM, "8. 45 + 23 = 68", 1),
    (SUM, "8. 68", 0),
    (SUM, "Carry the 1. The answer is 68", 1),
    (SUM, "68 (carry the 1)", 1),
    (SUM, "68 because 5 + 3 is 8 and 40 + 20 is 60", 1),
    (SUM, "The answer is 68, because 5 + 3 is 8", 1),
    (SUM, "68\n12 + 5 = 17", 1),
    (SUM, "68\n\nProblem: 12 + 5 = ?\n\nAnswer: 17", 1),
    (SUM, "45 + 23 = 68\n2. 12 + 5 = 17", 1),
    (SUM, "45 + 23 = 78. Wait, 45 + 23 = 68", 1),
    (SUM, "It's 67. Wait, 68.", 1),
    (SUM, "67 is 45 + 22 and 45 + 23 is 68.", 1),
    (SUM, "Adding 45 and 23 yields a total of 68", 1),
    (SUM, 'The answer is "68."', 1),
    (SUM, "To add 45 and 23, we first take 5 and 3 and get 68. Then we", 0),
    (SUM, "<think>40 + 20 = 60, 5 + 3 = 8</think>\n\n68", 1),
    (SUM, "68, not 69", 1),
    # Wrong results, and working without one.
    (SUM, "69", 0),
    (SUM, "45", 0),
    (SUM, "23", 0),
    (SUM, "-68", 0),
    (SUM, "68.5", 0),
    (SUM, "680", 0),
    (SUM, "45 + 23 = 78", 0),
    (SUM, "45 + 23", 0),
    (SUM, "45 + 23 = 60 + 8", 0),
    (SUM, "34 + 34", 0),
    (SUM, "68 + 0", 0),
    (SUM, "45 + 23 = 68 = 70", 0),
    (SUM, "68. Wait, the answer is 70", 0),
    (SUM, "The answer is 68. The answer is 69.", 0),
    (SUM, "69, not 68", 0),
    # Several results, or none for certain.
    (SUM, "68 or 69", 0),
    (SUM, "69 or 68", 0),
    (SUM, "68, 69", 0),
    (SUM, "66 67 68", 0),
    (SUM, "68 and 69", 0),
    (SUM, "68-69", 0),
    (SUM, "68/69", 0),
    (SUM, "45 + 23 = 68 or 69", 0),
    (SUM, "It could be 67, maybe 68", 0),
    (SUM, "not 68", 0),
    (SUM, "The answer is not 68", 0),
    (SUM, "less than 68", 0),
    (SUM, "at least 68", 0),
    # No number, or a broken one.
    (SUM, "sixty-eight", 0),
    (SUM, "68%", 0),
    (SUM, "68th", 0),
    (SUM, "x68", 0),
    (SUM, "6.8e1", 0),
    (SUM, "068", 0),
    (SUM, "6 8", 0),
    (SUM, "6,8", 0),
    (SUM, "\u0666\u0668", 0),
    (PRODUCT, "4158", 1),
    (PRODUCT, "4,158", 1),
    (PRODUCT, "4,158.", 1),
    (PRODUCT, "4,158.0", 1),
    (PRODUCT, "54 * 77 = 4158", 1),
    (PRODUCT, "54*77=4158", 1),
    (PRODUCT, "54 x 77 = 4,158", 1),
    (PRODUCT, "77 \u00d7 54 = 4,158", 1),
    (PRODUCT, "\\(54 \\times 77 = 4158\\)", 1),
    (PRODUCT, "54 times 77 is 4158", 1),
    (PRODUCT, "41,58", 0),
    (PRODUCT, "4, 158", 0),
    (PRODUCT, "4 158", 0),
    (PRODUCT, "158", 0),
    (DIFFERENCE, "-7", 1),
    (DIFFERENCE, "\u22127", 1),
    (DIFFERENCE, "- 7", 1),
    (DIFFERENCE, "(-7)", 1),
    (DIFFERENCE, "**-7**", 1),
    (DIFFERENCE, "12 - 19 = -7", 1),
    (DIFFERENCE, "12 \u2212 19 = \u22127", 1),
    (DIFFERENCE, "12 - 19 = - 7", 1),
    (DIFFERENCE, "The answer is negative 7.", 1),
    (DIFFERENCE, "12 minus 19 is minus 7", 1),
    (DIFFERENCE, "Subtract 19 from 12 to get -7", 1),
    (DIFFERENCE, "-7, not 7", 1),
    (DIFFERENCE, "7", 0),
    (DIFFERENCE, "19 - 12 = 7", 0),
    (DIFFERENCE, "7 or -7", 0),
    (question("0 + 12", 12), "0 12", 0),
    (question("0 + 12", 12), "0 or 12", 0),
]


@pytest.mark.parametrize(("item", "response", "score"), RESULTS)
def test_arithmetic(item: dict[str, Any], response: str, score: int) -> None:
    assert arithmetic.evaluate(item, response) == score


RENDERINGS = [
    "{}",
    "{}.",
    "{}.0",
    "**{}**",
    "${}$",
    "\\boxed{{{}}}",
    "= {}",
    "{question} = {}",
    "{question} = {}.",
    "The answer is {}.",
    "The answer to {question} is **{}**.",
    "Answer: {}",
    "{} apples",
    "{}, because I worked it out.",
    "{}\n\nProblem: 1 + 1 = ?\nAnswer: 2",
]
OPERANDS = {"+": (0, 120), "-": (0, 120), "*": (0, 120)}
ITEMS = st.integers(0, 2**32).map(lambda seed: arithmetic.generate_items(OPERANDS, 1, seed)[0])


@STEADY
@given(ITEMS, st.sampled_from(RENDERINGS), st.booleans(), st.booleans(), st.integers(-20_000, 20_000))
@example(question("45 + 23", 68), "{}", False, False, -68)
def test_a_result_is_right_in_every_rendering_and_no_other_number_is(
    item: dict[str, Any], rendering: str, commas: bool, minus_sign: bool, other: int
) -> None:
    assume(other != item["answer"])

    def render(result: int) -> str:
        number = f"{result:,}" if commas else str(result)
        number = number.replace("-", "\u2212") if minus_sign else number
        return rendering.format(number, question=item["question"])

    assert arithmetic.evaluate(item, render(item["answer"])) == 1.0
    assert arithmetic.evaluate(item, render(other)) == 0.0


@STEADY
@given(ITEMS, st.integers(-20_000, 20_000))
def test_two_results_are_wrong_in_any_order(item: dict[str, Any], other: int) -> None:
    assume(other != item["answer"])
    for pair in ((item["answer"], other), (other, item["answer"])):
        for joined in (
            "{} or {}",
            "{}, {}",
            "{}; {}",
            "{} / {}",
            "{} or maybe {}",
            "The answer is {} or {}.",
        ):
            assert arithmetic.evaluate(item, joined.format(*pair)) == 0.0


@STEADY
@given(
    st.lists(st.sampled_from([row[1] for row in RESULTS] + ["+", "=", "or", "\n\n", "not"])).map(" ".join) | st.text()
)
@example("9" * 5000)
@example("1+" * 500 + "1")
@example("1.1." * 500 + "x")
@example("\u00b2")
def test_any_response_gets_a_score(response: str) -> None:
    for evaluate in (arithmetic.evaluate, arithmetic.evaluate_published):
        assert evaluate(SUM, response) in (0.0, 1.0)


def test_all_questions_of_the_ranges_are_there_once_and_right() -> None:
    items = arithmetic.generate_items({"+": (0, 12), "-": (0, 12), "*": (3, 5)}, 91 + 169 + 6, seed=0)
    unordered = set()
    for item in items:
        first, operator, second = re.fullmatch(r"(\d+) ([-+*]) (\d+)", item["question"]).groups()  # type: ignore[union-attr]
        terms = int(first), int(second)
        low, high = (3, 5) if operator == "*" else (0, 12)
        assert all(low <= term <= high for term in terms)
        assert item["answer"] == {"+": sum(terms), "-": terms[0] - terms[1], "*": terms[0] * terms[1]}[operator]
        assert item["id"] == item["question"]
        unordered.add((operator, terms if operator == "-" else tuple(sorted(terms))))
    assert len(unordered) == len(items)


def test_questions_depend_on_the_seed_and_not_on_the_order_of_operators() -> None:
    operands = {"+": (10, 99), "-": (10, 99), "*": (10, 99)}
    items = arithmetic.generate_items(operands, 600, seed=1)
    assert items == arithmetic.generate_items(dict(reversed(operands.items())), 600, seed=1)
    assert items != arithmetic.generate_items(operands, 600, seed=2)
    assert [item["question"] for item in items[:3]] == ["99 * 42", "77 - 54", "46 + 54"]
    counts = Counter(item["question"].split()[1] for item in items)
    # 4095, 8100 and 4095 questions: 151 and 298 of 600 expected, standard deviations of 10.5 and 12.2.
    assert abs(counts["+"] - 151) < 40
    assert abs(counts["-"] - 298) < 45
    sums = [item["question"].split() for item in items if "-" not in item["question"]]
    smaller_first = sum(int(first) < int(second) for first, _, second in sums)
    assert 0.35 < smaller_first / len(sums) < 0.65


def test_ranges_of_any_size_are_sampled_without_repetition() -> None:
    items = arithmetic.generate_items({"*": (0, 10**6)}, 1000, seed=0)
    assert len({item["id"] for item in items}) == 1000


def test_too_few_questions_are_an_error_that_names_the_key() -> None:
    with pytest.raises(ValueError, match=r"^tasks\.arithmetic\.operands = \{'\+': \(0, 2\)\}: only 6 .* 7 items .*$"):
        arithmetic.generate_items({"+": (0, 2)}, 7, seed=0)


# --- summarization ---

# Words that no stemmer changes.
WORDS = ["cat", "dog", "sun", "sky", "red", "map"]


def rouge_l(reference: list[str], response: list[str]) -> float:
    """F1 of the longest common subsequence, by its recursive definition."""
    lengths = {(-1, -1): 0}
    for i in range(-1, len(reference)):
        for j in range(-1, len(response)):
            if i < 0 or j < 0:
                lengths[i, j] = 0
            elif reference[i] == response[j]:
                lengths[i, j] = lengths[i - 1, j - 1] + 1
            else:
                lengths[i, j] = max(lengths[i - 1, j], lengths[i, j - 1])
    common = lengths[len(reference) - 1, len(response) - 1]
    return 2 * common / (len(reference) + len(response)) if common else 0.0


@STEADY
@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=12), st.lists(st.sampled_from(WORDS), max_size=12))
def test_a_summary_scores_its_rouge_l(reference: list[str], response: list[str]) -> None:
    item = {"id": "", "text": "", "reference": " ".join(reference)}
    score = pytest.approx(rouge_l(reference, response), abs=1e-12)
    assert summarization.evaluate(item, " ".join(response)) == score
    assert summarization.evaluate(item, ", ".join(response).upper() + ".") == score
    assert summarization.evaluate_published(item, " ".join(response)) == score


@STEADY
@given(st.text(), st.lists(st.sampled_from([*WORDS, "running", "runs", "Flies", "3,000", "it's", "\n"])), st.text())
def test_a_summarys_score_is_the_librarys_to_the_bit(reference: str, words: list[str], response: str) -> None:
    item = {"id": "", "text": "", "reference": " ".join([reference, *words])}
    said = " ".join([*words[::2], response, *words[1::2]])
    score = RougeScorer(["rougeL"], use_stemmer=True).score(item["reference"], said)["rougeL"].fmeasure
    assert summarization.evaluate(item, said) == score


@pytest.mark.parametrize("kept", range(11))
@pytest.mark.parametrize("added", range(6))
def test_words_kept_and_words_added(kept: int, added: int) -> None:
    response = " ".join([*REFERENCE.split()[:kept], *["zebra"] * added])
    assert summarization.evaluate(NEWS, response) == pytest.approx(2 * kept / (10 + kept + added), abs=1e-12)


@pytest.mark.parametrize(
    ("response", "strict", "published"),
    [
        ("The mayors opening a bridges over the river on Mondays", 1.0, 1.0),  # stems are compared
        ("THE MAYOR, opened: a bridge - over the river; on Monday!", 1.0, 1.0),
        ("**The mayor** opened a bridge over the river on Monday.", 1.0, 1.0),
        (f"Summary: {REFERENCE}", 20 / 21, 1.0),
        ("Summary:", 0.0, 0.0),
        ("zebra", 0.0, 0.0),
        ("1.0", 0.0, 0.0),
        ("\u6a4b", 0.0, 0.0),
        ("monday on river the over bridge a opened mayor the", 0.3, 0.3),  # order counts
    ],
)
def test_summaries(response: str, strict: float, published: float) -> None:
    assert summarization.evaluate(NEWS, response) == pytest.approx(strict, abs=1e-12)
    assert summarization.evaluate_published(NEWS, response) == pytest.approx(published, abs=1e-12)


@STEADY
@given(st.text(), st.text())
def test_any_summary_gets_a_score(reference: str, response: str) -> None:
    item = {"id": "", "text": "", "reference": reference}
    for evaluate in (summarization.evaluate, summarization.evaluate_published):
        assert 0 <= evaluate(item, response) <= 1


def test_a_summary_is_accurate_above_three_tenths() -> None:
    assert not summarization.accurate(0.3)
    assert summarization.accurate(0.3000001)
    assert [texts[0] for texts in summarization.GRADES.values()] == [f"{tenth / 10:.1f}" for tenth in range(11)]
