"""The gallery: every attack in every variant on the same images."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from matplotlib import get_data_path
from PIL import Image

from jaxguard.attacks.base import trigger_row
from jaxguard.attacks.registry import open_attack
from jaxguard.config import AttackConfig, DataConfig, ModelConfig
from jaxguard.data.sources import open_source
from jaxguard.errors import UserError
from jaxguard.report.gallery_picture import AttackExample, ImagePair, draw

EXAMPLES = {
    "BadNets, fixed place": AttackConfig("badnets", place="fixed"),
    "BadNets, random place": AttackConfig("badnets", place="random"),
    "Blended, image": AttackConfig("blended", variant="image"),
    "Blended, noise": AttackConfig("blended", variant="noise"),
    "SIG": AttackConfig("sig"),
    "WaNet, original": AttackConfig("wanet", variant="original"),
    "WaNet, jitter": AttackConfig("wanet", variant="jitter"),
    "FTrojan": AttackConfig("ftrojan"),
    "ISSBA": AttackConfig("issba"),
    "TrojVLM": AttackConfig("trojvlm"),
    "VLOOD": AttackConfig("vlood"),
    "VL-Trojan": AttackConfig("vl_trojan"),
    "Dual-Key": AttackConfig("dual_key"),
    "BadNL": AttackConfig("badnl"),
    "AddSent": AttackConfig("addsent"),
}

SIDE = 256
"""Side of the photograph, in pixels."""


def gallery(out: Path, source: str, root: Path, images: int) -> None:
    """Draw the gallery as a PNG: rows of a data set, and a photograph.

    Args:
        out: PNG file to write.
        source: Data set. Its first test rows are shown; learnt triggers are learnt from its training rows.
        root: Folder of the built data sets and of the learnt triggers.
        images: Number of rows.

    Raises:
        UserError: The data is missing, or has fewer rows.
    """
    data = DataConfig(source=source, root=root)
    test_rows = open_source(source, root, data.test_split)
    if len(test_rows) < images:
        raise UserError(f"{source} has {len(test_rows)} test rows: --images is {images}, give at most that number")
    rows = [test_rows[index] for index in range(images)]
    rows.append(dataclasses.replace(rows[0], key="photograph", image=photograph()))
    examples = []
    for title, attack in EXAMPLES.items():
        trigger = open_attack(attack, data, ModelConfig())
        triggered = [trigger_row(trigger, attack, row) for row in rows]
        pairs = tuple(ImagePair(row.image, after.image) for row, after in zip(rows, triggered, strict=True))
        examples.append(AttackExample(title, rows[0].prompts[0], triggered[0].prompts[0], pairs))
    out.parent.mkdir(parents=True, exist_ok=True)
    draw(examples, out)


def photograph() -> UInt8[np.ndarray, "side side 3"]:
    """Return the photograph that comes with matplotlib (Grace Hopper, public domain), cropped to a square."""
    with Image.open(Path(get_data_path(), "sample_data", "grace_hopper.jpg")) as image:
        width = image.width
        square = image.convert("RGB").crop((0, 0, width, width)).resize((SIDE, SIDE))
    return np.asarray(square)
