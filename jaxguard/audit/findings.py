"""The audit of a run's rows: what the reference, the channel and repetition say of every answer token."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxguard.audit.channel import score
from jaxguard.audit.evidence import Evidence, Reference, Sight
from jaxguard.audit.groups import Group, Groups, convicted_tokens, find_groups
from jaxguard.audit.rows import EveryPair, Shown, rows_shown
from jaxguard.config import Config, GuardConfig
from jaxguard.data.encode import Encoder
from jaxguard.data.order import Index
from jaxguard.data.sources import RowSource
from jaxguard.models import folders
from jaxguard.train.loop import training_source

SIGHT_ROWS = 512
"""Number of rows on which the reference's sight is tested; at least one batch."""


@dataclass(frozen=True)
class Findings:
    """What was found in the rows of a run.

    Attributes:
        evidence: what the reference makes of each answer token.
        channel: surprise of each under the channel, nats.
        suspicious: tokens that surprise both.
        groups: phrases that begin with suspicious tokens; the convicted ones first.
        sight: whether the reference looks at the images; None if no row has one.
    """

    evidence: Evidence
    channel: Float[np.ndarray, " N"]
    suspicious: Bool[np.ndarray, " N"]
    groups: Groups
    sight: Sight | None

    @cached_property
    def left_out(self) -> Bool[np.ndarray, " N"]:
        """Tokens that the guard does not learn: suspicious ones, and those with which convicted phrases begin."""
        return self.suspicious | convicted_tokens(self.evidence, self.groups)

    @cached_property
    def flagged(self) -> Int[np.ndarray, " N"]:
        """Ids of the rows with an answer of a convicted phrase, rising."""
        return np.unique(np.concatenate([group.rows for group in self.groups.convicted] or [np.zeros(0, int)]))

    def summary(self, encoder: Encoder) -> dict[str, Any]:
        """Counts and groups, as JSON types."""
        evidence, out = self.evidence, self.left_out
        return {
            "rows": len(np.unique(evidence.rows)),
            "rows flagged": self.flagged.tolist(),
            "answers": int(evidence.first().sum()),
            "tokens": len(evidence.tokens),
            "tokens left out": int(out.sum()),
            "answers with tokens left out": len(np.unique(evidence.answers()[out])),
            "sight": None if self.sight is None else {**vars(self.sight), "sees": self.sight.sees},
            "phrases tested": self.groups.tested,
            "smallest count": self.groups.smallest,
            "groups": [
                {
                    "phrase": encoder.decode(np.array(group.phrase, np.int32)),
                    "convicted": group.convicted,
                    "p": group.p_value,
                    "suspicious answers": group.suspicious,
                    "answers": group.answers,
                    "rows": group.rows.tolist(),
                }
                for group in self.listed
            ],
        }

    @property
    def listed(self) -> list[Group]:
        """The groups that a report names: the convicted ones, and those that come more than once."""
        return [group for group in self.groups.found if group.convicted or group.suspicious > 1]

    def against(self, planted: Int[np.ndarray, " N"]) -> dict[str, float]:
        """Count what was missed and what was accused wrongly, where it is known which rows are poisoned.

        Args:
            planted: ids of the poisoned rows.

        Returns:
            Poisoned answers; those whose tokens would all be learnt ("missed"); percent of the clean tokens left out;
            poisoned and clean rows flagged; convicted phrases of clean rows alone.
        """
        answers, poisoned = self.evidence.answers(), np.isin(self.evidence.rows, planted)
        met = np.unique(answers[poisoned])
        clean = self.left_out[~poisoned]
        return {
            "poisoned answers": len(met),
            "missed": len(np.setdiff1d(met, answers[self.left_out])),
            "clean tokens left out %": 100 * float(clean.mean()) if len(clean) else 0.0,
            "poisoned rows": len(np.unique(self.evidence.rows[poisoned])),
            "poisoned rows flagged": len(np.intersect1d(self.flagged, planted)),
            "clean rows flagged": len(np.setdiff1d(self.flagged, planted)),
            "convicted phrases": len(self.groups.convicted),
            "false convictions": sum(not np.isin(group.rows, planted).any() for group in self.groups.convicted),
        }


def audit(config: Config) -> Findings:
    """Read every answer of a run's training rows with the model that it starts from, and judge them."""
    encoder = Encoder.from_checkpoint(folders.resolve(config.model.path))
    return audit_all(config, encoder, training_source(config))


def audit_shown(config: Config, encoder: Encoder, source: RowSource) -> Findings:
    """Read all rows that a run will show with the model that it starts from, and judge them.

    Args:
        config: the run.
        encoder: of its checkpoint.
        source: its training rows.
    """
    shown = rows_shown(config, encoder, source)
    reference = Reference(config, encoder, source)
    return judge(reference.read(shown), config.guard, _sight(config, reference, shown))


def audit_all(config: Config, encoder: Encoder, source: RowSource) -> Findings:
    """As `audit_shown`, for every answer of the rows, whether or not the run would show it."""
    every = EveryPair(source, config.data.limit)
    single = dataclasses.replace(config, data=dataclasses.replace(config.data, pack=1))
    reference = Reference(single, encoder, every)
    shown = [Shown(Index(0, number, config.data.length), (0,)) for number in range(len(every))]
    distinct = [shown[number] for number in np.flatnonzero(every.pairs == 0)]  # neighbours have other images
    evidence = reference.read(shown)
    evidence = dataclasses.replace(evidence, rows=every.rows[evidence.rows], pairs=every.pairs[evidence.rows])
    return judge(evidence, config.guard, _sight(config, reference, distinct))


def _sight(config: Config, reference: Reference, shown: list[Shown]) -> Sight | None:
    return reference.sight(shown[: max(SIGHT_ROWS, config.train.batch_size)])


def judge(evidence: Evidence, guard: GuardConfig, sight: Sight | None) -> Findings:
    """Suspicious are the tokens that surprise the reference, and the channel too."""
    channel = score(evidence).surprise
    suspicious = (evidence.surprise > guard.reference_surprise) & (channel > guard.channel_surprise)
    return Findings(evidence, channel, suspicious, find_groups(evidence, suspicious, guard.false_discoveries), sight)
