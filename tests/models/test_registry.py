"""The registry of families: processors import no JAX, and the trainable parameters of each mode."""

import json
import re
import subprocess
import sys

import pytest

from jaxguard.config import LoraConfig
from jaxguard.models import folders
from jaxguard.models.architecture import architecture
from jaxguard.models.families.registry import PACKAGES, open_processor
from jaxguard.train.state import partition

BRIDGE = r"projector|qformer|resampler|language\.cross|language\.additional_"
TRAINABLE = {
    "projector": rf"^({BRIDGE})",
    "decoder": r"^(projector|language)",
    "lora": r"\.lora\.[ab]$",
    "language": rf"^({BRIDGE}|language)",
    "all": r".",
}
"""What trained in the first release, as patterns of parameter paths."""
SHIPPED = [folders.resolve(name) for name in folders.names()]
PUBLISHED = sorted(path.parent for path in folders.PUBLISHED.glob("*/config.json"))

PROGRAM = """
import sys
from importlib import import_module
for package in sys.argv[1:]:
    import_module(f"{package}.processor")
assert not {"jax", "flax", "torch", "transformers"} & set(sys.modules), "imported"
from pathlib import Path
from jaxguard.models import folders
from jaxguard.models.families.registry import open_processor
for name in folders.names():
    open_processor(folders.resolve(name))
assert not {"jax", "flax"} & set(sys.modules), "imported when opened"
"""


def test_processors_import_no_jax():
    subprocess.run([sys.executable, "-c", PROGRAM, *PACKAGES.values()], check=True)


@pytest.mark.parametrize("lora", [None, LoraConfig()], ids=["plain", "lora"])
@pytest.mark.parametrize("folder", SHIPPED + PUBLISHED, ids=lambda folder: folder.name)
def test_what_trains_is_what_always_did(folder, lora):
    arch = architecture(folder, dtype="float32", remat="none", lora=lora)
    for mode, pattern in TRAINABLE.items():
        trains, frozen = partition(arch.shapes, mode, arch.family)
        assert set(trains) == {path for path in arch.shapes if re.search(pattern, path)}, mode
        assert trains.keys() | frozen.keys() == arch.shapes.keys()


def test_what_a_processor_says_of_images():
    found = {folder.name: open_processor(folder) for folder in SHIPPED + PUBLISHED}
    assert {name: (one.image_shape, one.image_tokens, one.patch_size) for name, one in found.items()} == {
        "tiny-llava": ((64, 64), 64, 8),
        "tiny-blip2": ((64, 64), 32, None),
        "tiny-idefics": ((64, 64), 1, None),
        "llava-1.5-7b-hf": ((336, 336), 576, 14),
        "llava-1.5-13b-hf": ((336, 336), 576, 14),
        "blip2-opt-2.7b": ((224, 224), 32, None),
        "idefics-9b": ((224, 224), 1, None),
    }


def test_the_vocabulary_is_that_of_the_head():
    for folder in SHIPPED + PUBLISHED:
        values = json.loads((folder / "config.json").read_text())
        text = {"vocab_size": 50272} | values.get("text_config", values)
        vocabulary = architecture(folder, dtype="bfloat16", remat="none").vocabulary
        assert vocabulary == text["vocab_size"] + values.get("additional_vocab_size", 0), folder.name


@pytest.mark.parametrize("folder", PUBLISHED, ids=lambda folder: folder.name)
def test_shallow_models_have_the_layers_asked_for(folder, tmp_path):
    family = architecture(folder, dtype="bfloat16", remat="none").family
    values = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(family.shallow(values, 2)))
    shapes = architecture(tmp_path, dtype="bfloat16", remat="none").shapes
    assert shapes["vision.layers.norm1.scale"].shape[0] == 2
    layers = 2 * values.get("cross_layer_interval", 1)
    assert shapes["language.layers.norm1.scale"].shape[0] == layers
