"""Loading a model: frozen weights, its tokenizer, and nothing that runs code from a hub."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, PreTrainedModel

from wireheading.policy.attention import use_exact_attention
from wireheading.policy.chat import Chat


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
    model.requires_grad_(False).eval()
    use_exact_attention(model)
    return model, Chat(AutoTokenizer.from_pretrained(folder, local_files_only=True), model.generation_config)
