"""Loading models whose files are broken, or would run code of their own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from families import save_family

from wireheading.errors import InputError
from wireheading.policy.model import load_model

Edit = Callable[[Path], object]


def write(name: str, text: str) -> Edit:
    return lambda folder: (folder / name).write_text(text)


def change(name: str, **values: object) -> Edit:
    return lambda folder: (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | values))


BROKEN: dict[str, tuple[Edit, str]] = {
    "tokenizer without JSON": (write("tokenizer.json", "<html>"), "its tokenizer cannot be read"),
    "tokenizer without contents": (write("tokenizer.json", "{}"), "its tokenizer cannot be read"),
    "tokenizer config": (write("tokenizer_config.json", "[1"), "its tokenizer cannot be read"),
    "end of a text": (change("tokenizer_config.json", eos_token=7), "its tokenizer cannot be read"),
    "generation config": (write("generation_config.json", "nothing"), "/generation_config.json: .*; fetch it again"),
    "list of settings": (write("generation_config.json", "[]"), "/generation_config.json: .*; fetch it again"),
    "stop token": (
        change("generation_config.json", eos_token_id=["x"]),
        r"eos_token_id = \[.x.\] is no token",
    ),
    "template's syntax": (write("chat_template.jinja", "{% for x in %}"), r"its chat template fails \(.*\); mend it"),
    "template that raises": (
        write("chat_template.jinja", "{{ messages + 1 }}"),
        r"its chat template fails \(.*\); mend",
    ),
    "template that refuses": (write("chat_template.jinja", "{{ raise_exception('no') }}"), r"template fails \(no\)"),
    "template without the user": (write("chat_template.jinja", "Hello"), "template leaves out the user's text"),
    "template without the model": (
        write("chat_template.jinja", "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}"),
        "template leaves out the model's response",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_model_ends_in_one_line(case: str, tmp_path: Path) -> None:
    save_family(tmp_path, "llama")
    edit, problem = BROKEN[case]
    edit(tmp_path)
    with pytest.raises(InputError, match=problem) as raised:
        load_model(tmp_path, "float32", torch.device("cpu"))
    assert str(tmp_path) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["tokenizer_config.json", "config.json", "generation_config.json"])
def test_a_models_own_code_never_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_family(tmp_path, "llama")
    ran = tmp_path / "ran"
    (tmp_path / "own.py").write_text(f"from pathlib import Path\nPath({str(ran)!r}).touch()\n")
    own = dict.fromkeys(("AutoConfig", "AutoModelForCausalLM"), "own.Own") | {"AutoTokenizer": ["own.Own", None]}
    change(name, auto_map=own, tokenizer_class=None, custom_generate="own")(tmp_path)
    asked: list[str] = []

    def consent(question: str) -> str:
        asked.append(question)
        return "y"

    monkeypatch.setattr("builtins.input", consent)
    monkeypatch.setattr("transformers.dynamic_module_utils.TIME_OUT_REMOTE_CODE", 0)
    try:
        load_model(tmp_path, "float32", torch.device("cpu"))
    except InputError as refusal:
        assert "contains custom code" in str(refusal)  # noqa: PT017 - not every file has it refused
    assert not asked
    assert not ran.exists()
