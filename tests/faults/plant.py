"""Plant single-line faults in a copy of the package, one at a time, and check that the tests detect them.

    python -m tests.faults.plant                  every fault of the table; minutes to an hour, by the machine
    python -m tests.faults.plant --only NAME ...  faults whose name or file holds one of these
    python -m tests.faults.plant --list           names alone
    python -m tests.faults.plant --json FILE      the outcome also as JSON

A fault is killed, or SURVIVED, or is UNKNOWN: its tests fail without it too. Exit code 1 unless all are killed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.faults.table import FAULTS, Fault

ROOT = Path(__file__).parents[2]
COPIED = ("jaxguard", "tests", "configs", "launch", "pyproject.toml")
LIMIT = 900
"""Seconds for one fault's tests: a fault that makes them hang is noticed too."""


def planted(fault: Fault, text: str) -> str:
    """The file with the fault in it.

    Raises:
        LookupError: the text is not found exactly once, so the table has to follow the code.
    """
    if (count := text.count(fault.before)) != 1:
        raise LookupError(f"{fault.file}: found {count} times, must be once: {fault.before}")
    return text.replace(fault.before, fault.after)


def passes(tests: tuple[str, ...], copy: Path) -> bool:
    """Whether test files pass in a copy of the repository.

    Raises:
        RuntimeError: pytest did not come to run them.
    """
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *(f"tests/{one}" for one in tests)]
    try:
        done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return False
    if done.returncode not in (0, 1, 2):  # 2: the fault shows while a test file is imported
        raise RuntimeError(f"pytest ended with {done.returncode}: {done.stdout}{done.stderr}")
    return done.returncode == 0


def survives(fault: Fault, copy: Path) -> bool:
    """Whether the fault's tests pass although it is planted in a copy of the repository, which is mended again."""
    file = copy / "jaxguard" / fault.file
    sound = file.read_text()
    file.write_text(planted(fault, sound))
    try:
        return passes(fault.tests, copy)
    finally:
        file.write_text(sound)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", default=[""], metavar="NAME")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    faults = [one for one in FAULTS if any(part in f"{one.file}: {one.name}" for part in options.only)]
    if options.list:
        print("\n".join(f"{one.file}: {one.name}" for one in faults))
        return 0
    rows: list[dict[str, Any]] = []
    sound: dict[tuple[str, ...], bool] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in COPIED:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
            copy(ROOT / name, Path(folder, name))
        for one in faults:
            began = time.perf_counter()
            if one.tests not in sound:
                sound[one.tests] = passes(one.tests, Path(folder))
            outcome = "UNKNOWN"
            if sound[one.tests]:
                outcome = "SURVIVED" if survives(one, Path(folder)) else "killed"
            rows.append({"file": one.file, "fault": one.name, "outcome": outcome, "tests": one.tests})
            print(f"{outcome:8} {time.perf_counter() - began:6.1f} s  {one.file}: {one.name}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    killed = sum(row["outcome"] == "killed" for row in rows)
    print(f"{killed} of {len(rows)} faults are killed")
    return int(killed < len(rows))


if __name__ == "__main__":
    sys.exit(main())
