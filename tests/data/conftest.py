"""Data sets in their original files, written into a folder."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

Write = Callable[[Mapping[str, Any]], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes files into a folder: bytes and texts as they are, in .jsonl a line per item, anything else as JSON."""

    def write(files: Mapping[str, Any]) -> Path:
        for name, content in files.items():
            path = tmp_path / "original" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_bytes(name, content))
        return tmp_path / "original"

    return write


def _bytes(name: str, content: Any) -> bytes:
    if isinstance(content, bytes):
        return content
    if isinstance(content, list) and name.endswith(".jsonl"):
        return "".join(json.dumps(item) + "\n" for item in content).encode()
    return (content if isinstance(content, str) else json.dumps(content)).encode()
