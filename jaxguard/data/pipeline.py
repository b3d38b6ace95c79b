"""Rows to batches with grain: shuffled, two views made on the host, resumable at the exact next batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import grain
import jax
import numpy as np
from jaxtyping import UInt8

from jaxguard.batch import Batch
from jaxguard.config import DataConfig, ViewConfig
from jaxguard.data.encode import Encoder
from jaxguard.data.order import Index, training_order
from jaxguard.data.rows import Row
from jaxguard.data.sources import RowSource
from jaxguard.data.views import kept_patches, perturb, row_rng
from jaxguard.errors import UserError


@dataclass(frozen=True)
class Example:
    """Makes one row of a batch, of whatever epoch its place in the global order says.

    Attributes:
        data: lengths, packing and images of a row.
        view: how the second view is made; None makes one view.
        seed: of everything drawn.
        encoder: of the checkpoint.
        source: the rows.
    """

    data: DataConfig
    view: ViewConfig | None
    seed: int
    encoder: Encoder
    source: RowSource

    def __call__(self, place: Index) -> Batch:
        data, view = self.data, self.view
        row = self.source[place.row]
        encoded = self.encoder.encode(
            row,
            length=place.length,
            answer_length=data.answer_length,
            pack=data.pack,
            rng=self._rng("text", place, row),
        )
        images, kept = _images(self.encoder, row, data.images), None
        views = [images]
        if view is not None and view.mask_fill == "drop":
            if len(row.images) < len(images):
                raise UserError(
                    f"row {row.key} has {len(row.images)} images: view.mask_fill drop needs data.images of each"
                )
            assert self.encoder.patch_size is not None  # `views.check`
            rng, sizes = self._rng("drop", place, row), (self.encoder.image_shape, self.encoder.patch_size)
            kept = np.stack([kept_patches(view, *sizes, rng) for _ in images])
        if view is not None:
            rng = self._rng("view", place, row)
            views.append(np.stack([perturb(image, view, rng) for image in images]))
        return Batch(
            images=np.stack(views),
            tokens=encoded.tokens,
            positions=encoded.positions,
            segments=encoded.segments,
            answer_mask=encoded.answer_mask,
            ids=np.array(row.id, np.int32),
            pairs=np.array(encoded.pair, np.int32),
            kept=kept,
            right_padded=data.pack == 1,
        )

    def _rng(self, stream: str, place: Index, row: Row) -> np.random.Generator:
        return row_rng(stream, self.seed, place.epoch, row.id)


@dataclass(frozen=True)
class _Part:
    """What one process reads of the global order, batch by batch."""

    order: Any
    batch_size: int
    places: Sequence[int]

    def __len__(self) -> int:
        return len(self.order) // self.batch_size

    def __getitem__(self, batch: int) -> list[Index]:
        start = int(batch) * self.batch_size
        return [self.order[start + place] for place in self.places]


def train_batches(
    data: DataConfig,
    seed: int,
    encoder: Encoder,
    source: RowSource,
    *,
    batch_size: int,
    view: ViewConfig | None = None,
    places: Sequence[int] | None = None,
) -> Any:
    """An endless iterator of `Batch` (NumPy) with `get_state` and `set_state`, reshuffled every epoch.

    Global batch k holds the same rows in the same order for any number of processes, reader threads and devices, so its
    state is k alone and a run may go on with other processes. Views and text are keyed by (seed, epoch, row id).

    Args:
        data: which rows, and how they become batches.
        seed: of the order, of the views and of what is packed.
        encoder: of the checkpoint.
        source: the rows.
        batch_size: rows of a global batch.
        view: how the second view is made; None makes one view.
        places: which of these rows this process makes, in rising order; None makes all.

    Raises:
        UserError: as `training_order`; and, from the iterator, a row that cannot be read or encoded.
    """
    order = training_order(data, seed, encoder, source, batch_size)
    part = _Part(order, batch_size, range(batch_size) if places is None else tuple(places))
    example = Example(data, view, seed, encoder, source)
    # Whole batches are grain's elements: with rows for elements, its bookkeeping for each of them made two threads take
    # 1.3 times as long for small images.
    batches = grain.MapDataset.source(part).map(lambda own: _stack([example(place) for place in own]))
    return iter(batches.to_iter_dataset(grain.ReadOptions(num_threads=data.threads, prefetch_buffer_size=4)))


def validation_batches(
    data: DataConfig,
    seed: int,
    encoder: Encoder,
    source: RowSource,
    *,
    count: int,
    batch_size: int,
    places: Sequence[int],
) -> Iterator[Batch]:
    """The first `count` rows with their answers, in batches of `batch_size`, `places` of each.

    The last batch is filled up with rows of which no answer counts. Of several pairs of a row, the seed draws one.
    """
    example = Example(data, None, seed, encoder, source)
    for start in range(0, count, batch_size):
        own = [start + place for place in places]
        batch = _stack([example(Index(0, min(index, count - 1), data.length)) for index in own])
        real = np.array([index < count for index in own])
        yield dataclasses.replace(batch, answer_mask=batch.answer_mask & real[:, None])


def eval_batches(
    source: RowSource,
    count: int,
    encoder: Encoder,
    batch_size: int,
    length: int,
    *,
    images: int = 1,
    places: Sequence[int] | None = None,
) -> Iterator[tuple[Batch, list[Row]]]:
    """Left-padded prompts (the first of each row) of the first `count` rows, in order, with the rows they are of.

    The last batch is filled up by repeating the last row with id -1, so that every batch has the same shape on every
    process.

    Args:
        batch_size: rows of a global batch.
        images: of a row, at most.
        places: which of these rows this process reads, in rising order; None reads all.
    """
    for start in range(0, count, batch_size):
        own = [start + place for place in (range(batch_size) if places is None else places)]
        filled = [source[min(index, count - 1)] for index in own]
        part = filled[: sum(index < count for index in own)]
        prompts = [encoder.prompt(row.prompts[0], length, len(row.images)) for row in filled]
        ids = [row.id for row in part] + [-1] * (len(filled) - len(part))
        yield (
            Batch(
                images=np.stack([_images(encoder, row, images) for row in filled])[:, None],
                tokens=np.stack([prompt.tokens for prompt in prompts]),
                positions=np.stack([prompt.positions for prompt in prompts]),
                segments=np.stack([prompt.segments for prompt in prompts]),
                answer_mask=np.stack([prompt.answer_mask for prompt in prompts]),
                ids=np.array(ids, np.int32),
                pairs=np.zeros(len(ids), np.int32),
            ),
            part,
        )


def _stack(rows: Sequence[Batch]) -> Batch:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *rows)


def _images(encoder: Encoder, row: Row, count: int) -> UInt8[np.ndarray, "I h w 3"]:
    """A row's images as the model takes them, filled up with black ones that no token of the row looks at.

    Raises:
        UserError: it has more than `count`.
    """
    if len(row.images) > count:
        raise UserError(f"row {row.key} has {len(row.images)} images; raise --data.images above {count}")
    images = np.zeros((count, *encoder.image_shape, 3), np.uint8)
    for place, pixels in enumerate(row.images):
        images[place] = encoder.image(pixels)
    return images
