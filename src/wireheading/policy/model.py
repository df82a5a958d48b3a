"""Loading a model: frozen weights, its tokenizer, and nothing that runs code from a hub."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, PreTrainedModel

from wireheading.policy.attention import use_exact_attention
from wireheading.policy.chat import Chat
from wireheading.policy.norms import fuse_norms


def load_model(folder: Path, precision: str, device: torch.device) -> tuple[PreTrainedModel, Chat]:
    """Loads a model in evaluation mode, with every weight frozen.

    Args:
        folder: Folder of the model in the hub's layout.
        precision: `float32`, `bfloat16` or `nf4` (4 bits with double quantization, computed in bfloat16).
        device: Where its weights go.
    """
    quantization = None
    if precision == "nf4":
        quantization = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.float32 if precision == "float32" else torch.bfloat16,
        quantization_config=quantization,
        device_map={"": device},
        local_files_only=True,
        use_safetensors=True,
    )
    prepare(model)
    return model, Chat(AutoTokenizer.from_pretrained(folder, local_files_only=True), model.generation_config)


def prepare(model: PreTrainedModel) -> None:
    """Freezes a model and lets it compute as all policies do."""
    model.requires_grad_(False).eval()
    use_exact_attention(model)
    fuse_norms(model)
    # The adapters' products with a base of 16 bits need no more digits than its own have; a GPU is faster with fewer.
    torch.backends.cuda.matmul.allow_tf32 = model.dtype == torch.bfloat16
