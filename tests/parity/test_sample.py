"""Configurations drawn at random, against `transformers`: every one equal to it, or refused by name.

A few of each family in every run, from a fixed seed. More, drawn anew:

    python -m tests.parity.test_sample --count 40 --seed 7
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jaxguard.errors import UserError
from tests.parity import checkpoints, test_blip2, test_idefics
from tests.parity.checkpoints import images, logits, ours, relative, torch_pixels

FAMILIES = ("llava", "blip2", "idefics")
COUNT, SEED = 3, 0
TOLERANCE = 1e-4
GELUS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "quick_gelu", "relu")


def draw(family: str, rng: np.random.Generator) -> dict[str, Any]:
    """Arguments of the family's function in `checkpoints`."""

    def one(*values: Any) -> Any:
        return values[rng.integers(len(values))]

    def flag() -> bool:
        return bool(rng.integers(2))

    vision = {
        "num_hidden_layers": one(1, 2, 3),
        "hidden_act": one(*GELUS),
        "layer_norm_eps": one(1e-5, 1e-6),
        "patch_size": one(4, 8),
    }
    if family == "llava":
        tower, decoder = one("clip", "siglip", "dinov2", "registers"), one("llama", "mistral", "qwen2")
        count = vision["num_hidden_layers"]
        layers = one(-1, -2, count, [-1, 0], [count])
        text = {
            "num_key_value_heads": one(1, 2, 4),
            "num_hidden_layers": one(1, 2),
            "hidden_act": one("silu", "gelu", "gelu_new"),
            "rms_norm_eps": one(1e-5, 1e-6),
            "rope_parameters": rope(one, 8 if decoder == "qwen2" else (depth := one(8, 16))),
            "max_position_embeddings": one(16, 64),
        }
        if decoder != "qwen2":
            text["head_dim"] = depth
        if decoder == "llama":
            text |= {"attention_bias": flag(), "mlp_bias": flag()}
        return {
            "tower": tower,
            "decoder": decoder,
            "vision": vision,
            "text": text,
            "tie_word_embeddings": flag(),
            "vision_feature_layer": layers,
            "vision_feature_select_strategy": "full" if tower == "siglip" else one("default", "full"),
            "projector_hidden_act": one("gelu", "gelu_new", "relu"),
            "multimodal_projector_bias": flag(),
        }
    if family == "blip2":
        every = one(1, 2)
        return {
            "vision": vision | {"qkv_bias": flag()},
            "qformer": {
                "num_hidden_layers": every * one(1, 2),
                "cross_attention_frequency": every,
                "hidden_act": one("gelu", "relu"),
                "num_attention_heads": one(2, 4),
            },
            "text": {
                "num_hidden_layers": one(1, 2),
                "do_layer_norm_before": flag(),
                "enable_bias": flag(),
                "layer_norm_elementwise_affine": flag(),
                "activation_function": one("relu", "gelu"),
                "tie_word_embeddings": flag(),
                "num_attention_heads": one(2, 4),
            },
        }
    interval = one(1, 2)
    return {
        "vision": {name: value for name, value in vision.items() if name != "hidden_act"} | {"hidden_act": "gelu"},
        "perceiver": {
            "qk_layer_norms_perceiver": flag(),
            "resampler_depth": one(1, 2),
            "resampler_n_latents": one(3, 5),
        },
        "num_hidden_layers": interval * one(1, 2),
        "cross_layer_interval": interval,
        "qk_layer_norms": flag(),
        "alpha_type": one("float", "vector"),
        "use_resampler": flag(),
        "tie_word_embeddings": flag(),
        "hidden_act": one("silu", "gelu"),
        "num_attention_heads": one(2, 4),
    }


def rope(one: Any, depth: int) -> dict[str, Any]:
    """A rotary embedding of one of the kinds, for heads of this width."""
    kinds: dict[str, dict[str, Any]] = {
        "default": {},
        "linear": {"factor": 2.0},
        "dynamic": {"factor": 2.0},
        "llama3": {
            "factor": 4.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        },
        "yarn": {"factor": 4.0, "original_max_position_embeddings": 16},
        "longrope": {
            "short_factor": [1.0 + n / depth for n in range(depth // 2)],
            "long_factor": [1.0 + n for n in range(depth // 2)],
            "original_max_position_embeddings": one(8, 40),
        },
    }
    kind = one(*kinds)
    return {"rope_type": kind, "rope_theta": one(500.0, 10000.0), **kinds[kind]}


def difference(family: str, arguments: dict[str, Any], folder: Path) -> float:
    """The relative difference of the logits of a random checkpoint with these arguments."""
    theirs = getattr(checkpoints, family)(folder, **arguments)
    arch, model = ours(folder)
    if family == "llava":
        config = arch.config
        per_image = config.vision.patches + config.extras
        words = np.random.default_rng(0).integers(3, 80, (2, 6))
        tokens = np.concatenate([[[1, 7] + [checkpoints.IMAGE_TOKEN] * per_image] * 2, words], axis=1).astype(np.int32)
        pictures = images()
        with torch.no_grad():
            expected = theirs(
                input_ids=torch.from_numpy(tokens).long(), pixel_values=torch_pixels(config, pictures)
            ).logits.numpy()
    else:
        module = test_blip2 if family == "blip2" else test_idefics
        tokens, pictures = module.tokens_of(), images()
        expected = module.expected(theirs, arch.config, tokens, pictures)
    return float(relative(logits(model, tokens, pictures), expected))


def drawn(family: str, count: int, seed: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng([seed, FAMILIES.index(family)])
    return [draw(family, rng) for _ in range(count)]


@pytest.mark.parametrize("number", range(COUNT))
@pytest.mark.parametrize("family", FAMILIES)
def test_a_drawn_configuration(tmp_path, family, number):
    assert difference(family, drawn(family, COUNT, SEED)[number], tmp_path) < TOLERANCE


def main() -> None:
    """Print the difference of each configuration, and those that are refused or beyond the tolerance."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    for family in FAMILIES:
        found, bad = [], 0
        for arguments in drawn(family, options.count, options.seed):
            with tempfile.TemporaryDirectory() as folder:
                try:
                    found.append(difference(family, arguments, Path(folder)))
                except UserError as error:
                    print(f"{family}: refused: {error}")
                    continue
            if found[-1] >= TOLERANCE:
                bad += 1
                print(f"{family}: {found[-1]:.1e} for {arguments}")
        print(f"{family}: {len(found)} of {options.count} computed, largest difference {max(found):.1e}, {bad} beyond")


if __name__ == "__main__":
    main()
