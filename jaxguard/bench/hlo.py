"""Collectives and arrays of a compiled program, read from its HLO text."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
BITS = {"pred": 8, "bf16": 16}
"""Bits of the types whose name does not end in their width."""

_ARRAY = re.compile(r"\b(pred|bf16|[suf]\d+)(?:e\dm\d\w*)?\[([\d,]*)\]")
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?[\w.-]+ = (?P<type>\(.*?\)|\S+) (?P<op>[\w-]+)\((?P<rest>.*)$")
_CALLED = re.compile(
    r"(?:calls|to_apply|body|condition|branch_computations|called_computations)=\{?(%[\w.-]+(?:, ?%[\w.-]+)*)"
)


@dataclass(frozen=True)
class Collective:
    """One collective operation."""

    kind: str
    moved: float
    """Bytes that each chip sends with ring algorithms: (n - 1) / n of the gathered or scattered bytes of n chips."""
    result: int
    """Bytes of the result on each chip."""
    times: int
    """Number of executions per run of the program."""
    channel: str
    where: str
    """Name of the operation it belongs to."""


@dataclass(frozen=True)
class Array:
    """An array that an instruction produces on one chip."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        return prod(self.shape) * BITS.get(self.dtype, int(re.sub(r"\D", "", self.dtype) or 8)) // 8


def collectives(text: str) -> list[Collective]:
    """List the collectives of a program, with the number of executions of those in loops.

    An asynchronous collective in several instructions counts once: the instructions share a channel.
    """
    computations = _computations(text)
    times = _times(computations)
    found: dict[tuple[str, str], Collective] = {}
    for name, lines in computations.items():
        for number, line in enumerate(lines):
            one = _collective(line, name, times[name])
            if one is not None:
                key = (one.kind, one.channel or f"{name}:{number}")
                if key not in found or found[key].times < one.times:
                    found[key] = one
    return list(found.values())


def moved(found: list[Collective]) -> dict[str, float]:
    """Sum the bytes that each chip sends per run, by kind of collective."""
    total: dict[str, float] = defaultdict(float)
    for one in found:
        total[one.kind] += one.moved * one.times
    return dict(total)


def arrays(text: str) -> Iterator[Array]:
    """Iterate over the results of all instructions, including those inside fusions."""
    for lines in _computations(text).values():
        for line in lines:
            match = _INSTRUCTION.match(line)
            if match:
                yield from _arrays(match["type"])


def _arrays(text: str) -> list[Array]:
    return [
        Array(dtype, tuple(int(size) for size in sizes.split(",") if size)) for dtype, sizes in _ARRAY.findall(text)
    ]


def _computations(text: str) -> dict[str, list[str]]:
    """Split the text into computations: name -> lines; the entry computation has the name ""."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        opens = re.match(r"(ENTRY )?(%?[\w.-]+) \(.*\{$", line)
        if opens:
            lines = found["" if opens[1] else opens[2].removeprefix("%")] = []
        elif line.startswith("  "):
            lines.append(re.sub(r"/\*.*?\*/", "", line))
    return found


def _times(computations: dict[str, list[str]]) -> dict[str, int]:
    """Count the executions of each computation."""
    calls: dict[str, list[tuple[str, int]]] = {name: [] for name in computations}
    for name, lines in computations.items():
        for line in lines:
            called = [part.strip(" %") for match in _CALLED.findall(line) for part in match.split(",")]
            count = _trips(line, computations) if " while(" in line else 1
            calls[name] += [(other, count) for other in called if other in computations]
    times: dict[str, int] = dict.fromkeys(computations, 0)

    def run(name: str, count: int) -> None:
        times[name] += count
        for other, often in calls[name]:
            run(other, count * often)

    run("", 1)
    return times


def _trips(line: str, computations: dict[str, list[str]]) -> int:
    """Find the trip count of a loop: as XLA notes it, else from its condition and body; 1 if unknown."""
    noted = re.search(r'known_trip_count"?:\{"?n"?:"?(\d+)', line)
    if noted:
        return int(noted[1])
    condition, body = (
        computations.get(match[1], []) if (match := re.search(rf"{name}=%?([\w.-]+)", line)) else []
        for name in ("condition", "body")
    )
    limits = list(_constants(condition).values())
    if len(limits) != 1:
        return 1
    counter = next(
        (match[1] for of in condition if (match := re.search(r" get-tuple-element\(.*index=(\d+)", of))), "0"
    )
    return -(-limits[0] // _step(body, int(counter)))


def _step(body: list[str], counter: int) -> int:
    """Find the increment of a loop's counter."""
    root = next((of for of in body if of.lstrip().startswith("ROOT")), "")
    operands = re.search(r" tuple\((.*?)\)", root)
    name = operands[1].split(",")[counter].strip() if operands else ""
    added = next((of for of in body if of.strip().startswith(f"{name} =") and " add(" in of), "")
    constants = _constants(body)
    return next((constants[of] for of in re.findall(r"%[\w.-]+", added.partition("add(")[2]) if of in constants), 1)


def _constants(lines: list[str]) -> dict[str, int]:
    found = (re.match(r"\s*(?:ROOT )?(%[\w.-]+) = [su]32\[\]\S* constant\((\d+)\)", line) for line in lines)
    return {match[1]: int(match[2]) for match in found if match}


def _collective(line: str, computation: str, times: int) -> Collective | None:
    match = _INSTRUCTION.match(line)
    if match is None:
        return None
    kind = match["op"].removesuffix("-start")
    if kind not in KINDS or not times:
        return None
    size = sum(array.bytes for array in _arrays(match["type"]))
    group = _group(line)
    if match["op"].endswith("-start"):  # the result includes the operands
        size = {"all-gather": size * group // (group + 1), "collective-permute": size // 2}.get(kind, size)
    if kind == "all-reduce" and computation.startswith("all-reduce-scatter"):  # a fusion that keeps only its own part
        kind, size = "reduce-scatter", size // group
    share = {
        "all-gather": (group - 1) / group,
        "all-reduce": 2 * (group - 1) / group,
        "reduce-scatter": group - 1,
        "all-to-all": (group - 1) / group,
        "collective-permute": 1,
    }[kind]
    channel, where = re.search(r"channel_id=(\d+)", line), re.search(r'op_name="([^"]*)"', line)
    return Collective(
        kind, size * share, size, times, channel[1] if channel else "", where[1] if where else match["rest"]
    )


def _group(line: str) -> int:
    """Number of chips in a replica group."""
    axes = re.search(r"replica_groups=mesh\[([^\]]*)\] ?\{([^}]*)\}", line)
    if axes:
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", axes[1]))
        return prod(int(sizes[name]) for name in re.findall(r"'(\w+)'", axes[2])) or 1
    iota = re.search(r"replica_groups=\[\d+,(\d+)\]<=", line)
    if iota:
        return int(iota[1])
    listed = re.search(r"replica_groups=\{\{([\d,]+)\}", line)
    return len(listed[1].split(",")) if listed else 1
