"""Conditions as rows of the config."""

from __future__ import annotations

from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from configs import changed

from wireheading.errors import ConfigError
from wireheading.study.conditions import CONDITIONS
from wireheading.study.config import Run, Study, load_study

OWN = {"name": "mine", "grader": "policy", "reward": "grade", "credit": "both"}


def spec_of(*conditions: Any) -> dict[str, Any]:
    """The spec of a run of the last of some conditions."""
    study = load_study(changed(conditions=list(conditions)))
    return study.spec(Run(42, "tiny", "sentiment", [*study.conditions][-1]))


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({**OWN, "name": "Mine"}, ["conditions", "the name 'Mine'", "lower-case letters, digits and dashes"]),
        ({**OWN, "name": "a/b"}, ["conditions", "the name 'a/b'"]),
        ({**OWN, "name": "a\n"}, ["conditions", r"the name 'a\n'"]),
        ({**OWN, "name": 10}, ["conditions", "the name 10", "must be text"]),
        ({key: OWN[key] for key in ("grader", "reward", "credit")}, ["conditions", "the name None"]),
        ({**OWN, "name": "control"}, ["conditions", "'control' is a known condition", "another name"]),
        (OWN, ["conditions", "'mine' is given twice"]),
        ({**OWN, "name": "x", "grader": "god"}, ["conditions.x.grader = 'god'", "'none', 'policy' or 'base'"]),
        ({**OWN, "name": "x", "rewards": "grade"}, ["conditions.x.rewards", "did you mean conditions.x.reward?"]),
        ({"name": "x", "grader": "policy", "credit": "both"}, ["conditions.x.reward: missing", "schema"]),
        ({**OWN, "name": "x", "grader": "none"}, ["conditions.x = {", "there is no grade", "`grader: policy`"]),
        ({**OWN, "name": "x", "grader": "base"}, ["conditions.x = {", "own grade", "`credit: response`"]),
        ({**OWN, "name": "x", "audit": 10}, ["conditions.x.audit = 10", "less than or equal to 1"]),
        ({**OWN, "name": "x", "audit": True}, ["conditions.x.audit = True", "not true or false"]),
        ({**OWN, "name": "x", "fine": True}, ["conditions.x = {", "only an audited round", "`audit` above 0"]),
        ({**OWN, "name": "x", "fine": 0.5, "audit": 1}, ["conditions.x.fine = 0.5", "true or false"]),
        ({**OWN, "name": "x", "reward": "score", "audit": 0.1}, ["conditions.x = {", "`reward: grade`"]),
        ({**OWN, "name": "x", "reward": "score", "until": 9}, ["conditions.x = {", "leave `until` out"]),
        ({**OWN, "name": "x", "until": 0}, ["conditions.x.until = 0", "greater than 0"]),
        ({**OWN, "name": "x", "credit": "grade", "grade_reward": "brier"}, ["conditions.x = {", "`credit: both`"]),
        ({**OWN, "name": "x", "kl": -0.1}, ["conditions.x.kl = -0.1", "greater than or equal to 0"]),
        ({**OWN, "name": "x", "grader_lag": 2.5}, ["conditions.x.grader_lag = 2.5", "integer"]),
        ({**OWN, "name": "x", "grader_lag": 50}, ["conditions.x = {", "is not trained", "`credit: response`"]),
        (3, ["conditions", "unknown condition 3", "{name: …, grader: …"]),
        ([OWN], ["conditions", "unknown condition ["]),
    ],
    ids=str,
)
def test_a_malformed_row_is_told_in_one_line_with_key_value_and_remedy(row: Any, told: list[str]) -> None:
    with pytest.raises(ConfigError) as raised:
        load_study(changed(conditions=["honest", OWN, row]))
    assert "\n" not in str(raised.value)
    for part in told:
        assert part in str(raised.value)


@pytest.mark.parametrize("name", CONDITIONS)
def test_the_row_of_a_known_condition_has_its_digest_but_for_the_name(name: str) -> None:
    row = {key: getattr(CONDITIONS[name], key) for key in ("grader", "reward", "credit")}
    known = spec_of(name)
    # No key that was added later may be in it, or the digests of records that exist would change.
    assert known["condition"] == {"name": name, **row}
    assert spec_of({"name": name, **row}) == known
    assert spec_of({"name": "mine", **row}) == {**known, "condition": {"name": "mine", **row}}


def test_the_row_is_part_of_the_digest() -> None:
    assert spec_of(OWN) != spec_of({**OWN, "credit": "response"})


def test_the_schema_takes_the_rows_that_the_config_takes() -> None:
    schema = Study.model_json_schema()
    config = changed(conditions=["control", OWN])
    jsonschema.validate(config, schema)
    config["conditions"].append({**OWN, "grader": "god"})
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(config, schema)
