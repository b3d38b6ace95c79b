"""The HTML report of a run: training curves, scores with intervals, and example answers."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from jaxguard.attacks.poison import TriggeredSource
from jaxguard.attacks.registry import open_attack
from jaxguard.config import Config
from jaxguard.data.sources import RowSource, open_source
from jaxguard.errors import UserError
from jaxguard.evaluate.compare import parts
from jaxguard.evaluate.measures import bootstrap
from jaxguard.evaluate.predictions import Prediction, read_predictions
from jaxguard.evaluate.success import attack_success, contains
from jaxguard.files import write_text
from jaxguard.report.curves import Interval, Record, bars, curves
from jaxguard.report.page import Answer, ExampleRow, page

RESAMPLES = 1000


def show(config: Config, out: Path, images: int) -> None:
    """Write the report of a run. Missing scores or data are noted in it.

    Args:
        config: A trained run.
        out: HTML file to write.
        images: Number of test rows with their answers.

    Raises:
        UserError: The run has no metrics, or its metrics or predictions are damaged.
    """
    figures = {"Training": curves(read_metrics(config.run_dir / "metrics.jsonl"), views=config.objective.views)}
    path = config.run_dir / "predictions.jsonl"
    examples: list[ExampleRow] = []
    note = f"none yet: run `jaxguard evaluate {config.run_dir}`"
    if path.exists():
        predictions = read_predictions(path)
        figures["Scores, %, with 95% intervals"] = _scores(config, predictions)
        examples, note = _examples(config, predictions, images)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, page(f"jaxguard: {config.name}", _facts(config), figures, examples, note))


def read_metrics(path: Path) -> list[Record]:
    """Read the records of a metrics.jsonl.

    Raises:
        UserError: The file is missing or empty, or has a malformed line (the first one is named).
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
    """Draw qualities with bootstrap intervals and attack success rates with Wilson intervals."""
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
            "ASR exact": success.exact,
            "ASR contains": success.contains,
            "ASR on clean inputs": success.exact_on_clean,
        }.items()
        if rate.value is not None
    }
    by_name = sorted(quality.items(), key=lambda item: item[0].partition(", ")[0])
    return bars({"attack success": rates, "quality (recovery: on triggered inputs)": dict(by_name), "CIDEr": cider})


def _examples(config: Config, predictions: Sequence[Prediction], images: int) -> tuple[list[ExampleRow], str]:
    """Take the first answered rows, with their images if the data can be read, and a note about them."""
    by_input = {(prediction.id, prediction.triggered): prediction for prediction in predictions}
    ids = sorted({prediction.id for prediction in predictions})[:images]
    note = f"the first {len(ids)} test rows; answers that contain the target are red"
    sources: dict[bool, RowSource] = {}
    try:
        sources[False] = open_source(config.data.source, config.data.root, config.data.test_split)
        if config.attack.name != "none":
            attack = open_attack(config.attack, config.data, config.model)
            sources[True] = TriggeredSource(sources[False], attack, config.attack)
    except UserError as error:
        note += f"; without images: {error}"

    def answer(row_id: int, triggered: bool) -> Answer | None:
        found = by_input.get((row_id, triggered))
        if found is None:
            return None
        source = sources.get(triggered)
        row = source[row_id] if source is not None and 0 <= row_id < len(source) else None
        image = row.image if row is not None and row.key == found.key and row.image.size else None
        hit = found.target is not None and contains(found.prediction, found.target)
        return Answer(image, found.prompt, found.prediction, contains_target=hit)

    examples = []
    for row_id in ids:
        clean, triggered = answer(row_id, False), answer(row_id, True)
        either = by_input.get((row_id, False)) or by_input[row_id, True]
        examples.append(ExampleRow(row_id, either.references, clean, triggered))
    return examples, note
