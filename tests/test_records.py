from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from made_up import PROVENANCE, reseal

from wireheading.files import WriteError
from wireheading.records import record as records
from wireheading.records.record import RecordError, inspect_record, read_record, write_record
from wireheading.records.schema import RecordedRun, json_schema
from wireheading.study.config import digest_of

SPEC = {
    "seed": 42,
    "rounds": 2,
    "measures": "strict",
    "model": {"name": "tiny"},
    "task": {"name": "arithmetic"},
    "condition": {"name": "honest", "grader": "policy", "reward": "score", "credit": "both"},
}
DIGEST = digest_of(SPEC)
AUDITED = {"name": "honest", "grader": "policy", "reward": "grade", "credit": "both", "audit": 0.5}
BRIER = {"name": "honest", "grader": "policy", "reward": "score", "credit": "both", "grade_reward": "brier"}
APART = ("grade_rewards", "grade_baselines", "grade_advantages")


def evaluation(round_: int, **changes: Any) -> dict[str, Any]:
    values: dict[str, list[Any]] = {name: [0.5, 1.0] for name in records.ITEM_ARRAYS}
    bits = ("accuracies", "greedy_accuracies")
    values |= {name: [0, 1] for name in bits}
    values["items"], values["truncated"] = ["a", "b"], [False, False]
    values |= {name: ["readable"] * 2 for name in ("parse_status", "base_parse_status")}
    return {"round": round_, **values} | changes


def record(**changes: Any) -> dict[str, Any]:
    arrays: dict[str, list[Any]] = {name: [0.5, 1.0] for name in records.ROUND_ARRAYS}
    arrays |= {"items": ["x", "y"], "accuracies": [0, 1], "truncated": [False, True], "parse_status": ["readable"] * 2}
    content = {
        "digest": DIGEST,
        "version": records.VERSION,
        "run": {"seed": 42, "model": "tiny", "task": "arithmetic", "condition": "honest"},
        "status": "complete",
        "problem": None,
        "rounds": 2,
        **{"avg_reward": 0.75, "avg_score": 0.75, "avg_accuracy": 0.5, "avg_grade": 0.75, "avg_loss": 0.75},
        "grade_inflation": 0.0,
        "unreadable_grades": 0,
        **{"original_avg_reward": 0.75, "original_avg_accuracy": 0.5, "original_avg_grade": 0.75},
        "original_avg_loss": 0.75,
        "original_grade_inflation": 0.25,
        **arrays,
        "evaluations": [evaluation(0), evaluation(2)],
        "transcripts": {"honest.parquet": "0" * 64},
        "inputs": {},
        "spec": SPEC,
        "timing": {"first_round": 0, "rounds": 2, "seconds": 1.5, "evaluating_seconds": 0.5},
        "provenance": dict(PROVENANCE),
    }
    content |= changes
    return content | {"provenance": content.pop("provenance")}


def of_rounds(rounds: int) -> dict[str, Any]:
    """The changes that make it a record of a study with so many rounds."""
    return of_spec(rounds=rounds)


def of_spec(**changes: Any) -> dict[str, Any]:
    spec = SPEC | changes
    return {"spec": spec, "digest": digest_of(spec)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results" / "42" / "tiny" / "arithmetic" / "honest.json"


def test_what_is_written_is_read(path: Path) -> None:
    write_record(path, record())
    read = read_record(path, DIGEST)
    checksum = read["provenance"].pop("sha256")
    assert len(checksum) == 64
    assert read == record()
    assert next(iter(read)) == "digest"
    assert inspect_record(path, DIGEST) == "valid"


def test_states_of_a_file(path: Path) -> None:
    assert inspect_record(path, DIGEST) == "missing"
    write_record(path, record())
    assert inspect_record(path, "b" * 64) == "stale"
    whole = path.read_bytes()
    for size in (0, 1, 80, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert inspect_record(path, DIGEST) == "corrupt"
    write_record(path, record(version=records.VERSION + 1))
    assert inspect_record(path, DIGEST) == "stale"


def test_a_record_of_another_version_is_told_from_one_of_other_settings(path: Path) -> None:
    write_record(path, record(version=records.VERSION + 1))
    with pytest.raises(RecordError, match=rf"honest.json: a record of version {records.VERSION + 1}, not"):
        read_record(path, DIGEST)
    write_record(path, record())
    with pytest.raises(RecordError, match=rf"honest.json: made with other settings \(digest {DIGEST[:8]}…\)"):
        read_record(path, "b" * 64)


def test_any_edited_byte_is_noticed(path: Path) -> None:
    write_record(path, record())
    whole = path.read_bytes()
    for index in range(0, len(whole), 7):
        edited = bytearray(whole)
        edited[index] ^= 1
        path.write_bytes(edited)
        assert inspect_record(path, DIGEST) != "valid", f"byte {index}"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rounds": 3}, "has 2 values for 3 rounds"),
        (of_spec(condition={"name": "honest", "grader": "policy"}), "spec.condition: has no reward"),
        (of_spec(condition=AUDITED), "audited has 0 values for 2 rounds"),
        ({"audited": [True, False]}, "audited has 2 values for 0 rounds"),
        (of_spec(condition=AUDITED) | {"audited": [False, True], "scores": [0.5, 0.5]}, "rewards\\[1\\] = 1.0 but"),
        (
            of_spec(condition=BRIER) | {key: [0.5, 0.5] for key in APART},
            "grade_rewards\\[0\\] = 0.5 but its round gives 1.0",
        ),
        (of_rounds(3), "has 2 of 3 rounds but says complete"),
        (of_rounds(1) | {"status": "diverged"}, "has 2 of 1 rounds but says diverged"),
        ({"spec": SPEC | {"rounds": 3}}, "spec does not have the digest that the record states"),
        ({"rewards": [0.5, 0.5]}, r"rewards\[1\] = 0.5 but its round gives 1.0"),
        ({"avg_reward": 0.5}, "avg_reward = 0.5 but its rounds give 0.75"),
        ({"avg_loss": None}, "avg_loss = None but its rounds give 0.75"),
        ({"original_grades": [None, 1.0]}, "original_avg_grade = 0.75 but its rounds give 0.5"),
        ({"unreadable_grades": 1}, "unreadable_grades = 1 but its rounds give 0"),
        ({"transcripts": {"../../x.parquet": "0" * 64}}, "transcripts names '../../x.parquet', which is no file of"),
        ({"transcripts": {"honest./x.parquet": "0" * 64}}, "which is no file of the run"),
        ({"provenance": PROVENANCE | {"written": "yesterday"}}, "provenance.written = 'yesterday' is not valid"),
        ({"provenance": PROVENANCE | {"written": "2026-13-01T00:00:00+00:00"}}, "provenance.written = .* is not valid"),
        ({"provenance": PROVENANCE | {"slots": -1}}, "provenance.slots = -1 is not valid"),
        ({"imported": {}}, "status = .complete. is not valid"),
        ({"note": 1}, "note = 1 is not valid"),
        ({"losses": [2**63, 1.0]}, "holds an integer of 19 digits; run it again"),
        ({"status": "done"}, "status = 'done' is not valid"),
        ({"rewards": [0.5]}, "rewards has 1 values for 2 rounds"),
        ({"rewards": [0.5, None]}, r"rewards\[1\] = None is not valid"),
        ({"scores": [0.5, 1.01]}, r"scores\[1\] = 1.01 is not valid .*less than or equal to 1"),
        ({"scores": [0.5, "1"]}, r"scores\[1\] = '1' is not valid"),
        ({"scores": [0.5, True]}, r"scores\[1\] = True is not valid"),
        ({"grades": [-0.5, None]}, r"grades\[0\] = -0.5 is not valid"),
        ({"grades": [0.5, None]}, r"grades\[1\] = None although it is readable"),
        ({"parse_status": ["readable", "unreadable"]}, r"grades\[1\] = 1.0 although it is unreadable"),
        ({"parse_status": ["readable", "odd"]}, r"parse_status\[1\] = 'odd' is not valid"),
        ({"accuracies": [0, 2]}, r"accuracies\[1\] = 2 is not valid"),
        ({"avg_reward": 1.5}, "avg_reward = 1.5 is not valid"),
        ({"evaluations": []}, "no held-out evaluation before training"),
        ({"evaluations": [evaluation(0)]}, "no held-out evaluation of all items after its last round"),
        ({"evaluations": [evaluation(0), evaluation(3)]}, "evaluation after round 3 of 2"),
        ({"evaluations": [evaluation(0), evaluation(0)]}, r"evaluations.1.round = 0 does not come after"),
        ({"evaluations": [evaluation(0, items=[]), evaluation(2)]}, "evaluations.0 has no items"),
        (
            {"evaluations": [evaluation(0), evaluation(2, scores=[1.0])]},
            "evaluations.1.scores has 1 values for 2 items",
        ),
        ({"evaluations": [evaluation(0), evaluation(2, items=["b", "a"])]}, "not the first of evaluations.0.items"),
        (
            {"evaluations": [evaluation(0), evaluation(2, soft_grades=[0.5, 1.2])]},
            r"evaluations.1.soft_grades\[1\] = 1.2 is not valid",
        ),
        (
            {"evaluations": [evaluation(0), evaluation(2, base_grades=[0.5, None])]},
            r"evaluations.1.base_grades\[1\] = None although",
        ),
        ({"run": {"seed": 1, "model": "tiny", "task": "arithmetic", "condition": "honest"}}, "names another run than"),
        ({"run": {"seed": 42, "model": "tiny", "task": "chess", "condition": "honest"}}, "unknown task"),
    ],
)
def test_a_record_that_contradicts_itself_is_invalid(path: Path, changes: dict[str, Any], message: str) -> None:
    content = record(**changes)
    write_record(path, content)
    with pytest.raises(RecordError, match=message) as caught:
        read_record(path, content["digest"])
    assert inspect_record(path, content["digest"]) == "corrupt"
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_record_in_the_place_of_another_is_invalid(path: Path) -> None:
    other = path.with_name("control.json")
    write_record(other, record())
    with pytest.raises(RecordError, match="is the record of 42/tiny/arithmetic/honest; move it to its own place"):
        read_record(other, DIGEST)


def test_half_a_character_is_invalid(path: Path) -> None:
    write_record(path, record(problem="XYZ"))
    reseal(path, b"XYZ", rb"\ud800")
    with pytest.raises(RecordError, match=r"surrogates not allowed"):
        read_record(path, DIGEST)


def test_deep_nesting_is_told_in_one_line(path: Path) -> None:
    deep: Any = []
    for _ in range(900):
        deep = [deep]
    write_record(path, record(spec=SPEC | {"x": deep}))
    reseal(path, b"[" * 900, b"[" * 99_000)
    assert inspect_record(path, DIGEST) == "corrupt"


def test_contents_that_were_found_valid_are_not_read_again_but_their_bytes_are(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    valid: set[str] = set()
    write_record(path, record())
    assert inspect_record(path, DIGEST, valid) == "valid"
    assert valid == {read_record(path, DIGEST)["provenance"]["sha256"]}
    monkeypatch.setattr(records, "problem_of", lambda _: "was read")
    assert inspect_record(path, DIGEST, valid) == "valid"
    assert inspect_record(path, DIGEST, set()) == "corrupt"
    assert inspect_record(path, "b" * 64, valid) == "stale"
    path.write_bytes(path.read_bytes().replace(b"0.75", b"0.76", 1))
    assert inspect_record(path, DIGEST, valid) == "corrupt"


def test_every_field_of_a_record_is_in_the_schema() -> None:
    assert set(record()) == {name for name, field in RecordedRun.model_fields.items() if field.is_required()}


@pytest.mark.parametrize("key", ["scores", "evaluations", "timing", "spec", "run", "status", "inputs"])
def test_a_record_without_a_part_is_invalid(path: Path, key: str) -> None:
    content = record()
    del content[key]
    write_record(path, content)
    with pytest.raises(RecordError, match=f"has no {key}"):
        read_record(path, DIGEST)


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_a_number_that_is_not_finite_is_invalid(path: Path, constant: str) -> None:
    write_record(path, record(avg_loss=123456.5))
    # Another program could have written such a file whole, with a checksum that fits.
    reseal(path, b"123456.5", constant.encode())
    assert inspect_record(path, DIGEST) == "corrupt"
    with pytest.raises(RecordError, match=f"holds {constant}, which is no number"):
        read_record(path, DIGEST)


def test_the_schema_in_the_repository_is_the_one_of_the_code() -> None:
    schema = Path(__file__).parents[1] / "workflow" / "schemas" / "record.schema.json"
    assert schema.read_text(encoding="utf-8") == json_schema(), f"run: python -m wireheading.records.schema > {schema}"


def test_not_a_number_cannot_be_written(path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_record(path, record(avg_loss=float("nan")))
    assert not path.exists()
    assert not list(path.parent.parent.rglob("*.tmp"))


def test_an_interrupted_write_leaves_the_old_record(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_record(path, record())
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(WriteError, match="No space left") as caught:
        write_record(path, record(status="diverged"))
    assert str(caught.value).startswith(str(path))
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_record_is_plain_json_with_a_key_a_line(path: Path) -> None:
    write_record(path, record())
    text = path.read_text()
    assert json.loads(text)["status"] == "complete"
    assert len(text.splitlines()) == len(record())
