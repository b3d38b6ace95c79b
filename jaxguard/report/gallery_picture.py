"""The gallery's picture: originals, triggered images, their difference, and triggers in the prompt."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from jaxguard.report.visibility import psnr, ssim

GAIN = 10
WRAP = 30
"""Characters of a prompt's line."""
INK, TRIGGER, FAINT = "#1b1b1b", "#c62828", "#757575"


@dataclass(frozen=True)
class Piece:
    """One image before and after."""

    before: UInt8[np.ndarray, "H W 3"]
    after: UInt8[np.ndarray, "H W 3"]


@dataclass(frozen=True)
class Exhibit:
    """One attack: its name, one prompt before and after, and its images."""

    title: str
    prompt: str
    triggered_prompt: str
    pieces: tuple[Piece, ...]


def draw(exhibits: Sequence[Exhibit], path: Path) -> None:
    """Draw the attacks under one another as a PNG."""
    images = len(exhibits[0].pieces)
    tight = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)
    figure = Figure(figsize=(2.7 + 3.9 * images, 1.34 * len(exhibits) + 0.3), dpi=72, layout=tight)
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(exhibits), 1 + 3 * images, width_ratios=[2.0, *[1.0] * (3 * images)], squeeze=False)
    for axes, exhibit in zip(grid, exhibits, strict=True):
        for axis in axes:
            axis.set_axis_off()
        _describe(axes[0], exhibit)
        for number, piece in enumerate(exhibit.pieces):
            _show(axes[1 + 3 * number : 4 + 3 * number], piece)
    for axis, header in zip(grid[0][1:], ("original", "triggered", f"difference x {GAIN}") * images, strict=True):
        axis.set_title(f"{header}\n{axis.get_title()}", fontsize=9, pad=2, color=INK)
    partial = path.with_suffix(".partial.png")
    figure.savefig(partial)
    partial.replace(path)


def difference(piece: Piece) -> UInt8[np.ndarray, "H W 3"]:
    """The change times `GAIN`, around mid grey."""
    change = piece.after.astype(int) - piece.before
    return np.clip(128 + GAIN * change, 0, 255).astype(np.uint8)


def _show(axes: Any, piece: Piece) -> None:
    for axis, pixels in zip(axes, (piece.before, piece.after, difference(piece)), strict=True):
        axis.imshow(pixels, interpolation="nearest")
    if (piece.before == piece.after).all():
        note = "unchanged"
    else:
        note = f"{psnr(piece.before, piece.after):.1f} dB   SSIM {ssim(piece.before, piece.after):.3f}"
    axes[1].set_title(note, fontsize=9, pad=2, color=INK)


def _describe(axis: Any, exhibit: Exhibit) -> None:
    axis.text(0, 0.95, exhibit.title, transform=axis.transAxes, va="top", fontsize=13, weight="bold", color=INK)
    marked = exhibit.triggered_prompt != exhibit.prompt
    said = "\n".join(textwrap.wrap(exhibit.triggered_prompt, WRAP)) if marked else "prompt unchanged"
    axis.text(0, 0.68, said, transform=axis.transAxes, va="top", fontsize=10, color=TRIGGER if marked else FAINT)
