"""How one parameter's name and layout in a Hugging Face checkpoint answer to ours."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Layout:
    """How an array lies in the two formats; both directions, and the shape on the Hugging Face side."""

    to_ours: Callable[[np.ndarray, tuple[int, ...]], np.ndarray]
    """(their array, our shape) -> our array."""
    to_theirs: Callable[[np.ndarray], np.ndarray]
    their_shape: Callable[[tuple[int, ...]], tuple[int, ...]]
    part: Callable[[tuple[slice, ...]], tuple[slice, ...]] | None = None
    """Where a part of our array lies in theirs; None where only the whole can be converted."""
    rows: int = 0
    """Which of our axes runs along their first, and so through the file."""


def _patch_side(inputs: int) -> int:
    return round((inputs / 3) ** 0.5)


SAME = Layout(lambda x, shape: x, lambda x: x, lambda shape: shape, lambda index: index)
TRANSPOSED = Layout(lambda x, shape: x.T, lambda x: x.T, lambda shape: shape[::-1], lambda index: index[::-1], -1)
CONVOLUTION = Layout(
    lambda x, shape: x.transpose(2, 3, 1, 0).reshape(shape),
    lambda x: x.reshape(_patch_side(x.shape[0]), -1, 3, x.shape[1]).transpose(3, 2, 0, 1),
    lambda shape: (shape[1], 3, _patch_side(shape[0]), _patch_side(shape[0])),
)
"""A convolution whose stride is its kernel: [out, in, h, w] there, [h w in, out] here."""


def leading(axes: int) -> Layout:
    """So many axes of length one stand before ours there."""
    ones = (1,) * axes
    return Layout(
        lambda x, shape: x.reshape(shape), lambda x: x.reshape(ones + x.shape), lambda shape: ones + tuple(shape)
    )


@dataclass(frozen=True)
class Rule:
    """One parameter: our dotted path, their name (`{layer}` where ours is a stack), and the layout."""

    ours: str
    theirs: str
    layout: Layout = SAME
    every: int = 1
    """Our layers are every so many of theirs."""

    @property
    def stacked(self) -> bool:
        return "{layer}" in self.theirs

    def names(self, layers: int) -> list[str]:
        """Their names: one per layer of a stack."""
        return [self.theirs.format(layer=layer * self.every) for layer in range(layers if self.stacked else 1)]


@dataclass(frozen=True)
class Table:
    """A family's rules; a rule whose parameter a config leaves out is not used.

    `renames` are applied to names found on disk first, so that every published spelling of one layout is understood;
    names that match `ignored` (buffers, not parameters) are passed over, and so are those that match `tied` where the
    output head is the embedding.
    """

    rules: tuple[Rule, ...]
    renames: tuple[tuple[str, str], ...] = ()
    modules: tuple[tuple[str, str], ...] = ()
    """Applied to a module's name in this table's spelling, these give its name in a live `transformers` model."""
    ignored: str = r"(position_ids|rotary_emb\.inv_freq)$"
    tied: str = r"lm_head\."

    def canonical(self, name: str) -> str | None:
        """The name in this table's spelling, or None for a name that is passed over."""
        name = _renamed(name, self.renames)
        return None if re.search(self.ignored, name) else name

    def module(self, name: str) -> str:
        """Where `transformers` keeps the module of that name in this table's spelling."""
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
