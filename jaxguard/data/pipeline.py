"""Rows to batches with grain: shuffled, two views made on the host, resumable at the exact next batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import grain
import numpy as np

from jaxguard.batch import Batch
from jaxguard.config import Config
from jaxguard.data.encode import Encoder
from jaxguard.data.rows import Row
from jaxguard.data.sources import RowSource
from jaxguard.data.views import kept_patches, perturb, row_rng
from jaxguard.errors import UserError


@dataclass(frozen=True)
class _Example:
    """Makes one row of a batch, of whatever epoch its place in the global order says."""

    config: Config
    encoder: Encoder
    source: RowSource
    rows: int
    views: int

    def __call__(self, index: int, position: int) -> Batch:
        config, epoch = self.config, index // self.rows
        row = self.source[position]
        encoded = self.encoder.encode(
            row,
            length=config.data.length,
            answer_length=config.data.answer_length,
            pack=config.data.pack,
            rng=row_rng("text", config.seed, epoch, row.id),
        )
        image = self.encoder.image(row.image)
        images, kept = [image], None
        if self.views == 2 and config.view.mask_fill == "drop":
            assert self.encoder.patch_size is not None  # `views.check`
            rng = row_rng("drop", config.seed, epoch, row.id)
            kept = kept_patches(config.view, self.encoder.image_size, self.encoder.patch_size, rng)[None]
        if self.views == 2:
            images.append(perturb(image, config.view, row_rng("view", config.seed, epoch, row.id)))
        return Batch(
            images=np.stack(images)[:, None],
            tokens=encoded.tokens,
            positions=encoded.positions,
            segments=encoded.segments,
            answer_mask=encoded.answer_mask,
            ids=np.array(row.id, np.int32),
            kept=kept,
        )


def train_batches(
    config: Config,
    encoder: Encoder,
    source: RowSource,
    *,
    batch_size: int,
    views: int,
    process_index: int = 0,
    process_count: int = 1,
) -> Any:
    """An endless iterator of `Batch` (NumPy) with `get_state` and `set_state`, reshuffled every epoch.

    The rows of global batch k are the same for any number of processes, reader threads and devices: each process reads
    every `process_count`-th element of one global order. Views and text are keyed by (seed, epoch, row id).

    Args:
        batch_size: rows of this process.
        views: 1 (original only) or 2.

    Raises:
        UserError: fewer rows than one batch, or a `data.limit` that does not fit the source.
    """
    rows = len(source)
    if config.data.limit is not None:
        if not 1 <= config.data.limit <= rows:
            raise UserError(f"data.limit is {config.data.limit}: must lie between 1 and the source's {rows} rows")
        rows = config.data.limit
    if rows < batch_size * process_count:
        raise UserError(f"the source has {rows} rows, fewer than one batch of {batch_size * process_count}")
    example = _Example(config, encoder, source, rows, views)
    order = grain.MapDataset.range(rows).shuffle(seed=config.seed).repeat()
    batches = order.map_with_index(example)[process_index::process_count].batch(batch_size, drop_remainder=True)
    return iter(batches.to_iter_dataset(grain.ReadOptions(num_threads=config.data.threads, prefetch_buffer_size=4)))


def eval_batches(
    rows: Sequence[Row], encoder: Encoder, batch_size: int, length: int
) -> Iterator[tuple[Batch, list[Row]]]:
    """Left-padded prompts (the first of each row), in order, with the rows they are of.

    The last batch is filled up by repeating its last row with id -1, so that every batch has the same shape.
    """
    for start in range(0, len(rows), batch_size):
        part = list(rows[start : start + batch_size])
        filled = part + [part[-1]] * (batch_size - len(part))
        prompts = [encoder.prompt(row.prompts[0], length) for row in filled]
        ids = [row.id for row in part] + [-1] * (batch_size - len(part))
        yield (
            Batch(
                images=np.stack([encoder.image(row.image) for row in filled])[:, None, None],
                tokens=np.stack([prompt.tokens for prompt in prompts]),
                positions=np.stack([prompt.positions for prompt in prompts]),
                segments=np.stack([prompt.segments for prompt in prompts]),
                answer_mask=np.stack([prompt.answer_mask for prompt in prompts]),
                ids=np.array(ids, np.int32),
            ),
            part,
        )
