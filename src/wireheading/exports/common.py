"""What every export shares: which records there are, where it writes to, and whether its tool is installed."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wireheading.errors import InputError
from wireheading.files import writing
from wireheading.records.record import RecordError, read_record
from wireheading.study.config import Run, Study

Report = Callable[[str], None]


class ExportError(InputError):
    """An export that cannot be made. Its text is one line: what it is, what is wrong, what to do."""


def tool(module: str, extra: str) -> Any:
    """The module of an optional tool.

    Args:
        module: Its name.
        extra: The extra of this package that installs it.

    Raises:
        ExportError: It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        name = module.partition(".")[0]
        if error.name != name:
            raise
        raise ExportError(f"{name}: not installed; pip install -e '.[{extra}]' in this repository's folder") from None


def finished_runs(study: Study, report: Report) -> Iterator[tuple[Run, dict[str, Any]]]:
    """Every run of a study that was done here, with its record.

    Imported records are left out: they have neither texts nor held-out evaluations.

    Args:
        study: The study.
        report: Told of every record that is invalid.

    Raises:
        ExportError: There is none.
    """
    found = 0
    for run in study.runs():
        try:
            record = read_record(study.record_path(run), study.digest(run))
        except RecordError as error:
            if error.state != "missing":
                report(str(error))
            continue
        if "imported" not in record:
            found += 1
            yield run, record
    if not found:
        raise ExportError(
            f"{study.results}: holds no run of this study, so there is nothing to export; name the config of its "
            "records with --configfile"
        )


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yields a folder to fill, which takes the place of `path` when it is whole.

    Raises:
        ExportError: There is something at `path`.
        WriteError: The disk is full, or the folder is not writable.
    """
    if path.exists():
        raise ExportError(f"{path}: exists; name a new folder, or remove this one")
    temporary = path.with_name(f".{path.name}.tmp")
    with writing(path):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    try:
        yield temporary
        with writing(path):
            temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
