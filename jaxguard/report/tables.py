"""Tables of results for the terminal, Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from jaxguard.evaluate.success import Rate


@dataclass(frozen=True)
class Column:
    """One column: its header, and the function that formats a row's cell."""

    header: str
    cell: Callable[[Mapping[str, Any]], str]


def rate_text(rate: Rate | None) -> str:
    """Format a rate in percent with its interval: 97.3 [94.1, 98.8]."""
    if rate is None or rate.value is None:
        return "-"
    return f"{100 * rate.value:.1f} [{100 * rate.low:.1f}, {100 * rate.high:.1f}]"


def markdown(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> str:
    """Format a Markdown table; bars in cells are escaped."""
    lines = [[column.header for column in columns], ["---"] * len(columns)]
    lines += [[column.cell(row).replace("|", "\\|") for column in columns] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def latex(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> str:
    """Format a LaTeX tabular with booktabs rules."""

    def line(cells: Iterable[str]) -> str:
        return " & ".join(re.sub(r"([&%$#_{}])", r"\\\1", cell) for cell in cells) + r" \\" + "\n"

    head = rf"\begin{{tabular}}{{{'l' * len(columns)}}}" + "\n\\toprule\n"
    body = "".join(line(column.cell(row) for column in columns) for row in rows)
    return head + line(column.header for column in columns) + "\\midrule\n" + body + "\\bottomrule\n\\end{tabular}\n"


def comma_separated(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> str:
    """Format CSV with a header."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(column.header for column in columns)
    writer.writerows([column.cell(row) for column in columns] for row in rows)
    return text.getvalue()


def terminal(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column], title: str) -> Table:
    """Make a `rich` table."""
    table = Table(title=title)
    for column in columns:
        table.add_column(column.header, overflow="fold")  # a narrow terminal must not cut figures
    for row in rows:
        table.add_row(*(column.cell(row) for column in columns))
    return table


def transposed(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column], title: str) -> Table:
    """Make a `rich` table with one column per row: for few rows with many figures."""
    name, *figures = columns
    table = Table("", *(name.cell(row) for row in rows), title=title)
    for column in figures:
        table.add_row(column.header, *(column.cell(row) for row in rows))
    return table
