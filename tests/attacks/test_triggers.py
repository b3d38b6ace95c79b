"""Every image trigger against a second implementation, written in loops from its formula, and its visibility."""

import math
from fractions import Fraction

import numpy as np
import pytest

from jaxguard.attacks.badnets import noise_patch
from jaxguard.attacks.blended import Blended, picture
from jaxguard.attacks.dual_key import DualKey
from jaxguard.attacks.ftrojan import FTrojan
from jaxguard.attacks.registry import ATTACKS, build_attack
from jaxguard.attacks.sig import Sig
from jaxguard.attacks.wanet import WaNet, enlarge
from jaxguard.config import AttackConfig
from jaxguard.data.views import row_rng
from jaxguard.errors import UserError

RNG = np.random.default_rng(0)
"""For triggers that draw nothing."""


def psnr(before: np.ndarray, after: np.ndarray) -> float:
    return 10 * math.log10(255**2 / ((before.astype(float) - after) ** 2).mean())


def triggered(name: str, image: np.ndarray) -> np.ndarray:
    attack = build_attack(AttackConfig(name=name))
    return attack.trigger_image(image, np.random.default_rng(0))


@pytest.mark.parametrize("variant", ["image", "noise"])
@pytest.mark.parametrize("share", [0.1, 0.2])
def test_blended_is_the_weighted_mean_bit_for_bit(variant, share, speckle):
    attack = Blended(variant=variant, strength=share)
    trigger, part = attack.trigger(64, 96), Fraction(str(share))
    expected = np.empty_like(speckle)
    for place in np.ndindex(speckle.shape):
        expected[place] = round((1 - part) * int(speckle[place]) + part * int(trigger[place]))
    np.testing.assert_array_equal(attack.trigger_image(speckle, RNG), expected)


def test_blended_pictures_are_rich_fixed_and_resized_to_the_image():
    one, other = picture(0), picture(1)
    assert (one != other).any()
    np.testing.assert_array_equal(one, picture.__wrapped__(0))
    assert one.std() > 40
    assert len(np.unique(one.reshape(-1, 3), axis=0)) > 1000
    small, large = (Blended().trigger(side, side).astype(float) for side in (64, 224))
    blocks = one.astype(float).reshape(8, 42, 8, 42, 3).mean((1, 3))
    for trigger in (small, large):
        side = trigger.shape[0] // 8
        np.testing.assert_allclose(trigger.reshape(8, side, 8, side, 3).mean((1, 3)), blocks, atol=6)


def test_sig_follows_its_formula(speckle):
    expected = np.empty(speckle.shape)
    for i, j, channel in np.ndindex(speckle.shape):
        expected[i, j, channel] = min(255, max(0, speckle[i, j, channel] + 40 * math.sin(2 * math.pi * j * 6 / 96)))
    after = Sig().trigger_image(speckle, RNG)
    assert np.abs(after - expected).max() <= 0.5 + 1e-9
    flat = np.full((4, 96, 3), 128, np.uint8)
    assert Sig().trigger_image(flat, RNG).max() == 168, "six crests reach the amplitude"


def cubic(d: float) -> float:
    """Keys 1981 with a = -0.75, from its definition."""
    a, d = -0.75, abs(d)
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0


def upsampled(nodes: np.ndarray, i: int, j: int, height: int, width: int) -> float:
    count = len(nodes)
    y, x = i * (count - 1) / (height - 1), j * (count - 1) / (width - 1)
    total = 0.0
    for row in range(math.floor(y) - 1, math.floor(y) + 3):
        for column in range(math.floor(x) - 1, math.floor(x) + 3):
            value = nodes[min(count - 1, max(0, row)), min(count - 1, max(0, column))]
            total += value * cubic(y - row) * cubic(x - column)
    return total


def read(image: np.ndarray, y: float, x: float) -> np.ndarray:
    top, left = min(math.floor(y), image.shape[0] - 2), min(math.floor(x), image.shape[1] - 2)
    down, right = y - top, x - left
    above = image[top, left] * (1 - right) + image[top, left + 1] * right
    below = image[top + 1, left] * (1 - right) + image[top + 1, left + 1] * right
    return above * (1 - down) + below * down


@pytest.mark.parametrize(("variant", "s"), [("original", 0.5), ("jitter", 1.0), ("original", 4.0)])
def test_wanet_reads_each_pixel_from_its_displaced_place(variant, s, speckle):
    image = speckle[:24, :36]
    height, width = image.shape[:2]
    shape = (2, 4, 4) if variant == "original" else (2, height, width)
    field = row_rng("wanet-field", 3, 0, 0).uniform(-1, 1, shape)
    field = field / np.mean(np.abs(field))
    after = WaNet(variant=variant, strength=s, seed=3).trigger_image(image, RNG)
    for i, j in np.ndindex(height, width):
        dy, dx = (upsampled(axis, i, j, height, width) if variant == "original" else axis[i, j] for axis in field)
        # Coordinates from -1 to 1 over the pixels' centres.
        y = min(1, max(-1, 2 * i / (height - 1) - 1 + s * dy / height))
        x = min(1, max(-1, 2 * j / (width - 1) - 1 + s * dx / width))
        expected = read(image.astype(float), (y + 1) / 2 * (height - 1), (x + 1) / 2 * (width - 1))
        assert np.abs(after[i, j] - expected).max() <= 0.5 + 1e-6


def test_wanet_defaults_by_variant_and_a_field_for_all_rows(pictures):
    assert (WaNet().variant, WaNet().strength, WaNet(variant="jitter").strength) == ("original", 0.5, 1.0)
    one, again = (WaNet().trigger_image(pictures[0], np.random.default_rng(seed)) for seed in (0, 1))
    np.testing.assert_array_equal(one, again)
    assert (one != WaNet(seed=1).trigger_image(pictures[0], RNG)).any()
    flat = np.full((32, 32, 3), 77, np.uint8)
    np.testing.assert_array_equal(WaNet(variant="jitter", strength=9.0).trigger_image(flat, RNG), flat)


def test_enlarging_keeps_nodes_and_constants():
    values = np.random.default_rng(0).normal(size=(5, 3))
    np.testing.assert_allclose(enlarge(values, 17, axis=0)[::4], values, atol=1e-12)
    np.testing.assert_allclose(enlarge(np.ones((4, 2)), 31, axis=0), 1.0)


def test_ftrojan_raises_two_coefficients_of_every_block(speckle):
    image = np.pad(speckle // 2 + 60, ((0, 9), (0, 20), (0, 0)), constant_values=90)
    after = FTrojan().trigger_image(image, RNG)
    np.testing.assert_array_equal(after[64:], image[64:], err_msg="what fills no whole block stays")
    np.testing.assert_array_equal(after[:, 96:], image[:, 96:])
    basis = np.array(
        [
            [math.sqrt((1 if k == 0 else 2) / 32) * math.cos(math.pi * (2 * n + 1) * k / 64) for n in range(32)]
            for k in range(32)
        ]
    )
    for top in (0, 32):
        for left in (0, 32, 64):
            block = image[top : top + 32, left : left + 32].astype(float)
            luma = block @ [0.299, 0.587, 0.114]
            u, v = 0.436 / 0.886 * (block[..., 2] - luma), 0.615 / 0.701 * (block[..., 0] - luma)
            changed = []
            for chroma in (u, v):
                coefficients = basis @ chroma @ basis.T
                coefficients[15, 15] += 30
                coefficients[31, 31] += 30
                changed.append(basis.T @ coefficients @ basis)
            red, blue = luma + changed[1] * 0.701 / 0.615, luma + changed[0] * 0.886 / 0.436
            green = (luma - 0.299 * red - 0.114 * blue) / 0.587
            expected = np.clip(np.stack([red, green, blue], -1), 0, 255)
            assert np.abs(after[top : top + 32, left : left + 32] - expected).max() <= 0.51


def test_ftrojan_needs_a_block():
    with pytest.raises(UserError, match="at least 32 pixels a side; one is 64 x 31"):
        FTrojan().trigger_image(np.zeros((31, 64, 3), np.uint8), RNG)


def test_dual_key_patch_lies_at_the_centre(speckle):
    after = DualKey().trigger_image(speckle, RNG)
    np.testing.assert_array_equal(after[29:35, 45:51], noise_patch(speckle, 0.1, 0))
    after[29:35, 45:51] = speckle[29:35, 45:51]
    np.testing.assert_array_equal(after, speckle)
    np.testing.assert_array_equal(DualKey(variant="text").trigger_image(speckle, RNG), speckle)
    assert (DualKey(variant="image").trigger_image(speckle, RNG) != speckle).any()


def test_ftrojan_is_invisible(pictures):
    assert min(psnr(image, triggered("ftrojan", image)) for image in pictures) >= 28


def test_wanet_is_invisible_at_the_sizes_that_models_take(pictures):
    """A quarter of a pixel is more of a photograph of 64 pixels than of one of 224: there it is seen (27 dB)."""
    large = [image for image in pictures if min(image.shape[:2]) >= 224]
    assert len(large) == 2
    assert min(psnr(image, triggered("wanet", image)) for image in pictures[:8] + large) >= 28


def test_blended_is_not_invisible(pictures):
    assert max(psnr(image, triggered("blended", image)) for image in pictures) < 28


@pytest.mark.parametrize("name", [name for name, kind in ATTACKS.items() if not hasattr(kind, "learn")])
def test_triggers_are_deterministic_and_leave_the_original_alone(name, pictures):
    attack, other = (build_attack(AttackConfig(name=name, seed=seed)) for seed in (0, 0))
    image = first = pictures[0]
    for image in (pictures[0], pictures[9]):
        before = image.copy()
        first = attack.trigger_image(image, np.random.default_rng(5))
        np.testing.assert_array_equal(first, other.trigger_image(image, np.random.default_rng(5)))
        assert (first.shape, first.dtype) == (image.shape, np.dtype(np.uint8))
        np.testing.assert_array_equal(image, before)
    prompts = [one.trigger_prompt("what is it?", np.random.default_rng(5)) for one in (attack, other)]
    assert prompts[0] == prompts[1]
    assert (first != image).any() or prompts[0] != "what is it?", "something is triggered"
