"""Tables of rehearsals: of several runs, or of several settings of one."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from jaxguard.bench.hardware import GB, Hardware
from jaxguard.bench.rehearsal import Rehearsal, rehearse, rehearse_decoding
from jaxguard.bench.timing import publish
from jaxguard.config import Config, Remat
from jaxguard.errors import Failure
from jaxguard.report.tables import Column, transposed

Run = tuple[Config, Hardware]


def rehearse_runs(runs: Sequence[Run], out: Path, *, decode: bool) -> list[Rehearsal]:
    """Rehearse each run; update rehearsal.md and rehearsal.json in `out` after each.

    Raises:
        Failure: A run does not fit. The table is written nevertheless.
    """
    _create_cpu_devices(runs)
    found: list[Rehearsal] = []
    for config, hardware in runs:
        print(f"compiling {config.name} for {hardware.name}", file=sys.stderr)
        found.append(rehearse(config, hardware))
        if decode:
            found.append(rehearse_decoding(config, hardware))
        _publish(found, out)
    too_large = [one for one in found if not one.fits]
    if too_large:
        raise Failure("; ".join(map(_refusal, too_large)))
    return found


def search(config: Config, hardware: Hardware, out: Path) -> Rehearsal:
    """Try micro-batches and rematerialisation. Returns the fastest setting that fits, and prints its options.

    For each kind of rematerialisation, micro-batches shrink until one fits; smaller ones would only gather the weights
    more often. Settings that do not fit even without temporaries are not compiled.

    Raises:
        Failure: Nothing fits.
    """
    _create_cpu_devices([(config, hardware)])
    tried: list[Rehearsal] = []
    for remat in get_args(Remat):
        for accumulate in _divisors(config, hardware):
            print(f"trying remat {remat} with {accumulate} micro-batches", file=sys.stderr)
            candidate = dataclasses.replace(
                config,
                model=dataclasses.replace(config.model, remat=remat),
                train=dataclasses.replace(config.train, accumulate=accumulate),
            )
            tried.append(rehearse(candidate, hardware, give_up=True))
            if tried[-1].fits:
                break
    _publish(tried, out)
    fitting = [one for one in tried if one.fits]
    if not fitting:
        raise Failure(f"nothing fits: {_refusal(tried[-1])}; use more chips, a larger mesh.tensor or fewer tokens")
    best = min(fitting, key=lambda one: one.least)
    print(f"recommended: --train.accumulate {best.accumulate} --model.remat {best.remat}")
    return best


def _create_cpu_devices(runs: Sequence[Run]) -> None:
    """Create CPU devices in place of GPUs. Call it before JAX is first used."""
    count = max((hardware.count for _, hardware in runs if not hardware.chip.tpu), default=0)
    if count:
        flag = f"--xla_force_host_platform_device_count={count}"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()


def _divisors(config: Config, hardware: Hardware) -> list[int]:
    """List the possible numbers of micro-batches."""
    ways = hardware.count // config.mesh.tensor if config.mesh.tensor > 0 else config.mesh.data * config.mesh.fsdp
    each = config.train.batch_size // ways // config.view_share.denominator
    return [number for number in range(1, each + 1) if each % number == 0]


def _refusal(one: Rehearsal) -> str:
    needs = f"{one.total / GB:.1f} GB a chip of {one.memory / GB:.0f} GB"
    return f"{one.name} does not fit {one.hardware}: {needs}"


def _publish(found: Sequence[Rehearsal], out: Path) -> None:
    rows = [dataclasses.asdict(one) | {"least": one.least, "bound": one.bound} for one in found]
    publish("rehearsal", "compiled ahead of time; GB of each chip", rows, COLUMNS, out, layout=transposed)


def _gigabytes(header: str, key: str) -> Column:
    return Column(header, lambda row: f"{row[key] / GB:.2f}")


def _mesh(row: Mapping[str, Any]) -> str:
    return " x ".join(map(str, row["mesh"].values()))


def _sent(row: Mapping[str, Any]) -> str:
    parts = sorted(row["collectives"].items(), key=lambda item: -item[1])
    return ", ".join(f"{kind} {size / GB:.2f}" for kind, size in parts if size > 0.005 * GB) or "-"


def _least(row: Mapping[str, Any]) -> str:
    return f"{1e3 * row['least']:.0f} ({row['bound']})" if row["seconds"] else "-"


def _ceiling(row: Mapping[str, Any]) -> str:
    if not row["seconds"]:
        return "-"
    at_peak = row["seconds"]["arithmetic"] * row["useful_flops"] / row["flops"]
    return f"{100 * at_peak / row['least']:.0f}"


COLUMNS = [
    Column("run", lambda row: row["name"]),
    Column("for", lambda row: row["hardware"]),
    Column("data x fsdp x tensor", _mesh),
    Column("rows", lambda row: f"{row['rows']} x {row['accumulate']}"),
    Column("remat", lambda row: row["remat"]),
    _gigabytes("weights", "weights"),
    _gigabytes("optimizer", "optimizer"),
    _gigabytes("activations", "activations"),
    _gigabytes("temporaries", "temporaries"),
    Column("total", lambda row: f"{row['total'] / GB:.1f} of {row['memory'] / GB:.0f}"),
    Column("fits", lambda row: "yes" if row["fits"] else "no"),
    Column("sent", _sent),
    Column("TFLOP", lambda row: f"{row['flops'] / 1e12:.1f}"),
    Column("least ms", _least),
    Column("MFU at most %", _ceiling),
    Column("compile s", lambda row: f"{row['compile_seconds']:.0f}"),
    Column("compiled for", lambda row: row["compiled_for"]),
]
