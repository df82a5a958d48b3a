"""Loading a model: frozen weights and a tokenizer, and never code from a hub."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from wireheading.errors import InputError, first_line
from wireheading.inputs.models import check_model
from wireheading.policy.attention import use_exact_attention
from wireheading.policy.chat import Chat
from wireheading.policy.fusing import fuse
from wireheading.policy.lora import TARGETS


def load_model(
    folder: Path, precision: str, device: torch.device, *, plain: bool = False
) -> tuple[PreTrainedModel, Chat]:
    """Loads a model in evaluation mode, with every weight frozen.

    Args:
        folder: Folder of the model in the hub's layout.
        precision: `float32`, `bfloat16` or `nf4` (4 bits with double quantization, computed in bfloat16).
        device: Where its weights go.
        plain: Whether prompts are plain text instead of turns of a chat.

    Raises:
        InputError: The model cannot be used. The text names the file or what the model lacks.
    """
    try:
        check_model(folder)
    except InputError as error:
        raise InputError(f"{folder}: {error}") from None
    config = read_config(folder)
    # The tokenizer comes first: its faults are found faster.
    chat = read_chat(folder, config, plain=plain)
    quantization = None
    if precision == "nf4":
        _check_nf4(folder, device)
        quantization = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        folder,
        config=config,
        dtype=torch.float32 if precision == "float32" else torch.bfloat16,
        quantization_config=quantization,
        device_map={"": device},
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        # Not ignored: they are named below, in one line.
        ignore_mismatched_sizes=True,
        output_loading_info=True,
    )
    model: PreTrainedModel
    model, loading = loaded
    _check_weights(folder, loading)
    for module in model.modules():
        # On a CPU with 16-bit products, bitsandbytes repacks weights in the first pass without gradients, and
        # gradients do not pass through repacked weights: updates would silently be wrong.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010, which mypy takes for a weight
    lacking = missing_projections(model)
    if lacking:
        raise InputError(
            f"{folder}: {type(model).__name__} has no {', '.join(lacking)} to adapt; give a model whose attention has "
            f"{', '.join(TARGETS)}"
        )
    prepare(model)
    return model, chat


def prepare(model: PreTrainedModel) -> None:
    """Freezes a model and replaces its attention and other parts by those that all policies use."""
    model.requires_grad_(False).eval()
    use_exact_attention(model)
    fuse(model)
    # With a 16-bit base the adapters' products need no more precision than its own; a GPU is faster with less.
    torch.backends.cuda.matmul.allow_tf32 = model.dtype == torch.bfloat16


def read_config(folder: Path) -> PretrainedConfig:
    """The configuration of the model in a folder.

    Raises:
        InputError: It is damaged, or its architecture is not part of transformers.
    """
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        return config
    except (ValueError, OSError) as error:
        raise InputError(f"{folder}/config.json: {first_line(error)}; give a model that transformers knows") from None


def read_chat(folder: Path, config: PretrainedConfig, *, plain: bool) -> Chat:
    """The chat format of the model in a folder.

    Args:
        folder: The folder.
        config: The model's configuration.
        plain: Whether prompts are plain text instead of turns of a chat.

    Raises:
        InputError: Its tokenizer or its generation config cannot be used.
    """
    return Chat(_tokenizer(folder), _generation(folder, config), plain=plain)


def missing_projections(model: nn.Module) -> list[str]:
    """The projections to be adapted that a model lacks."""
    names = {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    return [name for name in TARGETS if name not in names]


def _tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # The tokenizers library raises nothing more specific.
        raise InputError(
            f"{folder}: its tokenizer cannot be read ({first_line(error)}); fetch it again, or give a model that "
            "transformers knows"
        ) from None
    assert isinstance(tokenizer, PreTrainedTokenizerBase)
    return tokenizer


def _generation(folder: Path, config: PretrainedConfig) -> GenerationConfig:
    """A model's generation config; if it has none, what its main config says about generation."""
    if not (folder / "generation_config.json").exists():
        return GenerationConfig.from_model_config(config)
    try:
        return GenerationConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, TypeError, ValueError) as error:
        raise InputError(f"{folder}/generation_config.json: {first_line(error)}; fetch it again") from None


def _check_weights(folder: Path, loading: Mapping[str, Collection[Any]]) -> None:
    """Checks that a model's weights were all in its files, and nothing else.

    Raises:
        InputError: A tensor was missing, and is random now, or was unexpected, or had another shape.
    """
    for kind, problem in (
        ("missing_keys", "lack"),
        ("mismatched_keys", "have other shapes for"),
        ("unexpected_keys", "also have"),
    ):
        if tensors := sorted(key if isinstance(key, str) else key[0] for key in loading[kind]):
            named = ", ".join(tensors[:3]) + (f" and {len(tensors) - 3} more" if len(tensors) > 3 else "")
            raise InputError(
                f"{folder}: its weights do not fit config.json: its safetensors {problem} {named}; fetch it again, or "
                "give a model whose files are whole"
            )


def _check_nf4(folder: Path, device: torch.device) -> None:
    problem = None
    try:
        import bitsandbytes

        if device.type not in bitsandbytes.supported_torch_devices:
            problem = f"bitsandbytes has no backend for the device {device.type!r}"
    except ImportError as error:
        problem = f"bitsandbytes cannot be used here ({error})"
    if problem:
        raise InputError(f"{folder}: {problem}, so its precision cannot be nf4; install it, or set bfloat16")
