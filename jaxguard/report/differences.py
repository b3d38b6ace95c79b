"""The table of differences between two runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from rich.table import Table

from jaxguard.evaluate.compare import Difference
from jaxguard.report.tables import Column, terminal


def differences(found: Sequence[Difference]) -> Table:
    """Make the terminal table of the differences from `compare`: every metric of both, and the second minus the first.

    The names of the two are too long for headers.
    """
    columns = [
        Column("", lambda row: row["part"]),
        Column("metric", lambda row: row["metric"]),
        Column("first", lambda row: f"{row['first']:.2f}"),
        Column("second", lambda row: f"{row['second']:.2f}"),
        Column("second - first", lambda row: f"{row['value']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]"),
        Column("p", lambda row: f"{row['p']:.4f}"),
    ]
    rows = [dataclasses.asdict(one) | dataclasses.asdict(one.change) for one in found]
    return terminal(rows, columns, "percent, with 95% paired bootstrap intervals")
