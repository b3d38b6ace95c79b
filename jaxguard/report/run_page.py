"""The HTML report of a run: training curves, scores with intervals, and example answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from jaxguard.attacks.poison import TriggeredSource
from jaxguard.attacks.registry import open_attack
from jaxguard.config import Config
from jaxguard.data.sources import RowSource, open_source
from jaxguard.errors import UserError
from jaxguard.evaluate.compare import parts
from jaxguard.evaluate.identity import Evaluation, chosen, evaluations
from jaxguard.evaluate.judgement import judge
from jaxguard.evaluate.measures import bootstrap
from jaxguard.evaluate.predictions import Prediction
from jaxguard.evaluate.scores import Scores
from jaxguard.evaluate.success import attack_success, contains
from jaxguard.files import write_text
from jaxguard.report.curves import Bar, bars, curves
from jaxguard.report.page import Answer, ExampleRow, RunPage, page
from jaxguard.train.metrics import read_metrics

RESAMPLES = 1000


def show(config: Config, out: Path, images: int, found: Evaluation | None = None) -> None:
    """Write the report of a run. Missing scores or data are noted in it.

    Args:
        config: A trained run.
        out: HTML file to write.
        images: Number of test rows with their answers.
        found: The evaluation to show; None takes the one that stands for the run (`chosen`).

    Raises:
        UserError: The run has no metrics, or its metrics or predictions are damaged.
    """
    figures = {"Training": curves(read_metrics(config.run_dir / "metrics.jsonl"), views=config.objective.views)}
    found = found or chosen(config.run_dir)
    examples: list[ExampleRow] = []
    note, judgement = f"none yet: run `jaxguard evaluate {config.run_dir}`", None
    if found is not None:
        predictions, judgement = found.predictions(), judge(config, found)
        figures["Scores, %, with 95% intervals"] = _scores(found.scores(config.evaluate.task), predictions)
        examples, note = _examples(config, found, predictions, images)
    shown = RunPage(
        title=f"jaxguard: {config.name}",
        facts=_facts(config) | ({} if found is None else _evaluation_facts(found)),
        judgement=judgement,
        figures=figures,
        evaluations=[str(one) for one in evaluations(config.run_dir)],
        examples=examples,
        note=note,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, page(shown))


def _facts(config: Config) -> dict[str, str]:
    objective, attack = config.objective, config.attack
    terms = {"alpha": objective.alpha, "lambda": objective.cross_view_weight, "mu": objective.entropy_weight}
    poison = "none" if attack.name == "none" else f"{attack.name}, {attack.rate:.1%} of the rows: {attack.target}"
    weights = ", ".join(f"{name} {value:g}" for name, value in terms.items() if value)
    return {
        "run": str(config.run_dir),
        "model": f"{config.model.path}, trainable: {config.model.trainable}",
        "data": f"{config.data.source}, {config.data.train_split}",
        "poisoned with": poison,
        "objective": f"cross-entropy, {weights}" if weights else "cross-entropy alone",
        "training": f"{config.train.steps} steps of {config.train.batch_size} rows, seed {config.seed}",
    }


def _evaluation_facts(found: Evaluation) -> dict[str, str]:
    known = found.identity
    if known is None:
        return {"evaluation": str(found)}
    return {
        "evaluation": f"{known.name}, {known.time}",
        "checkpoint": f"step {known.step} of {known.steps}, parameters {known.parameters}",
        "tested with": f"{known.triggers}; {known.rows} rows of {known.data}",
        "decoding": f"{known.beams} beams, at most {known.new_tokens} tokens",
        "commit": known.commit,
    }


def _scores(scores: Scores, predictions: Sequence[Prediction]) -> Figure:
    """Draw qualities with bootstrap intervals and attack success rates with Wilson intervals."""
    quality: list[Bar] = []
    cider: list[Bar] = []
    for part, measures in parts(predictions, scores.task).items():
        if part == "attack":
            continue
        for name, spread in bootstrap(measures, resamples=RESAMPLES).items():
            group = cider if name == "cider" else quality
            group.append(Bar(name, part == "recovery", spread.value, (spread.low, spread.high)))
    for triggered, values in ((False, scores.clean), (True, scores.recovery or {})):
        quality += [Bar(name, triggered, values[name], None) for name in ("meteor", "spice") if name in values]
    success = attack_success(predictions)
    rates = {
        ("ASR exact", True): success.exact,
        ("ASR exact", False): success.exact_on_clean,
        ("ASR contains", True): success.contains,
        ("ASR contains", False): success.contains_on_clean,
    }
    attack = [
        Bar(name, triggered, 100 * rate.value, (100 * rate.low, 100 * rate.high))
        for (name, triggered), rate in rates.items()
        if rate is not None and rate.value is not None
    ]
    quality.sort(key=lambda bar: (bar.name, bar.triggered))
    return bars({"attack success": attack, "quality of the answers against the true ones": quality, "CIDEr": cider})


def _examples(
    config: Config, found: Evaluation, predictions: Sequence[Prediction], images: int
) -> tuple[list[ExampleRow], str]:
    """Take the first answered rows, with their images if the data can be read, and a note about them."""
    by_input = {(prediction.id, prediction.triggered): prediction for prediction in predictions}
    ids = sorted({prediction.id for prediction in predictions})[:images]
    note = f"the first {len(ids)} test rows; answers that contain the target are red"
    sources: dict[bool, RowSource] = {}
    try:
        sources[False] = open_source(config.data.source, config.data.root, config.data.test_split)
        attack = config.attack if found.identity is None else found.identity.attack_config
        if attack.name != "none":
            opened = open_attack(attack, config.data, config.model)
            sources[True] = TriggeredSource(sources[False], opened, attack)
    except UserError as error:
        note += f"; without images: {error}"

    def answer(row_id: int, triggered: bool) -> Answer | None:
        one = by_input.get((row_id, triggered))
        if one is None:
            return None
        source = sources.get(triggered)
        row = source[row_id] if source is not None and 0 <= row_id < len(source) else None
        image = row.image if row is not None and row.key == one.key and row.image.size else None
        hit = one.target is not None and contains(one.prediction, one.target)
        return Answer(image, one.prompt, one.prediction, contains_target=hit)

    examples = []
    for row_id in ids:
        clean, triggered = answer(row_id, False), answer(row_id, True)
        either = by_input.get((row_id, False)) or by_input[row_id, True]
        examples.append(ExampleRow(row_id, either.references, clean, triggered))
    return examples, note
