"""Drafts of tiny checkpoints: config, tokenizer and preprocessor of a family, without weights, to pretrain from.

    python -m jaxguard.zoo.drafts --family blip-2 --out draft

About one to two million parameters each, for 64 px images and the vocabulary of scenes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from jaxguard.errors import UserError
from jaxguard.models.families.idefics.processor import AROUND, UTTERANCE
from jaxguard.zoo.tokenizer import SPECIAL, VOCABULARY, train_tokenizer

NAMING = ("image_token", "extra_special_tokens", "model_specific_special_tokens")
IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
TOWER = {"intermediate_size": 512, "num_hidden_layers": 3, "num_attention_heads": 4, "image_size": 64, "patch_size": 8}
PIXELS = {
    "size": {"height": 64, "width": 64},
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
CONFIGS: dict[str, dict[str, Any]] = {
    "blip-2": {
        "architectures": ["Blip2ForConditionalGeneration"],
        "model_type": "blip-2",
        "num_query_tokens": 32,
        "image_token_index": SPECIAL.index("<image>"),
        "vision_config": TOWER | {"model_type": "blip_2_vision_model", "hidden_size": 128},
        "qformer_config": {
            "model_type": "blip_2_qformer",
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "cross_attention_frequency": 1,
        },
        "text_config": IDS
        | {
            "model_type": "opt",
            "vocab_size": VOCABULARY,
            "hidden_size": 128,
            "ffn_dim": 448,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "max_position_embeddings": 512,
            "word_embed_proj_dim": 128,
        },
    },
    "idefics": IDS
    | {
        "architectures": ["IdeficsForVisionText2Text"],
        "model_type": "idefics",
        "vocab_size": VOCABULARY,
        "additional_vocab_size": 2,
        "hidden_size": 128,
        "intermediate_size": 176,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "cross_layer_interval": 2,
        "qk_layer_norms": True,
        "use_resampler": True,
        "tie_word_embeddings": True,
        "vision_config": TOWER | {"model_type": "idefics_vision", "embed_dim": 128},
        "perceiver_config": {
            "resampler_n_latents": 32,
            "resampler_depth": 2,
            "resampler_n_heads": 4,
            "resampler_head_dim": 32,
            "qk_layer_norms_perceiver": True,
        },
    },
}
PREPROCESSORS = {
    "blip-2": PIXELS | {"image_processor_type": "BlipImageProcessor", "processor_class": "Blip2Processor"},
    "idefics": PIXELS | {"image_processor_type": "IdeficsImageProcessor", "processor_class": "IdeficsProcessor"},
}


@dataclass(frozen=True)
class Options:
    family: Literal["blip-2", "idefics"]
    out: Path
    """Folder to write."""


def write_draft(family: str, out: Path) -> None:
    """Write config.json, preprocessor_config.json and the tokenizer's files.

    Raises:
        UserError: `out` exists and is not empty.
    """
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out} exists and is not empty; name another folder")
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer()
    tokenizer.chat_template = None
    if family == "idefics":
        tokenizer.add_tokens([AROUND, UTTERANCE], special_tokens=True)
    tokenizer.save_pretrained(out)
    if family == "blip-2":  # its processor sets the image token itself
        path = out / "tokenizer_config.json"
        values = json.loads(path.read_text())
        path.write_text(json.dumps({name: value for name, value in values.items() if name not in NAMING}, indent=2))
    (out / "config.json").write_text(json.dumps(CONFIGS[family], indent=2) + "\n")
    (out / "preprocessor_config.json").write_text(json.dumps(PREPROCESSORS[family], indent=2) + "\n")


def main(options: Options) -> None:
    write_draft(options.family, options.out)


if __name__ == "__main__":
    main(tyro.cli(Options))
