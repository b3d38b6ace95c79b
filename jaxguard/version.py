"""The version of the package, and the commit of its code."""

from __future__ import annotations

import subprocess
from pathlib import Path

__version__ = "0.1.0"
ARCHIVED = "$Format:%h$"
"""The commit, filled in by `git archive` (.gitattributes): what a worker unpacks has no history."""


def commit() -> str:
    """Find the commit of the code, marked "-dirty" if files differ from it; the version if it is not known."""
    here = Path(__file__)

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(here.parent), *words], capture_output=True, text=True, check=False)
        except OSError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    if git("ls-files", "--error-unmatch", here.name) is None:  # installed, perhaps inside somebody else's repository
        return __version__ if "$" in ARCHIVED else ARCHIVED
    return git("describe", "--always", "--dirty", "--exclude=*") or __version__
