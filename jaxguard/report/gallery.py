"""The gallery: every attack, in every variant, on the same images."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from jaxguard.attacks.base import trigger_row
from jaxguard.attacks.registry import open_attack
from jaxguard.config import AttackConfig, Config, DataConfig
from jaxguard.data.sources import open_source
from jaxguard.errors import UserError
from jaxguard.report.gallery_picture import Exhibit, Piece, draw

EXHIBITS = {
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
    """Draw it as a PNG.

    Args:
        out: the file.
        source: whose first test rows are shown; its training rows teach the attacks that learn.
        root: where built data sets lie, and where what attacks learn is kept.
        images: how many rows.

    Raises:
        UserError: the data is missing, or has fewer rows.
    """
    config = Config(data=DataConfig(source=source, root=root))
    rows_of = open_source(source, root, config.data.test_split)
    if len(rows_of) < images:
        raise UserError(f"{source} has {len(rows_of)} test rows; ask for at most so many images")
    rows = [rows_of[index] for index in range(images)]
    exhibits = []
    for title, attack in EXHIBITS.items():
        trigger = open_attack(dataclasses.replace(config, attack=attack))
        marked = [trigger_row(trigger, attack, row) for row in rows]
        pieces = tuple(Piece(row.image, after.image) for row, after in zip(rows, marked, strict=True))
        exhibits.append(Exhibit(title, rows[0].prompts[0], marked[0].prompts[0], pieces))
    out.parent.mkdir(parents=True, exist_ok=True)
    draw(exhibits, out)
