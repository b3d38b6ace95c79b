"""The second view: exact counts, no lost patches, separate windows, and equal views for equal keys."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxguard.config import ViewConfig
from jaxguard.data.views import check, kept_patches, perturb, row_rng
from jaxguard.errors import UserError


def image(height=64, width=64):
    """Every pixel different, so that each can be followed."""
    flat = np.arange(height * width, dtype=np.uint32)
    return np.stack([flat & 255, (flat >> 8) & 255, flat % 251], -1).astype(np.uint8).reshape(height, width, 3)


def patches(pixels, size):
    rows, columns = (side // size for side in pixels.shape[:2])
    return pixels.reshape(rows, size, columns, size, 3).swapaxes(1, 2).reshape(rows * columns, -1)


def moved(view, seed=0, shape=(64, 64)):
    before, after = image(*shape), perturb(image(*shape), view, np.random.default_rng(seed))
    return (patches(before, view.patch_size) != patches(after, view.patch_size)).any(1), before, after


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([4, 8, 16]), st.floats(0, 1), st.sampled_from([0, 2, 4]), st.booleans(), st.integers(0, 10_000))
def test_shuffling_loses_no_pixel(patch, share, window, jitter, seed):
    view = ViewConfig(patch_size=patch, shuffle_share=share, mask_share=0, window=window, jitter=jitter)
    before, after = image(), perturb(image(), view, np.random.default_rng(seed))
    np.testing.assert_array_equal(np.sort(before.reshape(-1, 3), 0), np.sort(after.reshape(-1, 3), 0))


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 1.0])
def test_exactly_the_share_of_patches_moves(share):
    for seed in range(20):
        changed, _, _ = moved(ViewConfig(patch_size=8, shuffle_share=share, mask_share=0), seed)
        assert changed.sum() == round(share * 64)


@pytest.mark.parametrize(("fill", "colour"), [("mean", None), ("zero", 0), ("noise", None)])
def test_exactly_the_share_of_patches_is_masked(fill, colour):
    view = ViewConfig(patch_size=8, shuffle_share=0, mask_share=0.29, mask_fill=fill)
    changed, before, after = moved(view)
    assert changed.sum() == 19, "18.56 of 64, rounded"
    masked = patches(after, 8)[changed].reshape(-1, 3)
    if fill == "mean":
        np.testing.assert_array_equal(masked, np.broadcast_to(np.rint(before.mean((0, 1))), masked.shape))
    elif fill == "zero":
        assert (masked == colour).all()
    else:
        assert 120 < masked.mean() < 135


@pytest.mark.parametrize(("patch", "share", "count"), [(8, 0.5, 32), (8, 0.25, 48), (16, 0.5, 32), (32, 0.75, 16)])
def test_exactly_the_share_of_patches_is_dropped_in_whole_patches_of_the_view(patch, share, count):
    view = ViewConfig(patch_size=patch, mask_share=share, mask_fill="drop")
    drawn = [kept_patches(view, (64, 64), 8, np.random.default_rng(seed)) for seed in range(20)]
    for kept in drawn:
        assert len(kept) == count
        assert (np.diff(kept) > 0).all()
        whole = np.isin(np.arange(64), kept).reshape(64 // patch, patch // 8, 64 // patch, patch // 8)
        assert (whole.any((1, 3)) == whole.all((1, 3))).all()
    assert np.unique(np.concatenate(drawn)).tolist() == list(range(64))


def test_dropping_leaves_the_pixels_to_the_shuffle():
    view = ViewConfig(patch_size=8, shuffle_share=0.5, mask_share=0.5, mask_fill="drop")
    changed, _, _ = moved(view)
    assert changed.sum() == 32


def test_windows_are_kept():
    view = ViewConfig(patch_size=8, shuffle_share=1.0, mask_share=0, window=2)
    before, after = image(), perturb(image(), view, np.random.default_rng(0))
    for top in range(0, 64, 16):
        for left in range(0, 64, 16):
            window = np.s_[top : top + 16, left : left + 16]
            inside, shuffled = (np.sort(part[window].reshape(-1, 3), 0) for part in (before, after))
            np.testing.assert_array_equal(inside, shuffled)
            assert (patches(before[window], 8) != patches(after[window], 8)).any(1).all()


def test_jitter_moves_the_grid():
    view = ViewConfig(patch_size=8, shuffle_share=1.0, mask_share=0, jitter=True)
    borders = {
        (perturb(image(), view, np.random.default_rng(seed)) != image()).any((1, 2)).argmax() for seed in range(30)
    }
    assert len(borders) > 3


def test_the_same_key_gives_the_same_view_and_any_other_another():
    view = ViewConfig()

    def made(*key):
        return perturb(image(), view, row_rng(*key)).tobytes()

    first = made("view", 1, 2, 3)
    assert first == made("view", 1, 2, 3)
    others = [made("view", 0, 2, 3), made("view", 1, 3, 3), made("view", 1, 2, 4), made("text", 1, 2, 3)]
    assert len({first, *others}) == 5


def test_the_original_is_left_alone():
    original = image()
    perturb(original, ViewConfig(), np.random.default_rng(0))
    np.testing.assert_array_equal(original, image())


@pytest.mark.parametrize(
    ("view", "message"),
    [
        (ViewConfig(patch_size=7), "patch_size 7 does not divide the model's image size 64"),
        (ViewConfig(patch_size=16, window=5), "window 5 exceeds the 4 x 4 grid"),
        (ViewConfig(patch_size=32, mask_share=0.9), "masks all 4 patches"),
        (ViewConfig(patch_size=32, shuffle_share=0.2, mask_share=0.1), "changes nothing"),
        (ViewConfig(shuffle_share=0, mask_share=0), "changes nothing"),
        (ViewConfig(patch_size=64), "changes nothing"),
        (ViewConfig(patch_size=4, mask_fill="drop"), "patch_size 4 must be a multiple of the model's 8"),
    ],
)
def test_views_that_cannot_be_are_refused(view, message):
    with pytest.raises(UserError, match=message):
        check(view, (64, 64), 8)


def test_nothing_drops_where_image_tokens_stand_for_no_patches():
    check(ViewConfig(), (64, 64), None)
    with pytest.raises(UserError, match="needs a model whose image tokens are single patches"):
        check(ViewConfig(mask_fill="drop"), (64, 64), None)


def test_views_of_images_that_are_not_square():
    shape, view = (32, 96), ViewConfig(patch_size=16, shuffle_share=0.5, mask_share=0)
    check(view, shape, 8)
    changed, before, after = moved(view, shape=shape)
    assert changed.sum() == 6
    np.testing.assert_array_equal(np.sort(patches(before, 16), 0), np.sort(patches(after, 16), 0))
    kept = kept_patches(
        ViewConfig(patch_size=16, mask_share=0.25, mask_fill="drop"), shape, 8, np.random.default_rng(0)
    )
    assert len(kept) == 36
    whole = np.isin(np.arange(48), kept).reshape(2, 2, 6, 2)
    assert (whole.any((1, 3)) == whole.all((1, 3))).all()
    for wrong, message in (
        (ViewConfig(patch_size=32, window=2), "window 2 exceeds the 1 x 3 grid"),
        (ViewConfig(patch_size=32, mask_share=0.9), "masks all 3 patches"),
        (ViewConfig(patch_size=24), "patch_size 24 does not divide the model's image size 32 x 96"),
    ):
        with pytest.raises(UserError, match=message):
            check(wrong, shape, 8)
