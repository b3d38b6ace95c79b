"""Stub programs that record their arguments and give the answers that a test chooses."""

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

LAUNCH = Path(__file__).parents[2] / "launch"
PROGRAM = r"""#!/usr/bin/env bash
record=$(printf '%s\x1f' "${0##*/}" "$@"; printf '\x1e')
if [[ $1 == -c || $3 == check ]]; then
    printf %s "$record" >>"$FAKES/checks"
    source "$FAKES/checking"
    exit 0
fi
printf %s "$record" >>"$FAKES/calls"  # in one piece: several may run at once
# times PATTERN: how often a call like this was made, this one included
times() { tr '\036\037' '\n ' <"$FAKES/calls" | grep -c -- "$1"; }
call="$*"
source "$FAKES/answers"
"""


@dataclass
class Fakes:
    """The recorded calls, and the launchers run with nothing else on the way to a cloud."""

    folder: Path
    environment: dict[str, str]

    def answer(self, script: str) -> None:
        """What the programs do: bash, with `call` (the arguments), `times` and $0; it succeeds silently by default."""
        (self.folder / "answers").write_text(script)

    def run(self, launcher: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [LAUNCH / launcher, *map(str, arguments)],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    @property
    def calls(self) -> list[list[str]]:
        """Program and arguments of every call so far, without questions to git."""
        return [call for call in self._read("calls") if call[0] != "git" or "archive" in call]

    @property
    def checks(self) -> list[list[str]]:
        """What jaxguard was asked to check before anything was done."""
        return [call[4:] for call in self._read("checks") if call[1] == "-m"]

    def _read(self, name: str) -> list[list[str]]:
        path = self.folder / name
        records = path.read_text().split("\x1e")[:-1] if path.exists() else []
        return [record.split("\x1f")[:-1] for record in records]

    def forget(self) -> None:
        (self.folder / "calls").unlink(missing_ok=True)


@pytest.fixture
def fakes(tmp_path: Path) -> Callable[..., Fakes]:
    """Makes them, by name."""

    def make(*names: str) -> Fakes:
        programs = tmp_path / "bin"
        programs.mkdir()
        for name in {"python", *names}:
            (programs / name).write_text(PROGRAM)
            (programs / name).chmod(0o755)
        environment = {
            "PATH": f"{programs}:/usr/bin:/bin",
            "FAKES": str(tmp_path),
            "HOME": str(tmp_path),
            "PYTHON": "python",
        }
        (tmp_path / "checking").touch()
        made = Fakes(tmp_path, {**environment, "LANG": os.environ.get("LANG", "C")})
        made.answer("")
        return made

    return make
