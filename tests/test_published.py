"""Import and export of the published code's results."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from published_files import (
    CONDITIONS,
    LLAMA,
    MISTRAL,
    ROUNDS,
    TASKS,
    episode,
    one,
    own_record,
    published_config,
    put,
    results_of_seed,
)

from wireheading.analysis.figures.training import write_figures
from wireheading.analysis.tables import write_tables
from wireheading.records.published import export_results, import_results
from wireheading.records.record import ROUND_ARRAYS, inspect_record, read_record, write_record
from wireheading.records.results_file import ResultsFileError
from wireheading.study.config import Run, Study, load_study
from wireheading.study.paths import Tables, imported_path


def study_in(folder: Path, **changes: Any) -> Study:
    return load_study(published_config(str(folder / "results"), **changes))


def take(study: Study, path: Path, overwrite: bool = False) -> list[str]:
    told: list[str] = []
    import_results(study, path, overwrite, told.append)
    return told


def refused(study: Study, path: Path) -> str:
    with pytest.raises(ResultsFileError) as caught:
        import_results(study, path, False, print)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    assert text.startswith(f"{path}: ")
    assert not Path(study.results).exists()
    return text.removeprefix(f"{path}: ")


def test_a_run_becomes_a_record_that_fills_the_original_fields_alone(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    content = episode()
    path = put(tmp_path, one([content]))
    assert take(study, path) == [f"{study.results}: 1 imported, 0 partial, 0 empty, 0 kept as they were"]
    run = Run(42, "llama-3.1-8b", "sentiment", "honest")
    assert inspect_record(study.record_path(run), study.digest(run)) == "valid"
    record = read_record(study.record_path(run), study.digest(run))
    assert (record["status"], record["rounds"]) == ("imported", ROUNDS)
    assert record["imported"] == {
        "source": "all_results.json",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "place": f"seed_42/{LLAMA}/sentiment/honest",
    }
    for name in ("rewards", "accuracies", "grades", "losses"):
        assert record[f"original_{name}"] == content[name]
    assert record["original_scores"] == content["rewards"]
    assert record["original_avg_reward"] == pytest.approx(sum(content["rewards"]) / ROUNDS)
    assert record["original_grade_inflation"] == pytest.approx(
        (sum(content["grades"]) - sum(content["accuracies"])) / ROUNDS
    )
    honest = [name for name in ROUND_ARRAYS if not name.startswith("original_")]
    assert all(record[name] == [None] * ROUNDS for name in honest)
    assert {record[name] for name in ("avg_reward", "avg_score", "avg_accuracy", "avg_grade", "avg_loss")} == {None}
    assert record["grade_inflation"] is None


def test_without_grades_there_is_no_mean_of_grades(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    take(study, put(tmp_path, one([episode(graded=False)], f"seed_42/{LLAMA}/sentiment/control")))
    run = Run(42, "llama-3.1-8b", "sentiment", "control")
    record = read_record(study.record_path(run), study.digest(run))
    assert record["original_avg_grade"] is record["original_grade_inflation"] is None
    assert record["original_avg_reward"] == record["original_avg_accuracy"]


def test_a_short_history_is_kept_beside_and_never_padded(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    told = take(study, put(tmp_path, one([episode(rounds=4)])))
    run = Run(42, "llama-3.1-8b", "sentiment", "honest")
    path = study.record_path(run)
    assert told == [
        f"{run}: 4 of {ROUNDS} rounds; the run is still to be done",
        f"{study.results}: 0 imported, 1 partial, 0 empty, 0 kept as they were",
    ]
    assert inspect_record(path, study.digest(run)) == "missing"
    record = read_record(imported_path(path), study.digest(run))
    assert (record["status"], record["rounds"], len(record["original_rewards"])) == ("partial", 4, 4)


def test_what_exists_is_kept_unless_asked(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    run = Run(42, "llama-3.1-8b", "sentiment", "honest")
    path = study.record_path(run)
    take(study, put(tmp_path, one([episode()])))
    before = path.read_bytes()
    other = put(tmp_path, one([episode(seed=43)]), "other.json")
    assert take(study, other)[0] == f"{run}: kept {path}; --overwrite replaces it"
    assert path.read_bytes() == before
    # A shorter history never takes a record's place, not even when asked.
    take(study, put(tmp_path, one([episode(rounds=2)]), "short.json"), overwrite=True)
    assert path.read_bytes() == before
    assert imported_path(path).exists()
    take(study, other, overwrite=True)
    assert read_record(path, study.digest(run))["original_grades"] == episode(seed=43)["grades"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (
            one([episode(), episode()]),
            "sentiment/honest: List should have at most 1 item after validation, not 2; a run is a list of one",
        ),
        (
            one([episode()], "seed_7/x/sentiment/honest"),
            "seed_7/x/sentiment/honest: unknown seed seed_7; the config's `seeds` are",
        ),
        (one([episode()], "first/x/sentiment/honest"), "first/x/sentiment/honest: unknown seed first"),
        (
            one([episode()], "42/gpt/sentiment/honest"),
            f"42/gpt/sentiment/honest: unknown model gpt; known are llama-3.1-8b ({LLAMA}), ",
        ),
        (
            one([episode()], f"42/{LLAMA}/chess/honest"),
            "chess/honest: unknown task chess; known are sentiment, arithmetic, ",
        ),
        (
            one([episode()], f"42/{LLAMA}/sentiment/bad"),
            "unknown condition bad; known are control, selfgrade, honest",
        ),
        (one([], f"42/{LLAMA}/sentiment/bad\n"), "unknown condition 'bad\\n'"),
        (one([episode(rounds=ROUNDS + 1)]), "7 rounds, and a run of the config has 6"),
        (one([episode() | {"grades": [0.5]}]), "1 grades and 6 rewards"),
        (one([episode() | {"rewards": []}]), "6 accuracies and 0 rewards"),
        (one([{"rewards": [1.0], "grades": [1.0]}]), "honest/0: 0 accuracies and 1 rewards; cut them"),
        (
            one([episode() | {"rewards": [0, 0, 0, 2, 0, 0]}]),
            "honest/0/rewards/3: Input should be less than or equal to 1, not 2; a run",
        ),
        (one([episode() | {"rewards": [True] * 6}]), "rewards/0: Input should be a valid number, not True"),
        (one([episode() | {"accuracies": [None] * 6}]), "accuracies/0: Input should be a valid number, not None"),
        (one([episode() | {"grades": ["1"] * 6}]), "grades/0: Input should be a valid number, not '1'"),
        (one([episode() | {"grades": [math.nan] * 6}]), "grades/0: Input should be a finite number, not nan"),
        (one([episode() | {"losses": [math.inf] * 6}]), "losses/0: Input should be a finite number, not inf"),
        (one([episode() | {"losses": [10**400] * 6}]), "losses/0: Input should be a valid number, not 1000"),
        (one([episode() | {"rewards": 1.0}]), "honest/0/rewards: Input should be a valid list, not 1.0"),
        (one([[1.0]]), "honest/0: Input should be a valid dictionary"),
        (one({"rewards": []}), "honest: Input should be a valid list"),
        ({"seed_42": [1]}, "seed_42: Input should be a valid dictionary, not [1]"),
        ({"seed_42": {LLAMA: None}}, f"seed_42/{LLAMA}: Input should be a valid dictionary, not None"),
        ({"seed_42": {LLAMA: {"sentiment": "x"}}}, "sentiment: Input should be a valid dictionary"),
        ([1, 2], "the file: Input should be a valid dictionary"),
        ({}, "holds no run"),
        ({"seed_42": {LLAMA: {}}}, "holds no run"),
        (one([]) | one([], f"42/{LLAMA}/sentiment/honest"), f"42/{LLAMA}/sentiment/honest: is the same run as seed_42"),
        ({f"{LLAMA}_chess_honest_42": {"history": {}}}, "unknown task chess"),
        ({"sentiment_honest_42": {"history": {}}}, "is not <model>_<task>_<condition>_<seed>"),
        ({f"{LLAMA}_sentiment_honest_42": {"history": []}}, "history: Input should be a valid dictionary"),
        ({f"{LLAMA}_sentiment_honest_42": {"history": {"reward": 1}}}, "history/reward: Input should be a valid list"),
        (
            {f"{LLAMA}_sentiment_honest_42": {"history": {}}, f"{LLAMA}_sentiment_honest_43": {"history": {}}},
            "unknown seed 43",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_shapes_are_refused_in_one_line_that_names_file_and_place(
    tmp_path: Path, content: object, told: str
) -> None:
    assert told in refused(study_in(tmp_path), put(tmp_path, content))


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (json.dumps(one([episode()])).encode()[:-40], "it may be truncated"),
        (b"", "is not JSON"),
        (b"\xff\xfe\x00", "is not JSON"),
        (b"[" * 100_000, "is nested too deeply"),
        (b'{"seed_42": {}, "seed_42": {}}', "names seed_42 twice"),
        (b"1" * 5000, "is not JSON"),
    ],
    ids=["truncated", "empty", "binary", "deep", "twice", "long number"],
)
def test_damaged_files_are_refused_in_one_line(tmp_path: Path, data: bytes, told: str) -> None:
    path = tmp_path / "all_results.json"
    path.write_bytes(data)
    assert told in refused(study_in(tmp_path), path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert refused(study_in(tmp_path), tmp_path / "none.json") == "no such file"


def test_nothing_is_written_where_one_run_of_many_is_bad(tmp_path: Path) -> None:
    content: dict[str, Any] = {"seed_42": results_of_seed(42)}
    content["seed_42"][MISTRAL]["summarization"]["honest"] = [episode(), episode()]
    assert "seed_42/mistralai/" in refused(study_in(tmp_path), put(tmp_path, content))


def test_two_models_of_one_source_must_be_told_apart(tmp_path: Path) -> None:
    models = {"llama-bf16": {"source": LLAMA}, "llama-nf4": {"source": LLAMA, "precision": "nf4"}}
    study = study_in(tmp_path, models=models)
    path = put(tmp_path, one([episode()]))
    assert "is the source of llama-bf16 and of llama-nf4" in refused(study, path)
    take(study, put(tmp_path, one([episode()], "42/llama-nf4/sentiment/honest")))
    assert study.record_path(Run(42, "llama-nf4", "sentiment", "honest")).exists()
    take_back = put(tmp_path, {}, "exported.json")
    export_results(study, take_back, True, print)
    assert [*json.loads(take_back.read_text())["seed_42"]] == ["llama-nf4"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("checkpoint_seed42.json", one([episode()])),
        ("checkpoint_seed42_meta-llama_Llama-3.1-8B-Instruct.json", {"sentiment": {"honest": [episode()]}}),
        ("checkpoint_seed42.json", {LLAMA.upper(): {"sentiment": {"honest": [episode()]}}}),
        ("all_results.json", one([episode()], "42/llama-3.1-8b/sentiment/honest")),
    ],
)
def test_checkpoints_of_the_published_code_tell_seed_and_model_in_their_names(
    tmp_path: Path, name: str, content: object
) -> None:
    study = study_in(tmp_path)
    take(study, put(tmp_path, content, name))
    assert [*Path(study.results).rglob("*.json")] == [study.record_path(Run(42, "llama-3.1-8b", "sentiment", "honest"))]


def test_a_tracking_export_is_taken_in_without_the_steps_that_are_no_rounds(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    history = {name: [0.5] * ROUNDS + [math.nan] for name in ("reward", "accuracy", "grade")}
    content = {
        "Llama-3.1-8B-Instruct_sentiment_honest_42": {"state": "finished", "history": history | {"loss": [None] * 7}},
        "Mistral-7B-Instruct-v0.3_arithmetic_selfgrade_seed123": {"history": {n: v[:3] for n, v in history.items()}},
        "mistral-7b_summarization_control_seed_456": {"state": "crashed", "history": {}},
    }
    told = take(study, put(tmp_path, content, "history.json"))
    assert told[-1] == f"{study.results}: 1 imported, 1 partial, 1 empty, 0 kept as they were"
    run = Run(42, "llama-3.1-8b", "sentiment", "honest")
    record = read_record(study.record_path(run), study.digest(run))
    assert record["original_rewards"] == [0.5] * ROUNDS
    assert record["original_avg_loss"] is None
    run = Run(123, "mistral-7b", "arithmetic", "selfgrade")
    assert read_record(imported_path(study.record_path(run)), study.digest(run))["rounds"] == 3


def test_a_value_missing_in_the_middle_of_a_round_is_not_made_up(tmp_path: Path) -> None:
    history = {"reward": [1.0, 1.0], "accuracy": [1.0, None], "grade": [1.0, 1.0], "loss": [0.1, 0.1]}
    path = put(tmp_path, {"mistral-7b_sentiment_honest_42": {"history": history}})
    assert "accuracies/1: Input should be a valid number, not None" in refused(study_in(tmp_path), path)


units = st.floats(0, 1, allow_subnormal=False)  # torch, in other tests, has the processor flush them to zero
grades = st.none() | units


@st.composite
def runs_of_a_file(draw: st.DrawFn) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for seed in draw(st.lists(st.sampled_from([42, 123, 456]), unique=True, min_size=1)):
        for model in draw(st.lists(st.sampled_from([LLAMA, MISTRAL]), unique=True, min_size=1)):
            for condition in draw(st.lists(st.sampled_from(CONDITIONS), unique=True, min_size=1)):
                rounds = draw(st.integers(1, ROUNDS))
                held = {
                    name: draw(st.lists(values, min_size=rounds, max_size=rounds))
                    for name, values in (
                        ("rewards", units),
                        ("accuracies", st.sampled_from([0.0, 1.0])),
                        ("grades", grades),
                        ("losses", st.floats(-1e30, 1e30, allow_subnormal=False)),
                    )
                }
                task = draw(st.sampled_from(TASKS))
                tasks = content.setdefault(f"seed_{seed}", {}).setdefault(model, {})
                tasks.setdefault(task, {})[condition] = [held]
    return content


def original_fields(study: Study) -> dict[str, dict[str, Any]]:
    fields = {}
    for run in study.runs():
        for path in (study.record_path(run), imported_path(study.record_path(run))):
            if path.exists():
                record = read_record(path, study.digest(run))
                kept = {name: value for name, value in record.items() if name.startswith("original_")}
                fields[path.relative_to(study.results).as_posix()] = kept | {"status": record["status"]}
    return fields


@settings(max_examples=30, deadline=None)
@given(runs_of_a_file())
def test_import_and_export_are_inverse(tmp_path_factory: pytest.TempPathFactory, content: dict[str, Any]) -> None:
    folder = tmp_path_factory.mktemp("inverse")
    first, second = study_in(folder / "first"), study_in(folder / "second")
    take(first, put(folder, content))
    export_results(first, folder / "exported.json", False, print)
    exported = json.loads((folder / "exported.json").read_text())
    for seed, models in content.items():
        for model, tasks in models.items():
            for task, conditions in tasks.items():
                for condition, [held] in conditions.items():
                    [back] = exported[seed][model][task][condition]
                    assert {name: back[name] for name in held} == held
                    values = [grade or 0.0 for grade in held["grades"]]
                    assert back["avg_grade"] == pytest.approx(sum(values) / len(values))
    take(second, folder / "exported.json")
    assert original_fields(second) == original_fields(first)
    assert original_fields(first)


def test_own_records_come_back_from_an_export_with_the_same_original_fields(tmp_path: Path) -> None:
    first, second = study_in(tmp_path / "first"), study_in(tmp_path / "second")
    for run in first.runs():
        write_record(first.record_path(run), own_record(first, run))
    export_results(first, tmp_path / "exported.json", False, print)
    take(second, tmp_path / "exported.json")
    for run in first.runs():
        own, back = (read_record(study.record_path(run), study.digest(run)) for study in (first, second))
        shared = [name for name in own if name.startswith("original_")]
        if run.condition == "selfgrade":
            shared.remove("original_scores")  # not in that shape
        assert {name: back[name] for name in shared} == {name: own[name] for name in shared}


def test_an_export_overwrites_only_when_asked_and_leaves_out_what_is_invalid(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    take(study, put(tmp_path, {"seed_42": results_of_seed(42)}))
    run = study.runs()[0]
    study.record_path(run).write_bytes(b"{}")
    path = put(tmp_path, {}, "exported.json")
    with pytest.raises(ResultsFileError, match=r"exported.json: exists; --overwrite"):
        export_results(study, path, False, print)
    told: list[str] = []
    export_results(study, path, True, told.append)
    assert "truncated or edited" in told[0]
    assert told[1] == f"{path}: 17 of 72 runs exported"
    exported = json.loads(path.read_text())
    assert [*exported] == ["seed_42"]
    assert exported["seed_42"][LLAMA][run.task][run.condition] == []


def test_an_export_of_nothing_is_refused_and_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "exported.json"
    with pytest.raises(ResultsFileError, match="holds no record of this study, so there is nothing to export"):
        export_results(study_in(tmp_path), path, False, print)
    assert not path.exists()


@pytest.mark.slow
def test_tables_and_figures_take_imported_records_and_average_them_nowhere(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    take(study, put(tmp_path, {"seed_42": results_of_seed(42)}))
    for run in study.runs():
        if run.seed == 123:
            write_record(study.record_path(run), own_record(study, run))
    tables = Tables.of(study)
    write_tables(study, tables, lambda _: None)
    runs = pd.read_parquet(tables.runs)
    imported = runs[runs["status"] == "imported"]
    assert (len(runs), len(imported)) == (36, 18)
    assert imported["original_avg_reward"].notna().all()
    honest = ["avg_reward", "avg_score", "avg_accuracy", "avg_grade", "grade_inflation", "unreadable", "end_reward"]
    assert imported[honest].isna().all().all()
    write_figures(study, tables, tmp_path / "figures")
    curves = pd.read_csv(tmp_path / "figures" / "learning_curves.csv")
    assert set(curves.dropna(subset=["reward"])["seed"]) == {123}
