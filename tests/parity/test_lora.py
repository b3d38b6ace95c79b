"""Adapters through `peft`, and merged into a checkpoint, on every family: equal logits each way."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import torch
from peft import PeftModel

from jaxguard.config import LoraConfig
from jaxguard.models import weights
from jaxguard.models.architecture import architecture, merge
from jaxguard.models.lora import A, B, merged
from tests.parity import checkpoints
from tests.parity.checkpoints import IMAGE_TOKEN, images, logits, relative, torch_pixels

PREFIX = {"llava": [1] + [IMAGE_TOKEN] * 16, "blip2": [IMAGE_TOKEN] * 5 + [2], "idefics": [1, IMAGE_TOKEN]}
TARGETS = {
    "llava": r"^language\.layers|^projector\.|^vision\.layers\.query",
    "blip2": r"^language\.|^projector$|^qformer\.|^vision\.layers",
    "idefics": r"^language\.layers|^language\.cross|^resampler|^vision\.layers",
}


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft reads it
@pytest.mark.parametrize("family", PREFIX)
def test_adapter_and_merged_checkpoint_give_our_logits(tmp_path, family):
    theirs = getattr(checkpoints, family)(tmp_path / "base")
    lora = LoraConfig(rank=3, alpha=5.0, targets=TARGETS[family])
    plain, parameters = checkpoints.load(tmp_path / "base")
    arch = architecture(tmp_path / "base", dtype="float32", remat="none", lora=lora)
    rng = np.random.default_rng(0)
    parameters |= {
        path: rng.normal(size=struct.shape).astype(np.float32) * 0.2
        for path, struct in arch.shapes.items()
        if path.endswith((A, B))
    }
    assert set(parameters) == set(arch.shapes)
    tokens = np.array([PREFIX[family] + [5, 9, 33, 12]] * 2, np.int32)
    pictures = images()
    own = logits(merge(arch.graph, parameters), tokens, pictures)

    weights.save_adapter(parameters, arch, "base", tmp_path / "adapter", np.dtype("float32"))
    arguments = {
        "input_ids": torch.from_numpy(tokens).long(),
        "attention_mask": torch.ones(tokens.shape, dtype=torch.long),
        "pixel_values": torch_pixels(plain.config, pictures),
    }
    if family == "idefics":
        arguments["pixel_values"] = arguments["pixel_values"][:, None]
        arguments["image_attention_mask"] = torch.from_numpy((np.cumsum(tokens == IMAGE_TOKEN, axis=1) > 0)[..., None])
    with torch.no_grad():
        before = theirs(**arguments).logits.numpy()
        adapted = PeftModel.from_pretrained(theirs, tmp_path / "adapter").eval()(**arguments).logits.numpy()
    assert relative(own, adapted) < 1e-4
    assert relative(own, before) > 1e-2

    whole = merged(jax.tree.map(np.asarray, parameters), lora)
    weights.save(whole, plain, tmp_path / "base", tmp_path / "merged", np.dtype("float32"))
    back = type(theirs).from_pretrained(tmp_path / "merged").eval()
    with torch.no_grad():
        assert relative(own, back(**arguments).logits.numpy()) < 1e-4


def test_the_adapter_file_names_every_module_once(tmp_path):
    checkpoints.llava(tmp_path / "base")
    arch = architecture(tmp_path / "base", dtype="float32", remat="none", lora=LoraConfig())
    parameters = jax.tree.map(np.asarray, jax.jit(lambda: arch.initial(0))())
    weights.save_adapter(parameters, arch, "base", tmp_path / "adapter", np.dtype("float32"))
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert len(config["target_modules"]) == len(set(config["target_modules"])) == 2 * 7
    assert dataclasses.asdict(LoraConfig())["rank"] == config["r"]
