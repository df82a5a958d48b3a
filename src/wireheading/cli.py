"""The command `wireheading`: how far a study is, what it found, what its records are worth, and published results."""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import yaml

from wireheading import console
from wireheading.analysis.currency import analysis_is_current
from wireheading.check import BAD, check_records, check_text, studies_in
from wireheading.errors import InputError, printable
from wireheading.exports.adapters import export_adapters
from wireheading.exports.curves import export_curves
from wireheading.exports.dataset import export_dataset
from wireheading.exports.inspect_logs import export_inspect
from wireheading.records.published import export_results, import_results
from wireheading.status import as_json, as_table, jobs_text, survey
from wireheading.study.config import Study, load_study
from wireheading.study.reading import read_config

STUDY = Path("config/config.yaml")
PUBLISHED = Path("config/original.yaml")

EXPORTS = {
    "inspect": export_inspect,
    "trackio": export_curves,
    "datasets": export_dataset,
    "adapter": export_adapters,
}
"""The exports to other tools: each writes a folder."""

EXAMPLES = """\
examples:
  wireheading status                                        what became of each run, which jobs run, what is left
  wireheading status --watch --configfile config/demo.yaml  the same, drawn anew until nothing is left
  wireheading report                                        the headline of each model and task
  wireheading report --only '{tasks: [arithmetic]}'         of a part, as `snakemake --config` made it
  wireheading check                                         is every record whole, and made by this code?
  wireheading import all_results.json                       results of the published code
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: The command line's; by default, those of this process.

    Returns:
        The exit code: 1 if `check` finds corrupt or mixed records, or a file cannot be read or written; else 0.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command == "export":
        if options.overwrite and options.to != "published":
            parser.error(f"--overwrite: --to {options.to} never replaces what exists; name a new folder")
        options.configfile = options.configfile or (PUBLISHED if options.to == "published" else STUDY)
    try:
        config = read_config(options.configfile)
        if options.command in ("status", "report") and options.only:
            config["only"] = options.only
        study = load_study(config)
        if options.command == "status":
            _show_status(study, options)
        elif options.command == "report":
            _show_report(study)
        elif options.command == "check":
            findings = check_records(study)
            print(check_text(findings))
            if all(finding.state == "stale" for finding in findings):
                _name_other_studies(study, options.configfile)
            return int(any(finding.state in BAD for finding in findings))
        elif options.command == "import":
            import_results(study, options.file, options.overwrite, _tell)
        elif options.to == "published":
            export_results(study, options.file, options.overwrite, _tell)
        else:
            EXPORTS[options.to](study, options.file, _tell)
    except InputError as error:
        _tell(str(error))
        return 1
    except OSError as error:
        if error.filename is None:
            raise
        _tell(f"{error.filename}: {error.strerror}")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wireheading",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {importlib.metadata.version('wireheading')}")
    commands = parser.add_subparsers(dest="command", required=True)
    status = commands.add_parser("status", help="the state of each run, the jobs that run, and what is left to do")
    form = status.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="a list of objects, one per run")
    form.add_argument("--watch", action="store_true", help="show the jobs until nothing is left to do, or Ctrl-C")
    report = commands.add_parser("report", help="the headline of each model and task, and where the report lies")
    for command in (status, report):
        command.add_argument(
            "--only",
            type=_part,
            metavar="PART",
            help="a part of the study, as for snakemake: '{seeds: [42], tasks: [arithmetic]}'",
        )
    check = commands.add_parser("check", help="whether each record is valid, stale, corrupt or made by other code")
    importing = commands.add_parser("import", help="import results of the published code")
    importing.add_argument("file", type=Path, metavar="FILE", help="all_results.json, checkpoint or tracking export")
    exporting = commands.add_parser("export", help="export a study for other tools")
    exporting.add_argument("file", type=Path, metavar="PATH", help="the file or folder to write")
    exporting.add_argument(
        "--to",
        choices=["published", *EXPORTS],
        default="published",
        help="all_results.json of the published code (the default), logs of held-out evaluations for Inspect, curves "
        "for Trackio, a data set of all texts, or the adapters that were kept, each with a model card",
    )
    exporting.add_argument(
        "--configfile",
        type=Path,
        metavar="FILE",
        help=f"the study's config (default: {STUDY}; {PUBLISHED} to published)",
    )
    for command, default in ((status, STUDY), (report, STUDY), (check, STUDY), (importing, PUBLISHED)):
        command.add_argument(
            "--configfile", type=Path, metavar="FILE", default=default, help="the study's config (default: %(default)s)"
        )
    for command in (importing, exporting):
        command.add_argument("--overwrite", action="store_true", help="replace existing files")
    return parser


def _show_status(study: Study, options: argparse.Namespace) -> None:
    if options.watch:
        console.watch(study)
        return
    found = survey(study, time.time())
    text = as_json(study, found.runs) if options.json else "\n".join([as_table(study, found.runs), *jobs_text(found)])
    print(text)
    if all(status.state in ("missing", "stale") for status in found.runs):
        _name_other_studies(study, options.configfile)


def _show_report(study: Study) -> None:
    from wireheading.analysis.outcome import outcome_text  # It loads pandas, which takes a second.

    print(outcome_text(study))
    if not analysis_is_current(study):
        _tell(f"{study.reports}: made with other settings of `analysis`; snakemake makes it anew")


def _part(text: str) -> object:
    """What is given to `--only`, as Snakemake reads what is given to `--config`."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise argparse.ArgumentTypeError(f"{text!r}: not YAML; write '{{seeds: [42], tasks: [arithmetic]}}'") from None


def _name_other_studies(study: Study, configfile: Path) -> None:
    """Names the configs whose records are in the results folder, when it has none of this study."""
    others = studies_in(Path(study.results), sorted(configfile.parent.glob("*.yaml")))
    for path, number in others.items():
        _tell(f"{study.results} holds the records of {number} runs of {path}: give --configfile {path}")


def _tell(line: str) -> None:
    print(printable(line), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
