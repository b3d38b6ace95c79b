"""What a traced program computes and keeps, read from its equations: for any family, before anything is compiled."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any


def matrix_flops(jaxpr: Any) -> float:
    """Operations of the matrix products of a jaxpr, over all devices, loops counted as often as they run.

    What is computed again counts again. A `while` of unknown length counts once, of branches the dearest, and a kernel
    for every block of its grid.
    """
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            total += 2.0 * prod(equation.outvars[0].aval.shape) * prod(shape[axis] for axis in contracted)
        join = max if equation.primitive.name == "cond" else sum
        total += _times(equation) * join([matrix_flops(inner) for inner in _inner(equation)] or [0.0])
    return total


def kept_bytes(jaxpr: Any) -> int:
    """Bytes that loops over layers keep for the backward pass, over all devices: their stacked outputs that a loop
    which runs backwards reads. Of several passes (micro-batches), one."""
    made: dict[Any, int] = {}
    kept: dict[Any, int] = {}
    most = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "scan":
            carries, constants = equation.params["num_carry"], equation.params["num_consts"]
            if equation.params["reverse"]:
                read = equation.invars[constants + carries :]
                kept |= {value: made[value] for value in read if not hasattr(value, "val") and value in made}
            else:
                made |= {value: value.aval.size * value.aval.dtype.itemsize for value in equation.outvars[carries:]}
        most = max(most, *(kept_bytes(inner) for inner in _inner(equation)), 0)
    return max(sum(kept.values()), most)


def _inner(equation: Any) -> Iterator[Any]:
    """The jaxprs that an equation runs."""
    for value in equation.params.values():
        for one in value if isinstance(value, tuple | list) else (value,):
            jaxpr = getattr(one, "jaxpr", one)  # closed ones hold an open one
            if hasattr(jaxpr, "eqns"):
                yield jaxpr


def _times(equation: Any) -> int:
    """How often an equation runs its inside, with what each device does on its own counted for all of them."""
    if equation.primitive.name == "shard_map":
        return equation.params["mesh"].size
    if equation.primitive.name == "pallas_call":
        return prod(equation.params["grid_mapping"].grid)
    return equation.params["length"] if equation.primitive.name == "scan" else 1
