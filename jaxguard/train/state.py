"""What a step changes: trainable parameters, optimizer moments, the step count. Frozen parameters stay outside."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from jaxguard.config import TrainConfig
from jaxguard.models.architecture import Parameters
from jaxguard.models.family import Family
from jaxguard.models.vision_language import VisionLanguageModel

T = TypeVar("T")


@flax.struct.dataclass
class TrainState:
    """The part of a run that training changes.

    Attributes:
        step: number of steps done.
        parameters: what trains.
        optimizer: moments.
        memory: by row, pair and number, what the objective has added up; None where it keeps nothing.
    """

    step: Int[Array, ""]
    parameters: Parameters
    optimizer: optax.OptState
    memory: Float[Array, "N pairs numbers"] | None = None


def trains(path: str, trainable: str, module: type[VisionLanguageModel]) -> bool:
    """The one path filter: whether `model.trainable` names a parameter of a family's module.

    `projector` is whatever joins tower and decoder; `decoder` leaves the learnt queries out of it.
    """
    bridge = re.search(module.bridge, path) is not None
    queries = module.queries is not None and re.search(module.queries, path) is not None
    language = path.startswith("language.")
    return {
        "projector": bridge,
        "decoder": language or (bridge and not queries),
        "lora": path.endswith((".lora.a", ".lora.b")),
        "language": language or bridge,
        "all": True,
    }[trainable]


def partition(values: Mapping[str, T], trainable: str, family: Family) -> tuple[dict[str, T], dict[str, T]]:
    """(trainable, frozen) of anything keyed by the parameter paths of a family's module."""
    chosen = {path for path in values if trains(path, trainable, family.module)}
    return (
        {path: value for path, value in values.items() if path in chosen},
        {path: value for path, value in values.items() if path not in chosen},
    )


def learning_rate(config: TrainConfig) -> optax.Schedule:
    """Linear warm-up and cosine decay; constant after the warm-up if `final_lr_ratio` is 1."""
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=config.learning_rate,
        warmup_steps=min(config.warmup, config.steps - 1),
        decay_steps=config.steps,
        end_value=config.learning_rate * config.final_lr_ratio,
    )


def make_optimizer(config: TrainConfig) -> optax.GradientTransformation:
    """AdamW with global-norm clipping and `learning_rate`; norms, biases and positions do not decay."""

    def decays(parameters: Parameters) -> dict[str, bool]:
        return {path: path.endswith((".kernel", ".table", ".lora.a", ".lora.b")) for path in parameters}

    return optax.chain(
        optax.clip_by_global_norm(config.max_grad_norm),
        optax.adamw(learning_rate(config), weight_decay=config.weight_decay, mask=decays),
    )


def initial_state(
    parameters: Parameters, optimizer: optax.GradientTransformation, memory: tuple[int, int, int] | None = None
) -> TrainState:
    """Step 0; to be jitted with output shardings.

    Args:
        parameters: what trains.
        optimizer: makes the moments.
        memory: shape of the memory; None keeps none.
    """
    remembered = None if memory is None else jnp.zeros(memory, jnp.float32)
    return TrainState(jnp.zeros((), jnp.int32), dict(parameters), optimizer.init(parameters), remembered)


def abstract_state(
    shapes: Mapping[str, jax.ShapeDtypeStruct],
    optimizer: optax.GradientTransformation,
    memory: tuple[int, int, int] | None = None,
) -> TrainState:
    """The same as shapes."""
    return jax.eval_shape(lambda parameters: initial_state(parameters, optimizer, memory), dict(shapes))
