"""The thresholds that a study started with: a verdict by others is exploratory.

The first invocation that does anything writes them beside the records, as the config files give them. They travel with
the records and are never overwritten.
"""

from __future__ import annotations

import json
from pathlib import Path

from wireheading.files import replacing
from wireheading.study.config import Study
from wireheading.study.paths import RECORD, transcript_path
from wireheading.study.sections import AnalysisConfig


def started_path(study: Study) -> Path:
    """Where the thresholds lie that a study started with."""
    return Path(study.results, "thresholds.json")


def keep_started(study: Study, planned: AnalysisConfig) -> None:
    """Writes the thresholds that a study starts with, unless it has started before.

    A run leaves a transcript, so where there is one without this file nobody knows what was planned.

    Args:
        study: The study.
        planned: The thresholds of its config files.

    Raises:
        WriteError: The results folder is not writable, or its disk is full.
    """
    path = started_path(study)
    transcript = transcript_path(Path(RECORD.format(seed="*", model="*", task="*", condition="*")))
    if path.exists() or any(Path(study.results).glob(str(transcript))):
        return
    with replacing(path) as temporary:
        temporary.write_text(planned.text(), encoding="utf-8")


def departures(study: Study) -> list[str]:
    """Where the thresholds are not those that the study started with, a line each; none where all are."""
    try:
        started = json.loads(started_path(study).read_bytes())
        before = AnalysisConfig(**started).model_dump(mode="json")
    except FileNotFoundError:
        return [f"it is not known which thresholds the study started with: there is no {started_path(study)}"]
    except (TypeError, ValueError):
        return [f"it is not known which thresholds the study started with: {started_path(study)} is damaged"]
    now = study.analysis.model_dump(mode="json")
    return [
        f"{name} is {json.dumps(value)} and was {json.dumps(before[name])} when the study started"
        for name, value in now.items()
        if value != before[name]
    ]
