"""Adapters through `peft`, and merged into a checkpoint, on every family: equal logits each way."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
import torch
from peft import LoraConfig as PeftLora
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from jaxguard.config import LoraConfig, MeshConfig, ModelConfig
from jaxguard.errors import UserError
from jaxguard.models import weights
from jaxguard.models.adapters import Adapter
from jaxguard.models.architecture import architecture, merge
from jaxguard.models.folders import resolve
from jaxguard.models.lora import A, B, merged
from jaxguard.train.setup import load_model
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


def _peft(folder, base, **changes):
    """An adapter that peft itself writes, its matrices drawn anew; returns the adapted model."""
    torch.manual_seed(0)
    config = PeftLora(r=3, lora_alpha=5, target_modules=r".*language_model.*\.(q_proj|down_proj)|.*linear_1", **changes)
    model = get_peft_model(base, config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(0, 0.3)
    model.save_pretrained(folder)
    return model


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
@pytest.mark.parametrize(
    "changes",
    [{}, {"use_rslora": True}, {"alpha_pattern": {"q_proj": 11}, "rank_pattern": {"down_proj": 2}}],
    ids=str,
)
def test_an_adapter_as_a_start(tmp_path, changes):
    """What peft adds to each weight is what we load."""
    adapted = _peft(tmp_path / "adapter", checkpoints.llava(tmp_path / "base"), **changes)
    _name_base(tmp_path)
    model = ModelConfig(path=str(tmp_path / "adapter"), trainable="all")
    loaded = load_model(model, MeshConfig(), 0)
    assert loaded.folder == tmp_path / "base"
    theirs = dict(adapted.merge_and_unload().named_parameters())
    found = {
        "model.language_model.layers.1.self_attn.q_proj.weight": loaded.parameters["language.layers.query.kernel"][1],
        "model.language_model.layers.0.mlp.down_proj.weight": loaded.parameters["language.layers.down.kernel"][0],
        "model.multi_modal_projector.linear_1.weight": loaded.parameters["projector.first.kernel"],
        "model.language_model.layers.0.self_attn.k_proj.weight": loaded.parameters["language.layers.key.kernel"][0],
    }
    for name, value in found.items():
        np.testing.assert_allclose(np.asarray(value).T, theirs[name].detach().numpy(), atol=1e-5, err_msg=name)


def _name_base(folder):
    path = folder / "adapter" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": str(folder / "base")}))


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapter")
    _peft(folder / "adapter", checkpoints.llava(folder / "base"))
    _name_base(folder)
    return folder / "adapter"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_dora": True}, "use_dora True is not supported; merge the adapter"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save is not supported"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights 'pissa' changes the base's own weights"),
        ({"peft_type": "IA3"}, "peft_type 'IA3' is not supported"),
        ({"r": 0}, "r is 0: must be a positive number"),
        ({"base_model_name_or_path": "org/other"}, "the base of this adapter is missing"),
    ],
)
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_adapters_that_are_more_than_matrices_are_refused(adapter, tmp_path, change, message):
    shutil.copytree(adapter, tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=message):
        Adapter(tmp_path / "adapter", architecture(resolve(str(path.parent)), dtype="float32", remat="none"))


def test_adapters_of_other_models_are_refused(adapter, tmp_path):
    arch = architecture(adapter.parent / "base", dtype="float32", remat="none")
    shutil.copytree(adapter, tmp_path / "adapter")
    tensors = load_file(adapter / "adapter_model.safetensors")
    name = "base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_A.weight"
    wide = tensors | {name: torch.zeros(3, 77), name.replace("layers.0", "layers.9"): tensors[name]}
    save_file(wide, tmp_path / "adapter" / "adapter_model.safetensors")
    with pytest.raises(UserError, match=r"layers.0.self_attn.q_proj do not fit its shape \[32, 32\].*layers.9"):
        Adapter(tmp_path / "adapter", arch)
