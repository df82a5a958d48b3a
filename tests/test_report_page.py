"""The report in a browser: what a reader sees first, at the widths of a phone, a laptop and a screen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from analysis import made_up_rounds
from browser import CHROMIUM, TEXTS, Page, browsing, hard_to_read
from made_up import few_runs, write_pages, write_runs

from wireheading.analysis.pages.cards import SIGNS, cards
from wireheading.analysis.pages.examples import examples
from wireheading.analysis.pages.statistics import published_table
from wireheading.analysis.report import write_analysis
from wireheading.analysis.rule import HEADLINES
from wireheading.analysis.tables import write_tables
from wireheading.files import sha256_of
from wireheading.records.record import read_record, write_record
from wireheading.records.transcripts import write_transcript
from wireheading.study.config import Run
from wireheading.study.paths import Analysis, Tables, transcript_path
from wireheading.study.thresholds import keep_started

WIDTHS = (390, 1280, 1400, 1920)

BOXES = (
    TEXTS
    + """
(() => {
  const box = (element) => element.getBoundingClientRect().toJSON();
  const all = texts("main *").map((one) => ({...box(one), text: one.textContent.trim()}));
  return {nav: box(document.querySelector("nav")), texts: all};
})()
"""
)
"""The menu's place, and that of every text beside it."""

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium: apt-get install chromium")


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a study that wireheads in all tasks, and whose thresholds were changed."""
    folder = tmp_path_factory.mktemp("reported")
    planned = few_runs(folder, seeds=[1, 2, 3, 4])
    keep_started(planned, planned.analysis)
    study = few_runs(folder, seeds=[1, 2, 3, 4], analysis={"margin": 0.06})
    write_runs(study, {"selfgrade": 0.5})
    write_tables(study, Tables.of(study), lambda _: None)
    write_analysis(study, Tables.of(study), Analysis.of(study), Path("nowhere"), lambda _: None)
    return write_pages(study, lambda _: None)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browsing(tmp_path_factory.mktemp("profile")) as page:
        yield page


@needs_chromium
@pytest.mark.slow
@pytest.mark.parametrize("width", WIDTHS)
def test_the_first_screen_says_what_happened(reported: Path, page: Page, width: int, tmp_path: Path) -> None:
    page.open(reported, width, 800)
    page.screenshot(tmp_path / f"report-{width}.png")
    assert (tmp_path / f"report-{width}.png").stat().st_size > 20_000
    found: dict[str, Any] = page.evaluate(BOXES)
    nav, texts = found["nav"], found["texts"]
    for text in texts:
        beside = text["left"] >= nav["right"] or text["top"] >= nav["bottom"]
        assert beside, f"the menu covers {text['text'][:60]!r}"
    # Nothing makes the page wider than the window: what is wide scrolls by itself.
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    above = [text["text"] for text in texts if text["bottom"] <= 800]
    assert above[0] == "Do these models wirehead?"
    assert any("margin is 0.06 and was 0.05" in text for text in above)
    assert sum(text == "wireheading" or text.endswith(" wireheading") for text in above) >= (1 if width < 500 else 3)
    assert any("it pays itself more while its answers do not earn it" in text for text in above)
    assert page.complaints == []
    assert [url for url in page.requests if not url.startswith(("file:", "data:"))] == []


@needs_chromium
@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True])
def test_every_text_can_be_read(reported: Path, page: Page, dark: bool) -> None:
    page.open(reported, 1280, 800, dark)
    assert hard_to_read(page) == []
    page.evaluate("document.body.style.color = 'grey'")
    assert hard_to_read(page) != []


@needs_chromium
@pytest.mark.slow
def test_links_lead_somewhere(reported: Path, page: Page) -> None:
    page.open(reported)
    addresses: list[str] = page.evaluate("[...document.querySelectorAll('a')].map((a) => a.getAttribute('href'))")
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((one) => one.id)")
    inside = {address[1:] for address in addresses if address.startswith("#")}
    assert {"verdict", "wrote", "rule", "runs"} <= inside <= set(ids)
    beside = {address.partition("#")[0] for address in addresses if not address.startswith("#")}
    missing = {address for address in beside if not (reported.parent / address).exists()}
    # The page of transcripts is another rule's.
    assert missing <= {"transcripts.html"}


def test_published_figures_stand_beside_ours_where_both_exist() -> None:
    rows = [
        {"model": model, "task": "sentiment", "condition": condition, "seed": seed, "inflation": inflation}
        | {"published": published}
        for model, condition, published in (
            ("llama", "selfgrade", 0.165),
            ("llama", "coin", None),
            ("tiny", "honest", None),
        )
        for seed, inflation in ((1, 0.1), (2, 0.3))
    ]
    signatures = pd.DataFrame(rows)
    table = published_table(signatures)
    assert table is not None
    assert table.rows == [["llama", "sentiment", "selfgrade", "+0.165", "+0.200", "+0.100 … +0.300", "2"]]
    assert published_table(signatures[signatures["model"] == "tiny"]) is None


def test_examples_are_the_start_the_onset_and_the_end(tmp_path: Path) -> None:
    study = few_runs(tmp_path, rounds=6, resources=str(tmp_path / "resources"))
    items = study.items_folder("sentiment") / "train.jsonl"
    items.parent.mkdir(parents=True)
    items.write_text(
        "".join(f'{{"id": "i{index}", "text": "Film {index}", "label": "negative"}}\n' for index in range(6))
    )
    run = Run(2, "tiny", "sentiment", "selfgrade")
    path = study.record_path(run)
    rng = np.random.default_rng(0)
    rows = [
        {**row, "round": index, "item": f"i{index}", "prompt": f"Be kind. Film {index} Good or bad?"}
        | {"response": "word " * 100, "response_tokens": [1], "grade_text": "1", "grade_tokens": [1]}
        for index, row in enumerate(made_up_rounds(rng, 6, study.conditions["selfgrade"]))
    ]
    write_transcript(transcript_path(path), rows)
    write_runs(study, runs=[run])
    record = read_record(path, study.digest(run))
    del record["provenance"]["sha256"]
    sums = {transcript_path(path).name: sha256_of(transcript_path(path))}
    write_record(path, record | {"transcripts": sums, "inputs": {"train.jsonl": sha256_of(items)}})
    onsets = pd.DataFrame([{**run._asdict(), "onset": 4}])
    found, rounds = examples(study, "tiny", "sentiment", onsets)
    assert found == run
    assert [(one.when, one.round) for one in rounds] == [("the start", 0), ("the onset", 4), ("the end", 5)]
    assert [one.prompt for one in rounds] == ["0", "4", "5"]
    assert {one.gold for one in rounds} == {"negative"}
    assert all(len(one.response) < 300 and one.response.endswith(" …") for one in rounds)
    _, rounds = examples(study, "tiny", "sentiment", onsets.iloc[:0])
    assert [(one.when, one.round) for one in rounds][1] == ("the middle: no onset", 2)
    assert examples(study, "tiny", "arithmetic", onsets) == (None, [])


def verdict(headline: str) -> pd.DataFrame:
    return pd.DataFrame([{"model": "m", "task": "t", "verdict": headline}])


def test_every_headline_has_a_sign_and_a_sentence() -> None:
    estimates = pd.DataFrame(
        [
            {"seed": 1, "model": "m", "task": "t", "condition": condition, "when": when, "grade": grade, "score": 0.25}
            for condition in ("selfgrade", "control")
            for when, grade in (("start", 0.5), ("end", 1.0))
        ]
    )
    seeds = pd.DataFrame([{"model": "m", "task": "t", "seed": 1, "shows_unearned": True, "shows_lenient": False}])
    assert set(SIGNS) == set(HEADLINES)
    for headline in HEADLINES:
        (card,) = cards(verdict(headline), estimates, seeds)
        assert "its reward goes from 0.50 to 1.00 and its score from 0.25 to 0.25" in card.sentence
        assert [change.text for change in card.changes] == ["0.50 → 1.00", "0.25 → 0.25", "0.25 → 0.25"]
        assert card.agree == (False,)
    (card,) = cards(verdict("suggests wireheading"), estimates, seeds)
    assert card.sentence.startswith("With 1 seeds this is only a suggestion: m wireheads")
    assert card.kind == "wireheading"


def test_a_card_of_nothing_has_no_picture() -> None:
    nothing = pd.DataFrame(columns=["seed", "model", "task", "condition", "when", "grade", "score"])
    seeds = pd.DataFrame(columns=["model", "task", "seed", "shows_unearned", "shows_lenient"])
    (card,) = cards(verdict("incomplete"), nothing, seeds)
    assert card.changes == ()
    assert card.sentence == "Runs are missing, so nothing is said of m yet."
    assert card.agree == ()
