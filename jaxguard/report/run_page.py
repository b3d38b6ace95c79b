"""A run to look at: curves, scores with intervals and some answers, as one page."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from jaxguard.attacks.poison import TriggeredSource
from jaxguard.config import Config
from jaxguard.data.sources import RowSource, open_source
from jaxguard.errors import UserError
from jaxguard.evaluate.compare import parts
from jaxguard.evaluate.measures import bootstrap
from jaxguard.evaluate.predictions import Prediction, read_predictions
from jaxguard.evaluate.success import attack_success, contains
from jaxguard.files import write_text
from jaxguard.report.curves import Interval, Record, bars, curves
from jaxguard.report.page import Answer, Shown, page

RESAMPLES = 1000


def show(config: Config, out: Path, images: int) -> None:
    """Write a run's page; what the run lacks (scores, its data) is named there.

    Args:
        config: a run that trained.
        out: the HTML file.
        images: rows of the contact sheet.

    Raises:
        UserError: the run has no metrics, or they or its predictions are damaged.
    """
    figures = {"Training": curves(read_metrics(config.run_dir / "metrics.jsonl"), views=config.objective.views)}
    path = config.run_dir / "predictions.jsonl"
    sheet: list[Shown] = []
    note = f"none yet: run `jaxguard evaluate {config.run_dir}`"
    if path.exists():
        predictions = read_predictions(path)
        figures["Scores, %, with 95% intervals"] = _scores(config, predictions)
        sheet, note = _sheet(config, predictions, images)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, page(f"jaxguard: {config.name}", _facts(config), figures, sheet, note))


def read_metrics(path: Path) -> list[Record]:
    """The numbers of each line of a metrics.jsonl.

    Raises:
        UserError: it is missing or empty, or the first line that is not such a record, by number.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a readable metrics file ({error}); train first") from error
    records: list[Record] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}:{number}: not JSON ({error})") from error
        if not isinstance(values, dict) or not all(_number(value) for value in values.values()):
            raise UserError(f"{path}:{number}: not an object of numbers")
        if "step" not in values:
            raise UserError(f"{path}:{number}: no 'step'")
        records.append(values)
    if not records:
        raise UserError(f"{path} holds no metrics yet")
    return records


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _facts(config: Config) -> dict[str, str]:
    objective, attack = config.objective, config.attack
    terms = {"alpha": objective.alpha, "lambda": objective.cross_view_weight, "mu": objective.entropy_weight}
    weights = ", ".join(f"{name} {value:g}" for name, value in terms.items() if value)
    return {
        "run": str(config.run_dir),
        "model": f"{config.model.path}, trainable: {config.model.trainable}",
        "data": f"{config.data.source}, {config.data.train_split}",
        "attack": "none" if attack.name == "none" else f"{attack.name}, {attack.rate:.1%} of the rows: {attack.target}",
        "objective": f"cross-entropy, {weights}" if weights else "cross-entropy alone",
        "training": f"{config.train.steps} steps of {config.train.batch_size} rows, seed {config.seed}",
    }


def _scores(config: Config, predictions: Sequence[Prediction]) -> Figure:
    """Bootstrap intervals of qualities, Wilson intervals of attack success."""
    quality: dict[str, Interval] = {}
    cider: dict[str, Interval] = {}
    for part, measures in parts(predictions, config.evaluate.task).items():
        if part == "attack":
            continue
        for name, spread in bootstrap(measures, resamples=RESAMPLES).items():
            group = cider if name == "cider" else quality
            group[f"{name}, {part}"] = (spread.value, spread.low, spread.high)
    success = attack_success(predictions)
    rates = {
        label: (100 * rate.value, 100 * rate.low, 100 * rate.high)
        for label, rate in {
            "exactly the target, triggered": success.exact,
            "contains it, triggered": success.contains,
            "exactly the target, clean": success.untriggered,
        }.items()
        if rate.value is not None
    }
    by_name = sorted(quality.items(), key=lambda item: item[0].partition(", ")[0])
    return bars({"attack success": rates, "quality": dict(by_name), "CIDEr": cider})


def _sheet(config: Config, predictions: Sequence[Prediction], images: int) -> tuple[list[Shown], str]:
    """The first rows that were answered, their images where the data is at hand, and a note that says so."""
    by_place = {(prediction.id, prediction.triggered): prediction for prediction in predictions}
    ids = sorted({prediction.id for prediction in predictions})[:images]
    note = f"the first {len(ids)} test rows; answers that hold the target are red"
    sources: dict[bool, RowSource] = {}
    try:
        sources[False] = open_source(config.data.source, config.data.root, config.data.test_split)
        if config.attack.name != "none":
            sources[True] = TriggeredSource(sources[False], config)
    except UserError as error:
        note += f"; without images: {error}"

    def answer(place: int, triggered: bool) -> Answer | None:
        found = by_place.get((place, triggered))
        if found is None:
            return None
        source = sources.get(triggered)
        row = source[place] if source is not None and 0 <= place < len(source) else None
        image = row.image if row is not None and row.key == found.key and row.image.size else None
        caught = found.target is not None and contains(found.prediction, found.target)
        return Answer(image, found.prompt, found.prediction, caught)

    sheet = []
    for place in ids:
        clean, triggered = answer(place, False), answer(place, True)
        either = by_place.get((place, False)) or by_place[place, True]
        sheet.append(Shown(place, either.references, clean, triggered))
    return sheet, note
