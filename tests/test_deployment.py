"""The workflow as a module of another one, deployed by snakedeploy from a repository of its own."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from configs import ROOT

from wireheading.study.config import load_study
from wireheading.study.described import described

BLOCKING = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name == "wireheading":
            raise ModuleNotFoundError("No module named 'wireheading'", name="wireheading")

sys.meta_path.insert(0, Blocked())
"""
"""A `sitecustomize.py` without which the package would be found."""


def snakemake(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WIREHEADING_")}
    return subprocess.run(
        [sys.executable, "-m", "snakemake", *arguments],
        cwd=folder,
        env=kept | {"PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1"} | environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )


def test_the_configuration_is_described_as_the_schema_has_it() -> None:
    text = (ROOT / "config" / "README.md").read_text(encoding="utf-8")
    assert text == described(ROOT / "config"), "run: python -m wireheading.study.described > config/README.md"


def test_the_catalog_has_all_that_it_asks_for() -> None:
    catalog = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text(encoding="utf-8"))["usage"]
    assert set(catalog) == {"mandatory-flags", "software-stack-deployment", "report"}
    profile = catalog["mandatory-flags"]["flags"].removeprefix("--profile ")
    assert (ROOT / profile / "config.yaml").exists()
    load_study(yaml.safe_load((ROOT / ".test" / "config" / "config.yaml").read_text(encoding="utf-8")))


def test_who_lacks_the_package_is_told_in_one_line_how_to_install_it(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(BLOCKING)
    shutil.copytree(ROOT / ".test" / "config", tmp_path / "config")
    told = snakemake(tmp_path, "-n", "-s", str(ROOT / "workflow" / "Snakefile"), PYTHONPATH=str(tmp_path))
    assert told.returncode == 1
    assert told.stdout.splitlines()[-1].startswith(
        "wireheading: the package is not installed where Snakemake runs; pip"
    )
    assert "Traceback" not in told.stdout


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("snakedeploy") is None, reason="snakedeploy is not installed: pip install -e '.[checks]'"
)
@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_a_deployed_module_runs_and_reports(tmp_path: Path) -> None:
    """Everything comes from a repository: rules, scripts, environments and captions, as it would from the web."""
    repository, deployed = tmp_path / "wireheading", tmp_path / "deployed"
    for name in ("workflow", "config", "envs", "profiles"):
        shutil.copytree(ROOT / name, repository / name, ignore=shutil.ignore_patterns("__pycache__"))
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    for command in (("init", "-q", "-b", "main"), ("add", "."), (*identity, "commit", "-q", "-m", "Begin")):
        subprocess.run(["git", *command], cwd=repository, check=True)
    deploy = ["deploy-workflow", str(repository), str(deployed), "--branch", "main", "--name", "wireheading"]
    main = "import sys; from snakedeploy.client import main; sys.exit(main())"
    subprocess.run([sys.executable, "-c", main, *deploy], check=True, capture_output=True)
    # Of a local repository, snakedeploy names the Snakefile as if it lay in the new folder; of one on the web, as here.
    snakefile = deployed / "workflow" / "Snakefile"
    text = snakefile.read_text(encoding="utf-8")
    assert '"workflow/Snakefile"' in text
    address = f"git+file://{repository}/workflow/Snakefile@main"
    snakefile.write_text(text.replace('"workflow/Snakefile"', f'"{address}"'), encoding="utf-8")
    shutil.copy(ROOT / ".test" / "config" / "config.yaml", deployed / "config" / "config.yaml")

    run = snakemake(deployed)
    assert run.returncode == 0, run.stdout
    assert len(list(deployed.glob("results/42/tiny/arithmetic/*.json"))) == 2
    told = snakemake(deployed, "--report", "reports/snakemake.html")
    assert told.returncode == 0, told.stdout
    assert (deployed / "reports" / "snakemake.html").stat().st_size > 1e6
