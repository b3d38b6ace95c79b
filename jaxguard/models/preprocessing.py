"""Image preprocessing of a checkpoint (preprocessor_config.json): padding, resizing and cropping."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from jaxguard.errors import UserError

BICUBIC = 3
"""Default resampling filter of processors; Pillow's number, as in the file."""


@dataclass(frozen=True)
class ImagePreprocessor:
    """Pads to a square, resizes and crops the centre, each only if the processor does.

    Attributes:
        shape: (height, width) of the result.
        fill: colour of the padding; None does not pad.
        edge: length of the shorter side after resizing; None if the image is stretched or not resized.
        stretch: (height, width) that the image is stretched to; None if it is not.
        resample: Pillow's number of the filter.
        crop: True if the centre is cropped (smaller images are padded with black).
    """

    shape: tuple[int, int]
    fill: tuple[int, int, int] | None = None
    edge: int | None = None
    stretch: tuple[int, int] | None = None
    resample: int = BICUBIC
    crop: bool = False

    @classmethod
    def read(
        cls, shape: tuple[int, int], values: dict[str, Any], *, crops: bool, pads: bool = False
    ) -> ImagePreprocessor:
        """Read a preprocessor file.

        Args:
            shape: (height, width) of the vision tower's input.
            values: content of the file; empty if there is none.
            crops: the processor's default: True resizes the shorter side and crops the centre, False stretches.
            pads: True if the processor supports `do_pad`.

        Raises:
            UserError: a setting is unsupported, or the result does not have this shape.
        """
        resizes, crop = values.get("do_resize", True), bool(values.get("do_center_crop", crops))
        whole = {"height": shape[0], "width": shape[1]}
        size = values.get("size", {"shortest_edge": min(shape)} if crops else whole)
        if isinstance(size, int):
            size = {"shortest_edge": size} if crops else {"height": size, "width": size}
        edge, stretch = size.get("shortest_edge"), (size.get("height"), size.get("width"))
        known = isinstance(edge, int) or all(isinstance(side, int) for side in stretch)
        if not known or "longest_edge" in size:
            raise UserError(
                f"preprocessor_config.json: size {size} is not supported; use shortest_edge, or height and width"
            )
        if not resizes and not crop:
            raise UserError("preprocessor_config.json: do_resize is off, so images keep any size; turn it on")
        made = values.get("crop_size") or whole if crop else size
        made = (made, made) if isinstance(made, int) else (made.get("height"), made.get("width"))
        if made != shape:
            shown = "any shape" if None in made else f"{made[0]} x {made[1]}"
            raise UserError(
                f"preprocessor_config.json makes images of {shown}; the vision tower takes {shape[0]} x {shape[1]}"
            )
        fill = None
        if values.get("do_pad"):
            if not pads:
                raise UserError("preprocessor_config.json: do_pad is not supported")
            red, green, blue = values.get("image_mean", (0.48145466, 0.4578275, 0.40821073))
            fill = (int(red * 255), int(green * 255), int(blue * 255))
        resample = values.get("resample", BICUBIC)
        if resample not in list(Image.Resampling):
            raise UserError(f"preprocessor_config.json: resample {resample!r} is none of Pillow's filters")
        return cls(
            shape=shape,
            fill=fill,
            edge=edge if resizes else None,
            stretch=stretch if resizes and edge is None else None,
            resample=resample,
            crop=crop,
        )

    def __call__(self, pixels: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h2 w2 3"]:
        """Preprocess one image."""
        if self.fill is not None:
            pixels = _squared(pixels, self.fill)
        height, width = pixels.shape[:2]
        if self.edge is not None:
            short, long = min(height, width), max(height, width)
            longer = int(self.edge * long / short)
            size = (self.edge, longer) if width <= height else (longer, self.edge)
        elif self.stretch is not None:
            size = self.stretch[::-1]
        else:
            size = (width, height)
        if size != (width, height):
            pixels = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling(self.resample)))
        return _centre(pixels, self.shape) if self.crop else pixels


def check_images(values: dict[str, Any], *known: str) -> str:
    """Return the kind of an image processor, as the class's name in a preprocessor file.

    Args:
        values: content of the file; empty if there is none.
        known: the kinds that are computed; the first is the default.

    Raises:
        UserError: it is another.
    """
    kind = values.get("image_processor_type", known[0])
    for ending in ("Fast", "Pil"):
        kind = kind.removesuffix(ending)
    if kind not in known:
        raise UserError(
            f"preprocessor_config.json: image_processor_type {kind} is not supported; use {', '.join(known)}"
        )
    return kind


def _centre(pixels: UInt8[np.ndarray, "h w 3"], shape: tuple[int, int]) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Crop the centre of an image; smaller images are padded with black."""
    spare = [have - want for have, want in zip(pixels.shape, shape, strict=False)]
    top, left = (max(0, more) // 2 for more in spare)
    part = pixels[top : top + shape[0], left : left + shape[1]]
    if part.shape[:2] == shape:
        return part
    whole = np.zeros((*shape, 3), np.uint8)
    top, left = ((max(0, -more) + 1) // 2 for more in spare)
    whole[top : top + part.shape[0], left : left + part.shape[1]] = part
    return whole


def _squared(pixels: UInt8[np.ndarray, "h w 3"], fill: tuple[int, int, int]) -> UInt8[np.ndarray, "side side 3"]:
    height, width = pixels.shape[:2]
    if height == width:
        return pixels
    side = max(height, width)
    square = np.empty((side, side, 3), np.uint8)
    square[:] = fill
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = pixels
    return square
