"""Batches from rows with grain: shuffled, with two views made on the host, resumable at the exact next batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import grain
import numpy as np
from jaxtyping import Int32, UInt8

from jaxguard.batch import Batch
from jaxguard.config import DataConfig, ViewConfig
from jaxguard.data.counted import Counted
from jaxguard.data.encode import Encoded, Encoder
from jaxguard.data.order import Index, training_order
from jaxguard.data.rows import Row
from jaxguard.data.sources import RowSource
from jaxguard.data.views import kept_patches, perturb, row_rng
from jaxguard.errors import UserError


@dataclass(frozen=True, kw_only=True)
class BatchRow(Encoded):
    """One row of a `Batch`.

    Attributes:
        images: pixels of each view.
        id: id of the row in its source.
        kept: patches that each image of the second view keeps; None if all are kept.
    """

    images: UInt8[np.ndarray, "W I h w 3"]
    id: int
    kept: Int32[np.ndarray, "I p"] | None = None


@dataclass(frozen=True)
class Example:
    """Makes one row of a batch from its `Index`.

    Attributes:
        data: lengths, packing and images of a row.
        view: how the second view is made; None makes one view.
        seed: seed of all random choices.
        encoder: the checkpoint's encoder.
        source: the rows.
        counted: which answer tokens are learnt; None: all.
    """

    data: DataConfig
    view: ViewConfig | None
    seed: int
    encoder: Encoder
    source: RowSource
    counted: Counted | None = None

    def __call__(self, place: Index) -> BatchRow:
        data, view = self.data, self.view
        row = self.source[place.row]
        encoded = self.encoder.encode(
            row,
            length=place.length,
            answer_length=data.answer_length,
            pack=data.pack,
            rng=text_rng(self.seed, place, row),
        )
        if self.counted is not None:
            encoded = self.counted.apply(row.id, encoded)
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
        return BatchRow(**vars(encoded), images=np.stack(views), id=row.id, kept=kept)

    def _rng(self, stream: str, place: Index, row: Row) -> np.random.Generator:
        return row_rng(stream, self.seed, place.epoch, row.id)


def text_rng(seed: int, place: Index, row: Row) -> np.random.Generator:
    """The generator that draws which of its pairs a row shows."""
    return row_rng("text", seed, place.epoch, row.id)


@dataclass(frozen=True)
class _Part:
    """The rows of the global order that one process reads, batch by batch."""

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
    counted: Counted | None = None,
) -> Any:
    """Return an endless iterator of `Batch` (NumPy) with `get_state` and `set_state`, reshuffled every epoch.

    Global batch k holds the same rows in the same order for any number of processes, reader threads and devices. Its
    state is therefore k alone, and a run may resume with another number of processes. Views and text are keyed by
    (seed, epoch, row id).

    Args:
        data: limit, lengths, packing and threads.
        seed: seed of the order, the views and the packing.
        encoder: the checkpoint's encoder.
        source: the rows.
        batch_size: number of rows of a global batch.
        view: how the second view is made; None makes one view.
        places: positions in the global batch of this process's rows, in rising order; None: all.
        counted: which answer tokens are learnt; None: all.

    Raises:
        UserError: as `training_order`; and, from the iterator, a row that cannot be read or encoded.
    """
    order = training_order(data, seed, encoder, source, batch_size)
    part = _Part(order, batch_size, range(batch_size) if places is None else tuple(places))
    example = Example(data, view, seed, encoder, source, counted)
    # Grain's elements are whole batches: with rows as elements, its overhead made two threads take 1.3 times as long
    # for small images.
    batches = grain.MapDataset.source(part).map(lambda own: stack([example(place) for place in own], data.pack == 1))
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
    """Yield the first `count` rows with their answers, in batches of `batch_size`.

    This process reads the positions `places` of each batch.
    The last batch is filled with rows whose answer mask is all False. The seed draws one of several pairs of a row.
    """
    example = Example(data, None, seed, encoder, source)
    for start in range(0, count, batch_size):
        own = [start + place for place in places]
        batch = stack([example(Index(0, min(index, count - 1), data.length)) for index in own], data.pack == 1)
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
    """Yield left-padded prompts (the first of each row) of the first `count` rows, in order, with their rows.

    The last batch is filled by repeating the last row with id -1, so that every batch has the same shape on every
    process.

    Args:
        batch_size: number of rows of a global batch.
        images: largest number of images of a row.
        places: positions in the global batch of this process's rows, in rising order; None: all.
    """
    for start in range(0, count, batch_size):
        own = [start + place for place in (range(batch_size) if places is None else places)]
        filled = [source[min(index, count - 1)] for index in own]
        part = filled[: sum(index < count for index in own)]
        prompts = [encoder.prompt(row.prompts[0], length, len(row.images), row.system) for row in filled]
        ids = [row.id for row in part] + [-1] * (len(filled) - len(part))
        rows = [
            BatchRow(**vars(prompt), images=_images(encoder, row, images)[None], id=number)
            for prompt, row, number in zip(prompts, filled, ids, strict=True)
        ]
        yield stack(rows, right_padded=False), part


def stack(rows: Sequence[BatchRow], right_padded: bool) -> Batch:
    """Stack rows of equal shapes to a batch."""
    kept = [row.kept for row in rows if row.kept is not None]
    return Batch(
        images=np.stack([row.images for row in rows]),
        tokens=np.stack([row.tokens for row in rows]),
        positions=np.stack([row.positions for row in rows]),
        segments=np.stack([row.segments for row in rows]),
        answer_mask=np.stack([row.answer_mask for row in rows]),
        ids=np.array([row.id for row in rows], np.int32),
        pairs=np.array([row.pair for row in rows], np.int32),
        kept=np.stack(kept) if kept else None,
        right_padded=right_padded,
    )


def _images(encoder: Encoder, row: Row, count: int) -> UInt8[np.ndarray, "I h w 3"]:
    """Preprocess a row's images and append black ones up to `count`, which no token of the row attends to.

    Raises:
        UserError: the row has more than `count` images.
    """
    if len(row.images) > count:
        raise UserError(f"row {row.key} has {len(row.images)} images; raise --data.images above {count}")
    images = np.zeros((count, *encoder.image_shape, 3), np.uint8)
    for place, pixels in enumerate(row.images):
        images[place] = encoder.image(pixels)
    return images
