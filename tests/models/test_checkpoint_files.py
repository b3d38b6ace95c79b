"""Config and processor files: every file layout is read, every flag counts, and odd values are one line."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from jaxguard.cli.main import main
from jaxguard.errors import UserError
from jaxguard.models import folders
from jaxguard.models.architecture import architecture
from jaxguard.models.families.registry import open_processor
from jaxguard.models.rope import Rope

PIXELS = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    kept = shutil.ignore_patterns("*.safetensors")
    return shutil.copytree(folders.resolve("tiny-llava"), tmp_path / "model", ignore=kept)


def change(path, entries):
    path.write_text(json.dumps((json.loads(path.read_text()) if path.is_file() else {}) | entries))


def normalised(folder):
    config = architecture(folder, dtype="float32", remat="none").config
    return ((PIXELS / 255 - config.image_mean) / config.image_std).transpose(2, 0, 1)


@pytest.mark.parametrize(
    "entries",
    [
        {},
        {"do_normalize": False},
        {"do_rescale": False},
        {"rescale_factor": 1 / 127.5},
        {"do_rescale": False, "do_normalize": False},
        {"rescale_factor": 0.5, "do_normalize": False},
        {"image_mean": None, "image_std": None},
    ],
    ids=str,
)
@pytest.mark.parametrize("nested", [False, True])
def test_pixels_are_those_of_the_image_processor(folder, entries, nested):
    path = folder / "preprocessor_config.json"
    change(path, entries)
    values = {name: value for name, value in json.loads(path.read_text()).items() if value is not None}
    expected = CLIPImageProcessorPil(**values)(Image.fromarray(PIXELS), return_tensors="np")["pixel_values"][0]
    if nested:
        (folder / "processor_config.json").write_text(json.dumps({"image_processor": json.loads(path.read_text())}))
        change(path, {"image_mean": [0.1, 0.2, 0.3], "size": {"shortest_edge": 7}})  # the nested settings come first
    np.testing.assert_allclose(normalised(folder), expected, atol=1e-5 * np.abs(expected).max())
    assert open_processor(folder).image(PIXELS).shape == PIXELS.shape


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"image_std": [0.5, 0, 0.5]}, "image_std is .* must not be 0"),
        ({"image_mean": [0.5]}, "image_mean is .* must be three numbers"),
        ({"rescale_factor": "1/255"}, "rescale_factor is '1/255': must be a number"),
        ({"do_normalize": "yes"}, "do_normalize is 'yes': must be true or false"),
        ({"image_processor_type": "ViTImageProcessor"}, "image_processor_type ViTImageProcessor is not supported"),
    ],
)
def test_image_processors_that_are_refused(folder, entries, message):
    change(folder / "preprocessor_config.json", entries)
    with pytest.raises(UserError, match=message):
        read(folder)


def read(folder):
    """By the data side and for the model."""
    return open_processor(folder), architecture(folder, dtype="float32", remat="none")


LONGEST = "original_max_position_embeddings"
VALUES = [
    ({}, {"vision_feature_select_strategy": "cls_patch"}),
    ({}, {"vision_feature_layer": -9}),
    ({}, {"vision_feature_layer": 7}),
    ({}, {"vision_feature_layer": []}),
    ({}, {"vision_feature_layer": "-2"}),
    ({}, {"text_config": "llama"}),
    ({}, {"projector_hidden_act": 3}),
    ({"text_config": "rms_norm_eps"}, "1e-5"),
    ({"text_config": "hidden_size"}, "128"),
    ({"text_config": "num_attention_heads"}, 0),
    ({"text_config": "num_attention_heads"}, -4),
    ({"text_config": "num_hidden_layers"}, 4.0),
    ({"text_config": "num_hidden_layers"}, True),
    ({"text_config": "tie_word_embeddings"}, "false"),
    ({"text_config": "rope_scaling"}, {"rope_type": "llama3", "factor": 8.0}),
    ({"text_config": "rope_scaling"}, {"rope_type": "linear", "factor": "2"}),
    ({"vision_config": "image_size"}, [64, 64]),
    ({"vision_config": "patch_size"}, 0),
    ({"vision_config": "num_channels"}, 1),
    ({"vision_config": "hidden_act"}, "gelu2"),
]


@pytest.mark.parametrize(("place", "value"), VALUES, ids=str)
def test_values_that_cannot_be_are_one_line_of_every_verb(folder, tmp_path, capsys, place, value):
    config = json.loads((folder / "config.json").read_text())
    for part, name in place.items():
        config[part][name] = value
    (folder / "config.json").write_text(json.dumps(config if place else config | value))
    with pytest.raises(UserError) as caught:
        read(folder)
    assert "\n" not in str(caught.value)
    Image.fromarray(PIXELS).save(tmp_path / "picture.png")
    assert main(["generate", str(folder), "--image", str(tmp_path / "picture.png"), "--prompt", "x"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_rope_scaling_comes_before_rope_parameters():
    """As in `transformers` 5 (parity/test_disagreements.py)."""
    scaled, plain = {"rope_type": "linear", "factor": 2.0}, {"rope_type": "default", "rope_theta": 500.0}
    assert Rope.read({"rope_scaling": scaled, "rope_parameters": plain}) == Rope.read({"rope_parameters": scaled})
    assert Rope.read({"rope_scaling": None, "rope_parameters": plain}).rope_theta == 500.0
    with pytest.raises(ValueError, match="original_max_position_embeddings is 16 and 32; keep one"):
        Rope.read({"rope_scaling": scaled | {LONGEST: 16}, LONGEST: 32})


def test_a_wrong_image_token_ends_every_verb(folder, small_data, tmp_path, capsys):
    change(folder / "config.json", {"image_token_index": 7})
    Image.fromarray(PIXELS).save(tmp_path / "picture.png")
    (tmp_path / "run.py").write_text("from jaxguard.config import Config\nconfig = Config()\n")
    verbs = {
        "generate": [str(folder), "--image", str(tmp_path / "picture.png"), "--prompt", "x"],
        "train": [str(tmp_path / "run.py"), "--model.path", str(folder), "--data.source", str(small_data)],
        "data check": [str(small_data), "--model", str(folder), "--length", "90", "--answer-length", "20"],
    }
    for verb, words in verbs.items():
        assert main([*verb.split(), *words]) == 2
        assert "<image> of the tokenizer is 4, config.json says 7" in capsys.readouterr().err
