"""Files of a checkpoint that disagree: what `transformers` decides is what we compute, or we refuse by name."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from jaxguard.errors import UserError
from jaxguard.models.rope import Rope
from tests.parity import checkpoints
from tests.parity.checkpoints import load, relative

EMBEDDING = {
    "llava": "model.language_model.embed_tokens.weight",
    "blip2": "language_model.model.decoder.embed_tokens.weight",
    "idefics": "model.embed_tokens.weight",
}
HEAD = {"llava": "lm_head.weight", "blip2": "language_model.lm_head.weight", "idefics": "lm_head.weight"}
TIED = {"llava": {"tie_word_embeddings": True}, "blip2": {}, "idefics": {"tie_word_embeddings": True}}


def named(tensors, name):
    """The tensor's name on disk, which may be an older spelling."""
    return next(stored for stored in tensors if stored.split(".")[-2:] == name.split(".")[-2:])


@pytest.mark.parametrize("family", EMBEDDING)
@pytest.mark.parametrize("other", [False, True])
def test_a_tied_head_that_is_stored_too(tmp_path, family, other):
    """`transformers` uses a stored head that is not the embedding."""
    theirs = getattr(checkpoints, family)(tmp_path, **TIED[family])
    tensors = load_file(tmp_path / "model.safetensors")
    table = tensors[named(tensors, EMBEDDING[family])]
    own = "lm_head.weight" if family == "idefics" else "language_model.lm_head.weight"
    head = table + torch.randn_like(table) * other
    save_file(tensors | {own: head.clone()}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    used = type(theirs).from_pretrained(tmp_path).get_output_embeddings().weight
    torch.testing.assert_close(used, head)
    if other:
        with pytest.raises(UserError, match=rf"output head of their own \({own}\).*tie_word_embeddings"):
            load(tmp_path)
    else:
        _, parameters = load(tmp_path)
        assert "language.head.kernel" not in parameters


FLAGS = [(top, text) for top in (None, False, True) for text in (None, False, True)]


@pytest.mark.parametrize(("top", "text"), FLAGS)
@pytest.mark.parametrize("family", ["llava", "blip2"])
def test_the_tie_flag_at_two_levels(tmp_path, family, top, text):
    """Whichever level says it: the model that `transformers` loads has a head of its own exactly if ours has."""
    theirs = getattr(checkpoints, family)(tmp_path, text={"tie_word_embeddings": False})
    tensors = load_file(tmp_path / "model.safetensors")
    config = json.loads((tmp_path / "config.json").read_text())
    for part, flag in ((config, top), (config["text_config"], text)):
        part.pop("tie_word_embeddings", None)
        if flag is not None:
            part["tie_word_embeddings"] = flag
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(
        {name: value for name, value in tensors.items() if "lm_head" not in name},
        tmp_path / "model.safetensors",
        metadata={"format": "pt"},
    )
    _, report = type(theirs).from_pretrained(tmp_path, output_loading_info=True)
    if any("lm_head" in name for name in report["missing_keys"]):
        with pytest.raises(UserError, match=r"missing language_model.lm_head.weight"):
            load(tmp_path)
    else:
        _, parameters = load(tmp_path)
        assert "language.head.kernel" not in parameters


ROPES = {
    "both": {"rope_scaling": {"rope_type": "linear", "factor": 2.0}, "rope_parameters": {"rope_type": "default"}},
    "both, with theta": {
        "rope_scaling": {"type": "dynamic", "factor": 2.0},
        "rope_parameters": {"rope_type": "linear", "factor": 3.0, "rope_theta": 77.0},
        "rope_theta": 500.0,
    },
    "empty scaling": {"rope_scaling": None, "rope_parameters": {"rope_type": "linear", "factor": 3.0}},
    "theta inside": {"rope_parameters": {"rope_type": "default", "rope_theta": 77.0}, "rope_theta": 500.0},
    "older": {"rope_scaling": {"type": "linear", "factor": 4.0}, "rope_theta": 500.0},
}


@pytest.mark.parametrize("kind", ROPES)
def test_rope_entries_that_disagree(tmp_path, kind):
    checkpoints.llava(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for name in ("rope_scaling", "rope_parameters", "rope_theta"):
        config["text_config"].pop(name, None)
    config["text_config"] |= ROPES[kind]
    (tmp_path / "config.json").write_text(json.dumps(config))
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    theirs = LlamaRotaryEmbedding(AutoConfig.from_pretrained(tmp_path).text_config)
    positions = np.arange(12)[None].astype(np.int32)
    cos, sin = theirs(torch.zeros(1), torch.from_numpy(positions).long())
    found = Rope.read(config["text_config"]).rotation(jnp.asarray(positions), 8)
    for ours, expected in zip(found, (cos, sin), strict=True):
        assert relative(ours[:, :, 0], expected[..., :4]) < 1e-5
