"""The embedded corpus: reviews and news items made in code, and the wrong answers that pre-training needs.

Every text is built from a seed and is right by construction: a review's label is the opinion of its last clause, which
a negation turns round and a "but" sets against the one before; a news item's reference is a headline of five words, one
for each slot of the lead event, among distractors of the same words.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Set
from random import Random

from wireheading.tasks import TASKS, Item, arithmetic

OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul}

ASPECTS = ("plot", "acting", "music", "script", "cast", "ending", "story", "pacing", "dialogue", "scenery")
PRAISE = ("good", "great", "clever", "fresh", "funny", "moving", "lovely", "superb")
BLAME = ("bad", "dull", "weak", "clumsy", "boring", "stale", "silly", "awful")
PLAIN_VERBS = ("was", "was very", "was quite", "was really")
NEGATIONS = ("was not", "was never", "was hardly")
OPENINGS = ("I saw it on Monday.", "We watched it last night.", "My sister chose this film.", "It runs for two hours.")
NEUTRAL_CLOSINGS = ("It was shot in two towns.", "The hall was half full.", "We took the bus home.")
PRAISING_CLOSINGS = ("I would see it again.", "It is worth the price.")
BLAMING_CLOSINGS = ("I left before the end.", "I want my money back.")

WHO = ("mayor", "council", "school", "museum", "bank", "club", "farmer", "hotel", "zoo", "theatre")
EVENTS = {
    "opens": "opened",
    "sells": "sold",
    "builds": "built",
    "closes": "closed",
    "buys": "bought",
    "paints": "painted",
    "repairs": "repaired",
    "rents": "rented",
}
WHERE = ("Westford", "Holt", "Norwood", "Ashby", "Milton", "Dover", "Selby", "Marlow", "Kendal", "Wells")
WHAT = ("bridge", "park", "market", "tower", "pool", "garden", "station", "boat", "barn", "clock")
WHEN = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
HEADLINE = (tuple(word.capitalize() for word in WHO), tuple(EVENTS), WHERE, WHAT, WHEN)
"""The words of each of a headline's five slots."""
QUOTES = ("It took us a year", "We are very proud", "Nobody expected this", "The price was fair")
SIDE_OPENINGS = ("Elsewhere", "In other news")


def generate_items(task_name: str, count: int, seed: str, avoid: Set[str] = frozenset()) -> list[Item]:
    """Makes items of a task that has embedded data.

    Args:
        task_name: `sentiment` or `summarization`.
        count: Number of items.
        seed: Names the stream of random numbers. Items of one seed begin alike, whatever their number.
        avoid: Texts that must not occur.

    Returns:
        Items with distinct texts: `{"id", "text", "label"}`, with as many positive as negative ones, or
        `{"id", "text", "reference"}`.
    """
    make = MAKERS[task_name]
    random = Random(f"{task_name}/{seed}")
    seen = set(avoid)
    items: list[Item] = []
    while len(items) < count:
        fields = make(random, len(items))
        if fields["text"] not in seen:
            seen.add(fields["text"])
            items.append({"id": f"{task_name}-{len(items)}", **fields})
    return items


def all_sums(operands: Mapping[str, tuple[int, int]]) -> list[Item]:
    """Every sum, difference and product of operands in the given ranges, for each operator."""
    return [
        {"id": (question := f"{first} {sign} {second}"), "question": question, "answer": OPERATORS[sign](first, second)}
        for sign, (low, high) in operands.items()
        for first in range(low, high + 1)
        for second in range(low, high + 1)
    ]


def wrong_answer(task_name: str, item: Item, random: Random) -> str:
    """A response of the right form that is wrong, or for a summary mostly wrong."""
    gold = TASKS[task_name].gold_answer(item)
    if task_name == "sentiment":
        return "negative" if gold == "positive" else "positive"
    if task_name == "arithmetic":
        return str(int(gold) + random.choice(arithmetic.SLIPS))
    words = gold.split()
    for slot in random.sample(range(len(words)), random.randint(3, len(words))):
        words[slot] = random.choice([word for word in HEADLINE[slot] if word != words[slot]])
    return " ".join(words)


def _review(random: Random, index: int) -> dict[str, str]:
    good = index % 2 == 0
    first, last = random.sample(ASPECTS, 2)
    if random.random() < 0.5:
        body = f"{_clause(random, first, not good)}, but {_clause(random, last, good)}"
    else:
        body = f"{_clause(random, first, good)} and {_clause(random, last, good)}"
    telling = PRAISING_CLOSINGS if good else BLAMING_CLOSINGS
    sentences = [
        random.choice(OPENINGS),
        f"T{body[1:]}.",
        random.choice(telling if random.random() < 0.25 else NEUTRAL_CLOSINGS),
    ]
    return {"text": " ".join(sentences), "label": "positive" if good else "negative"}


def _clause(random: Random, aspect: str, good: bool) -> str:
    negated = random.random() < 0.35
    adjective = random.choice(PRAISE if good != negated else BLAME)
    return f"the {aspect} {random.choice(NEGATIONS if negated else PLAIN_VERBS)} {adjective}"


def _news(random: Random, _index: int) -> dict[str, str]:
    lead, side = zip(*(random.sample(words, 2) for words in HEADLINE), strict=True)
    who, _, where, what, when = lead
    told = (
        f"The {who.lower()} in {where} {EVENTS[lead[1]]} the {what} on {when}.",
        f"On {when} the {who.lower()} {EVENTS[lead[1]]} the {what} in {where}.",
    )
    other_who, _, other_where, other_what, other_when = side
    story = [random.choice(told), f'"{random.choice(QUOTES)}," said the {who.lower()}.']
    aside = (
        f"{random.choice(SIDE_OPENINGS)}, the {other_who.lower()} in {other_where} "
        f"{EVENTS[side[1]]} the {other_what} on {other_when}."
    )
    sentences = [aside, *story] if random.random() < 0.5 else [*story, aside]
    return {"text": " ".join(sentences), "reference": " ".join(lead)}


MAKERS: dict[str, Callable[[Random, int], dict[str, str]]] = {"sentiment": _review, "summarization": _news}
