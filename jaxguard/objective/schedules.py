"""How the weight of the cross-view term moves over a run."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxguard.config import ObjectiveConfig


def cross_view_weight(objective: ObjectiveConfig, steps: int) -> Callable[[Int[Array, ""]], Float[Array, ""]]:
    """lambda by step: a linear rise over `cross_view_warmup`, then `cross_view_schedule` down to 0 at `steps`."""

    def weight(step: Int[Array, ""]) -> Float[Array, ""]:
        step = jnp.asarray(step, jnp.float32)
        rise = jnp.minimum(1.0, (step + 1) / max(1, objective.cross_view_warmup))
        progress = jnp.clip(
            (step - objective.cross_view_warmup) / max(1, steps - objective.cross_view_warmup), 0.0, 1.0
        )
        factor = {
            "constant": jnp.ones_like(progress),
            "linear": 1.0 - progress,
            "cosine": 0.5 * (1.0 + jnp.cos(jnp.pi * progress)),
        }[objective.cross_view_schedule]
        return objective.cross_view_weight * rise * factor

    return weight
