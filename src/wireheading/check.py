"""What each record in a results folder is worth, and whether the records of a cell may be compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wireheading.errors import ConfigError, printable
from wireheading.files import code_digest, sha256_of
from wireheading.records.cells import differing_inputs
from wireheading.records.record import RecordError, inspect_record, read_record
from wireheading.study.config import Run, Study, load_study
from wireheading.study.paths import adapter_folder, find_records, names_in
from wireheading.study.reading import read_config

State = Literal["valid", "other code", "stale", "corrupt", "mixed"]

BAD: tuple[State, ...] = ("corrupt", "mixed")
"""States that make a check fail."""


@dataclass(frozen=True)
class Finding:
    """What was found of a record, a transcript or a cell.

    Attributes:
        path: The record or the transcript, or a pattern of the cell's records.
        state: What it is worth. `other code`: valid, and made by other code; `mixed`: the cell's records are valid and
            must not be compared.
        remark: What is wrong with it or particular about it.
    """

    path: Path
    state: State
    remark: str = ""


def check_records(study: Study) -> list[Finding]:
    """Reads every record in the results folder whole, with its transcripts, and tells what it is worth."""
    findings: list[Finding] = []
    inputs: dict[Run, dict[str, str]] = {}
    for path in find_records(Path(study.results)):
        findings += _check(study, path, inputs)
    mixed = differing_inputs(inputs).items()
    return [
        *findings,
        *(Finding(Path(study.results, "*", model, task), "mixed", problem) for (model, task), problem in mixed),
    ]


def studies_in(results: Path, configs: Iterable[Path]) -> dict[Path, int]:
    """The config files whose records lie in a results folder, with the number of their valid records."""
    found = {}
    for path in configs:
        try:
            study = load_study(read_config(path))
        except ConfigError:
            continue
        if Path(study.results) == results:
            found[path] = sum(
                inspect_record(study.record_path(run), study.digest(run)) == "valid" for run in study.runs()
            )
    return {path: number for path, number in found.items() if number}


def check_text(findings: Sequence[Finding]) -> str:
    """The findings, a line each but for what is valid without a remark, and the number of records of each kind."""
    lines = [
        f"{finding.state:<10}  {printable(str(finding.path))}  {printable(finding.remark)}".rstrip()
        for finding in findings
        if finding.state != "valid" or finding.remark
    ]
    counts = Counter[str](finding.state for finding in findings if finding.path.suffix == ".json")
    kinds = ("valid", "other code", "stale", "corrupt")
    summary = ", ".join(f"{counts[kind]} {kind}" for kind in kinds)
    return "\n".join([*lines, f"{counts.total()} records: {summary}"])


def _check(study: Study, path: Path, inputs: dict[Run, dict[str, str]]) -> list[Finding]:
    """What is found of one record and its transcripts; what a valid one states of its inputs is added to `inputs`."""
    seed, model, task, condition = names_in(path)
    known = seed.isdecimal() and model in study.models and task in study.tasks and condition in study.conditions
    run = Run(int(seed), model, task, condition) if known else None
    try:
        record = read_record(path, study.digest(run) if run else "")
    except RecordError as error:
        remark = str(error).removeprefix(f"{printable(str(path))}: ")
        if error.state == "stale":
            remark = "made with other settings" if run else "of no run of this config"
        return [Finding(path, "stale" if error.state == "stale" else "corrupt", remark)]
    assert run is not None, "only a run has a digest"
    if "imported" in record:
        return [Finding(path, "valid", f"imported from {record['imported']['source']}")]
    inputs[run] = record["inputs"]
    missing, edited = [], []
    adapter = adapter_folder(path).name
    kept = {f"{adapter}/{file}": sha256 for file, sha256 in record.get("adapter", {}).items()}
    for file, sha256 in {**record["transcripts"], **kept}.items():
        transcript = path.parent / file
        if not transcript.exists():
            missing.append(file)
        elif sha256_of(transcript) != sha256:
            edited.append(
                Finding(transcript, "corrupt", f"is not the one of its run; remove {path.name} to run it again")
            )
    remark = f"without {', '.join(missing)}" if missing else ""
    made = record["provenance"]["code"]
    return [Finding(path, "valid" if made == code_digest() else "other code", remark), *edited]
