"""Training on batches of several lengths and numbers of images."""

import dataclasses
import json

import numpy as np

from jaxguard.data.builders import write_rows
from jaxguard.data.rows import Row
from jaxguard.train.loop import train
from jaxguard.train.setup import CompiledStep


def test_a_run_takes_conversations_images_and_lengths_as_they_come(small_config, tmp_path, monkeypatch):
    """Text alone, one image, two and several turns, each batch padded to its own length: trained to the end."""
    lengths, call = [], CompiledStep.__call__

    def counted(step, state, batch):
        lengths.append(batch.tokens.shape[1])
        return call(step, state, batch)

    monkeypatch.setattr(CompiledStep, "__call__", counted)
    rng, nothing = np.random.default_rng(0), np.zeros((0, 0, 3), np.uint8)
    red, green = (rng.integers(0, 256, (64, 64, 3), np.uint8) for _ in range(2))
    kinds = [
        Row(0, "text", nothing, ("Hi",), ("yes",), ("yes",)),
        Row(0, "two", red, ("<image> or <image>?",), ("green",), ("green",), (green,)),
        Row(0, "talk", green, ("What?", "Sure?"), ("green", "yes"), ("green",), multi_turn=True),
    ]
    rows = [dataclasses.replace(kinds[n % 3], id=n, key=str(n)) for n in range(48)]
    write_rows({"train": (48, lambda: iter(rows))}, tmp_path / "rows", "rows", {})
    data = dataclasses.replace(small_config.data, source=str(tmp_path / "rows"), images=2, bucket=16)
    run = train(dataclasses.replace(small_config, data=data))
    logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert len(logged) == 8
    assert all(np.isfinite(values["loss"]) for values in logged)
    assert len(lengths) == 8
    assert len(set(lengths)) > 1
    assert all(length % 16 == 0 for length in lengths)
