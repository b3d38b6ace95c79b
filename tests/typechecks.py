"""What jaxtyping's import hook decorates jaxguard's functions and dataclasses with while tests run."""

import functools
import sys
from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype

_beartype = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float, as for mypy


def check(function: Callable) -> Callable:
    """Beartype, except where JAX rebuilds a dataclass.

    JAX gives its trees shardings, None or stacked arrays for leaves (`jax.tree.map`, `jax.lax.scan`): these have a
    dataclass's structure and not its shapes.
    """
    checked: Callable = _beartype(function)
    if function.__name__ != "__init__":
        return checked

    @functools.wraps(function)
    def unless_rebuilt(*args: Any, **kwargs: Any) -> Any:
        caller = sys._getframe(3)  # behind two frames of jaxtyping
        return None if caller.f_globals["__name__"].startswith("jax.") else checked(*args, **kwargs)

    return unless_rebuilt
