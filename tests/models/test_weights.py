"""Checkpoints: exact round trips, and a one-line error for every way they can be broken."""

import json
import pickle
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxguard.config import MeshConfig
from jaxguard.errors import UserError
from jaxguard.models import folders, weights
from jaxguard.models.architecture import architecture
from jaxguard.models.convert import Rule
from jaxguard.train.sharding import make_mesh, parameter_shardings


def load(folder, mesh=None):
    arch = architecture(folder, dtype="float32", remat="none")
    shardings = parameter_shardings(arch.shapes, make_mesh(mesh or MeshConfig()), arch.family.axes)
    return arch, weights.load(folder, arch, shardings, dict.fromkeys(arch.shapes, np.dtype("float32")))


@pytest.fixture
def folder(small_checkpoint, tmp_path):
    return shutil.copytree(small_checkpoint, tmp_path / "checkpoint")


def edit(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def test_loading_and_saving_are_inverse(folder, tmp_path):
    arch, parameters = load(folder)
    weights.save(parameters, arch, folder, tmp_path / "again", np.dtype("float32"))
    before, after = (load_file(path / "model.safetensors") for path in (folder, tmp_path / "again"))
    assert before.keys() == after.keys()
    for name in before:
        np.testing.assert_array_equal(before[name], after[name], err_msg=name)
    assert {file.name for file in (tmp_path / "again").iterdir()} == {file.name for file in folder.iterdir()}


@pytest.mark.parametrize("mesh", [MeshConfig(data=1, fsdp=8), MeshConfig(data=2, fsdp=2, tensor=2)])
def test_sharded_loading_gives_the_same_values(folder, mesh):
    (_, whole), (_, sharded) = load(folder), load(folder, mesh)
    for path, value in whole.items():
        np.testing.assert_array_equal(value, sharded[path], err_msg=path)


def test_checkpoints_in_several_files(folder):
    _, whole = load(folder)
    tensors = load_file(folder / "model.safetensors")
    names, index = sorted(tensors), dict[str, str]()
    for number, part in enumerate((names[::2], names[1::2])):
        file = f"model-{number}.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file)
        index |= dict.fromkeys(part, file)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    _, parts = load(folder)
    for path, value in whole.items():
        np.testing.assert_array_equal(value, parts[path])
    (folder / "model-1.safetensors").unlink()
    with pytest.raises(UserError, match=r"model-1.safetensors: not a readable safetensors file"):
        load(folder)
    for hostile in ("../model-0.safetensors", "/etc/passwd"):
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": hostile}}))
        with pytest.raises(UserError, match="outside the folder"):
            load(folder)


def test_a_stack_of_every_other_layer_is_read_from_its_own_layers():
    rule = Rule("cross.kernel", "layers.{layer}.weight", every=4)
    assert rule.names(3) == ["layers.0.weight", "layers.4.weight", "layers.8.weight"]


def test_newer_names_are_understood(folder):
    _, published = load(folder)

    def rename(tensors):
        for name in list(tensors):
            new = name.replace("language_model.model.", "model.language_model.")
            if new == name:
                new = "model." + name.replace("vision_tower.vision_model.", "vision_tower.")
            tensors[new] = tensors.pop(name)

    edit(folder, rename)
    _, newer = load(folder)
    for path, value in published.items():
        np.testing.assert_array_equal(value, newer[path])


def test_every_problem_is_named_in_one_line(folder):
    key = "language_model.model.layers.0.mlp.up_proj.weight"

    def damage(tensors):
        tensors["unknown.weight"] = tensors.pop(key)
        del tensors["multi_modal_projector.linear_1.bias"]

    edit(folder, damage)
    with pytest.raises(UserError) as caught:
        load(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert f"missing {key}" in message
    assert "missing multi_modal_projector.linear_1.bias" in message
    assert "unexpected unknown.weight" in message


@pytest.fixture
def tied(folder):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    assert config["tie_word_embeddings"] is config["text_config"]["tie_word_embeddings"] is True
    return folder


EMBEDDING, HEAD = "language_model.model.embed_tokens.weight", "language_model.lm_head.weight"


def test_a_stored_head_that_is_the_embedding_is_passed_over(tied):
    _, expected = load(tied)
    edit(tied, lambda tensors: tensors.update({HEAD: tensors[EMBEDDING].copy()}))
    _, found = load(tied)
    assert found.keys() == expected.keys()


@pytest.mark.parametrize("change", [lambda table: table + 1e-3, lambda table: table[:3]], ids=["values", "shape"])
def test_a_stored_head_of_its_own_is_not_ignored(tied, change):
    """`transformers` would use it, although config.json ties it to the embedding."""
    edit(tied, lambda tensors: tensors.update({HEAD: change(tensors[EMBEDDING])}))
    with pytest.raises(
        UserError, match=r"output head of their own \(language_model.lm_head.weight\).*tie_word_embeddings"
    ):
        load(tied)


@pytest.mark.parametrize(("bits", "rule"), [(np.nan, 0), (np.inf, 0), (-np.inf, 1)])
def test_weights_that_are_no_numbers_are_named(folder, bits, rule):
    name = (EMBEDDING, "vision_tower.vision_model.embeddings.patch_embedding.weight")[rule]

    def damage(tensors):
        tensors[name].reshape(-1)[-1] = bits

    edit(folder, damage)
    with pytest.raises(UserError, match=rf"{name} holds NaN or infinity"):
        load(folder)


def test_types_that_cannot_be_read_are_named(folder):
    name = "multi_modal_projector.linear_1.weight"
    edit(folder, lambda tensors: tensors.update({name: tensors[name].astype(np.int32)}))
    with pytest.raises(UserError, match=rf"{name} is stored as I32; give weights of one of F64, F32, F16, BF16"):
        load(folder)


@pytest.mark.parametrize(
    ("entries", "method"),
    [
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "gptq"),
        ({"text_config": {"quantization_config": {"quant_method": "awq"}}}, "awq"),
        ({"compression_config": {"format": "float-quantized"}}, "float-quantized"),
    ],
)
def test_quantised_checkpoints_are_named(folder, entries, method):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))
    with pytest.raises(UserError, match=rf"config.json: this checkpoint is quantised \({method}: .*full-precision"):
        load(folder)


@pytest.mark.parametrize("ending", ["qweight", "weight.absmax", "SCB", "weight_scale_inv"])
def test_quantised_weights_are_named_without_a_word_in_the_config(folder, ending):
    extra = f"language_model.model.layers.0.mlp.up_proj.{ending}"
    edit(folder, lambda tensors: tensors.update({extra: np.zeros((2, 2), np.float32)}))
    with pytest.raises(UserError, match=rf"this checkpoint is quantised \(it holds {extra}\).*full-precision"):
        load(folder)


def test_a_type_that_a_weight_does_not_fit_is_refused(folder, tmp_path):
    arch, parameters = load(folder)
    large = {path: np.asarray(value) * 1e6 for path, value in parameters.items()}
    with pytest.raises(UserError, match=r"does not fit float16"):
        weights.save(large, arch, folder, tmp_path / "out", np.dtype("float16"))
    assert not (tmp_path / "out").exists()


def test_wrong_shapes_are_named(folder):
    name = "multi_modal_projector.linear_1.weight"
    edit(folder, lambda tensors: tensors.update({name: np.zeros((3, 4), np.float32)}))
    with pytest.raises(UserError, match=r"linear_1.weight is \[3, 4\], config.json says \[32, 32\]"):
        load(folder)


def test_truncated_files_are_named(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"model.safetensors: not a readable safetensors file"):
        load(folder)


def test_pickles_are_never_opened(folder):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was opened",))

    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(UserError, match="pickled weights are never opened"):
        load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "bert"}, "model_type 'bert' is not supported"),
        ({"projector_hidden_act": "swish9"}, "activation 'swish9' is not supported"),
        ({"vision_config": {"patch_size": 7, "image_size": 64}}, "patch_size 7 does not divide image_size 64"),
        ({"text_config": {"rope_scaling": {"rope_type": "proportional"}}}, "rope type 'proportional' is not supported"),
        ({"text_config": {"rope_scaling": {"rope_type": "linear"}}}, "rope type 'linear' needs a `factor`"),
        ({"text_config": {"model_type": "gemma2"}}, "text_config.model_type 'gemma2' is not supported; use llama"),
        ({"vision_config": {"model_type": "vit_mae"}}, "vision_config.model_type 'vit_mae' is not supported; use"),
        ({"model_type": "blip-2", "text_config": {"model_type": "t5"}}, "'t5' is not supported; use opt"),
        (
            {"model_type": "blip-2", "text_config": None, "qformer_config": {"use_qformer_text_input": True}},
            "use_qformer_text_input is not supported",
        ),
        (
            {"model_type": "blip-2", "text_config": None, "qformer_config": {"num_hidden_layers": 5}},
            "cross_attention_frequency 2 does not divide num_hidden_layers 5",
        ),
        ({"model_type": "idefics", "cross_layer_interval": 3}, "interval 3 does not divide num_hidden_layers 32"),
        ({"model_type": "idefics", "alpha_type": "matrix"}, "alpha_type 'matrix' is not supported"),
    ],
)
def test_configurations_that_are_not_supported(folder, change, message):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=message):
        architecture(folder, dtype="float32", remat="none")


def test_saving_never_overwrites(folder):
    arch, parameters = load(folder)
    with pytest.raises(UserError, match="exists and is not empty"):
        weights.save(parameters, arch, folder, folder, np.dtype("float32"))


@pytest.mark.parametrize("name", ["tiny-llava", "tiny-blip2", "tiny-idefics"])
def test_shipped_checkpoints_resolve_by_name_and_keep_their_size(name):
    folder = folders.resolve(name)
    assert (folder / "model.safetensors").stat().st_size < 4 * 2**20
    _, parameters = load(folder)
    assert 1e6 < sum(value.size for value in parameters.values()) < 2e6
    assert (folder / "README.md").is_file()


def test_names_that_are_almost_a_shipped_checkpoint():
    with pytest.raises(UserError, match="did you mean 'tiny-llava'"):
        folders.resolve("tiny-lava")
