"""The gallery: every attack in every variant on the same images."""

from __future__ import annotations

from pathlib import Path

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


def gallery(out: Path, source: str, root: Path, images: int) -> None:
    """Draw the gallery as a PNG.

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
    examples = []
    for title, attack in EXAMPLES.items():
        trigger = open_attack(attack, data, ModelConfig())
        triggered = [trigger_row(trigger, attack, row) for row in rows]
        pairs = tuple(ImagePair(row.image, after.image) for row, after in zip(rows, triggered, strict=True))
        examples.append(AttackExample(title, rows[0].prompts[0], triggered[0].prompts[0], pairs))
    out.parent.mkdir(parents=True, exist_ok=True)
    draw(examples, out)
