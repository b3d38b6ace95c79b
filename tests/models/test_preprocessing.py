"""Image preprocessing against the processors of transformers (their Pillow back ends)."""

from importlib import import_module
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.idefics.image_processing_pil_idefics import IdeficsImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from jaxguard.errors import UserError
from jaxguard.models.families.registry import PACKAGES
from jaxguard.models.preprocessing import ImagePreprocessor

FAMILIES = {
    "clip": ("llava", CLIPImageProcessorPil),
    "llava": ("llava", LlavaImageProcessorPil),
    "blip-2": ("blip-2", BlipImageProcessorPil),
    "idefics": ("idefics", IdeficsImageProcessorPil),
}
SQUARE = {"height": 48, "width": 48}
FILES: dict[str, tuple[str, dict[str, Any]]] = {
    "clip 1.5": ("clip", {"size": {"shortest_edge": 48}, "crop_size": SQUARE}),
    "numbers": ("clip", {"size": 48, "crop_size": 48}),
    "larger edge": ("clip", {"size": {"shortest_edge": 57}, "crop_size": SQUARE}),
    "smaller edge": ("clip", {"size": {"shortest_edge": 39}, "crop_size": SQUARE}),
    "stretched, cropped": ("clip", {"size": {"height": 60, "width": 60}, "crop_size": SQUARE, "resample": 2}),
    "cropped alone": ("clip", {"do_resize": False, "crop_size": SQUARE}),
    "padded": (
        "llava",
        {"do_pad": True, "size": {"shortest_edge": 48}, "crop_size": SQUARE, "image_mean": [0.2, 0.5, 0.9]}
        | {"image_processor_type": "LlavaImageProcessor"},
    ),
    "blip-2": ("blip-2", {"size": SQUARE}),
    "bilinear": ("blip-2", {"size": SQUARE, "resample": 2}),
    "lanczos": ("blip-2", {"size": SQUARE, "resample": 1}),
    "idefics": ("idefics", {"image_size": 48}),
    "idefics size": ("idefics", {"size": SQUARE}),
}
SIZES = [(48, 48), (47, 48), (300, 200), (200, 300), (333, 500), (31, 20), (20, 31), (1, 1), (7, 90), (640, 37)]


def photograph(height, width):
    """Something smooth with edges, so that a shifted or wrong filter shows."""
    rng = np.random.default_rng(height * 1000 + width)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / rng.uniform(3, 30) + y / rng.uniform(3, 30) + rng.uniform(0, 6)) for _ in range(3)]
    pixels = (
        127 + 90 * np.stack(waves, -1) + rng.normal(0, 9, (height, width, 3)) + 40 * ((x // 11 + y // 7) % 2)[..., None]
    )
    return pixels.clip(0, 255).astype(np.uint8)


def read(kind, values):
    """What a family's processor makes of a preprocessor file, for a tower that takes 48 x 48 pixels."""
    module = import_module(f"{PACKAGES[kind]}.processor")
    return module.read({"vision_config": {"image_size": 48, "patch_size": 8}}, values).preprocessor


@pytest.mark.parametrize("name", FILES)
def test_within_one_grey_level_of_the_processor(name):
    family, values = FILES[name]
    kind, processor = FAMILIES[family]
    theirs, ours = processor(**values), read(kind, values)
    for size in SIZES:
        pixels = photograph(*size)
        found: Any = theirs(pixels, do_rescale=False, do_normalize=False, input_data_format="channels_last")
        found = found if isinstance(found, list | np.ndarray) else found["pixel_values"]
        expected = np.asarray(found[0]).transpose(1, 2, 0)
        assert ours(pixels).shape == expected.shape == (48, 48, 3)
        assert np.abs(ours(pixels).astype(int) - expected.astype(int)).max() <= 1, size


@pytest.mark.parametrize(("kind", "crops"), [("llava", True), ("blip-2", False), ("idefics", False)])
def test_without_a_file_the_familys_own_way(kind, crops):
    ours = read(kind, {})
    assert (ours.edge, ours.stretch, ours.crop) == ((48, None, True) if crops else (None, (48, 48), False))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": {"shortest_edge": 32}, "crop_size": 32}, "makes images of 32 x 32; the vision tower takes 48 x 48"),
        ({"size": {"shortest_edge": 48}, "do_center_crop": False}, "makes images of any shape"),
        ({"size": {"height": 48}}, "size .* is not supported; use shortest_edge, or height and width"),
        ({"size": SQUARE, "crop_size": {"height": 48, "width": 64}}, "makes images of 48 x 64"),
        ({"size": {"shortest_edge": 48, "longest_edge": 64}}, "is not supported"),
        ({"do_resize": False, "do_center_crop": False, "size": SQUARE}, "do_resize is off"),
        ({"do_pad": True}, "do_pad is only supported for LlavaImageProcessor"),
        ({"resample": 9}, "resample 9 is none of Pillow's filters"),
    ],
)
def test_what_is_not_supported_is_refused(values, message):
    with pytest.raises(UserError, match=message):
        read("llava", values)


def test_images_need_not_be_square():
    pixels = photograph(60, 90)
    stretched = ImagePreprocessor.read((24, 40), {}, crops=False)(pixels)
    np.testing.assert_array_equal(stretched, np.asarray(Image.fromarray(pixels).resize((40, 24), 3)))
    values = {"do_resize": False, "crop_size": {"height": 24, "width": 40}}
    np.testing.assert_array_equal(ImagePreprocessor.read((24, 40), values, crops=True)(pixels), pixels[18:42, 25:65])
    small = ImagePreprocessor.read((24, 40), values, crops=True)(pixels[:20, :30])
    np.testing.assert_array_equal(small[2:22, 5:35], pixels[:20, :30])
    assert not small[:2].any()
    assert not small[:, 35:].any()
    with pytest.raises(UserError, match="makes images of 40 x 24; the vision tower takes 24 x 40"):
        ImagePreprocessor.read((24, 40), {"size": {"height": 40, "width": 24}}, crops=False)
    with pytest.raises(UserError, match="do_pad is not supported"):
        ImagePreprocessor.read((24, 40), {"do_pad": True}, crops=False)
