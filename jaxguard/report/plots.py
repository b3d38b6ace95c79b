"""Plots of a grid's rows: attack success against quality, over a swept value, and as a heat map."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

if TYPE_CHECKING:  # grids import this module; commands that draw nothing should not wait for matplotlib
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = Mapping[str, Any]

STYLES = (("#0072b2", "o"), ("#d55e00", "s"), ("#009e73", "^"), ("#cc79a7", "D"), ("#e69f00", "v"), ("#000000", "P"))
"""Colour and marker of each series: colour-blind safe (Okabe and Ito 2008), readable in grey.

Markers are hollow from the seventh series on.
"""


MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "h", "p")
"""Marker of each attack."""
GAP = 3.0
"""Ratio of two values of a sweep above which nothing is claimed between them."""


@runtime_checkable
class Plot(Protocol):
    """A figure of a grid's rows."""

    @property
    def name(self) -> str:
        """Name of its files, without suffix."""
        ...

    def draw(self, rows: Sequence[Row]) -> Figure: ...


@dataclass(frozen=True)
class Tradeoff:
    """Attack success against clean quality, one style per value of the label `series`.

    One column of panels per metric and, if `down` names a label, one row of panels per value of it. If `marks` names a
    label (the attack), colours tell the series apart and markers its values; rows of the same runs are drawn once.
    """

    series: str
    down: str | None = None
    marks: str | None = None
    name: str = "tradeoff"

    def draw(self, rows: Sequence[Row]) -> Figure:
        if self.marks is not None:
            rows = merged(rows, self.marks)
        metrics, values = _metrics(rows), _values(rows, self.series)
        marks = [None] if self.marks is None else _values(rows, self.marks)
        levels = [None] if self.down is None else _values(rows, self.down)
        figure = _canvas(4.6 * len(metrics), 3.2 * len(levels) + 0.8 + 0.22 * (len(values) + len(marks) / 2))
        grid = figure.subplots(len(levels), len(metrics), squeeze=False, sharex="col")
        for (down, across), axes in np.ndenumerate(grid):
            metric, level = metrics[across], levels[down]
            shown = [row for row in rows if row["metric"] == metric and row["labels"].get(self.down) == level]
            for (number, value), (place, mark) in itertools.product(enumerate(values), enumerate(marks)):
                chosen = [row for row in shown if row["labels"].get(self.series) == value]
                if self.marks is None:
                    _points(axes, [row["clean"] for row in chosen], chosen, value, _style(number))
                    continue
                chosen = [row for row in chosen if row["labels"].get(self.marks) == mark]
                style = {"color": STYLES[number % len(STYLES)][0], "marker": MARKERS[place % len(MARKERS)]}
                _points(axes, [row["clean"] for row in chosen], chosen, f"{value}, {mark}", style)
            axes.set(ylabel="attack success (%)", ylim=(-3, 103), title=level)
        for axes, metric in zip(grid[-1], metrics, strict=True):
            axes.set(xlabel=f"clean {metric} (%)")
        if self.marks is None:
            _legend(figure, grid[0, 0])
        else:
            _two_legends(figure, values, [str(mark) for mark in marks])
        return figure


@dataclass(frozen=True)
class Sweep:
    """Attack success (above) and clean quality (below) over a numeric label, one style per value of `series`.

    Points are joined to their neighbours in the sweep, not over a value that is missing nor over a `GAP`.
    """

    x: str
    series: str
    name: str = "sweep"

    def draw(self, rows: Sequence[Row]) -> Figure:
        rows = [row for row in rows if self.x in row["labels"]]
        metrics = _metrics(rows)
        figure = _canvas(4.2 * len(metrics), 6.0)
        grid = figure.subplots(2, len(metrics), squeeze=False, sharex=True)
        for column, metric in enumerate(metrics):
            upper, lower = grid[:, column]
            for number, value in enumerate(_values(rows, self.series)):
                chosen = [row for row in rows if row["metric"] == metric and row["labels"].get(self.series) == value]
                chosen.sort(key=lambda row: _number(row["labels"][self.x]))
                at = [_number(row["labels"][self.x]) for row in chosen]
                _points(upper, at, chosen, value, _style(number))
                lower.plot(at, [row["clean"] for row in chosen], linestyle="none", **_style(number))
                for one, other in joined(at, sorted({_number(row["labels"][self.x]) for row in rows})):
                    ends = [at[one], at[other]]
                    rates = [100 * chosen[end]["contains"]["value"] for end in (one, other)]
                    upper.plot(ends, rates, color=_style(number)["color"], alpha=0.85)
                    lower.plot(ends, [chosen[end]["clean"] for end in (one, other)], color=_style(number)["color"])
            upper.set(ylabel="attack success (%)", ylim=(-3, 103), xscale="log")
            lower.set(xlabel=self.x, ylabel=f"clean {metric} (%)")
            ticks = sorted({row["labels"][self.x] for row in rows}, key=_number)
            lower.set_xticks([_number(tick) for tick in ticks], ticks)
            lower.minorticks_off()
        _legend(figure, grid[0, 0])
        return figure


@dataclass(frozen=True)
class Heat:
    """Attack success and clean quality over two numeric labels. Bright is good in both panels."""

    x: str
    y: str
    name: str = "heat"

    def draw(self, rows: Sequence[Row]) -> Figure:
        rows = [row for row in rows if {self.x, self.y} <= row["labels"].keys()]
        across, down = (sorted({row["labels"][key] for row in rows}, key=_number) for key in (self.x, self.y))
        figure = _canvas(4.6 * 2, 3.8)
        measures = {
            "attack success (%), bright: low": (lambda row: 100 * row["contains"]["value"], "cividis_r"),
            "clean (%), bright: high": (lambda row: row["clean"], "cividis"),
        }
        for axes, (title, (measure, colours)) in zip(figure.subplots(1, 2), measures.items(), strict=True):
            values = np.full((len(down), len(across)), np.nan)
            for row in rows:
                values[down.index(row["labels"][self.y]), across.index(row["labels"][self.x])] = measure(row)
            axes.imshow(values, cmap=colours, vmin=0, vmax=100, origin="lower", aspect="auto")
            for (i, j), value in np.ndenumerate(values):
                if not np.isnan(value):
                    dark = (100 - value if colours.endswith("_r") else value) < 55
                    axes.text(j, i, f"{value:.0f}", ha="center", va="center", color="white" if dark else "black")
            axes.set(xlabel=self.x, ylabel=self.y, title=title)
            axes.set_xticks(range(len(across)), across)
            axes.set_yticks(range(len(down)), down)
        return figure


def save(plot: Plot, rows: Sequence[Row], out: Path) -> list[str]:
    """Write a plot of the attacked rows as PNG and SVG. Returns the file names: none without attacked rows."""
    attacked = [row for row in rows if row["contains"]]
    if not attacked:
        return []
    figure = plot.draw(attacked)
    for suffix in ("png", "svg"):
        partial = out / f"{plot.name}.partial.{suffix}"
        figure.savefig(partial, metadata={"Date": None} if suffix == "svg" else None)
        partial.replace(out / f"{plot.name}.{suffix}")
    return [f"{plot.name}.png", f"{plot.name}.svg"]


def merged(rows: Sequence[Row], label: str) -> list[Row]:
    """Merge rows of the same runs that differ in a label only: its values are joined (badnets = vlood)."""
    found: dict[str, list[Row]] = {}
    for number, row in enumerate(rows):
        others = {name: value for name, value in row["labels"].items() if name != label}
        cells = [record["cell"] for record in row.get("records", ())] or number
        found.setdefault(json.dumps([others, cells], sort_keys=True, default=str), []).append(row)
    return [
        {**same[0], "labels": {**same[0]["labels"], label: " = ".join(row["labels"][label] for row in same)}}
        for same in found.values()
    ]


def joined(at: Sequence[float], ticks: Sequence[float]) -> list[tuple[int, int]]:
    """List the pairs of neighbouring points of a series that a line may join.

    Args:
        at: Values of the series, ascending.
        ticks: Values of all series, ascending.
    """
    return [
        (number, number + 1)
        for number, (one, other) in enumerate(itertools.pairwise(at))
        if ticks.index(other) - ticks.index(one) == 1 and other <= GAP * one
    ]


def _points(axes: Axes, at: Sequence[float], rows: Sequence[Row], label: str, style: Mapping[str, Any]) -> None:
    """Plot attack success with its intervals at the positions `at`."""
    rates = [row["contains"] for row in rows]
    middle = [100 * rate["value"] for rate in rates]
    below, above = ([100 * abs(rate[end] - rate["value"]) for rate in rates] for end in ("low", "high"))
    axes.errorbar(
        at,
        middle,
        yerr=[below, above],
        linestyle="none",
        capsize=2,
        alpha=0.85,
        label=label,
        **style,
    )


def _style(number: int) -> dict[str, Any]:
    colour, marker = STYLES[number % len(STYLES)]
    return {"color": colour, "marker": marker, "markerfacecolor": colour if number < len(STYLES) else "white"}


def _legend(figure: Figure, axes: Axes) -> None:
    """Put the legend below the panels."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=1 if len(labels) > 4 else 2, frameon=False)


def _two_legends(figure: Figure, series: Sequence[str], marks: Sequence[str]) -> None:
    """Put colours (series) and markers below the panels."""
    from matplotlib.lines import Line2D

    colours = [Line2D([], [], color=STYLES[number % len(STYLES)][0], linewidth=5) for number in range(len(series))]
    shapes = [
        Line2D([], [], color="#757575", marker=MARKERS[number % len(MARKERS)], linestyle="none")
        for number in range(len(marks))
    ]
    figure.legend(colours, series, loc="outside lower left", ncols=2, frameon=False)
    figure.legend(shapes, marks, loc="outside lower right", ncols=2, frameon=False)


def _canvas(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=200, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _metrics(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["metric"] for row in rows))


def _values(rows: Sequence[Row], label: str) -> list[str]:
    return list(dict.fromkeys(row["labels"][label] for row in rows if label in row["labels"]))


def _number(text: str) -> float:
    """Read the number of a label: 5% is 5."""
    return float(text.rstrip("%"))
