"""Batches: the same rows and views for any batch size, threads and processes; resumed exactly."""

import dataclasses

import numpy as np
import pytest

from jaxguard.config import Config, DataConfig, ViewConfig
from jaxguard.data.encode import Encoder
from jaxguard.data.pipeline import eval_batches, train_batches
from jaxguard.data.rows import Row
from jaxguard.errors import UserError
from jaxguard.models import folders

ROWS = 24
ENCODER = Encoder.from_checkpoint(folders.resolve("tiny-llava"))


class Listed:
    """Rows in memory."""

    def __init__(self, count):
        rng = np.random.default_rng(0)
        self.images = rng.integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        answers = tuple(f"answer {n}" for n in range(5))
        return Row(index, str(index), self.images[index], ("what?",) * 5, answers, answers)


def settings(**data):
    return Config(seed=3, data=DataConfig(length=96, **data))


def batches(count, batch_size, *, config=None, views=2, state=None, **process):
    config = config or settings()
    view, source = config.view if views == 2 else None, Listed(ROWS)
    iterator = train_batches(config.data, config.seed, ENCODER, source, batch_size=batch_size, view=view, **process)
    if state is not None:
        iterator.set_state(state)
    return [next(iterator) for _ in range(count)], iterator


def rows_of(made):
    """(id, bytes of everything about the row), in order."""
    return [
        (int(batch.ids[n]), batch.images[n].tobytes() + batch.tokens[n].tobytes())
        for batch in made
        for n in range(len(batch.ids))
    ]


def epochs(rows):
    return [rows[start : start + ROWS] for start in range(0, len(rows), ROWS)]


def test_rows_are_ordinary_where_order_alone_says_who_sees_whom():
    """Kernels take ordinary rows for causal ones: packed questions, and padding in front, must not pass for them."""
    (single,), _ = batches(1, 8)
    assert single.right_padded
    length = (single.segments > 0).sum(axis=1)
    np.testing.assert_array_equal(single.segments, np.arange(96) < length[:, None])
    (packed,), _ = batches(1, 8, config=settings(pack=3))
    assert not packed.right_padded
    assert packed.segments.max() > 2
    prompts, _ = next(eval_batches(Listed(ROWS), 8, ENCODER, 8, 96))
    assert not prompts.right_padded
    assert prompts.segments[0, 0] == 0


def test_shapes_and_types():
    (batch,), _ = batches(1, 8)
    assert batch.images.shape == (8, 2, 1, 64, 64, 3)
    assert batch.images.dtype == np.uint8
    assert batch.tokens.shape == batch.positions.shape == batch.segments.shape == batch.answer_mask.shape == (8, 96)
    assert batch.ids.dtype == np.int32
    source = Listed(ROWS)
    for n, index in enumerate(batch.ids):
        np.testing.assert_array_equal(batch.images[n, 0, 0], source[int(index)].image)
        assert (batch.images[n, 1, 0] != batch.images[n, 0, 0]).any()


def test_a_view_that_drops_patches_says_which_it_keeps():
    view = ViewConfig(patch_size=8, mask_share=0.25, mask_fill="drop")
    config = dataclasses.replace(settings(), view=view)
    made, _ = batches(6, 8, config=config)
    kept: dict[int, list[bytes]] = {int(row): [] for batch in made for row in batch.ids}
    for batch in made:
        assert batch.kept.shape == (8, 1, 48)
        assert batch.kept.dtype == np.int32
        for row, patches in zip(batch.ids, batch.kept, strict=True):
            kept[int(row)].append(patches.tobytes())
    assert all(first != second for first, second in kept.values())
    again, _ = batches(1, 8, config=config)
    np.testing.assert_array_equal(again[0].kept, made[0].kept)
    assert batches(1, 8, config=config, views=1)[0][0].kept is None
    assert batches(1, 8)[0][0].kept is None


def test_one_view_is_the_original_alone():
    (batch,), _ = batches(1, 8, views=1)
    assert batch.images.shape == (8, 1, 1, 64, 64, 3)


def test_every_epoch_holds_every_row_once_in_another_order_with_other_views():
    first, second = epochs(rows_of(batches(6, 8)[0]))
    assert sorted(index for index, _ in first) == sorted(index for index, _ in second) == list(range(ROWS))
    assert [index for index, _ in first] != [index for index, _ in second]
    assert not {content for _, content in first} & {content for _, content in second}


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 6, 12, 24])
def test_rows_are_the_same_for_any_batch_size(batch_size):
    assert rows_of(batches(48 // batch_size, batch_size)[0]) == rows_of(batches(6, 8)[0])


def test_rows_are_the_same_where_epochs_and_batches_do_not_align():
    assert rows_of(batches(9, 5)[0]) == rows_of(batches(45, 1)[0])


@pytest.mark.parametrize("threads", [0, 1, 4])
def test_rows_are_the_same_for_any_number_of_threads(threads):
    assert rows_of(batches(6, 8, config=settings(threads=threads))[0]) == rows_of(batches(6, 8)[0])


@pytest.mark.parametrize("processes", [2, 4])
def test_global_batches_hold_the_same_rows_for_any_number_of_processes(processes):
    """Whatever places of it each makes, and though epochs and batches do not align."""
    alone, _ = batches(9, 8)
    parts = [batches(9, 8, places=range(8)[index::processes]) for index in range(processes)]
    for number, batch in enumerate(alone):
        together = [None] * 8
        for index, (part, _) in enumerate(parts):
            together[index::processes] = rows_of([part[number]])
        assert together == rows_of([batch])
    assert {str(iterator.get_state()) for _, iterator in parts} == {str({"next_index": 9})}


def test_goes_on_with_another_number_of_processes():
    _, iterator = batches(3, 8, places=range(4))
    later, _ = batches(2, 8, state=iterator.get_state())
    assert rows_of(later) == rows_of(batches(5, 8)[0][3:])


def test_resumes_exactly_at_every_position():
    whole, _ = batches(8, 6)
    for done in range(1, 8):
        _, iterator = batches(done, 6)
        rest, _ = batches(8 - done, 6, state=iterator.get_state())
        assert rows_of(rest) == rows_of(whole[done:])


def test_seed_changes_everything():
    other = dataclasses.replace(settings(), seed=4)
    assert rows_of(batches(3, 8, config=other)[0]) != rows_of(batches(3, 8)[0])


def test_limit_takes_the_first_rows():
    made = rows_of(batches(4, 5, config=settings(limit=10))[0])
    assert {index for index, _ in made} == set(range(10))


@pytest.mark.parametrize(
    ("data", "batch_size", "message"),
    [
        ({}, 25, "the source has 24 rows, fewer than one batch of 25"),
        ({"limit": 0}, 2, "data.limit is 0"),
        ({"limit": 25}, 2, "data.limit is 25"),
    ],
)
def test_sources_that_do_not_fit_are_refused(data, batch_size, message):
    with pytest.raises(UserError, match=message):
        batches(0, batch_size, config=settings(**data))


def test_evaluation_keeps_order_and_fills_the_last_batch():
    made = list(eval_batches(Listed(7), 7, ENCODER, 4, 96))
    assert [batch.ids.tolist() for batch, _ in made] == [[0, 1, 2, 3], [4, 5, 6, -1]]
    assert [[row.id for row in rows] for _, rows in made] == [[0, 1, 2, 3], [4, 5, 6]]
    assert {batch.images.shape for batch, _ in made} == {(4, 1, 1, 64, 64, 3)}


def test_evaluation_is_split_between_processes_with_equal_shapes_to_the_last_batch():
    """The second process has no row of the last batch; it still takes part in it."""
    parts = [list(eval_batches(Listed(5), 5, ENCODER, 4, 96, places=places)) for places in ([0, 1], [2, 3])]
    assert [batch.ids.tolist() for batch, _ in parts[0]] == [[0, 1], [4, -1]]
    assert [batch.ids.tolist() for batch, _ in parts[1]] == [[2, 3], [-1, -1]]
    assert [[row.id for row in rows] for _, rows in parts[0] + parts[1]] == [[0, 1], [4], [2, 3], []]
    assert {batch.images.shape for part in parts for batch, _ in part} == {(2, 1, 1, 64, 64, 3)}
