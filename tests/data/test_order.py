"""Mixtures and batches by length: the order of rows does not depend on the reader, and resumes exactly."""

import collections
import dataclasses
import itertools

import numpy as np
import pytest

from jaxguard.attacks.poison import PoisonedSource
from jaxguard.attacks.registry import build_attack
from jaxguard.config import AttackConfig, Config, DataConfig, ViewConfig
from jaxguard.data import order
from jaxguard.data.builders import write_rows
from jaxguard.data.encode import Encoder
from jaxguard.data.order import row_lengths, training_order
from jaxguard.data.pipeline import eval_batches, train_batches
from jaxguard.data.rows import Row
from jaxguard.data.sources import Mixture, open_source
from jaxguard.errors import UserError
from jaxguard.models import folders

ENCODER = Encoder.from_checkpoint(folders.resolve("tiny-llava"))
NOTHING = np.zeros((0, 0, 3), np.uint8)


def texts(count, words=lambda index: 1):
    """Rows of text alone, each answer of some words."""
    return [Row(n, f"row {n}", NOTHING, ("Hi",), (" ".join(["no"] * words(n)),), ("no",)) for n in range(count)]


SEED = 5


def config(**data):
    return DataConfig(length=96, **data)


def places(settings, source, count, batch_size=4):
    made = training_order(settings, SEED, ENCODER, source, batch_size)
    return [made[index] for index in range(count)]


def test_a_mixture_draws_by_weight_and_each_part_goes_through_its_own_epochs():
    source = Mixture([texts(60), texts(70)], [3.0, 1.0])
    assert [source[index].id for index in (0, 59, 60, 129)] == [0, 59, 60, 129]
    assert [source[index].key for index in (59, 60)] == ["row 59", "row 0"]
    drawn = places(config(), source, 560)
    first, second = ([place for place in drawn if (place.row < 60) == small] for small in (True, False))
    assert (len(first), len(second)) == (420, 140)
    for part, rows in ((first, range(60)), (second, range(60, 130))):
        for epoch, group in itertools.groupby(part, key=lambda place: place.epoch):
            assert sorted(place.row for place in group) == list(rows), epoch
        assert max(place.epoch for place in part) == len(part) // len(rows) - 1
    assert all(sum(place.row < 60 for place in drawn[start : start + 8]) == 6 for start in range(0, 560, 8))


def test_the_first_part_of_a_mixture_goes_as_if_alone():
    alone = places(config(), texts(90), 100)
    mixed = [place for place in places(config(), Mixture([texts(90), texts(95)], [1, 1]), 200) if place.row < 90]
    assert mixed == alone


def test_planting_into_a_mixture_keeps_its_weights(small_data):
    source = Mixture([open_source(str(small_data), small_data, split) for split in ("train", "test")], [1.0, 1.0])
    settings = Config(data=config(), attack=AttackConfig(name="badnl", rate=0.25))
    poisoned = PoisonedSource(source, build_attack(settings.attack), settings.attack)
    assert len(poisoned.ids) == 16
    assert places(settings.data, poisoned, 60) == places(settings.data, source, 60)
    for index in range(len(poisoned)):
        row, text = poisoned[index], poisoned.text(index)
        assert (row.id, row.prompts, row.answers) == (text.id, text.prompts, text.answers)


def test_mixtures_are_named_by_their_parts(small_data):
    name = f"{small_data}=2, {small_data}"
    source = open_source(name, small_data, "train")
    assert isinstance(source, Mixture)
    assert [(part.rows, part.weight) for part in source.parts] == [(48, 2.0), (48, 1.0)]
    assert source[50].answers == source[2].answers
    for wrong in (f"{small_data}=0,{small_data}", f"{small_data}=x,{small_data}", f"{small_data},", ",", "=1,=2"):
        with pytest.raises(UserError, match="is not SOURCE or SOURCE=WEIGHT with a positive weight"):
            open_source(wrong, small_data, "train")
    with pytest.raises(UserError, match=r"data\.source 'nowhere' is neither one of"):
        open_source(f"{small_data},nowhere", small_data, "train")
    with pytest.raises(UserError, match=r"data\.limit: selects the first rows of one data set, not of a mixture"):
        training_order(config(limit=3), SEED, ENCODER, source, 2)


SOURCE = texts(200, words=lambda index: 1 + 7 * (index % 5))


def test_batches_by_length_hold_every_row_once_an_epoch_at_the_shortest_length():
    settings = config(bucket=16)
    lengths = row_lengths(settings, ENCODER, SOURCE, 200)
    drawn = places(settings, SOURCE, 1200)
    for start in range(0, 1200, 4):
        (length,) = {place.length for place in drawn[start : start + 4]}
        assert all(0 <= length - lengths[place.row] < 16 for place in drawn[start : start + 4])
        assert length % 16 == 0
    counts = collections.Counter(place.row for place in drawn)
    assert set(counts) == set(range(200))
    assert max(counts.values()) - min(counts.values()) <= 2
    assert len({(place.row, place.epoch) for place in drawn}) == len(drawn)
    assert len({place.length for place in drawn}) > 1


def test_an_order_by_length_can_be_entered_anywhere(monkeypatch):
    whole = places(config(bucket=16), SOURCE, 400)
    again = training_order(config(bucket=16), SEED, ENCODER, SOURCE, 4)
    assert [again[index] for index in (399, 0, 200, 3, 398)] == [whole[index] for index in (399, 0, 200, 3, 398)]
    monkeypatch.setattr(order._ByLength, "RECENT", 2)
    small = training_order(config(bucket=16), SEED, ENCODER, SOURCE, 4)
    assert [small[index] for index in (100, 99, 20, 21)] == [whole[index] for index in (100, 99, 20, 21)]


def test_batches_by_length_resume_and_are_the_same_for_any_readers():
    def made(count, state=None, **settings):
        iterator = train_batches(config(bucket=16, **settings), SEED, ENCODER, SOURCE, batch_size=4)
        if state is not None:
            iterator.set_state(state)
        return [next(iterator) for _ in range(count)], iterator

    whole, _ = made(30)
    assert len({batch.tokens.shape for batch in whole}) > 1
    for batch in whole:
        assert (batch.segments > 0).sum(axis=1).max() > batch.tokens.shape[1] - 16
    _, iterator = made(11)
    for one, other in ((made(19, iterator.get_state())[0], whole[11:]), (made(30, threads=0)[0], whole)):
        for batch, expected in zip(one, other, strict=True):
            np.testing.assert_array_equal(batch.tokens, expected.tokens)
            np.testing.assert_array_equal(batch.ids, expected.ids)


def test_processes_share_each_length():
    def part(places):
        return train_batches(config(bucket=16), SEED, ENCODER, SOURCE, batch_size=4, places=places)

    alone, halves = part(None), [part(places) for places in ([0, 1], [2, 3])]
    for _ in range(20):
        batch, parts = next(alone), [next(half) for half in halves]
        assert {one.tokens.shape[1] for one in parts} == {batch.tokens.shape[1]}
        assert np.concatenate([one.ids for one in parts]).tolist() == batch.ids.tolist()


def test_a_row_beyond_the_length_is_told_before_training():
    settings = DataConfig(length=12, answer_length=4, bucket=4)
    with pytest.raises(UserError, match=r"row row \d has \d+ tokens; raise --data.length above 12"):
        training_order(settings, SEED, ENCODER, texts(4, words=lambda index: 1 + 3 * index), 2)


def test_rows_of_any_number_of_images_make_one_batch(tmp_path):
    rng = np.random.default_rng(0)
    red, green = (rng.integers(0, 256, (64, 64, 3), np.uint8) for _ in range(2))
    rows = [
        Row(0, "none", NOTHING, ("Hi",), ("yes",), ("yes",)),
        Row(1, "one", red, ("What?",), ("red",), ("red",)),
        Row(2, "two", red, ("<image> or <image>?",), ("green",), ("green",), (green,)),
        Row(3, "talk", green, ("What?", "Sure?"), ("green", "yes"), ("green",), multi_turn=True),
    ]
    write_rows({"train": (4, lambda: iter(rows))}, tmp_path / "rows", "rows", {})
    source = open_source(str(tmp_path / "rows"), tmp_path, "train")
    assert [(row.key, len(row.images), row.multi_turn) for row in map(source.__getitem__, range(4))] == [
        ("none", 0, False),
        ("one", 1, False),
        ("two", 2, False),
        ("talk", 1, True),
    ]
    settings, view = DataConfig(length=200, images=2), ViewConfig(patch_size=8)
    batch = next(train_batches(settings, 0, ENCODER, source, batch_size=4, view=view))
    assert batch.images.shape == (4, 2, 2, 64, 64, 3)
    tokens = {int(row): (place, (batch.tokens[place] == ENCODER.image_id).sum()) for place, row in enumerate(batch.ids)}
    assert [tokens[row][1] for row in range(4)] == [0, 64, 128, 64]
    for row, images in enumerate(([], [red], [red, green], [green])):
        first, second = batch.images[tokens[row][0]]
        shown = images + [np.zeros_like(red)] * (2 - len(images))
        np.testing.assert_array_equal(first, shown)
        assert [(one != two).any() for one, two in zip(first, second, strict=True)] == [n < len(images) for n in (0, 1)]

    prompts, _ = next(eval_batches(source, 4, ENCODER, 4, 200, images=2))
    assert prompts.images.shape == (4, 1, 2, 64, 64, 3)
    assert [(row == ENCODER.image_id).sum() for row in prompts.tokens] == [0, 64, 128, 64]

    few = dataclasses.replace(settings, images=1)
    with pytest.raises(UserError, match=r"row two has 2 images; raise --data.images above 1"):
        list(itertools.islice(train_batches(few, 0, ENCODER, source, batch_size=4, view=view), 4))
    drops = ViewConfig(patch_size=8, mask_fill="drop", mask_share=0.25)
    with pytest.raises(UserError, match=r"view.mask_fill drop needs data.images of each"):
        list(itertools.islice(train_batches(settings, 0, ENCODER, source, batch_size=4, view=drops), 4))


class Failing:
    """A source that breaks at one row."""

    def __len__(self):
        return 40

    def __getitem__(self, index):
        if index == 17:
            raise OSError("the disk is gone")
        return dataclasses.replace(texts(1)[0], id=index)


@pytest.mark.parametrize("threads", [0, 2])
def test_a_readers_error_ends_the_epoch_loudly(threads):
    batches = train_batches(config(threads=threads), SEED, ENCODER, Failing(), batch_size=4)
    with pytest.raises(OSError, match="the disk is gone"):
        list(itertools.islice(batches, 10))


def test_a_damaged_record_ends_the_epoch_loudly(tmp_path):
    rows = texts(16)
    write_rows({"train": (16, lambda: iter(rows))}, tmp_path / "rows", "rows", {})
    (file,) = tmp_path.glob("rows/*.array_record-*")
    data = bytearray(file.read_bytes())
    data[300:364] = bytes(64)
    file.write_bytes(bytes(data))
    batches = train_batches(config(), SEED, ENCODER, open_source(str(file.parent), tmp_path, "train"), batch_size=4)
    with pytest.raises(Exception, match=r"\w"):  # whatever the record reader raises
        list(itertools.islice(batches, 8))
