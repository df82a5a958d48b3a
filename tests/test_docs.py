"""README and documentation: every link leads somewhere, every command is run or listed with the reason why not.

`python tests/test_docs.py` writes docs/cli.md.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from configs import ROOT

from wireheading import cli

PAGES = sorted((ROOT / "docs").glob("*.md"))
TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES]
SITE = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]

ELSEWHERE = {
    "make demo": "test_workflow.py::test_finished_work_is_believed_where_snakemake_remembers_nothing",
    "make findings": "test_findings.py",
    "python docs/findings/collect.py CONFIG NAME": "test_findings.py",
    "make docs": "test_docs.py::test_the_site_is_built_and_asks_nothing_of_the_network",
    "snakemake --profile profiles/demo --report reports/snakemake.html": "test_workflow.py",
    "cp config/demo.yaml config/mine.yaml": "test_docs.py::test_a_command_does_what_it_says",
    "wireheading import all_results.json": "test_gaps.py",
    "wireheading status --watch --configfile config/demo.yaml": "test_terminal.py",
    "wireheading report --configfile config/demo.yaml": "test_outcome.py",
    "wireheading export logs --to inspect --configfile config/demo.yaml": "test_exports.py",
    "wireheading export curves --to trackio --configfile config/demo.yaml": "test_exports.py",
    "wireheading export texts --to datasets --configfile config/demo.yaml": "test_exports.py",
    "wireheading export adapters --to adapter --configfile config/demo.yaml": "test_exports.py",
    "wireheading export all_results.json --configfile config/config.yaml": "test_published.py",
}
"""Commands that other tests run, on a smaller study or in parts."""

NOT_HERE = {
    "make check": "it runs this test",
    "make test": "it runs this test",
    "make extras": "it installs what this test runs with",
    ". .venv/bin/activate": "the tests run in that environment",
    "export HF_TOKEN=…": "it needs an account",
    "snakemake --unlock": "nothing here is locked; it is Snakemake's own",
    "pip install git+https://github.com/OWNER/wireheading": "it needs a network; test_deployment.py has the package",
    "snakedeploy deploy-workflow https://github.com/OWNER/wireheading my-study --tag v0.1.0": "it needs a network; "
    "test_deployment.py deploys from a folder",
}
"""Commands that no test runs, and why."""


def commands(path: Path) -> list[str]:
    """The commands in a text: the lines of blocks without a language, less the remarks."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    lines = (line for language, block in blocks for line in block.splitlines() if not language)
    return [command for line in lines if (command := re.sub(r"(^|\s+)#( .*|$)", "", line).strip())]


def dry_runs() -> list[str]:
    found = {command for path in TEXTS for command in commands(path)} - set(ELSEWHERE) - set(NOT_HERE)
    return sorted(found)


def headings(path: Path) -> set[str]:
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def cli_page() -> str:
    """The command's help, of itself and of each of its commands."""
    os.environ["COLUMNS"] = "100"
    parser = cli._parser()
    (actions,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    parts = [("wireheading", parser), *((f"wireheading {name}", each) for name, each in actions.choices.items())]
    shown = (f"## {title}\n\n```text\n{each.format_help().rstrip()}\n```\n" for title, each in parts)
    return "\n".join(["# Command line\n", *shown])


def test_the_page_on_the_command_is_its_help() -> None:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert page == cli_page(), "run: python tests/test_docs.py"


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_links_lead_to_files_and_headings(path: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith(("https://", "../../actions/")):
            continue
        file, _, heading = target.partition("#")
        found = (path.parent / file) if file else path
        assert found.exists(), target
        # A page of the site may lead to what is on the site alone.
        assert path.parent.name != "docs" or found.is_relative_to(path.parent), target
        assert not heading or heading in headings(found), target


def test_every_page_is_in_the_navigation() -> None:
    def pages(entry: object) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        values = entry.values() if isinstance(entry, dict) else entry
        return [page for value in values for page in pages(value)]  # type: ignore[attr-defined]

    assert sorted(pages(SITE["nav"])) == [path.name for path in PAGES]


def test_every_command_is_run_or_listed() -> None:
    found = {command for path in TEXTS for command in commands(path)}
    assert set(ELSEWHERE) | set(NOT_HERE) <= found, "no text has this command any more"
    assert all(command.startswith(("snakemake ", "wireheading ")) for command in dry_runs())
    for place in ELSEWHERE.values():
        name, _, test = place.partition("::")
        assert f"def {test or 'test_'}" in (ROOT / "tests" / name).read_text(encoding="utf-8"), place


@pytest.mark.slow
@pytest.mark.parametrize("command", dry_runs())
def test_a_command_does_what_it_says(command: str, tmp_path: Path) -> None:
    """Commands of Snakemake are run dry, in a folder without results: every file, key and option is read."""
    for name in ("workflow", "profiles", "envs", "src"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "config", tmp_path / "config")
    shutil.copy(tmp_path / "config" / "demo.yaml", tmp_path / "config" / "mine.yaml")
    program, *arguments = shlex.split(command)
    programs = {"snakemake": ["-m", "snakemake", "-n"], "wireheading": ["-m", "wireheading.cli"]}
    done = subprocess.run(
        [sys.executable, *programs[program], *arguments],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if not name.startswith("WIREHEADING_")},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("zensical") is None, reason="zensical is not installed: pip install -e '.[docs]'"
)
def test_the_site_is_built_and_asks_nothing_of_the_network(tmp_path: Path) -> None:
    from browser import CHROMIUM, browsing

    for name in ("docs", "src"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "zensical.toml", tmp_path)
    command = [str(Path(sys.executable).with_name("zensical")), "build", "--clean", "--strict"]
    done = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    site = tmp_path / "site"
    for path in PAGES:
        html = (site / path.with_suffix(".html").name).read_text(encoding="utf-8")
        assert not re.findall(
            r'(?:src|href)="(https?://(?!zensical\.org|arxiv\.org|\S+readthedocs)[^"]+\.(?:js|css))"', html
        )
    assert 'class="doc' in (site / "api.html").read_text(encoding="utf-8")
    if CHROMIUM is None:
        pytest.skip("no chromium: the pages are built, but not looked at")
    with browsing(tmp_path / "browser") as page:
        for path in PAGES:
            page.open(site / path.with_suffix(".html").name)
            title = re.search(r"^# (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert title is not None
            assert title[1] in page.evaluate("document.querySelector('article h1').innerText")
        assert [request for request in page.requests if not request.startswith(("file:", "data:", "blob:"))] == []


if __name__ == "__main__":
    (ROOT / "docs" / "cli.md").write_text(cli_page(), encoding="utf-8")
