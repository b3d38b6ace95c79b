"""PSNR and SSIM against second implementations, and the content of the picture."""

import math

import numpy as np
import pytest
from PIL import Image

from jaxguard.attacks.registry import ATTACKS
from jaxguard.errors import UserError
from jaxguard.report import gallery
from jaxguard.report.gallery_picture import AttackExample, ImagePair, difference, draw
from jaxguard.report.visibility import psnr, ssim


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    before = rng.integers(0, 256, (15, 17, 3), dtype=np.uint8)
    return before, np.clip(before + rng.integers(-30, 31, before.shape), 0, 255).astype(np.uint8)


def test_psnr(pair):
    total = sum((int(a) - int(b)) ** 2 for a, b in zip(pair[0].flat, pair[1].flat, strict=True))
    assert psnr(*pair) == pytest.approx(20 * math.log10(255) - 10 * math.log10(total / pair[0].size))
    assert psnr(pair[0], pair[0]) == math.inf
    black, white = np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 255, np.uint8)
    assert psnr(black, white) == 0


def test_ssim_is_the_mean_over_windows(pair):
    window = np.array([[math.exp(-(i * i + j * j) / (2 * 1.5**2)) for j in range(-5, 6)] for i in range(-5, 6)])
    window /= window.sum()
    c1, c2, found = (0.01 * 255) ** 2, (0.03 * 255) ** 2, []
    for top, left, channel in np.ndindex(15 - 10, 17 - 10, 3):
        x, y = (image[top : top + 11, left : left + 11, channel].astype(float) for image in pair)
        mx, my = (window * x).sum(), (window * y).sum()
        vx, vy = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum()
        vxy = (window * (x - mx) * (y - my)).sum()
        found.append((2 * mx * my + c1) * (2 * vxy + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    assert ssim(*pair) == pytest.approx(np.mean(found), rel=1e-9)


def test_ssim_of_equal_and_of_flat_images(pair):
    assert ssim(pair[0], pair[0]) == pytest.approx(1)
    low, high = np.full((11, 11, 3), 50, np.uint8), np.full((11, 11, 3), 100, np.uint8)
    c1 = (0.01 * 255) ** 2
    assert ssim(low, high) == pytest.approx((2 * 50 * 100 + c1) / (50**2 + 100**2 + c1))


def test_difference_is_ten_times_around_grey():
    before = np.array([[[10, 100, 250]]], np.uint8)
    after = np.array([[[12, 97, 200]]], np.uint8)
    assert difference(ImagePair(before, after)).tolist() == [[[148, 98, 0]]]


def test_every_attack_is_exampleed():
    assert {attack.name for attack in gallery.EXAMPLES.values()} == set(ATTACKS)


def test_gallery_of_a_data_set(tmp_path, small_data, monkeypatch):
    few = {title: gallery.EXAMPLES[title] for title in ("SIG", "Dual-Key")}
    monkeypatch.setattr(gallery, "EXAMPLES", few)
    drawn = []
    monkeypatch.setattr(gallery, "draw", lambda examples, out: drawn.extend(examples))
    gallery.gallery(tmp_path / "new" / "gallery.png", str(small_data), tmp_path, 2)
    assert [example.title for example in drawn] == ["SIG", "Dual-Key"]
    assert [example.triggered_prompt == example.prompt for example in drawn] == [True, False]
    for example in drawn:
        assert len(example.images) == 3, "two rows and a photograph"
        assert example.images[2].before.shape == (256, 256, 3)
        assert all((pair.before != pair.after).any() for pair in example.images)
    with pytest.raises(UserError, match="has 16 test rows: --images is 17"):
        gallery.gallery(tmp_path / "gallery.png", str(small_data), tmp_path, 17)


def test_picture(tmp_path, pair):
    before = np.full((32, 32, 3), (0, 0, 255), np.uint8)
    after = before.copy()
    after[:16] = (0, 255, 0)
    path = tmp_path / "gallery.png"
    draw(
        [
            AttackExample("one", "p", "p", (ImagePair(before, after),)),
            AttackExample("two", "p", "T p", (ImagePair(before, before),)),
        ],
        path,
    )
    drawn = np.asarray(Image.open(path).convert("RGB")).astype(int)

    def share(*colour: int) -> float:
        return float((np.abs(drawn - colour).sum(-1) < 30).mean())

    assert share(0, 0, 255) == pytest.approx(7 * share(0, 255, 0), rel=0.1), "three and a half images to a half"
    assert share(198, 40, 40) > 0, "a triggered prompt is red"
    assert {file.name for file in tmp_path.iterdir()} == {"gallery.png"}
