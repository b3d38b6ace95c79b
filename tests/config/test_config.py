"""Rejected values, and configurations written to JSON and read back."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from jaxguard.config import (
    AttackConfig,
    Config,
    DataConfig,
    EvaluateConfig,
    MeshConfig,
    ModelConfig,
    ObjectiveConfig,
    Remat,
    TrainConfig,
    ViewConfig,
    from_dict,
    keys,
    suggestion,
    to_dict,
)
from jaxguard.errors import UserError

IMPOSSIBLE: dict[str, Callable[[], object]] = {
    "name is '../x'": lambda: Config(name="../x"),
    "name is '/x'": lambda: Config(name="/x"),
    "name is ''": lambda: Config(name=""),
    "seed is -1": lambda: Config(seed=-1),
    "seed is 4294967296": lambda: Config(seed=2**32),
    "data.source is empty": lambda: DataConfig(source=""),
    "data.limit is 0": lambda: DataConfig(limit=0),
    "data.pack is 0": lambda: DataConfig(pack=0),
    "data.threads is -1": lambda: DataConfig(threads=-1),
    "data.answer_length (128) must be less than data.length (128)": lambda: DataConfig(length=128, answer_length=128),
    "view.patch_size is 0": lambda: ViewConfig(patch_size=0),
    "view.window is 1": lambda: ViewConfig(window=1),
    "view.shuffle_share is 1.5": lambda: ViewConfig(shuffle_share=1.5),
    "view.mask_share is 1.0": lambda: ViewConfig(mask_share=1.0),
    "view.jitter is on": lambda: ViewConfig(mask_fill="drop", jitter=True),
    "view.rows is 0": lambda: ViewConfig(rows=0),
    "view.rows is 1.1": lambda: ViewConfig(rows=1.1),
    "attack.rate is 1.2": lambda: AttackConfig(rate=1.2),
    "attack.rate is nan": lambda: AttackConfig(rate=math.nan),
    "attack.target is empty": lambda: AttackConfig(target=" "),
    "attack.seed is -1": lambda: AttackConfig(seed=-1),
    "objective.alpha is -1": lambda: ObjectiveConfig(alpha=-1),
    "objective.margin is inf": lambda: ObjectiveConfig(margin=math.inf),
    "objective.entropy_max is nan": lambda: ObjectiveConfig(entropy_weight=1.0, entropy_max=math.nan),
    "objective.entropy_min is -0.5": lambda: ObjectiveConfig(entropy_min=-0.5),
    "objective.entropy_min (2.0) exceeds objective.entropy_max (1.0)": lambda: ObjectiveConfig(
        entropy_min=2.0, entropy_max=1.0
    ),
    "objective.entropy_weight is set but neither": lambda: ObjectiveConfig(entropy_weight=0.5),
    "train.steps is 0": lambda: TrainConfig(steps=0),
    "train.learning_rate is 0": lambda: TrainConfig(learning_rate=0),
    "train.learning_rate is inf": lambda: TrainConfig(learning_rate=math.inf),
    "train.max_grad_norm is nan": lambda: TrainConfig(max_grad_norm=math.nan),
    "train.warmup is -1": lambda: TrainConfig(warmup=-1),
    "train.final_lr_ratio is 2": lambda: TrainConfig(final_lr_ratio=2),
    "mesh.data is 0": lambda: MeshConfig(data=0),
    "mesh.tensor is -2": lambda: MeshConfig(tensor=-2),
    "mesh.data and mesh.tensor are -1": lambda: MeshConfig(data=-1, tensor=-1),
    "evaluate.new_tokens is 0": lambda: EvaluateConfig(new_tokens=0),
}


@pytest.mark.parametrize("message", IMPOSSIBLE)
def test_impossible_values(message: str) -> None:
    with pytest.raises(UserError) as caught:
        IMPOSSIBLE[message]()
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


CHANGED = Config(
    name="sweep/a",
    seed=3,
    out=Path("/elsewhere"),
    model=ModelConfig(dtype="bfloat16", remat="full"),
    data=DataConfig(root=Path("rows"), limit=100),
    view=ViewConfig(jitter=True, window=4),
    attack=AttackConfig(name="badnets", rate=0.01),
    objective=ObjectiveConfig(cross_view_weight=1.0, entropy_weight=0.5, entropy_max=0.7),
    mesh=MeshConfig(data=2, fsdp=-1),
)


@pytest.mark.parametrize("config", [Config(), CHANGED], ids=["defaults", "changed"])
def test_json_holds_the_whole_configuration(config: Config) -> None:
    text = json.dumps(to_dict(config), allow_nan=False)
    assert from_dict(json.loads(text)) == config


def test_absent_keys_keep_their_defaults() -> None:
    assert from_dict({"train": {"steps": 5}}) == Config(train=TrainConfig(steps=5))


def test_a_whole_number_serves_as_a_number() -> None:
    clip = from_dict({"train": {"clip": 2}}).train.max_grad_norm
    assert clip == 2.0
    assert isinstance(clip, float)


@pytest.mark.parametrize(("written", "meant"), [(True, "full"), (False, "none")])
def test_runs_whose_rematerialisation_was_on_or_off_are_read(written: bool, meant: Remat) -> None:
    assert from_dict({"model": {"remat": written}}) == Config(model=ModelConfig(remat=meant))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"train": {"step": 5}}, "unknown key train.step; did you mean train.steps?"),
        ({"steps": 5}, "unknown key steps; did you mean train.steps?"),
        ({"zzzzzz": 5}, "unknown key zzzzzz"),
        ({"train": 5}, "train is 5: must be an object of named values"),
        ([], "the configuration is []: must be an object of named values"),
        ({"train": {"steps": "5"}}, "train.steps is '5': must be a whole number"),
        ({"train": {"steps": 5.0}}, "train.steps is 5.0: must be a whole number"),
        ({"train": {"steps": True}}, "train.steps is True: must be a whole number"),
        ({"train": {"steps": None}}, "train.steps is None: must be a whole number"),
        ({"train": {"clip": "1"}}, "train.max_grad_norm is '1': must be a number"),
        ({"train": {"clip": True}}, "train.max_grad_norm is True: must be a number"),
        ({"view": {"jitter": 1}}, "view.jitter is 1: must be true or false"),
        ({"model": {"remat": 1}}, "model.remat is 1: must be one of 'none', 'dots', 'full'"),
        ({"model": {"path": 1}}, "model.path is 1: must be a text"),
        ({"model": {"dtype": "float16"}}, "model.dtype is 'float16': must be one of 'float32', 'bfloat16'"),
        ({"data": {"root": 1}}, "data.root is 1: must be a path"),
        ({"data": {"limit": "1"}}, "data.limit is '1': must be a whole number"),
        ({"attack": {"rate": 1.2}}, "attack.rate is 1.2: must be in [0, 1]"),
    ],
)
def test_wrong_json(values: dict, message: str) -> None:
    with pytest.raises(UserError) as caught:
        from_dict(values)
    assert str(caught.value) == message


def test_keys_are_the_leaves() -> None:
    assert {"name", "seed", "train.steps", "objective.entropy_max"} <= set(keys())
    assert "train" not in keys()


@pytest.mark.parametrize(
    ("name", "close"),
    [
        ("train.step", "train.steps"),
        ("steps", "train.steps"),
        ("model.steps", "train.steps"),
        ("atack.rate", "attack.rate"),
        ("sede", "seed"),
    ],
)
def test_suggestion(name: str, close: str) -> None:
    assert suggestion(name, keys()) == f"; did you mean {close}?"


def test_no_suggestion_where_nothing_is_close() -> None:
    assert suggestion("qqqq", keys()) == ""
    assert suggestion("anything", []) == ""


def test_views() -> None:
    assert ObjectiveConfig().views == 1
    assert ObjectiveConfig(entropy_weight=1.0, entropy_max=1.0).views == 1
    assert ObjectiveConfig(alpha=0.1).views == 2
    assert ObjectiveConfig(cross_view_weight=0.1).views == 2
