"""The demo's picture: inputs, their perturbed views, and each model's answers."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

CLEAN, CONTAINS_TARGET = "#1b1b1b", "#c62828"
WRAP, WRAP_PROMPT = 46, 34
"""Characters per line, of an answer and of the question."""
METHOD_X, CLEAN_X, TRIGGERED_X = 0.0, 0.27, 0.64
"""Left edges of the three columns of text, as shares of its width."""


@dataclass(frozen=True)
class Answers:
    """One model's answers to one test image."""

    method: str
    clean: str
    triggered: str


@dataclass(frozen=True)
class PictureRow:
    """One test image with its trigger, both of their perturbed views, and each model's answers."""

    prompt: str
    clean: UInt8[np.ndarray, "h w 3"]
    triggered: UInt8[np.ndarray, "h w 3"]
    clean_view: UInt8[np.ndarray, "h2 w2 3"]
    triggered_view: UInt8[np.ndarray, "h2 w2 3"]
    answers: tuple[Answers, ...]


def demo_picture(rows: Sequence[PictureRow], target: str, note: str, path: Path) -> None:
    """Draw the rows as a PNG, a note below them; answers that contain the target are red."""
    methods = max(len(row.answers) for row in rows)
    height = max(1.9, 0.55 * methods + 0.3)
    figure = Figure(figsize=(16, height * len(rows) + 0.6), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(rows), 5, width_ratios=[1, 1, 1, 1, 7.2], squeeze=False)
    headers = ("image", "its view", "triggered", "its view", "")
    for axes, row in zip(grid, rows, strict=True):
        for axis, pixels in zip(axes, (row.clean, row.clean_view, row.triggered, row.triggered_view), strict=False):
            axis.imshow(pixels, interpolation="nearest")
            axis.set_axis_off()
        _write_answers(axes[4], row, target, methods)
    for axis, header in zip(grid[0], headers, strict=True):
        axis.set_title(header, fontsize=12)
    figure.supxlabel(note, fontsize=10, x=0.01, ha="left")
    partial = path.with_suffix(".partial.png")
    figure.savefig(partial)
    partial.replace(path)


def _write_answers(axis: object, row: PictureRow, target: str, methods: int) -> None:
    axis.set_axis_off()  # type: ignore[attr-defined]

    def write(x: float, line: float, text: str, **style: object) -> None:
        y = 1 - (line + 0.5) / (methods + 1)
        axis.text(x, y, text, transform=axis.transAxes, va="center", **style)  # type: ignore[attr-defined]

    write(METHOD_X, 0, "\n".join(textwrap.wrap(row.prompt, WRAP_PROMPT)), fontsize=10, style="italic")
    write(CLEAN_X, 0, "answer to the image", fontsize=11, weight="bold")
    write(TRIGGERED_X, 0, "answer to the triggered image", fontsize=11, weight="bold")
    for line, answers in enumerate(row.answers, 1):
        write(METHOD_X, line, answers.method, fontsize=11)
        for x, answer in ((CLEAN_X, answers.clean), (TRIGGERED_X, answers.triggered)):
            hit = target.lower().rstrip(".") in answer.lower()
            wrapped = "\n".join(textwrap.wrap(answer, WRAP)) or "(empty)"
            write(x, line, wrapped, fontsize=10, color=CONTAINS_TARGET if hit else CLEAN)
