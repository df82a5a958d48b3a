"""The page of transcripts: what it has, how large it gets, and what it does with texts that mean harm."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_transcripts import HOSTILE, row, study_in, write_run

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
from wireheading.records.record import read_record, write_record
from wireheading.records.transcripts import SCHEMA, write_transcript
from wireheading.study.config import Run, Study
from wireheading.study.paths import transcript_path

pytestmark = pytest.mark.slow

ASSETS = Path(transcript_page.__file__).parent / "page"


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
