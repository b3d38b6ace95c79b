"""The perturbed second view, made on the host: patches are shuffled and masked."""

from __future__ import annotations

import zlib

import numpy as np
from jaxtyping import Int, Int32, UInt8

from jaxguard.config import ViewConfig
from jaxguard.errors import UserError


def row_rng(stream: str, seed: int, epoch: int, row: int) -> np.random.Generator:
    """Return the generator of one row in one epoch. Streams of different names are independent."""
    # An array, because `SeedSequence` converts a tuple element by element.
    entropy = np.array((zlib.crc32(stream.encode()), seed, epoch, row), np.uint32)
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy)))


def perturb(
    image: UInt8[np.ndarray, "h w 3"], view: ViewConfig, rng: np.random.Generator
) -> UInt8[np.ndarray, "h w 3"]:
    """Shuffle a share of the patches among themselves, then mask a share of all places.

    The counts are exact: round(share x patches), per window if there are windows. No chosen patch keeps its place.
    Masked places are drawn independently of shuffled ones. With `jitter`, the grid is offset by less than a patch, and
    incomplete patches at the border do not change. Places to be dropped do not change either; see `kept_patches`.
    """
    (height, width, _), patch = image.shape, view.patch_size
    offset_y, offset_x = rng.integers(0, patch, 2).tolist() if view.jitter else (0, 0)
    rows, columns = (height - offset_y) // patch, (width - offset_x) // patch
    region = np.s_[offset_y : offset_y + rows * patch, offset_x : offset_x + columns * patch]
    patches = image[region].reshape(rows, patch, columns, patch, 3).swapaxes(1, 2).reshape(-1, patch, patch, 3)
    patches = patches[_order(rows, columns, view, rng)]
    masked = rng.permutation(rows * columns)[: round(view.mask_share * rows * columns)]
    if len(masked) and view.mask_fill != "drop":
        patches[masked] = _fill(image, view.mask_fill, (len(masked), patch, patch, 3), rng)
    result = image.copy()
    result[region] = patches.reshape(rows, columns, patch, patch, 3).swapaxes(1, 2).reshape(image[region].shape)
    return result


def kept_patches(
    view: ViewConfig, image_shape: tuple[int, int], patch_size: int, rng: np.random.Generator
) -> Int32[np.ndarray, " p"]:
    """Draw the masked patches and return the patches of the model's own grid that are kept, in rising order."""
    rows, columns = (side // view.patch_size for side in image_shape)
    stays, times = np.ones(rows * columns, bool), view.patch_size // patch_size
    stays[rng.permutation(rows * columns)[: round(view.mask_share * rows * columns)]] = False
    return np.flatnonzero(stays.reshape(rows, columns).repeat(times, 0).repeat(times, 1)).astype(np.int32)


def check(view: ViewConfig, image_shape: tuple[int, int], patch_size: int | None) -> None:
    """Check that a view can be made, that it changes something and that it does not mask everything.

    Args:
        view: how the view is made.
        image_shape: (height, width) of the images, in pixels.
        patch_size: side in pixels of the patch of each image token; None if image tokens are not single patches.

    Raises:
        UserError: any of these does not hold.
    """
    patch, (height, width) = view.patch_size, image_shape
    rows, columns = height // patch, width // patch
    if height % patch or width % patch:
        raise UserError(f"view.patch_size {patch} does not divide the model's image size {height} x {width}")
    if view.mask_fill == "drop" and patch_size is None:
        raise UserError(
            "view.mask_fill is drop: needs a model whose image tokens are single patches; use mean, zero or noise"
        )
    if view.mask_fill == "drop" and patch_size is not None and patch % patch_size:
        raise UserError(f"view.patch_size {patch} must be a multiple of the model's {patch_size} to drop patches")
    if view.window > min(rows, columns):
        raise UserError(f"view.window {view.window} exceeds the {rows} x {columns} grid of patches; lower it or use 0")
    patches = rows * columns
    shuffled, masked = round(view.shuffle_share * (view.window**2 or patches)), round(view.mask_share * patches)
    if masked >= patches:
        raise UserError(f"view.mask_share {view.mask_share} masks all {patches} patches; lower it")
    if shuffled < 2 and masked == 0:
        raise UserError(
            "the view changes nothing: raise view.shuffle_share or view.mask_share, or lower the patch size"
        )


def _order(rows: int, columns: int, view: ViewConfig, rng: np.random.Generator) -> Int[np.ndarray, " P"]:
    """Return for each place the patch that is moved there."""
    order = np.arange(rows * columns)
    grid = order.reshape(rows, columns)
    height, width = (view.window, view.window) if view.window else (rows, columns)
    for top in range(0, rows, height):
        for left in range(0, columns, width):
            places = grid[top : top + height, left : left + width].reshape(-1)
            chosen = rng.permutation(places)[: round(view.shuffle_share * len(places))]
            # A random cycle over the chosen places, so that each of them receives another patch.
            order[chosen[1:]], order[chosen[:1]] = chosen[:-1], chosen[-1:]
    return order


def _fill(image: np.ndarray, fill: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    if fill == "noise":
        return rng.integers(0, 256, shape, dtype=np.uint8)
    if fill == "mean":
        return np.broadcast_to(np.rint(image.mean((0, 1))).astype(np.uint8), shape)
    return np.zeros(shape, np.uint8)
