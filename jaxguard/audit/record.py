"""The files of an audit: its evidence by token, and the verdicts on phrases, which a person may change."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxguard.attacks.poison import PoisonedSource
from jaxguard.config import Config, to_dict
from jaxguard.data.encode import Encoder
from jaxguard.data.sources import RowSource, text_row
from jaxguard.errors import UserError
from jaxguard.files import write_text

if TYPE_CHECKING:
    from jaxguard.audit.findings import Findings

EVIDENCE, VERDICTS, REPORT = "evidence.parquet", "verdicts.csv", "report.json"
QUARANTINE, KEEP = "quarantine", "keep"
"""Verdicts on a phrase: rows that are flagged for it are taken out, or stay."""


def write_record(config: Config, findings: Findings, encoder: Encoder, source: RowSource, out: Path) -> dict[str, Any]:
    """Write report.json, evidence.parquet and verdicts.csv. Returns the report.

    Args:
        config: the run whose rows were audited.
        findings: of the audit.
        encoder: decodes tokens.
        source: the rows.
        out: folder; made if need be.
    """
    out.mkdir(parents=True, exist_ok=True)
    planted = findings.against(source.ids) if isinstance(source, PoisonedSource) else None
    report = {
        "config": to_dict(config),
        "texts": texts_digest(config, source),
        **findings.summary(encoder),
        "planted": planted,
    }
    write_text(out / REPORT, json.dumps(report, indent=1) + "\n")
    _write_evidence(findings, encoder, out / EVIDENCE)
    write_text(out / VERDICTS, _verdicts(report["groups"]))
    return report


def texts_digest(config: Config, source: RowSource) -> str:
    """Compute the SHA-256 of the keys and texts of the rows that an audit reads."""
    digest = hashlib.sha256()
    for index in range(config.data.limit or len(source)):
        row = text_row(source, index)
        digest.update(json.dumps([row.key, row.prompts, row.answers]).encode())
    return digest.hexdigest()


def read_report(folder: Path) -> dict[str, Any]:
    """Read the report of an audit's folder, each group with the verdict that verdicts.csv holds by now.

    Raises:
        UserError: the folder holds no audit, or a verdict is missing or is not one.
    """
    try:
        report: dict[str, Any] = json.loads((folder / REPORT).read_text())
        with (folder / VERDICTS).open(newline="") as file:
            lines = list(csv.DictReader(file))
        given = {int(line["group"]): line["verdict"].strip().lower() for line in lines}
        groups = report["groups"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{folder} is not the folder of an audit ({error!r}); write one with jaxguard audit FILE --out {folder}"
        ) from error
    for number, group in enumerate(groups):
        verdict = given.get(number)
        if verdict not in (QUARANTINE, KEEP):
            raise UserError(
                f"{folder / VERDICTS}: the verdict on group {number} ({group['phrase']!r}) is {verdict!r}: "
                f"must be {QUARANTINE} or {KEEP}"
            )
        group["verdict"] = verdict
    return report


def _verdicts(groups: list[dict[str, Any]]) -> str:
    """One line for each phrase, with the audit's own verdict."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["group", "verdict", "phrase", "suspicious answers", "answers", "rows", "p"])
    for number, group in enumerate(groups):
        verdict = QUARANTINE if group["convicted"] else KEEP
        counts = group["suspicious answers"], group["answers"], len(group["rows"])
        writer.writerow([number, verdict, group["phrase"], *counts, f"{group['p']:.3g}"])
    return text.getvalue()


def _write_evidence(findings: Findings, encoder: Encoder, path: Path) -> None:
    """One line for each answer token."""
    import pyarrow
    from pyarrow import parquet

    evidence = findings.evidence
    kinds, number = np.unique(evidence.tokens, return_inverse=True)
    texts = pyarrow.array([encoder.piece(int(token)) for token in kinds])
    table = pyarrow.table(
        {
            "row": evidence.rows,
            "pair": evidence.pairs,
            "token": evidence.tokens,
            "text": pyarrow.DictionaryArray.from_arrays(pyarrow.array(number.reshape(-1).astype(np.int32)), texts),
            "nll": evidence.nll,
            "entropy": evidence.entropy,
            "channel_surprise": findings.channel.astype(np.float32),
            "suspicious": findings.suspicious,
            "left_out": findings.left_out,
        }
    )
    partial = path.with_suffix(".partial")
    parquet.write_table(table, partial, compression="zstd")
    partial.replace(path)
