"""Fetching models: from a hub, from a folder, and what cannot be used."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
import torch
from families import save_family
from hub import COMMIT, serving
from transformers import GPT2Config, GPT2LMHeadModel

from wireheading.errors import InputError
from wireheading.files import sha256_of
from wireheading.inputs.items import Items
from wireheading.inputs.models import INDEX, fetch_model, model_digests, write_source
from wireheading.policy.model import load_model

SECRET = "hf_this_must_not_be_told"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model in it, as `<owner>/<name>`."""
    folder = tmp_path_factory.mktemp("hub")
    save_family(folder / "org" / "toy", "llama")
    for name in ("pytorch_model.bin", "consolidated.safetensors", "evil.py"):
        (folder / "org" / "toy" / name).write_bytes(b"not to be fetched")
    return folder


@pytest.fixture
def copy(original: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may harm."""
    shutil.copytree(original / "org" / "toy", tmp_path / "toy")
    return tmp_path / "toy"


@pytest.fixture
def at_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Lets huggingface_hub ask a hub at an address."""

    def use(address: str) -> None:
        constants = huggingface_hub.constants
        monkeypatch.setattr(constants, "ENDPOINT", address)
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setenv("HF_TOKEN", SECRET)

    return use


def source(name: str, revision: str = "main") -> dict[str, str]:
    return {"source": name, "revision": revision}


def test_a_model_comes_from_a_hub_with_its_commit_and_without_pickles(
    original: Path, tmp_path: Path, at_hub: Callable[[str], None]
) -> None:
    out, told = tmp_path / "models" / "toy-1", list[str]()
    with serving(original) as hub:
        at_hub(hub.address)
        fetch_model("toy", source("org/toy"), out, told.append)
        assert f"Bearer {SECRET}" in hub.tokens
    names = {path.name for path in out.iterdir()}
    shards = set(json.loads((out / INDEX).read_text())["weight_map"].values())
    assert len(shards) > 1
    assert names == shards | {INDEX, "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
                              "chat_template.jinja", "source.json"}  # fmt: skip
    described = json.loads((out / "source.json").read_text())
    assert (described["source"], described["commit"]) == (source("org/toy"), COMMIT)
    digests = model_digests(out)
    assert digests.pop("model_commit") == COMMIT
    assert digests == {name: sha256_of(out / name) for name in names - {"source.json"}}
    assert len(told) == 1
    assert COMMIT in told[0]
    everything = "".join(told) + "".join(path.read_text(errors="replace") for path in out.iterdir())
    assert SECRET not in everything
    load_model(out, "float32", torch.device("cpu"))


@pytest.mark.parametrize(
    ("name", "revision", "told"),
    [
        ("org/gated", "main", "/org/gated, then set HF_TOKEN to a token of that account"),
        ("org/nothing", "main", "/org/nothing, give a local folder, or set HF_TOKEN"),
        ("org/toy", "v9", "has no such revision; see http"),
        ("./nothing", "main", "there is no such folder; give a folder or a hub id"),
        ("not an id", "main", "no such repository"),
    ],
)
def test_what_a_hub_refuses_is_told_in_one_line(
    original: Path, tmp_path: Path, at_hub: Callable[[str], None], name: str, revision: str, told: str
) -> None:
    (original / "org" / "gated").mkdir(exist_ok=True)
    for file in (original / "org" / "toy").iterdir():
        shutil.copy(file, original / "org" / "gated")
    with serving(original, gated=frozenset({"org/gated"})) as hub:
        at_hub(hub.address)
        with pytest.raises(InputError) as raised:
            fetch_model("toy", source(name, revision), tmp_path / "out", pytest.fail)
    text = str(raised.value)
    assert text.startswith(f"config: models.toy.source = {name!r}: ")
    assert told in text
    assert "\n" not in text
    assert SECRET not in text
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("mood", "told"),
    [("rejecting", "rejects the token in HF_TOKEN; make"), ("portal", "was answered by something else than the hub")],
)
def test_a_rejected_token_and_a_page_to_sign_in_are_told_for_what_they_are(
    original: Path, tmp_path: Path, at_hub: Callable[[str], None], mood: str, told: str
) -> None:
    with serving(original, mood=mood) as hub:
        at_hub(hub.address)
        with pytest.raises(InputError, match=told) as raised:
            fetch_model("toy", source("org/toy"), tmp_path / "out", pytest.fail)
    assert SECRET not in str(raised.value)


def test_a_hub_out_of_reach_is_told_in_one_line(tmp_path: Path, at_hub: Callable[[str], None]) -> None:
    at_hub("http://127.0.0.1:1")
    with pytest.raises(
        InputError, match=r"no such folder here, and http://127\.0\.0\.1:1 cannot be reached .*; run this"
    ):
        fetch_model("toy", source("org/toy"), tmp_path / "out", pytest.fail)


def test_a_model_comes_from_a_folder_without_being_copied(original: Path, tmp_path: Path) -> None:
    fetch_model("toy", source(str(original / "org" / "toy")), tmp_path / "out", print)
    assert (tmp_path / "out" / INDEX).is_symlink()
    assert not (tmp_path / "out" / "pytorch_model.bin").exists()
    assert "model_commit" not in model_digests(tmp_path / "out")


def test_a_file_that_was_changed_after_fetching_stops_a_job(copy: Path, tmp_path: Path) -> None:
    fetch_model("toy", source(str(copy)), tmp_path / "out", print)
    before = model_digests(tmp_path / "out")
    assert before["config.json"] == sha256_of(copy / "config.json")
    shard = next(copy.glob("*.safetensors"))
    times, data = shard.stat(), bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    os.utime(shard, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(InputError, match=rf"out/{shard.name}: was changed since source.json was written .*; remove"):
        model_digests(tmp_path / "out")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": {"config.json": []}}', '{"files": 3}'])
def test_a_damaged_description_is_told_in_one_line(copy: Path, tmp_path: Path, text: str) -> None:
    fetch_model("toy", source(str(copy)), tmp_path / "out", print)
    (tmp_path / "out" / "source.json").write_text(text)
    with pytest.raises(InputError, match=r"out/source.json: does not describe .*; remove the folder"):
        model_digests(tmp_path / "out")


def test_items_that_were_edited_after_freezing_stop_a_job(tmp_path: Path) -> None:
    for name in ("train.jsonl", "heldout.jsonl"):
        (tmp_path / name).write_text('{"id": "a", "text": "x", "label": "positive"}\n')
    write_source(tmp_path, {}, None, ("train.jsonl", "heldout.jsonl"))
    assert len(Items.read(tmp_path, "sentiment").heldout) == 1
    (tmp_path / "heldout.jsonl").write_text('{"id": "a", "text": "x", "label": "negative"}\n')
    with pytest.raises(InputError, match=r"heldout.jsonl: was changed since source.json was written"):
        Items.read(tmp_path, "sentiment")


def drop_weights(folder: Path) -> None:
    for path in folder.glob("model*"):
        path.unlink()


def truncate(folder: Path) -> None:
    part = sorted(folder.glob("model-*.safetensors"))[1]
    part.write_bytes(part.read_bytes()[:-10])


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def damaged(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text("{")


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (drop_weights, "its weights are pickled (pytorch_model.bin), which can run code when read; give a revision"),
        (truncate, "model-00002-of-"),
        (lambda folder: sorted(folder.glob("model-*.safetensors"))[0].unlink(), "model-00001-of-"),
        (without("config.json"), "config.json is missing; give a model in the hub's layout"),
        (without("tokenizer.json"), "tokenizer.json is missing"),
        (damaged("config.json"), "config.json cannot be read"),
        (damaged(INDEX), f"{INDEX} cannot be read"),
    ],
)
def test_what_cannot_be_loaded_is_refused_when_it_is_fetched_and_when_it_is_loaded(
    copy: Path, tmp_path: Path, harm: Callable[[Path], object], told: str
) -> None:
    harm(copy)
    with pytest.raises(InputError) as raised:
        fetch_model("toy", source(str(copy)), tmp_path / "out", pytest.fail)
    assert str(raised.value).startswith(f"config: models.toy.source = '{copy}': {told}")
    assert "\n" not in str(raised.value)
    with pytest.raises(InputError) as raised:
        load_model(copy, "float32", torch.device("cpu"))
    assert str(raised.value).startswith(f"{copy}: {told}")


def test_a_model_without_the_four_projections_is_refused(copy: Path) -> None:
    drop_weights(copy)
    GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=300)).save_pretrained(copy)
    with pytest.raises(InputError, match="GPT2LMHeadModel has no q_proj, k_proj, v_proj, o_proj to adapt; give a mod"):
        load_model(copy, "float32", torch.device("cpu"))


def test_a_model_that_wants_to_run_its_own_code_is_refused(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}}
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"config\.json: .*; give a model that transformers knows") as raised:
        load_model(copy, "float32", torch.device("cpu"))
    assert "\n" not in str(raised.value)


def test_a_model_without_a_chat_template_is_refused(copy: Path) -> None:
    (copy / "chat_template.jinja").unlink()
    with pytest.raises(InputError, match="toy: its tokenizer has no chat template; give an instruction-tuned model"):
        load_model(copy, "float32", torch.device("cpu"))
    load_model(copy, "float32", torch.device("cpu"), plain=True)


def test_four_bits_without_a_backend_are_refused(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import bitsandbytes

    monkeypatch.setattr(bitsandbytes, "supported_torch_devices", {"cuda"})
    with pytest.raises(InputError, match="bitsandbytes has no backend for the device 'cpu', so its precision cannot b"):
        load_model(copy, "nf4", torch.device("cpu"))
