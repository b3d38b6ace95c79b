"""Figures of a run: training curves, and scores with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from jaxguard.train.metrics import Record

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
KINDS = ("clean inputs", "triggered inputs")


@dataclass(frozen=True)
class Bar:
    """One score in percent of clean or of triggered inputs; `interval`: the ends of its 95% interval, if it has one."""

    name: str
    triggered: bool
    value: float
    interval: tuple[float, float] | None

    @property
    def label(self) -> str:
        """Name and kind of input."""
        return f"{self.name}, {KINDS[self.triggered]}"


def curves(records: Sequence[Record], *, views: int) -> Figure:
    """Plot loss, J and entropy over steps: of the batches and, if probed, of clean and of poisoned rows.

    Args:
        records: Lines of metrics.jsonl.
        views: Number of views of the objective. With one, batches have no J and no loss of a second view.
    """
    hidden = () if views == 2 else ("divergence", "ce_view")
    figure = Figure(figsize=(9.6, 2.5 * len(PANELS)), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (title, lines) in zip(figure.subplots(len(PANELS), 1), PANELS.items(), strict=True):
        for name, (label, colour, style) in lines.items():
            at = [(record["step"], record[name]) for record in records if name in record and name not in hidden]
            if at:
                marker = "." if len(at) < 40 else ""
                axes.plot(*zip(*at, strict=True), color=colour, linestyle=style, marker=marker, label=label)
        axes.set(title=title, xlabel="step")
        _style(axes)
        if axes.lines:
            axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))  # a flat line near 0 must look like one
            axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
        else:
            axes.set_axis_off()
            axes.text(0.5, 0.5, "not measured (see train.probe)", ha="center", transform=axes.transAxes, color=FAINT)
    return figure


def bars(groups: Mapping[str, Sequence[Bar]]) -> Figure:
    """Draw scores as bars with their intervals, one panel per group.

    Bars of triggered inputs have a colour and a hatching of their own, and every bar is labelled with its kind. A dot
    marks each value, so that a score of 0 is seen.

    Args:
        groups: Title -> scores; groups without scores are left out.
    """
    panels = {title: scores for title, scores in groups.items() if scores}
    heights = [len(scores) + 1.2 for scores in panels.values()]
    figure = Figure(figsize=(9.6, 0.34 * sum(heights) + 0.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(panels), 1, height_ratios=heights, squeeze=False)[:, 0]
    for axes, (title, scores) in zip(grid, panels.items(), strict=True):
        widest = max(100.0, *(bar.interval[1] if bar.interval else bar.value for bar in scores))
        for place, bar in enumerate(scores):
            colour, hatch = (POISONED, "///") if bar.triggered else (CLEAN, "")
            axes.barh(place, bar.value, color=colour, hatch=hatch, edgecolor="white", alpha=0.75, height=0.66)
            if bar.interval:
                low, high = bar.interval
                ends = [[max(0.0, bar.value - low)], [max(0.0, high - bar.value)]]
                axes.errorbar(bar.value, place, xerr=ends, color=BATCH, capsize=2, fmt="o", markersize=3)
                text = f"{bar.value:.1f}  [{low:.1f}, {high:.1f}]"
            else:
                axes.plot(bar.value, place, "o", color=BATCH, markersize=3)
                text = f"{bar.value:.1f}"
            axes.text(widest * 1.02, place, text, va="center", fontsize=8)
        axes.set_yticks(range(len(scores)), [bar.label for bar in scores])
        axes.set(xlim=(0, widest * 1.25), title=title)
        axes.invert_yaxis()
        axes.set_xticks([tick for tick in axes.get_xticks() if tick <= widest])
        _style(axes)
    kinds = sorted({bar.triggered for scores in panels.values() for bar in scores})
    shown = [Patch(facecolor=(CLEAN, POISONED)[kind], hatch=("", "///")[kind], edgecolor="white") for kind in kinds]
    figure.legend(
        shown, [KINDS[kind] for kind in kinds], loc="outside lower center", ncols=2, frameon=False, fontsize=8
    )
    return figure


def _style(axes: Any) -> None:
    axes.title.set(fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
