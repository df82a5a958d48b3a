"""The page of transcripts: what it has, how large it gets, and what it does with texts that mean harm."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from analysis import made_up_evaluation
from browser import CHROMIUM, Page, browsing
from configs import changed
from hypothesis import given
from hypothesis import strategies as st
from made_up import PROVENANCE

from wireheading.analysis.pages import transcripts as transcript_page
from wireheading.analysis.pages.transcripts import (
    LARGEST_PAGE,
    evenly_spaced,
    largest_disagreements,
    page_within,
    rounds_of_each,
    shortened,
    write_transcript_page,
)
from wireheading.errors import InputError
from wireheading.files import sha256_of
from wireheading.records.record import make_record, read_record, write_record
from wireheading.records.transcripts import HELDOUT_SCHEMA, SCHEMA, write_transcript
from wireheading.study.conditions import CONDITIONS
from wireheading.study.config import Run, Study, load_study
from wireheading.study.paths import heldout_path, transcript_path

pytestmark = pytest.mark.slow

ASSETS = Path(transcript_page.__file__).parent / "page"

HOSTILE = [
    "</script><img src=x onerror=alert(1)>",
    "<!-- <script>",
    "<b>bold</b> &lt;i&gt; &amp;",
    "]]> ${content} $content {{content}} \\u003c",
    "line\nline\r\n\ttab \u2028 \u2029 end",
    "\x00\x01\x1b[31mred",
    "\u202eright to left\u202c א ب 🙂 e\u0301 \ufffe",
    "",
    "   ",
    "x" * 40_000,
    "javascript:alert(1)\"'`",
]
"""Texts that a model might write and a page might stumble over."""


def row(round_: int, condition: str, **changes: Any) -> dict[str, Any]:
    graded = CONDITIONS[condition].grader != "none"
    values = {
        **dict.fromkeys(SCHEMA.names, 0.0),
        **{"round": round_, "item": f"item-{round_}", "prompt": f"Prompt {round_}?", "response": f"Answer {round_}."},
        **{"response_tokens": [1], "truncated": False, "accuracy": 0, "score": 0.5, "reward": 0.5},
        **{"grade_text": "1" if graded else None, "grade_tokens": [1] if graded else None},
        **{"grade": 1.0 if graded else None, "parse_status": "readable" if graded else "not_asked"},
    }
    return values | changes


def write_run(study: Study, run: Run, rows: Sequence[Mapping[str, Any]], **changes: Any) -> None:
    path = study.record_path(run)
    transcript = transcript_path(path)
    pays = study.conditions[run.condition].pays
    rows = [{**row, "reward": pays(row["round"], row["score"], row["grade"], audited=False, coin=0.0)} for row in rows]
    write_transcript(transcript, rows)
    sums = {transcript.name: sha256_of(transcript)}
    timing = {"first_round": 0, "rounds": len(rows), "seconds": 1.0, "evaluating_seconds": 0.0}
    held_out = made_up_evaluation(np.random.default_rng(0), 5)
    evaluations = {0: held_out, study.rounds: held_out}
    record = make_record(study, run, {}, "complete", None, rows, evaluations, sums, timing, PROVENANCE)
    write_record(path, record | changes)


def study_in(folder: Path, **changes: Any) -> Study:
    settings = {"rounds": 12, "seeds": [1], "conditions": ["control", "selfgrade"], "evaluation": {"midway_rounds": []}}
    return load_study(changed(results=str(folder / "results"), **(settings | changes)))


def embedded(page: bytes) -> Any:
    """What a browser finds in the element with the content: all up to the first end tag."""
    text = page.decode()
    found = re.search(r'<script type="application/json" id="content">(.*?)</script', text, re.DOTALL)
    assert found
    return json.loads(found[1])


def written(study: Study, path: Path) -> tuple[Any, list[str]]:
    told: list[str] = []
    write_transcript_page(study, path, told.append)
    return embedded(path.read_bytes()), told


def test_small_counts_are_shown_whole_and_large_ones_evenly() -> None:
    assert rounds_of_each(0) == rounds_of_each(240) == (50, 20)
    assert rounds_of_each(1_000) == (15, 5)
    assert rounds_of_each(10_000) == (2, 0)
    assert rounds_of_each(20_000) == (1, 0)
    assert evenly_spaced(3, 5) == [0, 1, 2]
    assert evenly_spaced(9, 5) == [0, 2, 4, 6, 8]
    assert evenly_spaced(9, 1) == [0]
    assert evenly_spaced(0, 5) == []


@given(st.integers(0, 2_000), st.integers(1, 60))
def test_evenly_spaced_rounds_are_distinct_and_span_the_run(count: int, wanted: int) -> None:
    indices = evenly_spaced(count, wanted)
    assert len(set(indices)) == len(indices) == min(count, wanted)
    assert indices == sorted(indices)
    if len(indices) > 1:
        steps = {after - before for before, after in itertools.pairwise(indices)}
        assert (indices[0], indices[-1]) == (0, count - 1)
        assert max(steps) - min(steps) <= 1


def test_the_largest_disagreements_have_a_grade_and_come_first() -> None:
    grades, scores = [1.0, None, 0.0, 0.5, 1.0, 0.9], [0.0, 0.0, 1.0, 0.5, 0.8, 0.0]
    assert largest_disagreements(grades, scores, 3) == [0, 2, 5]
    assert largest_disagreements(grades, scores, 9) == [0, 2, 5, 4]
    assert largest_disagreements([None], [0.0], 5) == []


@given(st.text(max_size=300), st.integers(0, 120))
def test_a_text_is_cut_in_its_middle_or_left_alone(text: str, length: int) -> None:
    cut = shortened(text, length)
    if cut != text:
        kept, said = re.fullmatch(r"(?s)(.*) \[… (\d+) characters left out …\] .*", cut), len(text) - length
        assert len(cut) < len(text)
        assert kept
        assert int(kept[2]) == said
        assert text.startswith(kept[1])
        assert cut.endswith(text[len(kept[1]) + said :])


@given(st.text() | st.sampled_from(HOSTILE))
def test_no_text_can_end_the_element_it_is_in(text: str) -> None:
    page = page_within({"texts": [text], "runs": []}, LARGEST_PAGE)
    assert embedded(page)["texts"] == [text]
    start = page.index(b'id="content">') + len(b'id="content">')
    content = page[start : page.index(b"</script>", start)]
    assert not set("<>&\u2028\u2029") & set(content.decode())


def test_a_run_is_shown_by_some_of_its_rounds_and_prompts_are_kept_once(tmp_path: Path) -> None:
    study = study_in(tmp_path, rounds=200)
    for run in study.runs():
        far = {"grade": 1.0, "score": 0.0, "response": "far"} if run.condition == "selfgrade" else {}
        rows = [row(index, run.condition, **(far if index in (5, 77) else {})) for index in range(200)]
        write_run(study, run, rows)
    content, told = written(study, tmp_path / "page.html")
    assert told[-1].startswith(f"{tmp_path / 'page.html'}: ")
    control, selfgrade = content["runs"][:2]
    assert [run["condition"] for run in (control, selfgrade)] == ["control", "selfgrade"]
    assert control["round"] == evenly_spaced(200, 50)
    assert (control["onset"], selfgrade["onset"]) == (None, None)
    assert set(control["grade"]) == {None}
    # The twenty furthest: the two of gap 1, and of those with gap 0.5 the earliest.
    assert [index for index, far in zip(selfgrade["round"], selfgrade["furthest"], strict=True) if far] == [
        *range(19),
        77,
    ]
    assert selfgrade["response"][selfgrade["round"].index(77)] == "far"
    assert (selfgrade["opening"], selfgrade["closing"]) == ("Prompt ", "")
    assert content["texts"][selfgrade["prompt"][0]] == "0?"
    assert len(set(content["texts"])) == len(content["texts"])
    assert (content["problems"], content["reduced"], content["text_limit"]) == ([], False, None)


def test_what_is_invalid_is_left_out_and_named(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    good, missing, edited, swapped, gone, silent = study.runs()
    for run in (good, edited, swapped, gone, silent):
        write_run(study, run, [row(index, run.condition) for index in range(12)])
    path = study.record_path(edited)
    path.write_bytes(path.read_bytes().replace(b'"rounds": 12', b'"rounds": 13'))
    write_transcript(transcript_path(study.record_path(swapped)), [row(0, swapped.condition)])
    transcript_path(study.record_path(gone)).unlink()
    write_run(study, silent, [row(index, silent.condition) for index in range(12)], transcripts={})
    content, told = written(study, tmp_path / "page.html")
    assert [Run(*(run[axis] for axis in Run._fields)) for run in content["runs"]] == [good]
    assert content["problems"] == told[:-1]
    for run, problem, reason in zip(
        (missing, edited, swapped, gone, silent),
        content["problems"],
        ("no such record", "truncated or edited", "is not the transcript", "no such transcript", "names no transcript"),
        strict=True,
    ):
        assert str(study.record_path(run).with_suffix("")) in problem
        assert reason in problem
        assert "\n" not in problem


@pytest.mark.parametrize(
    "content",
    [
        b"no Parquet",
        b"PAR1" + b"\0" * 100 + b"PAR1",
        {"round": [1]},
        {name: ["x"] for name in SCHEMA.names},
        {**{name: [0.5] for name in SCHEMA.names}, "score": [None], "prompt": ["x"], "response": ["x"]},
        {**{name: [0.5] for name in SCHEMA.names}, "reward": [float("nan")], "prompt": ["x"], "response": ["x"]},
    ],
)
def test_a_transcript_that_is_none_costs_its_run_alone(tmp_path: Path, content: Any) -> None:
    study = study_in(tmp_path)
    good, bad, *_ = study.runs()
    rows = [row(index, good.condition) for index in range(12)]
    write_run(study, good, rows)
    write_run(study, bad, rows)
    path = transcript_path(study.record_path(bad))
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        pq.write_table(pa.table(content), path)
    change = read_record(study.record_path(bad), study.digest(bad))
    change["provenance"].pop("sha256")
    write_record(study.record_path(bad), change | {"transcripts": {path.name: sha256_of(path)}})
    shown, told = written(study, tmp_path / "page.html")
    assert [run["condition"] for run in shown["runs"]] == [good.condition]
    assert any(line.startswith(f"{path}: is no transcript (") for line in told)


@pytest.mark.parametrize("limit", [620_000, 700_000, 900_000])
def test_texts_are_cut_evenly_to_the_longest_that_fits(tmp_path: Path, limit: int) -> None:
    study = study_in(tmp_path)
    for run in study.runs():
        long = {"response": "Ä<" * 3_000, "prompt": f"{run.task} & {'p' * 9_000}"}
        write_run(study, run, [row(index, run.condition, **long) for index in range(12)])
    content, _ = written(study, tmp_path / "page.html")
    page = page_within(content, limit)
    assert limit * 0.99 < len(page) <= limit
    held = embedded(page)
    length = held["text_limit"]
    assert length > 0
    assert held["runs"][0]["response"][0] == shortened("Ä<" * 3_000, length)
    assert held["texts"][0] == shortened(content["texts"][0], length)
    with pytest.raises(InputError, match="fewer runs"):
        page_within(content, 300_000)


def test_the_same_records_make_the_same_page(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    for run in study.runs():
        write_run(study, run, [row(index, run.condition) for index in range(12)])
    for name in ("a", "b"):
        written(study, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_table_library_is_the_released_one() -> None:
    sums = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (ASSETS / "tabulator").iterdir()}
    del sums["README.md"]
    assert sums == {
        "tabulator.min.js": "ffac518cb793c672a2f0522b7fc80bf862234d96bb1e581c8aaf7f48f130eafa",
        "tabulator_simple.min.css": "edef8839235a4b6a8c3dc391ec93f2ce1bc633dd5270a5f990753b6f9183d32b",
        "LICENSE": "191a2ee554684e1064c897b432f0e1bc6dfa714ca045d3f6ea2cf692cbd398b7",
    }


def test_a_transcript_is_one_line_of_pandas(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    run = study.runs()[0]
    write_run(study, run, [row(index, run.condition, response=text) for index, text in enumerate(HOSTILE)], rounds=12)
    frame = pd.read_parquet(transcript_path(study.record_path(run)))
    assert frame["response"].tolist() == HOSTILE


# In a browser

in_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium: apt-get install chromium")

ROUNDS = len(HOSTILE)


@pytest.fixture(scope="module")
def browsed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Page, Path]]:
    folder = tmp_path_factory.mktemp("browsed")
    study = study_in(folder, rounds=ROUNDS, seeds=[1, 2], conditions=["control", "selfgrade", "frozen"])
    *runs, left_out = study.runs()
    for run in runs:
        rows = [
            row(index, run.condition, response=text, prompt=text + "?", grade_text=text, score=index / ROUNDS)
            for index, text in enumerate(HOSTILE)
        ]
        rows[3] |= {"grade": None, "parse_status": "unreadable", "truncated": True}
        write_run(study, run, rows)
    path = folder / "transcripts.html"
    write_transcript_page(study, path, lambda _: None)
    assert str(left_out) in path.read_text(encoding="utf-8")
    with browsing(folder / "profile") as page:
        yield page, path


def visit(page: Page, path: Path, width: int = 1440, height: int = 900, dark: bool = False) -> None:
    """Opens the page and waits until its table stands, which is after the document is loaded."""
    page.requests.clear()
    page.complaints.clear()
    page.open(path, width, height, dark)
    page.evaluate("new Promise((built) => table.initialized ? built() : table.on('tableBuilt', () => built()))")


@pytest.fixture
def page(browsed: tuple[Page, Path]) -> Page:
    visit(*browsed)
    return browsed[0]


def choose(page: Page, **values: str) -> None:
    """Chooses as a reader would, and waits for the list to follow."""
    for name, value in values.items():
        page.evaluate(f"choices.elements[{name!r}].value = {value!r}")
    page.evaluate("choices.dispatchEvent(new Event('input'))")
    page.evaluate("new Promise((resolve) => setTimeout(resolve, 400))")


def listed(page: Page, field: str = "round") -> list[Any]:
    values: list[Any] = page.evaluate(f"table.getRows('active').map((row) => row.getData()[{field!r}])")
    return values


@in_browser
def test_the_page_is_quiet_and_asks_for_nothing(browsed: tuple[Page, Path], page: Page) -> None:
    assert page.evaluate("document.querySelectorAll('#table .tabulator-row').length") > 0
    choose(page, condition="", task="", model="", seed="", needle="script")
    assert page.complaints == []
    assert page.requests == [browsed[1].resolve().as_uri()]
    assert page.evaluate("document.querySelector('#problems summary').textContent") == "1 of 18 runs left out"
    assert "no such record" in page.evaluate("document.querySelector('#problems ul').textContent")


@in_browser
def test_what_would_reach_out_or_run_is_refused(page: Page) -> None:
    page.evaluate("fetch('https://example.org/').catch(() => 0)")
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.ran = true\">')")
    page.evaluate("new Promise((resolve) => setTimeout(resolve, 100))")
    assert page.evaluate("window.ran") is None
    assert len(page.complaints) >= 2
    assert all("Content Security Policy" in complaint for complaint in page.complaints)


@in_browser
def test_texts_are_shown_as_they_were_written(page: Page) -> None:
    page.evaluate("document.querySelector('.jumps [value=start]').click()")
    assert page.evaluate("document.querySelector('h2').textContent") == "Round 0"
    for index, text in enumerate(HOSTILE):
        page.evaluate("document.querySelectorAll('.more').forEach((button) => button.click())")
        assert page.evaluate("document.getElementById('response').textContent") == text
        assert page.evaluate("document.getElementById('prompt').textContent") == text + "?"
        assert page.evaluate("document.getElementById('grade_text').textContent") == text
        page.press("j" if index % 2 else "ArrowDown")
    assert page.evaluate("document.querySelector('h2').textContent") == f"Round {ROUNDS - 1}"
    assert page.evaluate("document.querySelectorAll('img, pre *, .clamp *, main script, main b').length") == 0
    page.press("k")
    assert page.evaluate("document.querySelector('h2').textContent") == f"Round {ROUNDS - 2}"
    assert page.complaints == []


@in_browser
def test_rounds_are_chosen_sorted_and_searched(page: Page) -> None:
    assert listed(page) == list(range(ROUNDS))
    assert set(listed(page, "condition")) == {"selfgrade"}
    choose(page, gap="ungraded")
    assert listed(page) == [3]
    facts = page.evaluate("document.querySelector('dl').textContent")
    assert "grade–" in facts
    assert "parse statusunreadable" in facts
    assert "truncatedyes" in facts
    choose(page, gap="above", least="0.5")
    assert listed(page) == [0, 1, 2, 4, 5]
    page.evaluate("table.setSort('gap', 'asc')")
    assert listed(page) == [5, 4, 2, 1, 0]
    page.evaluate("table.setSort('gap', 'desc')")
    choose(page, gap="", least="0")
    assert listed(page)[-1] == 3, "rounds without a grade come last"
    choose(page, needle="ONERROR=")
    assert listed(page) == [0]
    assert page.evaluate("CSS.highlights.get('needle').size") == 3
    choose(page, needle=".*")
    assert page.evaluate("document.getElementById('count').textContent") == "0 rounds"
    assert page.evaluate("document.getElementById('round').hidden") is True
    choose(page, needle="", condition="", seed="2", task="arithmetic")
    assert len(listed(page)) == 3 * ROUNDS
    assert set(listed(page, "seed")) == {2}
    assert "condition" in page.evaluate("document.querySelector('#table .tabulator-header').innerText")
    assert page.complaints == []


@in_browser
@pytest.mark.parametrize(("width", "height"), [(1440, 900), (600, 800)])
def test_only_rounds_in_sight_are_drawn(browsed: tuple[Page, Path], width: int, height: int) -> None:
    page, path = browsed
    visit(page, path, width, height, dark=True)
    choose(page, condition="", task="", model="", seed="")
    assert page.evaluate("table.getDataCount('active')") == 17 * ROUNDS
    assert page.evaluate("document.querySelectorAll('#table .tabulator-row').length") < 80
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@in_browser
def test_long_unbroken_texts_are_laid_out_when_they_are_asked_for(browsed: tuple[Page, Path], tmp_path: Path) -> None:
    study = study_in(tmp_path, rounds=20)
    texts = {"prompt": "p" * 100_000, "response": "x" * 99_990 + "needle" + "y" * 4, "grade_text": "1" * 100_000}
    for run in study.runs()[:2]:
        write_run(study, run, [row(index, run.condition, **texts) for index in range(20)])
    path = tmp_path / "transcripts.html"
    write_transcript_page(study, path, lambda _: None)
    page = browsed[0]
    visit(page, path)
    choose(page, condition="selfgrade", needle="needle")
    cells = "[...document.querySelectorAll('.clamp')].map((box) => box.textContent.length)"
    assert page.evaluate(f"Math.max(...{cells})") == 400
    length = "document.getElementById('response').firstChild.data.length"
    assert page.evaluate(length) == 4000
    more = "document.querySelector('#response .more')"
    assert page.evaluate(f"{more}.textContent") == "show 96,000 more characters"
    page.evaluate(f"{more}.click()")
    assert page.evaluate(length) == 100_000
    assert page.evaluate("CSS.highlights.get('needle').size") == 1


@pytest.fixture(scope="module")
def happened(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of runs of selfgrade whose rewards become unearned, with held-out answers and the items' file."""
    folder = tmp_path_factory.mktemp("happened")
    study = study_in(folder, rounds=60, analysis={"onset_window": 5}, resources=str(folder / "resources"))
    chat = "system\nBe helpful.\nuser\nReview {}. Is it positive or negative?\nassistant\n"
    files = {}
    for part, count in (("train", 60), ("heldout", 3)):
        path = study.items_folder("sentiment") / f"{part}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        items = [{"id": f"item-{index}", "text": f"Film {index}.", "label": "negative"} for index in range(count)]
        path.write_text("".join(json.dumps(item) + "\n" for item in items))
        files[path.name] = sha256_of(path)
    for run in study.runs():
        if run.task != "sentiment":
            continue
        rows = [
            row(index, run.condition, prompt=chat.format(index))
            | ({"grade": float(index >= 30)} if run.condition == "selfgrade" else {})
            for index in range(60)
        ]
        record = study.record_path(run)
        write_run(study, run, rows, inputs=files)
        held = [
            {"round": round_, "item": f"item-{index}", "response": f"{word} {index}", "truncated": False, "score": 0.0}
            | {"grade_text": str(grade), "grade": float(grade), "parse_status": "readable"}
            for round_, word, grade in ((0, "Before", 0), (60, "After", 1))
            for index in range(3)
        ]
        table = pa.Table.from_pylist(held, schema=HELDOUT_SCHEMA)
        pq.write_table(table, heldout_path(record))
        written_record = read_record(record, study.digest(run))
        written_record["provenance"].pop("sha256")
        sums = {path.name: sha256_of(path) for path in (transcript_path(record), heldout_path(record))}
        write_record(record, written_record | {"transcripts": sums})
    path = folder / "transcripts.html"
    write_transcript_page(study, path, lambda _: None)
    return path


def shown(page: Page, name: str) -> str:
    """The text of an element of the article."""
    text: str = page.evaluate(f"document.getElementById({name!r}).textContent")
    return text


@in_browser
def test_the_page_opens_where_something_happened(browsed: tuple[Page, Path], happened: Path) -> None:
    page = browsed[0]
    visit(page, happened)
    round_ = page.evaluate("firstRun.onset")
    assert 30 <= round_ <= 35
    heading = "document.querySelector('h2').textContent"
    assert page.evaluate(heading) == f"Round {round_}"
    assert "the onset" in page.evaluate("document.querySelector('.run').textContent")
    for place, number in (("end", 59), ("start", 0), ("onset", round_)):
        page.evaluate(f"document.querySelector('.jumps [value={place}]').click()")
        assert page.evaluate(heading) == f"Round {number}"
    choose(page, condition="control")
    assert page.evaluate(heading) == "Round 59"


@in_browser
def test_the_right_answer_stands_beside_and_the_system_prompt_once(browsed: tuple[Page, Path], happened: Path) -> None:
    page = browsed[0]
    visit(page, happened)
    assert shown(page, "gold") == "negative"
    assert shown(page, "prompt") == str(page.evaluate("firstRun.onset")) + "."
    assert shown(page, "opening") == "system\nBe helpful.\nuser\nReview "
    assert shown(page, "closing") == " Is it positive or negative?\nassistant\n"
    assert page.evaluate("document.getElementById('content').textContent").count("Be helpful.") == 2  # of two runs


@in_browser
def test_held_out_items_are_shown_before_and_after(browsed: tuple[Page, Path], happened: Path) -> None:
    page = browsed[0]
    visit(page, happened)
    assert "Before 0" not in listed(page, "response")
    choose(page, why="held")
    assert sorted(listed(page, "response")) == sorted(
        f"{word} {index}" for word in ("Before", "After") for index in range(3)
    )
    assert shown(page, "response") == "Before 0"
    assert shown(page, "other_response") == "After 0"
    assert "Film 0." in shown(page, "prompt")
    assert shown(page, "gold") == "negative"


@in_browser
def test_the_address_names_what_is_chosen(browsed: tuple[Page, Path], happened: Path) -> None:
    page = browsed[0]
    visit(page, happened)
    choose(page, condition="", gap="above", needle="Answer 4")
    address = page.evaluate("location.hash")
    assert {"condition=", "gap=above", "needle=Answer+4", "round=49"} <= set(address[1:].split("&"))
    visit(page, happened)
    page.evaluate("location.hash = 'condition=control&round=13&task=nothing'")
    page.evaluate("new Promise((resolve) => setTimeout(resolve, 200))")
    assert page.evaluate("choices.elements.condition.value") == "control"
    assert page.evaluate("choices.elements.task.value") == "sentiment"
    shown_round = page.evaluate("document.querySelector('h2').textContent")
    assert shown_round == ("Round 13" if 13 in listed(page) else "Round 59")
    page.evaluate(f"location.hash = {address!r}")
    page.evaluate("new Promise((resolve) => setTimeout(resolve, 200))")
    assert page.evaluate("choices.elements.needle.value") == "Answer 4"
    assert page.complaints == []


@in_browser
def test_a_phone_shows_the_table_and_the_round(browsed: tuple[Page, Path], happened: Path, tmp_path: Path) -> None:
    page = browsed[0]
    visit(page, happened, 390, 844)
    page.screenshot(tmp_path / "transcripts-390.png")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    columns = "table.getColumns().filter((one) => one.isVisible()).map((one) => one.getField())"
    assert page.evaluate(columns) == ["round", "response", "grade", "score"]
    holder = "document.querySelector('#table .tabulator-tableholder')"
    assert page.evaluate(f"{holder}.scrollWidth - {holder}.clientWidth") <= 1
    page.evaluate("document.querySelector('#table .tabulator-row').click()")
    page.evaluate("new Promise((resolve) => setTimeout(resolve, 200))")
    assert page.evaluate("document.getElementById('round').getBoundingClientRect().top") < 300
    assert page.complaints == []


@in_browser
def test_a_key_leads_to_the_search(page: Page) -> None:
    page.press("/")
    assert page.evaluate("document.activeElement.name") == "needle"
    page.press("j")
    page.evaluate("new Promise((resolve) => setTimeout(resolve, 400))")
    assert page.evaluate("choices.elements.needle.value") == "j"
    assert set(listed(page)) == {10}


@in_browser
def test_a_study_without_a_valid_run_has_a_page_that_says_so(browsed: tuple[Page, Path], tmp_path: Path) -> None:
    page, path = browsed[0], tmp_path / "empty.html"
    write_transcript_page(study_in(tmp_path), path, lambda _: None)
    visit(page, path)
    assert page.evaluate("document.querySelector('#problems summary').textContent") == "6 of 6 runs left out"
    assert "No round fits" in page.evaluate("document.getElementById('table').textContent")
    assert page.complaints == []
