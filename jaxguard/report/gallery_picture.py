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
"""Characters per line of a prompt."""
INK, TRIGGER, FAINT = "#1b1b1b", "#c62828", "#757575"


@dataclass(frozen=True)
class ImagePair:
    """One image, clean and triggered."""

    before: UInt8[np.ndarray, "h w 3"]
    after: UInt8[np.ndarray, "h w 3"]


@dataclass(frozen=True)
class AttackExample:
    """One attack: its name, one prompt without and with the trigger, and its images."""

    title: str
    prompt: str
    triggered_prompt: str
    images: tuple[ImagePair, ...]


def draw(examples: Sequence[AttackExample], path: Path) -> None:
    """Draw one row of images per attack as a PNG."""
    images = len(examples[0].images)
    tight = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.05, wspace=0.01, hspace=0.01)
    figure = Figure(figsize=(2.7 + 3.9 * images, 1.42 * len(examples) + 0.3), dpi=72, layout=tight)
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(examples), 1 + 3 * images, width_ratios=[2.0, *[1.0] * (3 * images)], squeeze=False)
    for axes, example in zip(grid, examples, strict=True):
        for axis in axes:
            axis.set_axis_off()
        _describe(axes[0], example)
        for number, pair in enumerate(example.images):
            _show(axes[1 + 3 * number : 4 + 3 * number], pair)
    for axis, header in zip(grid[0][1:], ("original", "triggered", f"difference x {GAIN}") * images, strict=True):
        axis.set_title(header, fontsize=9, pad=2, color=INK)
    partial = path.with_suffix(".partial.png")
    figure.savefig(partial)
    partial.replace(path)


def difference(pair: ImagePair) -> UInt8[np.ndarray, "h w 3"]:
    """Amplify the change of the image by `GAIN` around mid grey."""
    change = pair.after.astype(int) - pair.before
    return np.clip(128 + GAIN * change, 0, 255).astype(np.uint8)


def _show(axes: Any, pair: ImagePair) -> None:
    for axis, pixels in zip(axes, (pair.before, pair.after, difference(pair)), strict=True):
        axis.imshow(pixels, interpolation="nearest")
    if (pair.before == pair.after).all():
        note = "unchanged"
    else:
        note = f"{psnr(pair.before, pair.after):.1f} dB   SSIM {ssim(pair.before, pair.after):.3f}"
    axes[1].text(0.5, -0.03, note, transform=axes[1].transAxes, ha="center", va="top", fontsize=9, color=INK)


def _describe(axis: Any, example: AttackExample) -> None:
    axis.text(0, 0.95, example.title, transform=axis.transAxes, va="top", fontsize=13, weight="bold", color=INK)
    marked = example.triggered_prompt != example.prompt
    prompt = "\n".join(textwrap.wrap(example.triggered_prompt, WRAP)) if marked else "prompt unchanged"
    axis.text(0, 0.68, prompt, transform=axis.transAxes, va="top", fontsize=10, color=TRIGGER if marked else FAINT)
