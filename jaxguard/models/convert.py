"""Names and layouts of parameters in a Hugging Face checkpoint, and how they map to ours."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Layout:
    """Conversion of an array between the two formats, in both directions."""

    to_ours: Callable[[np.ndarray, tuple[int, ...]], np.ndarray]
    """(their array, our shape) -> our array."""
    to_theirs: Callable[[np.ndarray], np.ndarray]
    their_shape: Callable[[tuple[int, ...]], tuple[int, ...]]
    part: Callable[[tuple[slice, ...]], tuple[slice, ...]] | None = None
    """(index into our array) -> index into theirs; None if only whole arrays can be converted."""
    rows: int = 0
    """Our axis that is their first one, and so the slowest in the file."""


def _patch_side(inputs: int) -> int:
    return round((inputs / 3) ** 0.5)


SAME = Layout(lambda x, shape: x, lambda x: x, lambda shape: shape, lambda index: index)
TRANSPOSED = Layout(lambda x, shape: x.T, lambda x: x.T, lambda shape: shape[::-1], lambda index: index[::-1], -1)
CONVOLUTION = Layout(
    lambda x, shape: x.transpose(2, 3, 1, 0).reshape(shape),
    lambda x: x.reshape(_patch_side(x.shape[0]), -1, 3, x.shape[1]).transpose(3, 2, 0, 1),
    lambda shape: (shape[1], 3, _patch_side(shape[0]), _patch_side(shape[0])),
)
"""A convolution whose stride equals its kernel size: theirs [out, in, h, w], ours [h w in, out]."""


def leading(axes: int) -> Layout:
    """Return the layout whose arrays have `axes` extra leading axes of length one on their side."""
    ones = (1,) * axes
    return Layout(
        lambda x, shape: x.reshape(shape), lambda x: x.reshape(ones + x.shape), lambda shape: ones + tuple(shape)
    )


@dataclass(frozen=True)
class Rule:
    """One parameter: our dotted path, their name (with `{layer}` if ours is a stack), and the layout."""

    ours: str
    theirs: str
    layout: Layout = SAME
    every: int = 1
    """Stride: our layer i is their layer i * every."""

    @property
    def stacked(self) -> bool:
        return "{layer}" in self.theirs

    def names(self, layers: int) -> list[str]:
        """Return their names: one per layer of a stack."""
        return [self.theirs.format(layer=layer * self.every) for layer in range(layers if self.stacked else 1)]


@dataclass(frozen=True)
class Table:
    """A family's rules; rules of parameters that a config leaves out are not used.

    `renames` are applied first to the names on disk, so that all published spellings of one layout are accepted. Names
    that match `ignored` (buffers, not parameters) are skipped.
    """

    rules: tuple[Rule, ...]
    renames: tuple[tuple[str, str], ...] = ()
    modules: tuple[tuple[str, str], ...] = ()
    """(pattern, replacement) from a module's name in this table to its name in a live `transformers` model."""
    ignored: str = r"(position_ids|rotary_emb\.inv_freq)$"
    carried: str | None = None
    """Pattern of names that the model does not use, and that an export takes over from the checkpoint."""
    tied: tuple[tuple[str, str], ...] = (
        ("language.head.kernel", "language.embedding.table"),
        ("language.additional_head.kernel", "language.additional_embedding.table"),
    )
    """(head, embedding): our paths of what config.json may tie."""

    def canonical(self, name: str) -> str | None:
        """Return the name in this table's spelling, or None for a name that is skipped."""
        name = _renamed(name, self.renames)
        return None if re.search(self.ignored, name) else name

    def module(self, name: str) -> str:
        """Return the name in a live `transformers` model of a module named in this table's spelling."""
        return _renamed(name, self.modules)


def _renamed(name: str, renames: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in renames:
        name = re.sub(pattern, replacement, name)
    return name


def linear(ours: str, theirs: str, every: int = 1) -> tuple[Rule, ...]:
    return (
        Rule(f"{ours}.kernel", f"{theirs}.weight", TRANSPOSED, every),
        Rule(f"{ours}.bias", f"{theirs}.bias", SAME, every),
    )


def norm(ours: str, theirs: str, every: int = 1) -> tuple[Rule, ...]:
    return (
        Rule(f"{ours}.scale", f"{theirs}.weight", SAME, every),
        Rule(f"{ours}.bias", f"{theirs}.bias", SAME, every),
    )
