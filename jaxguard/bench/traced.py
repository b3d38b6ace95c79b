"""Operations and kept bytes of a traced program, read from its jaxpr: for any family, without compilation."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any


def matrix_flops(jaxpr: Any) -> float:
    """Count the operations of all matmuls of a jaxpr over all devices, with every iteration of loops.

    Recomputation is included. A `while` counts one iteration, a `cond` its most expensive branch, a kernel every block
    of its grid.
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
    """Count the bytes that layer loops keep for the backward pass, over all devices, of one micro-batch.

    These are the stacked outputs of a loop that a reversed loop reads.
    """
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
    """Iterate over the jaxprs that an equation runs."""
    for value in equation.params.values():
        for one in value if isinstance(value, tuple | list) else (value,):
            jaxpr = getattr(one, "jaxpr", one)  # a closed jaxpr holds an open one
            if hasattr(jaxpr, "eqns"):
                yield jaxpr


def _times(equation: Any) -> int:
    """Count the executions of an equation's inner jaxprs, over all devices."""
    if equation.primitive.name == "shard_map":
        return equation.params["mesh"].size
    if equation.primitive.name == "pallas_call":
        return prod(equation.params["grid_mapping"].grid)
    return equation.params["length"] if equation.primitive.name == "scan" else 1
