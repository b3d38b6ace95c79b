"""Figures of a run: training curves, and scores with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

Record = Mapping[str, float]
"""One line of metrics.jsonl: the step and its metrics."""
Interval = tuple[float, float, float]
"""A score in percent, with the ends of its 95% interval."""

BATCH, CLEAN, POISONED, FAINT = "#000000", "#0072b2", "#d55e00", "#757575"
PANELS = {
    "loss (nats a token)": {
        "loss": ("objective", BATCH, "-"),
        "ce": ("cross-entropy", BATCH, "--"),
        "ce_view": ("cross-entropy, second view", BATCH, ":"),
        "validation": ("validation", "#009e73", "-"),
        "clean_nll": ("clean rows", CLEAN, "-"),
        "poisoned_nll": ("poisoned rows", POISONED, "-"),
    },
    "J of the two views (nats)": {
        "divergence": ("training batches", BATCH, "-"),
        "clean_divergence": ("clean rows", CLEAN, "-"),
        "poisoned_divergence": ("poisoned rows", POISONED, "-"),
    },
    "entropy (nats)": {
        "entropy": ("training batches", BATCH, "-"),
        "clean_entropy": ("clean rows", CLEAN, "-"),
        "poisoned_entropy": ("poisoned rows", POISONED, "-"),
    },
}
"""Panel -> metric -> (name in the legend, colour, line style)."""


def curves(records: Sequence[Record], *, views: int) -> Figure:
    """Plot loss, J and entropy over steps: of the batches and, if probed, of clean and of poisoned rows.

    Args:
        records: Lines of metrics.jsonl.
        views: Number of views of the objective. With one, batches have no J and no loss of a second view.
    """
    hidden = () if views == 2 else ("divergence", "ce_view")
    figure = Figure(figsize=(13, 3.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (title, lines) in zip(figure.subplots(1, len(PANELS)), PANELS.items(), strict=True):
        for name, (label, colour, style) in lines.items():
            at = [(record["step"], record[name]) for record in records if name in record and name not in hidden]
            if at:
                marker = "." if len(at) < 40 else ""
                axes.plot(*zip(*at, strict=True), color=colour, linestyle=style, marker=marker, label=label)
        axes.set(title=title, xlabel="step")
        _style(axes)
        if axes.lines:
            axes.legend(frameon=False, fontsize=8)
        else:
            axes.set_axis_off()
            axes.text(0.5, 0.5, "not measured (see train.probe)", ha="center", transform=axes.transAxes, color=FAINT)
    return figure


def bars(groups: Mapping[str, Mapping[str, Interval]]) -> Figure:
    """Draw scores as bars with their intervals, one panel per group. Scores on clean inputs have their own colour.

    Args:
        groups: Title -> name of a score -> score. Names of scores on clean inputs contain "clean".
    """
    panels = {title: scores for title, scores in groups.items() if scores}
    heights = [len(scores) + 1.2 for scores in panels.values()]
    figure = Figure(figsize=(9, 0.34 * sum(heights) + 0.3), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(panels), 1, height_ratios=heights, squeeze=False)[:, 0]
    for axes, (title, scores) in zip(grid, panels.items(), strict=True):
        names, values = list(scores), list(scores.values())
        middle = [value for value, _, _ in values]
        ends = [
            [max(0.0, value - low) for value, low, _ in values],
            [max(0.0, high - value) for value, _, high in values],
        ]
        colours = [CLEAN if "clean" in name else POISONED for name in names]
        axes.barh(names, middle, xerr=ends, color=colours, alpha=0.75, height=0.66, capsize=2)
        widest = max(100.0, *(high for _, _, high in values))
        for place, (value, low, high) in enumerate(values):
            axes.text(widest * 1.02, place, f"{value:.1f}  [{low:.1f}, {high:.1f}]", va="center", fontsize=8)
        axes.set(xlim=(0, widest * 1.25), title=title)
        axes.invert_yaxis()
        axes.set_xticks([tick for tick in axes.get_xticks() if tick <= widest])
        _style(axes)
    return figure


def _style(axes: Any) -> None:
    axes.title.set(fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
