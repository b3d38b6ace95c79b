"""The published sizes, on torch's meta device: every parameter of the torch model has a rule and the right shape.

Values not given here are the defaults of `transformers`, which its documentation gives as those of llava-1.5,
blip2-opt-2.7b and idefics-9b. The values of llava-1.5-7b and blip2-opt-2.7b were compared with config.json as shown in
users' logs and notes. The larger LLaVA has Llama's sizes at 13B (table 2 of arXiv 2302.13971), the larger BLIP-2
those of OPT at 6.7B (table 1 of arXiv 2205.01068). The instructed IDEFICS has one token more than the base:
`<end_of_utterance>`, which ends its turns. The config.json of IDEFICS was not available.
"""

import json
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForImageTextToText, IdeficsForVisionText2Text

from jaxguard.models.architecture import architecture
from jaxguard.models.weights import expected_shapes

VICUNA = {"model_type": "llama", "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "vocab_size": 32064}
CLIP_L = {
    "model_type": "clip_vision_model",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
    "projection_dim": 768,
}
LLAVA = {
    "model_type": "llava",
    "image_token_index": 32000,
    "projector_hidden_act": "gelu",
    "vision_feature_layer": -2,
    "vision_feature_select_strategy": "default",
    "vision_config": CLIP_L,
}
IDEFICS = {
    "model_type": "idefics",
    "vocab_size": 32000,
    "additional_vocab_size": 2,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "cross_layer_interval": 4,
    "qk_layer_norms": True,
    "use_resampler": True,
    "vision_config": {
        "model_type": "idefics_vision",
        "embed_dim": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_attention_heads": 16,
        "image_size": 224,
        "patch_size": 14,
    },
    "perceiver_config": {
        "resampler_n_latents": 64,
        "resampler_depth": 6,
        "resampler_n_heads": 16,
        "resampler_head_dim": 96,
        "qk_layer_norms_perceiver": True,
    },
}


def blip2(**text):
    text = {"model_type": "opt", "vocab_size": 50304, "eos_token_id": 50118} | text
    return {"model_type": "blip-2", "num_query_tokens": 32, "image_token_index": 50265, "text_config": text}


PUBLISHED = {
    "llava-hf/llava-1.5-7b-hf": LLAVA | {"text_config": VICUNA},
    "llava-hf/llava-1.5-13b-hf": LLAVA
    | {
        "text_config": VICUNA
        | {"hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40, "num_attention_heads": 40}
    },
    "Salesforce/blip2-opt-2.7b": blip2(
        hidden_size=2560, ffn_dim=10240, num_hidden_layers=32, num_attention_heads=32, word_embed_proj_dim=2560
    ),
    "Salesforce/blip2-opt-6.7b": blip2(
        hidden_size=4096, ffn_dim=16384, num_hidden_layers=32, num_attention_heads=32, word_embed_proj_dim=4096
    ),
    "HuggingFaceM4/idefics-9b": IDEFICS,
    "HuggingFaceM4/idefics-9b-instruct": IDEFICS | {"additional_vocab_size": 3},
}
PARAMETERS = {
    "llava-hf/llava-1.5-7b-hf": (7.0e9, 7.1e9),
    "llava-hf/llava-1.5-13b-hf": (13.3e9, 13.4e9),
    "Salesforce/blip2-opt-2.7b": (3.7e9, 3.8e9),
    "Salesforce/blip2-opt-6.7b": (7.7e9, 7.8e9),
    "HuggingFaceM4/idefics-9b": (8.9e9, 9.0e9),
    "HuggingFaceM4/idefics-9b-instruct": (8.9e9, 9.0e9),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_parameter_has_a_rule_and_the_right_shape(tmp_path, name):
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED[name]))
    arch = architecture(tmp_path, dtype="bfloat16", remat="none")
    config = AutoConfig.from_pretrained(tmp_path)
    kind: Any = IdeficsForVisionText2Text if name.startswith("HuggingFaceM4") else AutoModelForImageTextToText
    with torch.device("meta"):
        theirs = kind(config) if kind is IdeficsForVisionText2Text else kind.from_config(config)
    theirs.tie_weights()
    shapes = {name: tuple(value.shape) for name, value in theirs.named_parameters()}  # a tied weight comes once
    found = {arch.table.canonical(name): shape for name, shape in shapes.items()}
    assert len(found) == len(shapes)
    assert found == expected_shapes(arch)
    low, high = PARAMETERS[name]
    assert low < sum(value.numel() for value in theirs.parameters()) < high
