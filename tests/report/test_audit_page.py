"""The page of an audit: whatever a row says, it stays text; what the images of a group share is drawn."""

import numpy as np
import pytest

from jaxguard.audit.evidence import Evidence, Sight
from jaxguard.audit.findings import Findings
from jaxguard.audit.groups import find_groups
from jaxguard.config import Config
from jaxguard.data.encode import Encoder
from jaxguard.data.rows import Row
from jaxguard.report.audit_page import audit_page, shared_pixels
from tests.report.test_page import HOSTILE, Reader


class Hostile(Encoder):
    """An encoder whose tokens are all one text."""

    def __init__(self, text: str):
        self.text = text

    def decode(self, tokens: np.ndarray) -> str:
        return self.text

    def piece(self, token: int) -> str:
        return self.text


COUNT = 500
"""Answers of the one phrase there is: fewer would not convict it."""


def made(text: str) -> str:
    count = COUNT
    suspicious = np.tile([True, False], count)
    evidence = Evidence(
        rows=np.arange(count).repeat(2),
        pairs=np.zeros(2 * count, int),
        tokens=np.tile([5, 6], count),
        nll=np.ones(2 * count),
        entropy=np.zeros(2 * count),
        alternatives=np.zeros((2 * count, 1), int),
        chances=np.ones((2 * count, 1)),
    )
    groups = find_groups(evidence, suspicious, 0.01)
    findings = Findings(evidence, np.ones(2 * count), suspicious, groups, Sight(1, 0.5, 1.5))
    pixels = np.zeros((8, 8, 3), np.uint8)
    rows = [Row(number, str(number), pixels, ("q",), (text,), (text,)) for number in range(count)]
    return audit_page(Config(), findings, Hostile(text), rows)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_rows_stay_text(text: str) -> None:
    harmless, document = Reader(made("harmless")), made(text)
    assert [tag for tag, _ in Reader(document).tags] == [tag for tag, _ in harmless.tags]
    assert "script" not in {tag for tag, _ in Reader(document).tags}
    if len(text) < 400:
        assert "".join(Reader(document).texts).count(text) == "".join(harmless.texts).count("harmless") > 5


def test_the_page_says_what_was_convicted() -> None:
    text = "".join(Reader(made("phrase")).texts)
    assert f"convicted; suspicious in {COUNT} of {COUNT} answers; p = " in text
    assert "yes; with another row's image an answer token's NLL rises by 1.00 nats [0.50, 1.50]" in text


def test_what_images_share_has_no_spread() -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (16, 16, 3), dtype=np.uint8) for _ in range(50)]
    for image in images:
        image[:4, :4] = 200
    found = shared_pixels(images)
    assert found is not None
    mean, spread = found
    assert (mean[:4, :4] == 200).all()
    assert (spread[:4, :4] == 0).all()
    assert spread[4:].min() > 100
    assert shared_pixels([images[0], images[1][:8]]) is None
