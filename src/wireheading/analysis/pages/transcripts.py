"""Records and transcripts → one page to browse them, a single file that works offline and fetches nothing.

What a model wrote is data throughout: it enters the page as JSON and the document as text, never as markup, and the
page's Content-Security-Policy admits no script but the page's own and no address at all.
"""

from __future__ import annotations

import base64
import bisect
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from wireheading.analysis.onset import onset
from wireheading.analysis.pages.reading import common_ends, gold_answer, read_heldout, read_items, read_transcript
from wireheading.errors import InputError
from wireheading.files import replacing
from wireheading.records.record import RecordError
from wireheading.study.config import Run, Study
from wireheading.tasks import TASKS, render_prompt

LARGEST_PAGE = 20_000_000
"""Bytes that the page may have, whatever the size of the study."""

EVENLY_SPACED = 50
"""Evenly spaced rounds that are shown of each run."""

DISAGREEMENTS = 20
"""Rounds with the largest |grade − score| that are shown of each run besides."""

PAIRS = 10
"""Held-out items that are shown of each run, before training and at its end."""

MOST_ROUNDS = 20_000
"""Rounds shown of all runs together, so that about a thousand bytes are left for each."""

MOST_PROBLEMS = 1_000
"""Runs left out that the page names; further ones are counted."""

COLUMNS = ("round", "item", "response", "grade_text", "grade", "score", "reward", "parse_status", "truncated")
"""Columns of a transcript that the page has for each run; prompts and right answers are kept once for all runs."""

TEXTS = ("response", "grade_text")
"""Those of the columns that are cut in the middle where a large study's page would be too large."""


def write_transcript_page(study: Study, path: Path, report: Callable[[str], None]) -> None:
    """Writes the page.

    Args:
        study: The study, whose runs' transcripts are shown.
        path: The page's file.
        report: Progress callback: every run that is left out because its record or its transcript is invalid.

    Raises:
        InputError: The study is so large that even a page without its texts would be too large.
    """
    runs = study.runs()
    asked = [runs[index] for index in evenly_spaced(len(runs), MOST_ROUNDS)]
    evenly, largest = rounds_of_each(len(asked))
    reduced = (evenly, largest) != (EVENLY_SPACED, DISAGREEMENTS)
    pairs = 0 if reduced else PAIRS
    texts: dict[str, int] = {}
    excerpts: list[dict[str, Any]] = []
    problems: list[str] = []
    for run in asked:
        try:
            excerpts.append(_excerpt(study, run, evenly, largest, pairs, texts))
        except RecordError as error:
            problems.append(str(error))
            report(str(error))
    content = {
        "files": f"{study.results}/<seed>/<model>/<task>/<condition>.parquet",
        "asked": len(runs),
        "evenly": evenly,
        "largest": largest,
        "pairs": pairs,
        "reduced": reduced,
        "problems": problems[:MOST_PROBLEMS],
        "texts": list(texts),
        "runs": excerpts,
    }
    page = page_within(content, LARGEST_PAGE)
    with replacing(path) as temporary:
        temporary.write_bytes(page)
    rounds = sum(len(excerpt["round"]) for excerpt in excerpts)
    report(f"{path}: {rounds} rounds of {len(excerpts)} of {len(runs)} runs, {len(page) / 1e6:.1f} MB")


def rounds_of_each(runs: int) -> tuple[int, int]:
    """How many evenly spaced rounds and how many of the largest disagreements are shown of each of so many runs."""
    whole = EVENLY_SPACED + DISAGREEMENTS
    share = min(whole, max(1, MOST_ROUNDS // max(1, runs)))
    largest = share * DISAGREEMENTS // whole
    return share - largest, largest


def evenly_spaced(count: int, wanted: int) -> list[int]:
    """At most `wanted` indices below `count`, in order and evenly spaced, the first and the last among them."""
    if count <= wanted:
        return list(range(count))
    if wanted == 1:
        return [0]
    return [index * (count - 1) // (wanted - 1) for index in range(wanted)]


def largest_disagreements(grades: Sequence[float | None], scores: Sequence[float], wanted: int) -> list[int]:
    """Indices of the rounds where a readable grade is furthest from the score, earlier ones first where equal.

    Rounds where the two agree are no disagreements and are never among them.
    """
    gaps = {
        index: abs(grade - score)
        for index, (grade, score) in enumerate(zip(grades, scores, strict=True))
        if grade is not None and grade != score
    }
    return sorted(sorted(gaps), key=lambda index: -gaps[index])[:wanted]


def page_within(content: Mapping[str, Any], limit: int) -> bytes:
    """The page of some content, its longest texts cut as far as needed for the page to have at most `limit` bytes.

    All texts are held to one length, the largest that fits. The page says which.

    Raises:
        InputError: The page is too large even without its texts.
    """
    page = _page({**content, "text_limit": None})
    if len(page) <= limit:
        return page
    longest = max(
        len(text or "")
        for texts in (content["texts"], *(run[column] for run in content["runs"] for column in TEXTS))
        for text in texts
    )
    shell = len(_page({}))
    fitting = bisect.bisect_right(
        range(longest), limit - shell, key=lambda length: len(_embedded(_with_texts_within(content, length)))
    )
    if fitting == 0:
        raise InputError(f"the page of transcripts would have more than {limit} bytes; give fewer runs by --config")
    return _page(_with_texts_within(content, fitting - 1))


def shortened(text: str, length: int) -> str:
    """A text with its middle left out and said to be, if that makes it shorter; start and end keep `length` in all."""
    head = length * 2 // 3
    left_out = len(text) - length
    cut = f"{text[:head]} [… {left_out} characters left out …] {text[head + left_out :]}"
    return cut if len(cut) < len(text) else text


def _excerpt(study: Study, run: Run, evenly: int, largest: int, pairs: int, texts: dict[str, int]) -> dict[str, Any]:
    """What the page has of a run; texts that runs share and are seen for the first time are added to `texts`."""
    record, table = read_transcript(study, run)
    row = study.conditions[run.condition]
    begun = _onset(study, table) if row.reward == "grade" else None
    even = set(evenly_spaced(len(table), evenly))
    far = set(largest_disagreements(table["grade"].to_pylist(), table["score"].to_pylist(), largest))
    chosen = sorted(even | far | (set() if begun is None else {begun}))
    opening, closing = common_ends(table["prompt"].to_pylist())
    items = read_items(study, run.task, "train", record["inputs"])
    rows = table.take(chosen).to_pydict()
    bodies = [prompt[len(opening) : len(prompt) - len(closing)] for prompt in rows["prompt"]]
    excerpt = {
        **run._asdict(),
        "grader": row.grader,
        "grading_prompt": study.tasks[run.task].grading_prompt,
        "status": record["status"],
        "problem": record["problem"],
        "rounds": len(table),
        "onset": begun,
        "opening": opening,
        "closing": closing,
        "held": [""] * len(chosen),
        "evenly": [index in even for index in chosen],
        "furthest": [index in far for index in chosen],
        "prompt": [_place(body, texts) for body in bodies],
        "gold": [_place(gold_answer(run.task, items.get(item)), texts) for item in rows["item"]],
        **{column: rows[column] for column in COLUMNS},
    }
    held = _pairs(study, run, record, pairs, texts)
    return {name: [*value, *held[name]] if name in held else value for name, value in excerpt.items()}


def _pairs(
    study: Study, run: Run, record: Mapping[str, Any], count: int, texts: dict[str, int]
) -> dict[str, list[Any]]:
    """The first held-out items before training and at its end: columns as those of the rounds."""
    if not count:
        return {}
    table = read_heldout(study, run, record)
    start, end = (table.filter(pc.equal(table["round"], round_)).to_pylist() for round_ in (0, study.rounds))
    at_end = {row["item"]: row for row in end}
    items = read_items(study, run.task, "heldout", record["inputs"])
    rows = [
        {**row, "held": when, "evenly": False, "furthest": False, "reward": None}
        | {"prompt": _place(_asked(study, run.task, items.get(row["item"]), row["item"]), texts)}
        | {"gold": _place(gold_answer(run.task, items.get(row["item"])), texts)}
        for before in start[:count]
        if before["item"] in at_end
        for when, row in (("start", before), ("end", at_end[before["item"]]))
    ]
    names = ("held", "evenly", "furthest", "prompt", "gold", *COLUMNS)
    return {name: [row[name] for row in rows] for name in names}


def _onset(study: Study, table: pa.Table) -> int | None:
    """The round from which a run's rewards were unearned."""
    unearned = table["reward"].to_numpy() - table["score"].to_numpy()
    return onset(unearned, study.analysis.onset_window, study.analysis.onset_threshold)


def _asked(study: Study, task: str, item: Mapping[str, Any] | None, name: str) -> str:
    """The prompt of a held-out item; its name where the items are not here."""
    return f"(item {name})" if item is None else render_prompt(study.tasks[task].prompt, item, TASKS[task].FIELDS)


def _place(text: str | None, texts: dict[str, int]) -> int | None:
    """The place of a text among those that runs share; None for none."""
    return None if text is None else texts.setdefault(text, len(texts))


def _with_texts_within(content: Mapping[str, Any], length: int) -> dict[str, Any]:
    """Content with all its texts shortened to one length."""

    def cut(texts: Sequence[str | None]) -> list[str | None]:
        return [None if text is None else shortened(text, length) for text in texts]

    return {
        **content,
        "text_limit": length,
        "texts": cut(content["texts"]),
        "runs": [{**run, **{column: cut(run[column]) for column in TEXTS}} for run in content["runs"]],
    }


def _embedded(content: Mapping[str, Any]) -> bytes:
    """JSON that may stand in a script element: no character of it can end the element or open a comment."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text.encode()


def _page(content: Mapping[str, Any]) -> bytes:
    """The whole page, with its style, its scripts and the table library in it."""
    folder = resources.files("wireheading.analysis.pages") / "page"

    def part(name: str) -> str:
        return folder.joinpath(name).read_text(encoding="utf-8")

    # The library's last line names a file for debuggers to fetch.
    library = part("tabulator/tabulator.min.js").partition("\n//# sourceMappingURL=")[0]
    style = part("tabulator/tabulator_simple.min.css").partition("\n/*# sourceMappingURL=")[0] + part("transcripts.css")
    script = part("transcripts.js")
    return (
        Template(part("transcripts.html"))
        .substitute(
            scripts=" ".join(map(_csp_hash, (library, script))),
            licence=part("tabulator/LICENSE").strip(),
            style=style,
            library=library,
            script=script,
            content=_embedded(content).decode(),
        )
        .encode()
    )


def _csp_hash(text: str) -> str:
    """How a Content-Security-Policy names the one inline element with this text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
