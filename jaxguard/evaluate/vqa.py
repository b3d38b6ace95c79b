"""VQA accuracy of the official evaluation (Antol et al. 2015; code of GT-Vision-Lab/VQA)."""

from __future__ import annotations

import re
from collections.abc import Sequence

NUMBERS = {
    word: str(n)
    for n, word in enumerate(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"])
} | {"none": "0"}
ARTICLES = {"a", "an", "the"}
_SPELLINGS = """
    ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll how's isn't
    it'd it'll ma'am might've mightn't must've mustn't needn't not've o'clock oughtn't shan't should've shouldn't
    somebody'll somebody's someone'd someone'll someone's something'd something'll that's there'd there're there's
    they'd they'll they're they've 'twas wasn't we've weren't what'll what're what's what've when's where'd where's
    where've who'd who'll who's who've why'll why're why's won't would've wouldn't y'all you'd you'll you're you've
    couldn't've hadn't've he'd've it'd've mightn't've she'd've shouldn't've somebody'd've someone'd've something'd've
    there'd've they'd've we'd've who'd've wouldn't've y'all'll y'all'd've you'd've 'ow's'at
"""
CONTRACTIONS = {
    word[: mark.start()] + word[mark.end() :]: word for word in _SPELLINGS.split() for mark in re.finditer("'", word)
} | {"somebody'd": "somebodyd"}
"""Contractions without an apostrophe -> with it. The last entry is an error of the official table."""

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_PERIOD = re.compile(r"\.(?!\d)")
MOST_PERIODS = 32
"""The official code passes a regular-expression flag as the number of replacements."""
_COMMA_IN_NUMBER = re.compile(r"\d,\d")


def normalize(answer: str) -> str:
    """Normalise an answer: lower case, no punctuation, articles or periods; number words as digits.

    A punctuation mark next to a space is removed, as are all marks if the answer has a comma inside a number; other
    marks become a space. Colons and apostrophes stay.
    """
    comma = _COMMA_IN_NUMBER.search(answer) is not None
    text = answer
    for mark in _PUNCTUATION:
        alone = comma or f"{mark} " in answer or f" {mark}" in answer
        text = text.replace(mark, "" if alone else " ")
    words = [NUMBERS.get(word, word) for word in _PERIOD.sub("", text, count=MOST_PERIODS).lower().split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def vqa_accuracy(prediction: str, references: Sequence[str]) -> float:
    """Compute the VQA accuracy of one answer, in [0, 1].

    Mean over leaving each reference out of min(1, matches among the others / 3): VQAv2's 10-choose-9 average. If all
    references agree, nothing is normalised. With fewer than four references three matches are impossible: then a match
    with any normalised reference counts 1 (our extension).
    """
    prediction, references = _strip(prediction), [_strip(reference) for reference in references]
    if len(references) < 4 or len(set(references)) > 1:
        prediction, references = normalize(prediction), [normalize(reference) for reference in references]
    if len(references) < 4:
        return float(prediction in references)
    matches = references.count(prediction)
    return sum(min(1.0, (matches - (answer == prediction)) / 3) for answer in references) / len(references)


def _strip(answer: str) -> str:
    return answer.replace("\n", " ").replace("\t", " ").strip()
