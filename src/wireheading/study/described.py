"""The configuration's description, `config/README.md`, made from the schema: each key, its default, its meaning."""

from __future__ import annotations

import itertools
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from wireheading.study.config import Study

HEAD = """# Configuration

A study is one YAML file. These differ in values alone; `snakemake --configfile` chooses one, `--config rounds=10`
changes a value. An unknown key, or a value that cannot be run, ends in one line before any work starts.

{files}

A workflow that uses this one as a module gives it a configuration of the same shape. The Python package must be
installed where Snakemake runs (`pip install -e .` in a clone).

Keys without a default must be given. This page is generated: `python -m wireheading.study.described`.
"""


def described(folder: Path) -> str:
    """The text of `config/README.md`.

    Args:
        folder: That of the configurations, each of which begins with a sentence that says what it is.
    """
    schema = Study.model_json_schema()
    sections = dict(_sections(schema, schema))
    plain = {key: value for key, value in schema["properties"].items() if key not in sections or "items" in value}
    parts = [HEAD.format(files=_files(folder)), "## Keys\n", _table(plain)]
    for key, (title, section) in sections.items():
        parts += [f"## `{title}`\n", f"{_text(schema['properties'][key], section)}\n", _table(section["properties"])]
    return "\n".join(parts)


def _files(folder: Path) -> str:
    lines = []
    for path in sorted(folder.glob("*.yaml")):
        opening = itertools.takewhile(lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines())
        text = " ".join(line.removeprefix("#").strip() for line in opening)
        lines.append(f"- `{path.name}`: {re.split(r'(?<=[.?]) ', text)[0]}")
    return "\n".join(lines)


def _sections(
    schema: Mapping[str, Any], part: Mapping[str, Any]
) -> Iterator[tuple[str, tuple[str, Mapping[str, Any]]]]:
    """The keys that hold a section, sections by name, or a list with sections, with what each is headed."""
    for key, value in part["properties"].items():
        named = value.get("additionalProperties", {})
        if "$ref" in value:
            yield key, (key, _resolved(schema, value))
        elif isinstance(named, dict) and "$ref" in named:
            yield key, (f"{key}.<name>", _resolved(schema, named))
        for member in value.get("items", {}).get("anyOf", ()):
            if "$ref" in member:
                yield key, (key, _resolved(schema, member))


def _resolved(schema: Mapping[str, Any], value: Mapping[str, str]) -> Mapping[str, Any]:
    definition: Mapping[str, Any] = schema["$defs"][value["$ref"].rpartition("/")[2]]
    return definition


def _text(value: Mapping[str, Any], section: Mapping[str, Any]) -> str:
    """What is said of a key, and of the section that it holds."""
    return " ".join(" ".join(said["description"].split()) for said in (value, section) if "description" in said)


def _table(properties: Mapping[str, Mapping[str, Any]]) -> str:
    rows = ["| key | default | meaning |", "|---|---|---|"]
    for key, value in properties.items():
        default = f"`{json.dumps(value['default'], ensure_ascii=False)}`" if "default" in value else ""
        meaning = " ".join(value.get("description", "").split())
        rows.append(" | ".join(["| `" + key + "`", default, (meaning + _choices(value)).replace("|", "\\|")]) + " |")
    return "\n".join(rows) + "\n"


def _choices(value: Mapping[str, Any]) -> str:
    return f" One of {', '.join(f'`{choice}`' for choice in value['enum'])}." if "enum" in value else ""


if __name__ == "__main__":
    sys.stdout.write(described(Path("config")))
