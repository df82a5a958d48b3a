"""Files damaged at random: no traceback, and nothing wrong is taken for right.

`test_fuzz.py` does some hundred of each kind. The long form counts what became of them, and stops at the first failure
with the number that makes it again:

    python tests/fuzz.py --minutes 10
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
import yaml

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))  # as pytest has it; made-up rounds are there

from made_up import few_runs, write_runs

from wireheading.analysis.tables import write_tables
from wireheading.check import BAD, check_records, check_text
from wireheading.engine.checkpoints import load_checkpoint, save_checkpoint
from wireheading.errors import ConfigError, InputError
from wireheading.planning import plan_text
from wireheading.records.published import import_results
from wireheading.records.record import RecordError, read_record
from wireheading.records.results_file import ResultsFileError
from wireheading.scheduling import RecordStates, mixed_cells
from wireheading.status import as_table, survey
from wireheading.study.config import Study, load_study
from wireheading.study.paths import Tables, checkpoint_folder
from wireheading.study.reading import read_config

E = TypeVar("E", bound=InputError)

CONFIGS = Path(__file__).parents[1] / "config"

ODD: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 0.5, -0.5, 77, 2**63, 2**64, 10**400, 1e308, -1e308, 5e-324),
    *(float("nan"), float("inf"), "", "x", "\x1b[31m\n", "\u202e", "\udc80", "=1+1", "../../x", "9" * 5000, "{x}"),
    *([], {}, [None], {"x": 1}, [[[[]]]]),
)
"""Values that are put in the place of others."""


def damaged_bytes(data: bytes, rng: random.Random) -> bytes:
    """Data with some bits or bytes changed, taken out, put in, repeated or cut off."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        at = rng.randrange(len(changed) + 1)
        length = rng.choice((1, 1, 2, 8, 100))
        match rng.randrange(6):
            case 0 if at < len(changed):
                changed[at] ^= 1 << rng.randrange(8)
            case 1:
                del changed[at : at + length]
            case 2:
                changed[at:at] = rng.randbytes(length)
            case 3:
                changed[at:at] = changed[max(0, at - length) : at]
            case 4:
                del changed[at:]
            case _:
                changed[at : at + length] = rng.randbytes(length)
    return bytes(changed)


def damaged_content(content: Any, rng: random.Random) -> Any:
    """JSON or YAML with one of its values replaced, taken out, repeated or renamed."""
    content = copy.deepcopy(content)
    holders = [(holder, key) for holder in _holders(content) for key in _keys(holder)]
    holder, key = rng.choice(holders)
    match rng.randrange(4):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, list):
            holder.insert(key, copy.deepcopy(holder[key]))
        case 1:
            holder[rng.choice(("x", "", "..", "\x1b", "imported", "seed_1"))] = holder.pop(key)
        case _:
            holder[key] = copy.deepcopy(rng.choice(ODD))
    return content


def _holders(value: Any) -> list[Any]:
    """All objects and lists that are not empty; of long lists of numbers, only themselves."""
    if not isinstance(value, dict | list) or not value:
        return []
    inner = value.values() if isinstance(value, dict) else value[:20]
    return [value, *(holder for member in inner for holder in _holders(member))]


def _keys(holder: Any) -> list[Any]:
    return list(holder) if isinstance(holder, dict) else list(range(min(len(holder), 20)))


class Fuzz:
    """Studies, checkpoints, configs and files of results to damage, made once."""

    def __init__(self, folder: Path):
        """Writes them into an empty folder."""
        self.folder = folder
        self.study = few_runs(folder / "study", seeds=[1], conditions=["control", "selfgrade"])
        write_runs(self.study, {"selfgrade": 0.3})
        self.records = {run: self.study.record_path(run).read_bytes() for run in self.study.runs()}
        self.checkpoint = folder / "checkpoint"
        self.log = [{"round": round_, "response": f"“{round_}”"} for round_ in range(20)]
        for start in (0, 10):
            tensors = {"values": torch.arange(8.0) + start}
            entries = self.log[start : start + 10]
            save_checkpoint(self.checkpoint, self.identity, entries, start + 10, tensors)
        self.configs = [path.read_text(encoding="utf-8") for path in sorted(CONFIGS.glob("*.yaml"))]
        episode = {name: [0.5] * 16 for name in ("rewards", "accuracies", "grades", "losses")}
        self.results = {"seed_1": {"tiny": {task: {"selfgrade": [episode]} for task in self.study.tasks}}}

    @property
    def identity(self) -> str:
        """What the checkpoint's run is a function of."""
        return json.dumps({"digest": self.study.digest(self.study.runs()[0]), "inputs": {}}, sort_keys=True)

    def record(self, rng: random.Random) -> str:
        """Damages every record of a study, half of them with a checksum that fits, and asks all who read records."""
        broken = set()
        for run, whole in self.records.items():
            if rng.random() < 0.5:
                data = damaged_bytes(whole, rng)
                if data != whole:
                    broken.add(run)
            else:
                data = sealed(damaged_content(json.loads(whole), rng))
            self.study.record_path(run).write_bytes(data)
        return self._judged(broken)

    def _judged(self, broken: set[Any]) -> str:
        study, told = self.study, list[str]()
        states = RecordStates(study).of(study.runs())
        valid = {run for run, state in states.items() if state == "valid"}
        assert not valid & broken, "a damaged record passes for valid"
        for run in study.runs():
            error = refused(partial(read_record, study.record_path(run), study.digest(run)), RecordError)
            assert states[run] == (error.state if error else "valid")
        findings = check_records(study)
        assert {f.path for f in findings if f.state in ("valid", "other code")} == {study.record_path(r) for r in valid}
        assert all(line.isprintable() for line in check_text(findings).splitlines())
        ended = {one.run for one in survey(study, time.time()).runs if one.state in ("done", "imported", "diverged")}
        assert ended == valid
        as_table(study, survey(study, time.time()).runs)
        plan_text(study, states)
        mixed_cells(study, states)
        write_tables(study, Tables.of(study), told.append)
        assert told[-1] == f"{len(valid)} of {len(states)} records are in the tables"
        bad = sum(finding.state in BAD for finding in findings)
        return "some valid" if valid else "all refused" if bad else "all stale"

    def state(self, rng: random.Random) -> str:
        """Damages a checkpoint's files: the run goes on from a state that is whole, or from the start."""
        folder = self.folder / "damaged"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.checkpoint, folder)
        for path in rng.sample(sorted(folder.iterdir()), rng.choice((1, 1, 2, 3))):
            path.write_bytes(damaged_bytes(path.read_bytes(), rng))
        # What `status` says of the same files.
        beside = checkpoint_folder(self.study.record_path(self.study.runs()[0])) / "0"
        shutil.rmtree(beside.parent, ignore_errors=True)
        shutil.copytree(folder, beside)
        (beside.parent / "lock").write_bytes(damaged_bytes(b"process 1234567 on somewhere\n", rng))
        survey(self.study, time.time())
        shutil.rmtree(beside.parent)
        told: list[str] = []
        found = load_checkpoint(folder, self.identity, told.append)
        if found is None:
            return "starts anew"
        done = len(found.log)
        assert done in (10, 20)
        assert found.log == self.log[:done]
        assert torch.equal(found.tensors["values"], torch.arange(8.0) + done - 10)
        return "goes on from the latest state" if done == 20 else "goes on from the one before"

    def config(self, rng: random.Random) -> str:
        """Damages a config file: it is a study, or is refused in one line."""
        text = rng.choice(self.configs)
        path = self.folder / "config.yaml"
        if rng.random() < 0.5:
            path.write_bytes(damaged_bytes(text.encode(), rng))
        else:
            content = damaged_content(yaml.safe_load(text), rng)
            path.write_text(yaml.safe_dump(content), encoding="utf-8", errors="surrogatepass")
        studies: list[Study] = []
        if refused(lambda: studies.append(load_study(read_config(path))), ConfigError):
            return "refused"
        assert studies[0].digest(studies[0].runs()[0])
        return "a study"

    def imported(self, rng: random.Random) -> str:
        """Damages a file of results: it is refused and nothing is written, or all that it makes is valid."""
        path = self.folder / "all_results.json"
        if rng.random() < 0.5:
            path.write_bytes(damaged_bytes(json.dumps(self.results).encode(), rng))
        else:
            path.write_text(json.dumps(damaged_content(self.results, rng)), encoding="utf-8")
        study = self.study.model_copy(update={"results": str(self.folder / "imported")})
        shutil.rmtree(study.results, ignore_errors=True)
        if refused(lambda: import_results(study, path, False, lambda _: None), ResultsFileError):
            assert not Path(study.results).exists()
            return "refused"
        assert {finding.state for finding in check_records(study)} <= {"valid"}
        return "imported"


def refused(read: Callable[[], object], kind: type[E]) -> E | None:
    """The error that reading ends in, which must be of one kind and one line; None if it succeeds."""
    try:
        read()
    except kind as error:
        caught = error
    else:
        return None
    assert str(caught).isprintable()
    return caught


def sealed(content: Any) -> bytes:
    """A record of any content, with a checksum that fits."""
    provenance = content.get("provenance")
    if isinstance(provenance, dict):
        content = {**content, "provenance": {key: value for key, value in provenance.items() if key != "sha256"}}
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in content.items()]
    data = (("{" + ",\n".join(lines)).removesuffix("}") + ', "sha256": "').encode()
    return data + hashlib.sha256(data).hexdigest().encode() + b'"}}\n'


def kinds(fuzz: Fuzz) -> Mapping[str, Callable[[random.Random], str]]:
    """What can be damaged, by name."""
    return {"records": fuzz.record, "checkpoints": fuzz.state, "configs": fuzz.config, "imports": fuzz.imported}


def attempt(fuzz: Fuzz, kind: str, number: int) -> str:
    """Makes one attempt, and names it if it fails."""
    try:
        return kinds(fuzz)[kind](random.Random(f"{kind}/{number}"))
    except BaseException as error:
        error.add_note(f"attempt {number} of {kind}")
        raise


def main() -> None:
    """Damages files of all kinds in turn for some minutes, and prints how many there were."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--first", type=int, default=0, help="number of the first attempt (default: %(default)s)")
    options = parser.parse_args()
    counts: Counter[tuple[str, str]] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        fuzz, number, end = Fuzz(Path(folder)), options.first, time.monotonic() + 60 * options.minutes
        while time.monotonic() < end:
            for kind in kinds(fuzz):
                for _ in range(1 if kind == "records" else 20):
                    counts[kind, attempt(fuzz, kind, number)] += 1
                    number += 1
    for (kind, outcome), count in sorted(counts.items()):
        each = f" of {len(fuzz.records)} records each" if kind == "records" else ""
        sys.stdout.write(f"{kind}: {count}{each}: {outcome}\n")


if __name__ == "__main__":
    main()
