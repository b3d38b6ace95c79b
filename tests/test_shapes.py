"""Shapes are checked while tests run; their dimensions are those of docs/shapes.md."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import jaxtyping
import pytest

from jaxguard.objective.base import Sum

ROOT = Path(__file__).parents[1]
DTYPES = {name for name, kind in vars(jaxtyping).items() if isinstance(kind, type(jaxtyping.Float))}
"""Float, Int32, ...: what a shape is written behind."""


def listed() -> set[str]:
    """The names in the first column of the table."""
    rows = [line.split("|")[1] for line in (ROOT / "docs" / "shapes.md").read_text().splitlines() if "|" in line]
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


def dimensions(tree: ast.AST) -> Iterator[str]:
    """The named dimensions of the annotations in a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id in DTYPES:
            for part in ast.walk(node.slice):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    yield from (name for name in part.value.split() if not name.isdigit() and name != "...")


def test_every_dimension_is_listed_and_every_listed_one_is_used() -> None:
    used: dict[str, str] = {}
    for path in sorted((ROOT / "jaxguard").rglob("*.py")):
        used |= dict.fromkeys(dimensions(ast.parse(path.read_text())), str(path.relative_to(ROOT)))
    assert {name: where for name, where in used.items() if name not in listed()} == {}
    assert listed() - used.keys() == {"C"}  # of suffixes alone


def test_a_dimension_is_found_wherever_an_annotation_stands() -> None:
    code = 'Pair = tuple[Float[Array | np.ndarray, "*N D"], Int[Array, ""]]\ndef f(x: Shaped[Array, "B ..."]): ...\n'
    assert sorted(dimensions(ast.parse(code))) == ["*N", "B", "D"]


def test_a_wrong_shape_is_refused() -> None:
    assert Sum.over(jnp.zeros((2, 3)), jnp.ones((2, 3), bool)).count == 6
    with pytest.raises(jaxtyping.TypeCheckError, match="parameter 'where'"):
        Sum.over(jnp.zeros((2, 3)), jnp.ones((3, 2), bool))
    with pytest.raises(jaxtyping.TypeCheckError, match="parameter 'count'"):
        Sum(jnp.zeros(()), jnp.zeros(2))


def test_trees_that_jax_rebuilds_hold_anything() -> None:
    stacked, _ = jax.lax.scan(lambda _, one: (one, None), Sum.zero(), jax.tree.map(lambda one: one[None], Sum.zero()))
    assert stacked.total.shape == ()
    assert jax.tree.map(lambda _: True, Sum.zero()).total is True
