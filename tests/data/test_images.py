"""Pixels of odd images: colour modes, orientation, animation, extremes of size."""

import io
from functools import partial

import numpy as np
import pytest
from etils import epath
from PIL import Image, ImageOps

from jaxguard.data import images
from jaxguard.data.images import ImageFault, decode

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
PICTURE = Image.fromarray(PIXELS)


def saved(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGBA", "CMYK", "LAB", "YCbCr"])
def test_every_colour_mode_becomes_rgb(mode):
    image = PICTURE.convert("L").convert(mode) if mode in ("LA", "PA") else PICTURE.convert(mode)
    decoded = decode(saved(image, "PNG" if mode in ("1", "L", "LA", "P", "RGBA") else "TIFF"))
    assert decoded.shape == (5, 7, 3)
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, np.asarray(image.convert("RGB")))


def deep_image(deep, kind):
    return saved(Image.fromarray(deep), kind)


def pgm(deep):
    return b"P5\n8 4\n65535\n" + deep.astype(">u2").tobytes()


@pytest.mark.parametrize(
    "save", [partial(deep_image, kind="PNG"), partial(deep_image, kind="TIFF"), pgm], ids=["PNG", "TIFF", "PGM"]
)
def test_sixteen_bits_are_cut_to_eight(save):
    deep = np.arange(0, 65536, 2048, dtype=np.uint16).reshape(4, 8)
    decoded = decode(save(deep))
    np.testing.assert_array_equal(decoded[..., 0], deep >> 8)
    np.testing.assert_array_equal(decoded[..., 0], decoded[..., 2])


@pytest.mark.parametrize(
    "pixels", [np.array([[0, 70_000]], np.int32), np.array([[-5, 5]], np.int16), np.array([[0, 0.5]], np.float32)]
)
def test_pixels_without_a_known_range_are_refused(pixels):
    image = Image.fromarray(pixels.astype(np.int32) if pixels.dtype == np.int16 else pixels)
    with pytest.raises(ImageFault, match="of no known range; save it with 8 bits a channel"):
        decode(saved(image, "TIFF"))


@pytest.mark.parametrize("transparency", [3, bytes(range(256))])
def test_a_transparent_palette_keeps_its_colours(transparency):
    image = PICTURE.quantize(16)
    decoded = decode(saved(image, transparency=transparency))
    np.testing.assert_array_equal(decoded, np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_stand_upright(orientation):
    """EXIF's orientation says where the stored first row and column belong: TIFF 6.0, tag 274."""
    exif = Image.Exif()
    exif[274] = orientation
    turned = {
        1: PIXELS,
        2: PIXELS[:, ::-1],
        3: PIXELS[::-1, ::-1],
        4: PIXELS[::-1],
        5: PIXELS.swapaxes(0, 1),
        6: PIXELS[::-1].swapaxes(0, 1),
        7: PIXELS[::-1, ::-1].swapaxes(0, 1),
        8: PIXELS[:, ::-1].swapaxes(0, 1),
    }[orientation]
    np.testing.assert_array_equal(decode(saved(PICTURE, exif=exif)), turned)


def test_a_damaged_orientation_is_ignored():
    np.testing.assert_array_equal(decode(saved(PICTURE, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12")), PIXELS)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_of_an_animation_the_first_frame(kind):
    frames = [Image.new("RGB", (6, 4), colour) for colour in ("red", "lime", "blue")]
    decoded = decode(saved(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True))
    np.testing.assert_array_equal(decoded, np.asarray(frames[0]))


@pytest.mark.parametrize("size", [(1, 1), (20, 4000), (4000, 20)])
def test_extremes_of_size(size):
    assert decode(saved(Image.new("RGB", size, "lime"))).shape == (size[1], size[0], 3)


@pytest.mark.parametrize(
    ("size", "fault"),
    [
        ((1, 201), "has 1 x 201 pixels; a side may be at most 200 times the other"),
        ((60_000, 1), "has 60000 x 1 pixels; a side may be at most 200 times the other"),
        ((12_001, 100), "has 12001 x 100 pixels; a side may have at most 12000"),
    ],
)
def test_what_a_model_would_blow_up_is_refused(size, fault):
    with pytest.raises(ImageFault, match=fault):
        decode(saved(Image.new("L", size)))


def test_images_are_stored_smaller():
    photograph = saved(Image.new("RGB", (60, 40), "lime"), "JPEG", quality=95)
    small = decode(images.shrink(photograph, 10))
    assert small.shape == (10, 15, 3)
    np.testing.assert_array_equal(small, np.broadcast_to(decode(photograph)[0, 0], small.shape))
    assert images.shrink(photograph, 40) == photograph, "no image is enlarged, or written anew for nothing"


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "a Git LFS pointer"),
        (b"\n<!DOCTYPE html><title>404</title>", "a web page"),
    ],
)
def test_what_is_found_in_place_of_an_image_is_named(data, what):
    with pytest.raises(ImageFault, match=f"is {what}.*, not an image"):
        decode(data)


@pytest.mark.parametrize(
    ("there", "wanted", "hint"),
    [
        ("b.gif", "b.jpg", r" \('b.gif' does\)"),
        ("B.JPG", "b.jpg", r" \('B.JPG' does, whose name differs in case"),
        ("e\u0301.jpg", "\u00e9.jpg", "whose name differs in case or in the form of its Unicode characters"),
        ("b.jpg", "images\\b.jpg", r"does not separate folders; write '/'"),
        ("Images/b.jpg", "images/b.jpg", r" \(there is no folder 'images', but 'Images'\)"),
        ("b.txt", "b.jpg", "$"),
    ],
)
def test_a_missing_image_names_what_is_there_instead(there, wanted, hint, tmp_path):
    (tmp_path / there).parent.mkdir(exist_ok=True)
    (tmp_path / there).touch()
    with pytest.raises(images.MissingFault, match=f"does not exist{'' if hint == '$' else '.*'}{hint}"):
        images.read(epath.Path(tmp_path) / wanted)


def test_a_jpeg_of_several_pictures_is_a_jpeg():
    decoded = decode(saved(PICTURE, "MPO", save_all=True, append_images=[PICTURE]))
    np.testing.assert_array_equal(decoded, decode(saved(PICTURE, "JPEG")))


def outcome(data):
    """The pixels, or what is wrong; any other exception is a bug."""
    try:
        return decode(data)
    except ImageFault as fault:
        return str(fault)


def header_size(data):
    """Height and width as the damaged file's header says them; None where it has no header left."""
    try:
        with Image.open(io.BytesIO(data), formats=images.FORMATS) as image:
            ImageOps.exif_transpose(image, in_place=True)
            return image.height, image.width
    except Exception:  # whatever a decoder stumbles over
        return None


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"])
def test_cut_and_flipped_files_are_faults_or_pixels(kind):
    """A flipped bit can change the size that the header says; nothing else makes pixels of another shape."""
    data, rng = saved(PICTURE, kind), np.random.default_rng(1)
    for stop in range(0, len(data), max(1, len(data) // 24)):
        found = outcome(data[:stop])
        assert "is not a readable image" in found if isinstance(found, str) else found.shape == PIXELS.shape
    shapes = []
    for place in rng.integers(0, len(data), 40):
        flipped = bytearray(data)
        flipped[place] ^= 1 << rng.integers(8)
        found = outcome(bytes(flipped))
        if isinstance(found, str):
            assert found.startswith(("is not a readable image (", "has "))
        else:
            assert found.dtype == np.uint8
            assert found.shape == (*header_size(bytes(flipped)), 3)
            shapes.append(found.shape)
    assert shapes.count(PIXELS.shape) >= 3, "some bits spoil no more than pixels"


def test_more_bytes_than_are_read_are_a_fault(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MOST_BYTES", 10)
    path = epath.Path(tmp_path) / "a.png"
    path.write_bytes(bytes(11))
    with pytest.raises(ImageFault, match="has 11 bytes; between 1 and 10 are read"):
        images.read(path)
    path.write_bytes(b"")
    with pytest.raises(ImageFault, match="has 0 bytes"):
        images.read(path)
    with pytest.raises(images.MissingFault, match="does not exist"):
        images.read(epath.Path(tmp_path))
