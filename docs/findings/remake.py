"""Makes docs/findings.md, its figures and the README's sentence from the committed tables: `make findings`.

The same tables give the same bytes. What a model wrote is shown in fenced blocks that it cannot end.
"""

from __future__ import annotations

import math
import re
import tempfile
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from wireheading.analysis.figures.heldout import draw_contrasts, draw_gain_split, name_of
from wireheading.analysis.figures.oversight import draw_dose_response, draw_reform, draw_transfer
from wireheading.analysis.figures.result import draw_result, result_table
from wireheading.analysis.figures.style import use_style
from wireheading.analysis.oversight import signed
from wireheading.study.config import Run, Study, load_study
from wireheading.study.oversight import oversight_figures
from wireheading.study.reading import read_config

HERE = Path(__file__).parent
FIRST = "qwen2.5-coder-1.5b"
"""The study that the README and the page open with."""

VERSIONS = ("python", "torch", "transformers", "peft")
"""What records say of the software that is told."""

MARKED = re.compile(r"(?<=<!-- findings -->\n).*?(?=\n<!-- /findings -->)", re.DOTALL)
"""The README's part that is made here."""


@dataclass(frozen=True)
class Findings:
    """What is committed of a study, as the templates ask for it.

    Attributes:
        folder: Where its tables lie.
    """

    folder: Path

    @property
    def name(self) -> str:
        """The study's name."""
        return self.folder.name

    @cached_property
    def study(self) -> Study:
        """The study's settings."""
        return load_study(read_config(self.folder / "config.yaml"))

    def table(self, name: str, **chosen: Any) -> pd.DataFrame:
        """The rows of a table that have these values; a table that the study lacks is empty."""
        path = self.folder / f"{name}.parquet"
        table = pd.read_parquet(path) if path.exists() else pd.DataFrame()
        for column, value in chosen.items() if len(table) else ():
            table = table[table[column] == value]
        return table

    @property
    def cells(self) -> list[dict[Any, Any]]:
        """The verdicts."""
        return self.table("verdicts").to_dict("records")

    def cell(self, task: str) -> dict[Any, Any]:
        """The verdict of a task, in a study of one model."""
        return next(cell for cell in self.cells if cell["task"] == task)

    def label(self, cell: dict[Any, Any]) -> str:
        """What a model and task are called."""
        return name_of(self.study, cell["model"], cell["task"])

    @property
    def rounds(self) -> list[int]:
        """The numbers of rounds after which there was a held-out evaluation."""
        return sorted(self.table("estimates")["round"].unique().tolist())

    def mean(self, measure: str, round_: int, **chosen: Any) -> float:
        """The mean over seeds of a held-out measure."""
        return float(self.table("estimates", round=round_, **chosen)[measure].mean())

    def went(self, measure: str, **chosen: Any) -> str:
        """What became of it from the beginning to the end."""
        return f"{self.mean(measure, 0, **chosen):.2f} → {self.mean(measure, self.study.rounds, **chosen):.2f}"

    def span(self, table: str, column: str, **chosen: Any) -> str:
        """The smallest and the largest value of a column."""
        values = self.table(table, **chosen)[column]
        return _span(values.min(), values.max())

    def inflations(self) -> Iterator[dict[str, Any]]:
        """Grade − accuracy as published, over all rounds: of this study, and by model of the published one."""
        published = pd.read_csv(str(resources.files("wireheading.analysis") / "published.csv"))
        for cell in self.cells:
            for condition in ("selfgrade", "honest"):
                runs = self.table("signature", model=cell["model"], task=cell["task"], condition=condition)
                theirs = published[(published["task"] == cell["task"]) & (published["condition"] == condition)]
                if len(runs):
                    yield {
                        **cell, "condition": condition, "mean": runs["inflation"].mean(),
                        "low": runs["inflation"].min(), "high": runs["inflation"].max(),
                        "shows": int(runs["shows"].sum()), "of": len(runs),
                        "published": dict(theirs[["source", "inflation"]].to_numpy().tolist()),
                    }  # fmt: skip

    def items(self, model: str, task: str) -> list[list[dict[Any, Any]]]:
        """The transcripts of a model and task, item by item."""
        rows = self.table("transcripts", model=model, task=task)
        return [said.to_dict("records") for _, said in rows.groupby("item", sort=False)]

    def ended(self, measure: str, condition: str) -> str:
        """The lowest and the highest mean of a measure at the end, over tasks."""
        ends = [self.mean(measure, self.study.rounds, task=cell["task"], condition=condition) for cell in self.cells]
        return _span(min(ends), max(ends))

    def grouped(self, column: str) -> str:
        """What a column of the verdicts says, with the tasks that it says it of."""
        groups: dict[str, list[str]] = {}
        for cell in self.cells:
            groups.setdefault(cell[column], []).append(self.label(cell))
        largest = sorted(groups.items(), key=lambda group: -len(group[1]))
        return ", ".join(f"*{says}* in {listed(where)}" for says, where in largest)

    def facts(self) -> Iterator[tuple[str, str]]:
        """What was run, by name."""
        study, records, inputs, costs = self.study, *map(self.table, ("records", "inputs", "costs"))
        ended = records[records["state"] == "complete"]
        yield "runs", f"{len(ended)} of {len(records)}, {study.rounds} rounds each"
        yield "seeds", ", ".join(map(str, study.seeds))
        yield "conditions", ", ".join(study.conditions)
        settings = f"learning rate {study.optimizer.lr}, LoRA of rank {study.lora.rank}, `grading: {study.grading}`"
        yield "settings", f"{settings}; all of them in `docs/findings/{self.name}/config.yaml`"
        yield "device", f"{_values(costs['device'])}, {costs['seconds'].sum() / 60:.1f} minutes for all runs"
        versions = (f"{name} {_values(ended[name])}" for name in VERSIONS if ended[name].notna().any())
        yield "software", ", ".join(versions)
        yield "code", f"SHA-256 `{_values(ended['code'])}`"
        files = inputs.assign(task=inputs["task"].where(inputs["file"].str.endswith(".jsonl"), ""))
        for row in files.drop_duplicates(["model", "task", "file", "sha256"]).to_dict("records"):
            yield f"{row['task'] or row['model']}: `{row['file']}`", f"SHA-256 `{row['sha256']}`"

    def redone(self) -> str:
        """How equal the first rounds of some runs were on another machine."""
        rows = self.table("redone")
        unequal = rows.loc[rows["unequal"] != "", "unequal"]
        exact = f"unequal are {_values(unequal)}" if len(unequal) else "item, prompt, text, score and reward are equal"
        tokens, same = int(rows["tokens"].sum()), int(rows["same"].sum())
        moved = rows[rows["advantage"] != 0]
        loss = (moved["loss_here"] - moved["loss_recorded"]).abs().max()
        norm = (moved["grad_norm_here"] / moved["grad_norm_recorded"] - 1).abs().max()
        missed = (
            ""
            if same == tokens
            else (
                "; for the others the random number misses the recorded token by "
                f"{rows['largest_shift'].max():.3f} of cumulative probability at most"
            )
        )
        runs = rows.drop_duplicates(list(Run._fields))
        names = [str(Run(*run)) for run in runs[list(Run._fields)].to_numpy().tolist()]
        return (
            f"The first {len(rows) // len(runs)} rounds of {listed(names)}, recorded on "
            f"{_values(rows['recorded_on'])}, on {_values(rows['device'])} in {_values(rows['precision'])}: {exact}. "
            f"With the same random numbers {same} of {tokens} tokens are drawn alike{missed}. "
            f"Losses differ by {loss:.3f} at most, gradients' norms by {100 * norm:.1f} %. "
            "Log-probabilities of the same tokens, computed twice on one machine, differ by up to "
            f"{rows['logprob_gap_recorded'].max():.2f} there and {rows['logprob_gap_here'].max():.0e} here."
        )

    def figures(self) -> list[str]:
        """The figures of this study, by name."""
        return ["result", "contrast", "gain_split", *oversight_figures(self.study)]

    def draw(self, name: str, path: Path) -> None:
        """Draws a figure, with its data beside it."""
        study, curves, estimates = self.study, self.table("curves"), self.table("estimates")
        if name == "result":
            draw_result(result_table(curves), path)
        elif name == "contrast":
            draw_contrasts(study, self.table("seeds"), self.table("verdicts"), path)
        elif name == "gain_split":
            draw_gain_split(study, estimates[estimates["when"] == "end"], path)
        elif name == "dose_response":
            draw_dose_response(study, self.table("oversight"), self.table("oversight_seeds"), path)
        elif name == "reform":
            draw_reform(study, curves, estimates, path)
        else:
            draw_transfer(study, self.table("transfer"), path)


def made(root: Path = HERE.parents[1]) -> dict[Path, bytes]:
    """All that is made from the tables in a copy of the repository, by its path: figures, page and README."""
    folder = root / "docs" / "findings"
    found = [Findings(path.parent) for path in sorted(folder.glob("*/config.yaml"))]
    found.sort(key=lambda findings: findings.name != FIRST)
    files = {}
    for findings in found:
        for name in findings.figures():
            files[findings.folder / f"{name}.svg"] = _drawn(findings, name)
    templates = Environment(
        loader=FileSystemLoader(folder), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True,
    )  # fmt: skip
    templates.filters |= {"signed": signed, "wrapped": wrapped}
    templates.globals |= {"interval": interval, "transcript": transcript}
    page = templates.get_template("page.md.j2").render(studies=found, first=found[0])
    files[root / "docs" / "findings.md"] = page.encode()
    readme = (root / "README.md").read_text(encoding="utf-8")
    opening = templates.get_template("readme.md.j2").render(s=found[0]).strip()
    files[root / "README.md"] = MARKED.sub(lambda _: opening, readme).encode()
    return files


def _drawn(findings: Findings, name: str) -> bytes:
    use_style()
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, f"{name}.svg")
        findings.draw(name, path)
        return path.read_bytes()


def interval(row: dict[Any, Any], name: str) -> str:
    """An effect with its 95 % interval."""
    return f"{signed(row[name])} [{signed(row[f'{name}_low'])}, {signed(row[f'{name}_high'])}]"


def wrapped(text: str) -> str:
    """Paragraphs and items of a list, in lines of 120 characters."""
    filled = []
    for part in text.strip().split("\n\n"):
        indent = "  " if part.startswith("- ") else ""
        words = " ".join(part.split())
        filled.append(
            textwrap.fill(words, 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
        )
    return "\n\n".join(filled) + "\n"


def listed(texts: list[str]) -> str:
    """Texts as a list within a sentence."""
    return " and ".join(filter(None, [", ".join(texts[:-1]), texts[-1]]))


def transcript(said: list[dict[Any, Any]]) -> str:
    """What was said of an item, as a block of Markdown; what is not made here is indented."""
    parts = [("asked", said[0]["question"]), ("right", said[0]["gold"])]
    for row in said:
        who = f"{row['condition']} after {row['round']} rounds" if row["round"] else "before training"
        grade = "unreadable" if math.isnan(row["grade"]) else f"{row['grade']:.1f}"
        said_nothing = "" if row["response"] else ", no text"
        parts.append((f"{who}: score {row['score']:.2f}, own grade {grade}{said_nothing}", row["response"]))
    return fenced("\n".join(f"{name}\n{textwrap.indent(shown(text), '    ')}" for name, text in parts))


def shown(text: str) -> str:
    """A text in lines of 100 characters; what cannot be seen is written as an escape."""
    seen = "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)
    return "\n".join("\n".join(textwrap.wrap(line, 100)) for line in seen.split("\n"))


def fenced(text: str) -> str:
    """A text as a block of Markdown that it cannot end: the fence is longer than any in it."""
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall("`+", text))])
    return f"{fence}text\n{text}\n{fence}"


def _values(column: pd.Series) -> str:
    """The different values of a column."""
    return listed(sorted(set(column.astype(str))))


def _span(low: float, high: float) -> str:
    ends = dict.fromkeys([f"{low:.2f}", f"{high:.2f}"])
    return " to ".join(ends)


if __name__ == "__main__":
    for file, content in made().items():
        file.write_bytes(content)
