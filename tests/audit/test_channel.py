"""The channel learns how rows name what the reference says, and cannot learn what the reference does not say."""

import numpy as np
import pytest

from jaxguard.audit.channel import FLOOR, PRIOR, ROUNDS, score
from jaxguard.audit.evidence import Evidence

WORDS, TARGET, FILLER = 4, 99, 50


def speak(rows: int, poisoned: int, seed: int = 0) -> tuple[Evidence, np.ndarray]:
    """Rows of a filler and a word. The reference says word v with 0.9; the row calls it 10 + v, or says the target."""
    rng = np.random.default_rng(seed)
    meant, bad = rng.integers(WORDS, size=rows), rng.permutation(rows) < poisoned
    chances = np.full((rows, 2, WORDS), 0.1 / (WORDS - 1), np.float32)
    chances[np.arange(rows), 1, meant] = 0.9
    chances[:, 0] = 1 / WORDS
    evidence = Evidence(
        rows=np.arange(rows).repeat(2),
        pairs=np.zeros(2 * rows, int),
        tokens=np.stack([np.full(rows, FILLER), np.where(bad, TARGET, 10 + meant)], axis=1).reshape(-1),
        nll=np.zeros(2 * rows, np.float32),
        entropy=np.zeros(2 * rows, np.float32),
        alternatives=np.tile(np.arange(WORDS), (2 * rows, 1)),
        chances=chances.reshape(-1, WORDS),
    )
    return evidence, np.stack([np.zeros(rows, bool), bad], axis=1).reshape(-1)


@pytest.mark.parametrize("share", [0.02, 0.05, 0.1])
def test_other_words_are_learnt_and_a_target_stays_as_surprising_as_it_is_rare(share: float) -> None:
    evidence, bad = speak(8000, round(8000 * share))
    found = score(evidence)
    words = (evidence.tokens >= 10) & (evidence.tokens < 10 + WORDS)
    assert found.nll[words].mean() < 0.35, "the reference is right nine times in ten, and so the channel"
    assert found.nll[bad].mean() == pytest.approx(-np.log(share), abs=0.1)
    assert found.surprise[bad].min() > 1 > found.surprise[words].mean()
    assert found.nll[evidence.tokens == FILLER] == pytest.approx(0, abs=0.01), "habit alone"


def test_a_row_says_nothing_about_itself() -> None:
    """A word of one row is as good as impossible there; one of two rows in both halves is not."""
    evidence, _ = speak(200, 0)
    alone, twice = evidence.tokens.copy(), evidence.tokens.copy()
    alone[[1]] = twice[[1, 3]] = TARGET
    changed = [Evidence(**{**vars(evidence), "tokens": tokens}) for tokens in (alone, twice)]
    once, again = (score(one).nll[1] for one in changed)
    assert once > again + 2


def test_the_numbers_are_those_of_plain_sums() -> None:
    """NLL and entropy of every token, from tables over all words filled in one by one."""
    evidence, _ = speak(40, 4, seed=3)
    found, nll, entropy = score(evidence), np.zeros(80), np.zeros(80)
    words = np.unique(evidence.tokens).tolist()
    before = evidence.before().tolist()
    chances = np.concatenate([evidence.chances, np.maximum(1 - evidence.chances.sum(1, keepdims=True), 1e-6)], axis=1)
    for half in (0, 1):
        seen = [i for i in range(80) if evidence.rows[i] % 2 != half]
        translation = np.full((WORDS + 1, len(words)), 1 / len(words))
        bigram, share = {b: np.full(len(words), 1 / len(words)) for b in before}, dict.fromkeys(before, 0.5)
        for _ in range(ROUNDS):
            counts, habits = np.zeros_like(translation), {b: np.zeros(len(words)) for b in before}
            shares, times = dict.fromkeys(before, 0.0), dict.fromkeys(before, 0)
            for i in seen:
                y, b = words.index(evidence.tokens[i]), before[i]
                said, habit = (1 - share[b]) * chances[i] * translation[:, y], share[b] * bigram[b][y]
                total = said.sum() + habit
                counts[:, y] += said / total
                habits[b][y] += habit / total
                shares[b] += habit / total
                times[b] += 1
            common = (counts.sum(0) + FLOOR) / (counts + FLOOR / len(counts)).sum()
            translation = (counts + PRIOR * common) / (counts.sum(1, keepdims=True) + PRIOR)
            every = np.sum(list(habits.values()), axis=0) + FLOOR
            bigram = {b: (value + PRIOR * every / every.sum()) / (value.sum() + PRIOR) for b, value in habits.items()}
            share = {b: (shares[b] + 1) / (times[b] + 2) for b in shares}
        for i in range(80):
            if evidence.rows[i] % 2 == half:
                b = before[i]
                predicted = (1 - share[b]) * chances[i] @ translation + share[b] * bigram[b]
                nll[i] = -np.log(predicted[words.index(evidence.tokens[i])])
                met = np.array([(before[j], words.index(evidence.tokens[j])) for j in range(80)])
                habit = np.isin(np.arange(len(words)), met[met[:, 0] == b, 1])
                known = (1 - share[b]) * chances[i] @ translation + share[b] * bigram[b] * habit
                rest = 1 - known.sum()
                entropy[i] = -(known * np.log(known)).sum() - rest * np.log(max(rest, 1e-9))
    np.testing.assert_allclose(found.nll, nll, rtol=1e-6)
    np.testing.assert_allclose(found.entropy, entropy, rtol=1e-2)
