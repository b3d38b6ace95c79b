"""How a checkpoint's image processor brings an image to the size of the vision tower, from preprocessor_config.json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from jaxguard.errors import UserError

BICUBIC = 3
"""What every family's processor resamples with where its file does not say; Pillow's number, as in the file."""


@dataclass(frozen=True)
class ImagePreprocessor:
    """Pad to a square, resize, cut out the centre: each where the processor does.

    Attributes:
        side: of the result, which is square.
        fill: colour of the padding; None does not pad.
        edge: what the shorter side is resized to; None where the image is stretched to a square instead.
        stretch: side of that square; None where the image is not resized at all.
        resample: a filter's number in Pillow.
        crop: whether the centre is cut out (and filled up with black where the image is smaller).
    """

    side: int
    fill: tuple[int, int, int] | None = None
    edge: int | None = None
    stretch: int | None = None
    resample: int = BICUBIC
    crop: bool = False

    @classmethod
    def read(cls, kind: str | None, side: int, values: dict[str, Any]) -> Self:
        """From a preprocessor file.

        Args:
            kind: the checkpoint's `model_type`, which says what holds where the file says nothing.
            side: of the images that the vision tower takes.
            values: the file's content; empty where there is none.

        Raises:
            UserError: what it asks for is unknown, or does not make images of that side.
        """
        clip = kind not in ("blip-2", "idefics")
        size, crop_size = values.get("size"), values.get("crop_size")
        if kind == "idefics" and "image_size" in values:
            size = {"height": values["image_size"], "width": values["image_size"]}
        if size is None:
            size = {"shortest_edge": side} if clip else {"height": side, "width": side}
        elif isinstance(size, int):
            size = {"shortest_edge": size} if clip else {"height": size, "width": size}
        crop = bool(values.get("do_center_crop", clip)) and kind != "idefics"
        made = (crop_size or side) if crop else size.get("height")
        if isinstance(made, dict):
            made = made.get("height") if made.get("height") == made.get("width") else None
        resizes = values.get("do_resize", True)
        edge, stretch = size.get("shortest_edge"), size.get("height")
        known = isinstance(edge, int) or (isinstance(stretch, int) and stretch == size.get("width"))
        if not known or "longest_edge" in size:
            raise UserError(f"preprocessor_config.json: size {size} is not supported; use shortest_edge or a square")
        if not resizes and not crop:
            raise UserError("preprocessor_config.json: do_resize is off, and so images of any size come out")
        if made != side:
            raise UserError(f"preprocessor_config.json makes images of side {made}; the vision tower takes {side}")
        fill = None
        if values.get("do_pad"):
            if values.get("image_processor_type", "").removesuffix("Fast") != "LlavaImageProcessor":
                raise UserError("preprocessor_config.json: do_pad is only supported of a LlavaImageProcessor")
            red, green, blue = values.get("image_mean", (0.48145466, 0.4578275, 0.40821073))
            fill = (int(red * 255), int(green * 255), int(blue * 255))
        resample = values.get("resample", BICUBIC)
        if resample not in list(Image.Resampling):
            raise UserError(f"preprocessor_config.json: resample {resample!r} is none of Pillow's filters")
        return cls(
            side=side,
            fill=fill,
            edge=edge if resizes else None,
            stretch=stretch if resizes and edge is None else None,
            resample=resample,
            crop=crop,
        )

    def __call__(self, pixels: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "S S 3"]:
        """As the processor makes it."""
        if self.fill is not None:
            pixels = _squared(pixels, self.fill)
        height, width = pixels.shape[:2]
        if self.edge is not None:
            short, long = min(height, width), max(height, width)
            longer = int(self.edge * long / short)
            size = (self.edge, longer) if width <= height else (longer, self.edge)
        elif self.stretch is not None:
            size = (self.stretch, self.stretch)
        else:
            size = (width, height)
        if size != (width, height):
            pixels = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling(self.resample)))
        return _centre(pixels, self.side) if self.crop else pixels


def _centre(pixels: UInt8[np.ndarray, "H W 3"], side: int) -> UInt8[np.ndarray, "S S 3"]:
    height, width = pixels.shape[:2]
    top, left = max(0, (height - side) // 2), max(0, (width - side) // 2)
    part = pixels[top : top + side, left : left + side]
    if part.shape[:2] == (side, side):
        return part
    whole = np.zeros((side, side, 3), np.uint8)
    top, left = (max(0, side - height) + 1) // 2, (max(0, side - width) + 1) // 2
    whole[top : top + part.shape[0], left : left + part.shape[1]] = part
    return whole


def _squared(pixels: UInt8[np.ndarray, "H W 3"], fill: tuple[int, int, int]) -> UInt8[np.ndarray, "L L 3"]:
    height, width = pixels.shape[:2]
    if height == width:
        return pixels
    side = max(height, width)
    square = np.empty((side, side, 3), np.uint8)
    square[:] = fill
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = pixels
    return square
