"""The page of transcripts in a browser: what it opens with, shows, hides and refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from browser import CHROMIUM, Page, browsing, hard_to_read
from made_up_transcripts import HOSTILE, row, study_in, write_run

from wireheading.analysis.pages.transcripts import (
    write_transcript_page,
)
from wireheading.files import sha256_of
from wireheading.records.record import read_record, write_record
from wireheading.records.transcripts import HELDOUT_SCHEMA
from wireheading.study.paths import heldout_path, transcript_path

pytestmark = pytest.mark.slow

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
@pytest.mark.parametrize("dark", [False, True])
def test_every_text_of_the_page_can_be_read(browsed: tuple[Page, Path], happened: Path, dark: bool) -> None:
    visit(browsed[0], happened, 1280, 800, dark)
    assert hard_to_read(browsed[0]) == []


@in_browser
@pytest.mark.parametrize("width", [390, 1280, 1920])
def test_the_page_fits_its_window(browsed: tuple[Page, Path], happened: Path, width: int, tmp_path: Path) -> None:
    page = browsed[0]
    visit(page, happened, width, 800)
    page.screenshot(tmp_path / f"transcripts-{width}.png")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
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
