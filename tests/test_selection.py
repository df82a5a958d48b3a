"""A part of a study: which runs it has, and where its tables and reports lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from configs import changed, demo

from wireheading.errors import ConfigError
from wireheading.scheduling import declare_part
from wireheading.study.config import Run, load_study
from wireheading.study.paths import Analysis, Tables

WHOLE = load_study(demo())


def part(**only: Any) -> dict[str, Any]:
    return changed(only=only)


@pytest.mark.parametrize(
    ("only", "said", "folder"),
    [
        ({"tasks": ["arithmetic"]}, "tasks arithmetic", "part-arithmetic"),
        ({"models": ["tiny"], "tasks": ["arithmetic"]}, "models tiny; tasks arithmetic", "part-tiny-arithmetic"),
        ({"seeds": ["123", "42"]}, "seeds 123, 42", "part-42+123"),
        ({"conditions": ["selfgrade", "control"]}, "conditions selfgrade, control", "part-control+selfgrade"),
    ],
)
def test_a_part_has_the_runs_of_what_it_names_and_its_own_folder(only: Any, said: str, folder: str) -> None:
    study = load_study(part(**only))
    names = {axis.removesuffix("s"): {str(name) for name in chosen} for axis, chosen in only.items()}
    expected = [run for run in WHOLE.runs() if all(str(getattr(run, axis)) in chosen for axis, chosen in names.items())]
    assert study.runs() == expected
    assert len(expected) > 0
    assert str(study.only) == said
    assert {path.parent for path in vars(Tables.of(study)).values()} == {Path("reports", folder)}
    assert {path.parent for path in vars(Analysis.of(study)).values()} == {Path("reports", folder)}
    assert [study.digest(run) for run in expected] == [WHOLE.digest(run) for run in expected]
    assert study.record_path(expected[0]) == WHOLE.record_path(expected[0])


def test_the_whole_study_has_the_usual_folders() -> None:
    assert not WHOLE.only
    assert {path.parent for path in vars(Tables.of(WHOLE)).values()} == {Path("results")}


def test_a_part_of_the_tasks_leaves_the_embedded_model_and_the_other_tasks_alone() -> None:
    study = load_study(part(tasks=["arithmetic"]))
    assert study.tasks == WHOLE.tasks
    assert study.model_folder("tiny") == WHOLE.model_folder("tiny")


def test_a_long_selection_has_a_short_name() -> None:
    seeds = list(range(200))
    study = load_study(changed(seeds=[*seeds, 999], only={"seeds": seeds}))
    assert len(Path(study.reports).name) < 30


@pytest.mark.parametrize(
    ("only", "problem"),
    [
        ({"models": ["tyny"]}, "config: only.models names 'tyny'; known are tiny"),
        ({"tasks": ["poems"]}, "config: only.tasks names 'poems'; known are sentiment, arithmetic, summarization"),
        ({"seeds": [7]}, "config: only.seeds names 7; known are 42, 123"),
        ({"conditions": ["frozen"]}, "config: only.conditions names 'frozen'; known are control, selfgrade, honest"),
        ({"tasks": "poems"}, "config: only.tasks = 'poems': write a list, such as ['poems']"),
        ({"task": ["poems"]}, "config: only.task = ['poems']: unknown key; did you mean only.tasks?"),
    ],
)
def test_what_the_study_does_not_have_is_named(only: Any, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_study(part(**only))
    assert str(caught.value).startswith(problem)


@pytest.mark.parametrize(
    ("changes", "only"),
    [
        ({"seeds": [42]}, {"seeds": [42]}),
        ({"conditions": ["control", "selfgrade"]}, {"conditions": ["control", "selfgrade"]}),
        ({"models__tiny__enabled": False}, {"models": ["other"]}),
        ({"only": {"tasks": ["arithmetic"]}, "seeds": [42]}, {"tasks": ["arithmetic"], "seeds": [42]}),
    ],
)
def test_fewer_seeds_conditions_or_models_than_in_the_files_are_a_part(changes: Any, only: dict[str, Any]) -> None:
    whole = changed(models__other={"source": "embedded"})
    config = changed(models__other={"source": "embedded"}, **changes)
    declare_part(config, whole)
    assert config["only"] == only
    assert load_study(config).reports == load_study(changed(models__other={"source": "embedded"}, only=only)).reports


@pytest.mark.parametrize("changes", [{}, {"seeds": [42, 7]}, {"rounds": 5}, {"conditions": ["control", "coin"]}])
def test_a_study_with_anything_new_is_no_part(changes: Any) -> None:
    config = changed(**changes)
    declare_part(config, demo())
    assert "only" not in config


def test_a_config_that_the_command_line_completes_is_no_part() -> None:
    config = demo()
    declare_part(config, {"rounds": 5})
    assert "only" not in config


def test_runs_of_a_part_are_runs_of_the_study() -> None:
    assert Run(42, "tiny", "arithmetic", "control") in load_study(part(seeds=[42], tasks=["arithmetic"])).runs()
