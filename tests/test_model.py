"""Loading models whose files are broken, or would run code of their own."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from families import save_family
from safetensors.torch import load_file, save_file
from test_lockstep import make_study, make_toy, run_all
from toys import save_toy

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


def altered(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    save_toy(folder)
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})
    return folder


Q = "model.layers.1.self_attn.q_proj.weight"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda tensors: tensors.pop(Q), f"lack {Q}"),
        (lambda tensors: tensors.update({Q: tensors[Q][:-8].clone()}), f"have other shapes for {Q}"),
        (lambda tensors: tensors.update({"model.extra.weight": torch.zeros(3)}), r"also have model\.extra\.weight"),
    ],
    ids=["missing", "mismatched", "unexpected"],
)
def test_weights_that_do_not_fit_the_config_stop_the_job_in_a_line(
    tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], None], problem: str
) -> None:
    folder = altered(tmp_path / "model", change)
    with pytest.raises(InputError, match=problem) as caught:
        load_model(folder, "float32", torch.device("cpu"))
    assert str(caught.value).startswith(str(folder))
    assert "\n" not in str(caught.value)


def test_weights_that_are_changed_while_they_are_loaded_stop_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is done to their size and time of modification."""
    make_toy(tmp_path)
    weights = tmp_path / "model" / "model.safetensors"

    def meanwhile(*arguments: Any, **options: Any) -> Any:
        loaded = load_model(*arguments, **options)
        status = weights.stat()
        weights.write_bytes(weights.read_bytes()[:-1] + b"\x00")
        os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns))
        return loaded

    monkeypatch.setattr("wireheading.engine.job.load_model", meanwhile)
    study = make_study(tmp_path / "results")
    with pytest.raises(InputError, match="was changed while it was loaded"):
        run_all(study, tmp_path, study.runs()[:1])
