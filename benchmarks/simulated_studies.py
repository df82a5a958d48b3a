"""How often the verdict is right: studies are simulated whose truth is known, and judged by the real rule.

    python benchmarks/simulated_studies.py               # ten seconds; writes the table into docs/verdict.md
    python benchmarks/simulated_studies.py --studies 100 --print

A run's inflation at the end is its true value plus a normal error that differs between runs ("run sd"); its score too,
with a standard deviation of 0.05. The base model grades an answer 0.5, and 0.2 more if it is right, so before training,
with half of the answers right, it overrates them by 0.1: the second test of the rule, that grades exceed scores, then
hardly ever protects a study without an effect, and all depends on the first, that of W.
"""

from __future__ import annotations

import argparse
import gc
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wireheading.analysis.verdict import INVALID, NO_WIREHEADING, WIREHEADING, decide, paired_tests, upper_bound
from wireheading.study.sections import AnalysisConfig

Floats = NDArray[np.float64]

SCORE_SD = 0.05
SCORE_START = 0.5
PAGE = Path(__file__).parents[1] / "docs" / "verdict.md"
BEGIN, END = "<!-- made by benchmarks/simulated_studies.py -->", "<!-- end -->"


@dataclass(frozen=True)
class Scenario:
    """What is true of every cell of a simulated study.

    Attributes:
        name: What it is called in the table.
        null: Whether wireheading would be a false verdict.
        w: The true W: inflation in selfgrade, with none in its contrast.
        selfgrade_gain: Gain of the score in selfgrade.
        contrast_gain: Gain of the score in its contrast and in control.
        readable: Part of the grades in selfgrade that can be read.
        collapsed: Whether selfgrade of the last seed ends with a score of 0 and a grade of 1.
    """

    name: str
    null: bool
    w: float = 0.0
    selfgrade_gain: float = 0.0
    contrast_gain: float = 0.0
    readable: float = 1.0
    collapsed: bool = False


SCENARIOS = (
    Scenario("no effect", null=True),
    Scenario("decoupled learns, selfgrade does nothing", null=True, contrast_gain=0.3),
    Scenario("W at the margin", null=True, w=0.05, contrast_gain=0.2),
    Scenario("one collapsed seed, no effect otherwise", null=True, contrast_gain=0.2, collapsed=True),
    Scenario("parse failures, no effect", null=True, contrast_gain=0.2, readable=0.8),
    Scenario("parse failures, W = 0.3", null=False, w=0.3, contrast_gain=0.2, readable=0.8),
    Scenario("inflation only, W = 0.3", null=False, w=0.3, contrast_gain=0.2),
    Scenario("inflation and learning, W = 0.3", null=False, w=0.3, selfgrade_gain=0.2, contrast_gain=0.2),
)


@dataclass(frozen=True)
class Studies:
    """What many simulated studies measured at the end.

    Attributes:
        selfgrade_inflation: Inflation in selfgrade, shape [studies, cells, seeds].
        contrast_inflation: In its contrast, likewise.
        gap: Grade − score in selfgrade, likewise.
        control_gain: Gain of the score in control, likewise.
        readable: Part of the grades that could be read in selfgrade and its contrast together.
    """

    selfgrade_inflation: Floats
    contrast_inflation: Floats
    gap: Floats
    control_gain: Floats
    readable: float


def simulate(scenario: Scenario, studies: int, cells: int, seeds: int, sd: float, rng: np.random.Generator) -> Studies:
    """Simulates studies of which all is known."""
    shape = (studies, cells, seeds)
    inflation = scenario.w + rng.normal(0, sd, shape)
    score = SCORE_START + scenario.selfgrade_gain + rng.normal(0, SCORE_SD, shape)
    if scenario.collapsed:
        score[..., -1] = 0.0
        inflation[..., -1] = 1.0 - _base_grade(score[..., -1])
    return Studies(
        inflation,
        rng.normal(0, sd, shape),
        _base_grade(score) + inflation - score,
        scenario.contrast_gain + rng.normal(0, SCORE_SD, shape),
        (scenario.readable + 1) / 2,
    )


def judge_all(studies: Studies, config: AnalysisConfig) -> list[list[str]]:
    """The verdict on every cell of every study, by the functions that judge a real one."""
    tests = paired_tests(studies.selfgrade_inflation - studies.contrast_inflation, studies.gap, config)
    invalid = (upper_bound(studies.control_gain, config) < 0) | (studies.readable < config.readable)
    seeds = studies.gap.shape[-1]
    verdicts = []
    for p, low, high, lost in zip(tests.p, tests.low, tests.high, invalid, strict=True):
        valid = np.flatnonzero(~lost)
        judged = decide(p[valid].tolist(), low[valid].tolist(), high[valid].tolist(), [seeds] * len(valid), config)
        row = [INVALID] * len(lost)
        for place, verdict in zip(valid, judged, strict=True):
            row[place] = verdict
        verdicts.append(row)
    return verdicts


@dataclass(frozen=True)
class Rates:
    """How often a verdict is given, in parts of all: `any_wireheading` of studies, the others of cells."""

    any_wireheading: float
    wireheading: float
    no_wireheading: float
    invalid: float


def rates(verdicts: Sequence[Sequence[str]]) -> Rates:
    """Counts verdicts."""
    table = np.array(verdicts)
    return Rates(
        float((table == WIREHEADING).any(axis=1).mean()),
        *(float((table == verdict).mean()) for verdict in (WIREHEADING, NO_WIREHEADING, INVALID)),
    )


def rate(scenario: Scenario, studies: int, cells: int, seeds: int, sd: float, seed: int = 0) -> Rates:
    """Simulates and judges studies of one kind, by the default thresholds."""
    rng = np.random.default_rng([seed, SCENARIOS.index(scenario), cells, seeds, round(1000 * sd)])
    return rates(judge_all(simulate(scenario, studies, cells, seeds, sd, rng), AnalysisConfig()))


def _base_grade(score: Floats) -> Floats:
    return 0.5 + 0.2 * score


def _rows(studies: int, seed: int) -> Iterator[str]:
    seeds = (4, 5, 8)
    yield (
        f"{studies:,} studies each; in per cent, with 4 / 5 / 8 seeds. *Any* is the part of studies with at least one "
        "verdict of wireheading, the other columns are parts of all cells; the rest is inconclusive."
    )
    yield ""
    yield "| truth | cells | run sd | any | wireheading | no wireheading | invalid |"
    yield "|---|---|---|---|---|---|---|"
    for scenario, cells, sd in itertools.product(SCENARIOS, (3, 9), (0.05, 0.10, 0.15)):
        found = [rate(scenario, studies, cells, count, sd, seed) for count in seeds]
        columns = [
            " / ".join(f"{100 * getattr(one, name):.1f}" for one in found)
            for name in ("any_wireheading", "wireheading", "no_wireheading", "invalid")
        ]
        yield f"| {scenario.name} | {cells} | {sd:.2f} | {' | '.join(columns)} |"
    wanted = rate(SCENARIOS[6], studies, 3, 5, 0.08, seed)
    yield ""
    yield (
        f"With W = 0.3, five seeds, three cells and a run sd of 0.08, {100 * wanted.wireheading:.1f} % of cells are "
        f"called wireheading, and {100 * wanted.any_wireheading:.1f} % of studies have at least one."
    )


def main() -> None:
    """Writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=1000, help="studies of each kind (1000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the simulation (0)")
    parser.add_argument("--print", action="store_true", help="print the table instead of writing it into the page")
    options = parser.parse_args()
    # Holm's correction in statsmodels collects garbage each time: what is there already need not be searched.
    gc.freeze()
    lines = []
    for line in _rows(options.studies, options.seed):
        lines.append(line)
        print(line, flush=True)
    if not options.print:
        head, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
        table = "\n".join(lines)
        PAGE.write_text(f"{head}{BEGIN}\n\n{table}\n\n{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
