"""Tokenization of captions, against the output of the COCO evaluation's tokenizer (tests/parity/captions.py)."""

import json
import time
from pathlib import Path

import pytest

from jaxguard.evaluate.tokens import tokenize

GOLDEN = Path(__file__).parents[1] / "golden" / "captions"
DIFFERENT = {
    "rock'n'roll",
    "5p.m.",
    "a²",
    "a...b",
    "US$10",
    "C++",
    "C#",
    "(555) 555-5555",
    "ex-U.S.",
    "a@b",
    "l\N{RIGHT SINGLE QUOTATION MARK}eau",
    "1/2/3/4",
    "don`t",
    "don\N{DOUBLE PRIME}t",
    "cann't",
}
"""What docs/evaluation.md tells of."""


def test_every_line_is_split_as_the_original_splits_it_but_those_that_are_known():
    rows = [json.loads(line) for line in (GOLDEN / "tokens.jsonl").read_text(encoding="utf-8").split("\n")[:-1]]
    assert len(rows) > 500
    assert {row["text"] for row in rows if tokenize(row["text"]) != row["tokens"]} == DIFFERENT


@pytest.mark.parametrize("piece", ["a", "a.", "a'", "1.", "a@", "<a", "n't", "o'a-", "1-1/", "a.+-", "é.", "https://"])
def test_time_does_not_explode(piece):
    began = time.perf_counter()
    tokenize(piece * 2000)
    assert time.perf_counter() - began < 5
