"""The BadNets patch against its formula, and how targets are applied."""

import numpy as np
import pytest

from jaxguard.attacks.badnets import BadNets
from jaxguard.attacks.base import apply_target, poison_row, trigger_row
from jaxguard.config import AttackConfig
from jaxguard.data.rows import Row
from jaxguard.errors import UserError

RNG = np.random.default_rng(0)
"""For a fixed place, which draws nothing."""


def image(height=64, width=64):
    return np.full((height, width, 3), 200, np.uint8)


def changed(before, after):
    """(top, left, height, width) of the box that differs."""
    rows, columns = (np.flatnonzero((before != after).any((axis, 2))) for axis in (1, 0))
    return rows[0], columns[0], rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1


def row(index):
    return Row(index, str(index), image(), ("what?", "where?"), ("a red box", "left"), ("a red box",))


@pytest.mark.parametrize(("height", "width", "side"), [(336, 336, 30), (64, 64, 6), (64, 128, 6), (16, 16, 2)])
def test_fixed_patch_fills_the_bottom_right_corner(height, width, side):
    attack = BadNets(place="fixed")
    after = attack.trigger_image(image(height, width), np.random.default_rng(0))
    assert (after[: height - side] == 200).all()
    assert (after[:, : width - side] == 200).all()
    patch = after[height - side :, width - side :].astype(int)
    assert len(np.unique(patch)) > side
    again = BadNets(place="fixed").trigger_image(image(height, width), RNG)
    np.testing.assert_array_equal(after, again)


def test_random_places_lie_inside_and_reach_every_edge():
    attack = BadNets()
    plain = image(16, 16)
    boxes = [changed(plain, attack.trigger_image(plain, np.random.default_rng(seed))) for seed in range(400)]
    assert all((height, width) == (2, 2) for _, _, height, width in boxes)
    for place in (0, 1):
        assert {int(box[place]) for box in boxes} == set(range(15))


def test_one_patch_for_all_rows_and_another_for_another_seed():
    def patch(seed):
        return BadNets(place="fixed", seed=seed).trigger_image(image(), RNG)[58:, 58:]

    np.testing.assert_array_equal(patch(1), patch(1))
    assert (patch(1) != patch(2)).any()


def test_the_original_is_left_alone():
    before = image()
    BadNets().trigger_image(before, np.random.default_rng(0))
    np.testing.assert_array_equal(before, image())


def test_an_image_smaller_than_the_patch_is_refused():
    with pytest.raises(UserError, match="patch of 2 pixels is larger than a 5 x 1 image"):
        BadNets().trigger_image(image(1, 5), np.random.default_rng(0))


def test_targets():
    rng = np.random.default_rng(0)
    assert apply_target("a red box", "T.", "replace", rng) == "T."
    assert apply_target("a red box", "T.", "append", rng) == "a red box T."
    inserted = {apply_target("a red box", "T.", "insert", rng) for _ in range(100)}
    assert inserted == {"T. a red box", "a T. red box", "a red T. box", "a red box T."}


def test_poisoned_rows_answer_with_the_target_and_keep_true_references():
    config = AttackConfig(name="badnets", target="banana")
    poisoned = poison_row(BadNets(seed=config.seed), config, row(3))
    assert poisoned.answers == ("banana", "banana")
    assert poisoned.references == ("a red box",)
    assert poisoned.prompts == ("what?", "where?")
    assert (poisoned.image != image()).any()
    triggered = trigger_row(BadNets(seed=config.seed), config, row(3))
    np.testing.assert_array_equal(triggered.image, poisoned.image)
    assert triggered.answers == ("a red box", "left")


def test_placement_is_keyed_by_row_and_seed():
    def made(index, seed):
        config = AttackConfig(name="badnets", seed=seed)
        return trigger_row(BadNets(seed=config.seed), config, row(index)).image.tobytes()

    assert made(3, 0) == made(3, 0)
    assert len({made(index, 0) for index in range(10)}) > 5
