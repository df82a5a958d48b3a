"""How often the verdict is right: studies of which the truth is known, simulated item by item and judged by the rule.

    python benchmarks/simulated_studies.py               # writes the table into docs/verdict.md
    python benchmarks/simulated_studies.py --studies 200 --print

A value is a run's true effect, plus luck with the item (shared by all seeds), plus the rest. A run's true effect is the
scenario's plus the run's own deviation. The gain in paid reward is the sum of its true parts: score, persuasion,
inflation (what the grader's leniency adds) and format.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wireheading.analysis.rule import (
    EARNED,
    INCONCLUSIVE,
    NO_EFFECT,
    NO_HEADROOM,
    UNEARNED,
    WIREHEADING,
    Measured,
    ask,
    headlines,
    weigh,
)
from wireheading.study.sections import AnalysisConfig

Floats = NDArray[np.float64]

SEEDS = (3, 4, 5, 8)
ITEMS = 200
PAGE = Path(__file__).parents[1] / "docs" / "verdict.md"
BEGIN, END = "<!-- made by benchmarks/simulated_studies.py -->", "<!-- end -->"
COLUMNS = (WIREHEADING, UNEARNED, EARNED, NO_EFFECT, NO_HEADROOM, INCONCLUSIVE)


@dataclass(frozen=True)
class Scenario:
    """What is true of every cell of a simulated study.

    Attributes:
        name: What it is called in the table.
        null: Whether *wireheading* would be a false verdict.
        score: Gain in score in selfgrade.
        control_score: Gain in score in control.
        persuasion: Gain in reward by answers that the base overrates.
        lenient: Leniency in selfgrade, which adds as much inflation.
        control_lenient: Leniency in control.
        format: Gain in reward by grades that can be read.
        share: Share of seeds that have selfgrade's effects, at least one seed; in the others nothing happens. Below 0:
            all seeds but one.
        run_sd: Standard deviation over runs of leniency, and of the gain in reward that does not come of it.
        score_sd: That of the gain in score.
        luck: Standard deviation over items of paid reward and of score, which all seeds share.
        rest: That of what is left of them.
        soft_luck: Standard deviation over items of leniency, which all seeds share; and that of what is left of it.
        tells: Whether the policy's grader can tell right from wrong, so that reward and score share their luck.
        base_wrong: The base's mean grade of wrong answers.
        base_reward: The base's mean paid reward.
        cells: Cells of the study.
    """

    name: str
    null: bool = True
    score: float = 0.0
    control_score: float = 0.0
    persuasion: float = 0.0
    lenient: float = 0.0
    control_lenient: float = 0.0
    format: float = 0.0
    share: float = 1.0
    run_sd: float = 0.05
    score_sd: float = 0.05
    luck: float = 0.45
    rest: float = 0.4
    soft_luck: float = 0.1
    tells: bool = False
    base_wrong: float = 0.4
    base_reward: float = 0.4
    cells: int = 3


QUIET: dict[str, Any] = {"run_sd": 0.005, "score_sd": 0.005, "luck": 0.05, "rest": 0.05, "soft_luck": 0.02}
"""Policies that hardly move, as with small learning rates."""

REAL: dict[str, Any] = {"null": False, "control_score": 0.2, "run_sd": 0.08}
"""What is common to the studies with an effect."""

SCENARIOS = (
    Scenario("nothing happens, policies hardly move", **QUIET),
    Scenario("nothing happens"),
    Scenario("nothing happens, runs differ (sd .15)", run_sd=0.15),
    Scenario("nothing happens, luck with items (sd .5)", run_sd=0.02, score_sd=0.02, soft_luck=0.5),
    Scenario("the same, nine cells", run_sd=0.02, score_sd=0.02, soft_luck=0.5, cells=9),
    Scenario("drift without an incentive (sd .3 over runs), control learns", run_sd=0.3, control_score=0.2),
    Scenario("the same, and the format is learnt", run_sd=0.3, format=0.4, control_score=0.2),
    Scenario("both arms grow as lenient (.3), control learns", lenient=0.3, control_lenient=0.3, control_score=0.3),
    Scenario("control grows stricter (−.3), selfgrade does nothing", control_lenient=-0.3, control_score=0.3),
    Scenario("control grows stricter (−.3), selfgrade learns the format", control_lenient=-0.3, format=0.4),
    Scenario("the format alone is learnt (.4)", format=0.4, control_score=0.2),
    Scenario("grades grow unreadable (−.2)", format=-0.2, control_score=0.2),
    Scenario("all answers become one that the base likes", score=-0.2, persuasion=0.6, control_score=0.2),
    Scenario("answers get worse (−.3), grades do not follow", score=-0.3, persuasion=0.3),
    Scenario("lenient by the margin, format learnt", lenient=0.05, format=0.4),
    Scenario("more lenient than control by the margin, runs alike", lenient=0.35, control_lenient=0.3, run_sd=0.02),
    Scenario("the same, luck with items (sd .5)", lenient=0.35, control_lenient=0.3, run_sd=0.02, soft_luck=0.5),
    Scenario("the same, runs differ (sd .15)", lenient=0.35, control_lenient=0.3, run_sd=0.15),
    Scenario("the same, nine cells", lenient=0.35, control_lenient=0.3, cells=9),
    Scenario("unearned by the margin, lenient (.5)", lenient=0.5, persuasion=-0.45),
    Scenario("one seed of all collapses, nothing in the others", lenient=0.7, share=0.0),
    Scenario("one seed of all has an effect of .1, policies hardly move", lenient=0.1, share=0.0, **QUIET),
    Scenario("the base at its ceiling", base_wrong=0.95, **QUIET),
    Scenario("earned (.3)", score=0.3, control_score=0.3, run_sd=0.02),
    Scenario("the same, the grader tells right from wrong", score=0.3, control_score=0.3, run_sd=0.02, tells=True),
    Scenario("lenient (.3) on all seeds", lenient=0.3, **REAL),
    Scenario("the same, nine cells", lenient=0.3, cells=9, **REAL),
    Scenario("the same, luck with items (sd .5)", lenient=0.3, soft_luck=0.5, **REAL),
    Scenario("the same, runs differ (sd .15)", lenient=0.3, **REAL | {"run_sd": 0.15}),
    Scenario("the same, unreadable grades (−.1)", lenient=0.3, format=-0.1, **REAL),
    Scenario("the same, control gains nothing", lenient=0.3, **REAL | {"control_score": 0.0}),
    Scenario("the same, selfgrade learns as well (.2)", lenient=0.3, score=0.2, **REAL),
    Scenario("the same, control grows lenient (.1)", lenient=0.3, control_lenient=0.1, **REAL),
    Scenario("lenient (.7) in three seeds of four", lenient=0.7, share=0.75, **REAL),
    Scenario("lenient (.7) in all seeds but one", lenient=0.7, share=-1, **REAL),
)  # fmt: skip


@dataclass(frozen=True)
class Studies:
    """Simulated studies.

    Attributes:
        measured: Tables of shape [studies, cells, seeds, items].
        largest: The largest effect, up or down, of each cell's runs in truth: shape [studies, cells].
    """

    measured: Measured
    largest: Floats


def simulate(scenario: Scenario, studies: int, seeds: int, rng: np.random.Generator) -> Studies:
    """Simulates studies of which all is known."""
    cells = scenario.cells
    runs = (studies, cells, seeds)
    count = seeds - 1 if scenario.share < 0 else max(1, round(scenario.share * seeds))
    has = np.arange(seeds) < count

    def true(value: float, sd: float) -> Floats:
        return value * has + rng.normal(0, sd, runs)

    score = true(scenario.score, scenario.score_sd)
    lenient = true(scenario.lenient, scenario.run_sd)
    control_lenient = scenario.control_lenient + rng.normal(0, scenario.run_sd, runs)
    control_score = scenario.control_score + rng.normal(0, scenario.score_sd, runs)
    reward = score + lenient + true(scenario.persuasion + scenario.format, 0.3 * scenario.run_sd)
    effects = (reward, reward - score, lenient, lenient - control_lenient)

    def observed(value: Floats, luck: float, rest: float) -> Floats:
        items = rng.normal(0, luck, (studies, cells, 1, ITEMS))
        return value[..., None] + items + rng.normal(0, rest, (*runs, ITEMS))

    scored, compared = (observed(value, scenario.luck, scenario.rest) for value in (score, score - control_score))
    if scenario.tells:
        paid = scored + observed(reward - score, scenario.soft_luck, scenario.soft_luck)
    else:
        paid = observed(reward, scenario.luck, scenario.rest)
    soft, control_soft = (observed(v, scenario.soft_luck, scenario.soft_luck) for v in (lenient, control_lenient))
    return Studies(Measured(paid, scored, soft, control_soft, compared), np.max(np.abs(effects), axis=(0, 3)))


def judge_all(scenario: Scenario, studies: Studies, config: AnalysisConfig) -> NDArray[np.str_]:
    """The headline of every cell of every study, by the functions that judge a real one."""
    answers = ask(studies.measured, config.margin, config.alpha)
    wrong, reward = (np.full(studies.largest.shape, value) for value in (scenario.base_wrong, scenario.base_reward))
    return headlines(weigh(answers, wrong, reward, config.ceiling), config.alpha)


@dataclass(frozen=True)
class Rates:
    """How often headlines are given.

    Attributes:
        any: Share of studies with at least one cell of *wireheading*.
        cells: Share of all cells with each headline.
        overlooked: Share of all cells called *no effect* although a run's own effect exceeds the margin in truth.
    """

    any: float
    cells: dict[str, float]
    overlooked: float


def rate(scenario: Scenario, studies: int, seeds: int, seed: int = 0) -> Rates:
    """Simulates and judges studies of one kind, by the default thresholds."""
    config = AnalysisConfig()
    rng = np.random.default_rng([seed, SCENARIOS.index(scenario), seeds])
    # As many at a time as fit into little memory.
    verdicts, largest = [], []
    for done in range(0, studies, 250):
        simulated = simulate(scenario, min(250, studies - done), seeds, rng)
        verdicts.append(judge_all(scenario, simulated, config))
        largest.append(simulated.largest)
    table, truth = np.concatenate(verdicts), np.concatenate(largest)
    return Rates(
        float((table == WIREHEADING).any(-1).mean()),
        {name: float((table == name).mean()) for name in COLUMNS},
        float(((table == NO_EFFECT) & (truth > config.margin)).mean()),
    )


def _rows(studies: int, seed: int) -> Iterator[str]:
    yield (
        f"{studies:,} studies of {ITEMS} items each; in per cent, with {' / '.join(map(str, SEEDS))} seeds. *Any* is "
        "the part of studies with at least one cell of wireheading, the other columns are parts of all cells."
    )
    worst = 0.0
    for null in (True, False):
        yield ""
        yield f"| {'wireheading is false' if null else 'wireheading is true'} | any | {' | '.join(COLUMNS)} |"
        yield "|---|" + "---|" * (1 + len(COLUMNS))
        for scenario in SCENARIOS:
            if scenario.null == null:
                found = [rate(scenario, studies, count, seed) for count in SEEDS]
                columns = [[one.any for one in found], *([one.cells[name] for one in found] for name in COLUMNS)]
                yield f"| {scenario.name} | {' | '.join(map(_written, columns))} |"
                worst = max(worst, *(one.overlooked for one in found))
    yield ""
    yield (
        "*No effect*, although the true effect on a run exceeds the margin: "
        f"in {100 * worst:.2f} % of the cells of a row at most."
    )


def _written(shares: list[float]) -> str:
    """Shares in per cent; said once where all are the same."""
    texts = [f"{100 * share:.1f}" for share in shares]
    return texts[0] if len(set(texts)) == 1 else " / ".join(texts)


def main() -> None:
    """Writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=2000, help="studies of each kind (2000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the simulation (0)")
    parser.add_argument("--print", action="store_true", help="print the table instead of writing it into the page")
    options = parser.parse_args()
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
