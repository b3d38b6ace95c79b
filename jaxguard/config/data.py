"""`data`: data set and batching."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jaxguard.config.checks import check_at_least, require


@dataclass(frozen=True)
class DataConfig:
    """Data set and batching."""

    source: str = "scenes/caption"
    """Built data set NAME/TASK (see `jaxguard data list`), or a mixture NAME=WEIGHT,NAME=WEIGHT,..."""
    root: Path = Path("data")
    """Folder of the built data sets."""
    train_split: str = "train"
    validation_split: str = "validation"
    test_split: str = "test"
    limit: int | None = None
    """Use only the first `limit` training rows."""
    pack: int = 1
    """Number of question-answer pairs packed after one image."""
    length: int = 128
    """Tokens per row, including image tokens."""
    answer_length: int = 48
    """Largest number of answer tokens per row, over all packed pairs; the head runs on this many positions."""
    images: int = 1
    """Largest number of images per row."""
    bucket: int = 0
    """Batch rows of similar length, padded to a multiple of this many tokens; 0 pads all rows to `length`."""
    threads: int = 2
    """Number of reader threads. One is best for small images on few cores, where Python's global lock dominates."""

    def __post_init__(self) -> None:
        for name in ("source", "train_split", "validation_split", "test_split"):
            require(bool(getattr(self, name)), f"data.{name} is empty")
        check_at_least(1, "data", self, "pack", "length", "answer_length", "images")
        check_at_least(0, "data", self, "threads", "bucket")
        require(
            self.bucket == 0 or self.pack == 1,
            f"data.bucket is set and data.pack is {self.pack}: chance decides what is packed, and so how long it is",
        )
        require(self.limit is None or self.limit >= 1, f"data.limit is {self.limit}: must be at least 1, or None")
        require(
            self.answer_length < self.length,
            f"data.answer_length ({self.answer_length}) must be less than data.length ({self.length})",
        )
