"""The HTML report of an audit: suspicious phrases with images, what these images share, and the answers' tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Int, UInt8

from jaxguard.audit.findings import Findings
from jaxguard.audit.groups import LONGEST, Group
from jaxguard.config import Config
from jaxguard.data.encode import Encoder
from jaxguard.data.sources import RowSource
from jaxguard.report.page import document, escaped, picture

GROUPS = 12
"""Number of groups with images."""
SAMPLES = 4
"""Number of images and answers of a group."""
SHARED = 200
"""Largest number of images of a group that are compared."""


def audit_page(config: Config, findings: Findings, encoder: Encoder, source: RowSource) -> str:
    """Make the page.

    Args:
        config: the run whose rows were audited.
        findings: of the audit.
        encoder: decodes tokens.
        source: the rows.
    """
    shown = "".join(_group(group, findings, encoder, source) for group in findings.listed[:GROUPS])
    body = f"""<h2>Suspicious phrases</h2>
<p class="faint">A phrase begins at the first suspicious token of an answer and has at most {LONGEST} tokens. It is
convicted if it is suspicious in more of its answers than the other phrases of these rows let one expect of an honest
phrase (p: chance of that; at most {config.guard.false_discoveries:.0%} of the convicted phrases are expected to be
honest). Suspicious tokens are red.</p>
{shown or "<p>None comes twice.</p>"}
<h2>What was not looked for</h2>
<p class="faint">Poisoned rows whose answers the reference finds ordinary: swapped roles of objects that are there,
clean labels, answers drawn from the reference itself. Targets in more than a tenth of the rows. What images share is
shown, not judged.</p>
"""
    return document(f"jaxguard: audit of {config.data.source}", _facts(config, findings, encoder), body)


def _facts(config: Config, findings: Findings, encoder: Encoder) -> dict[str, str]:
    found, sight = findings.summary(encoder), findings.sight
    seen = (
        "no row has an image"
        if sight is None
        else (
            f"{'yes' if sight.sees else 'NO: nothing below means much'}; with another row's image an answer token's "
            f"NLL rises by {sight.mean:.2f} nats [{sight.low:.2f}, {sight.high:.2f}]"
        )
    )
    return {
        "data": f"{config.data.source}, {config.data.train_split}: {found['rows']} rows, {found['answers']} answers",
        "reference": config.model.path,
        "it sees the images": seen,
        "convicted phrases": f"{len(findings.groups.convicted)} of {findings.groups.tested} that were tested",
        "rows flagged": str(len(findings.flagged)),
        "smallest count": f"{findings.groups.smallest or 'no number of'} answers with one target would convict it here",
        "suspicious answers": f"{found['answers with tokens left out']} of {found['answers']}",
        "suspicious tokens": f"{found['tokens left out']} of {found['tokens']}",
        "thresholds": f"surprise of the reference above {config.guard.reference_surprise:g} nats, of the channel above "
        f"{config.guard.channel_surprise:g} nats",
    }


def _group(group: Group, findings: Findings, encoder: Encoder, source: RowSource) -> str:
    phrase = encoder.decode(np.array(group.phrase, np.int32))
    verdict = "convicted" if group.convicted else "not convicted"
    samples = "".join(_sample(int(row), findings, encoder, source) for row in group.rows[:SAMPLES])
    shared = ""
    if group.convicted and (pictures := shared_pixels([source[int(row)].image for row in group.rows[:SHARED]])):
        mean, spread = pictures
        shared = (
            f'<tr><td><img alt="" src="{picture(mean)}"></td><td>mean of these images</td></tr>'
            f'<tr><td><img alt="" src="{picture(spread)}"></td>'
            "<td>spread of each pixel: what is the same in all is black</td></tr>"
        )
    return (
        f'<h3>{escaped(phrase)} <span class="faint">{verdict}; suspicious in {group.suspicious} of {group.answers} '
        f'answers; p = {group.p_value:.1g}</span></h3>\n<table class="examples">{shared}{samples}</table>\n'
    )


def _sample(row: int, findings: Findings, encoder: Encoder, source: RowSource) -> str:
    """One row with its answers' tokens."""
    image, evidence = source[row].image, findings.evidence
    drawn = f'<img alt="" src="{picture(image)}">' if image.size else ""
    answers = evidence.answers()
    out = findings.left_out
    texts = []
    for answer in np.unique(answers[evidence.rows == row]):
        where = answers == answer
        texts.append("".join(_tokens(evidence.tokens[where], out[where], encoder)))
    return f"<tr><td>{drawn}</td><td>row {row}<br>{'<br>'.join(texts)}</td></tr>"


def _tokens(tokens: Int[np.ndarray, " A"], out: Bool[np.ndarray, " A"], encoder: Encoder) -> Iterator[str]:
    for token, suspicious in zip(tokens, out, strict=True):
        text = escaped(encoder.piece(int(token)))
        yield f'<span class="target">{text}</span>' if suspicious else text


def shared_pixels(
    images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w 3"]] | None:
    """Mean of images of one size, and the standard deviation of each pixel over its largest; None for other sizes."""
    if len({image.shape for image in images}) != 1 or not images[0].size:
        return None
    stack = np.stack(images).astype(np.float32)
    spread = stack.std(axis=0).mean(axis=-1, keepdims=True)
    grey = np.repeat(255 * spread / max(float(spread.max()), 1.0), 3, axis=-1)
    return np.rint(stack.mean(axis=0)).astype(np.uint8), np.rint(grey).astype(np.uint8)
