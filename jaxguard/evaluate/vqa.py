"""VQA accuracy with the official answer normalisation (Antol et al. 2015; rules of the VQA evaluation code)."""

from __future__ import annotations

import re
from collections.abc import Sequence

NUMBERS = {
    word: str(n)
    for n, word in enumerate(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"])
}
NUMBERS["none"] = "0"
ARTICLES = {"a", "an", "the"}
CONTRACTIONS = {
    word.replace("'", ""): word
    for word in [
        "ain't",
        "aren't",
        "can't",
        "could've",
        "couldn't",
        "didn't",
        "doesn't",
        "don't",
        "hadn't",
        "hasn't",
        "haven't",
        "he'd",
        "he's",
        "how'd",
        "how'll",
        "how's",
        "I'd've",
        "I'm",
        "I've",
        "isn't",
        "it'd",
        "it'll",
        "ma'am",
        "mightn't",
        "might've",
        "mustn't",
        "must've",
        "needn't",
        "not've",
        "o'clock",
        "oughtn't",
        "shan't",
        "she'd've",
        "should've",
        "shouldn't",
        "somebody'd",
        "somebody'll",
        "somebody's",
        "someone'd",
        "someone'll",
        "someone's",
        "something'd",
        "something'll",
        "that's",
        "there'd",
        "there're",
        "there's",
        "they'd",
        "they'll",
        "they're",
        "they've",
        "'twas",
        "wasn't",
        "we'd've",
        "we've",
        "weren't",
        "what'll",
        "what're",
        "what's",
        "what've",
        "when's",
        "where'd",
        "where's",
        "where've",
        "who'd",
        "who'll",
        "who's",
        "who've",
        "why'll",
        "why're",
        "why's",
        "won't",
        "would've",
        "wouldn't",
        "y'all",
        "y'all'd've",
        "you'd",
        "you'll",
        "you're",
        "you've",
    ]
}
"""Spellings without an apostrophe, and what they stand for."""

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_PERIOD = re.compile(r"(?<!\d)\.(?!\d)")
_COMMA_IN_NUMBER = re.compile(r"\d,\d")


def normalize(answer: str) -> str:
    """Lower case; punctuation, articles and periods outside numbers away; number words as digits."""
    text = " ".join(answer.split())
    comma = _COMMA_IN_NUMBER.search(text) is not None
    for mark in _PUNCTUATION:
        joined = comma or f"{mark} " in text or f" {mark}" in text
        text = text.replace(mark, "" if joined else " ")
    words = _PERIOD.sub("", text).lower().split()
    words = [NUMBERS.get(word, word) for word in words]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def vqa_accuracy(prediction: str, references: Sequence[str]) -> float:
    """Share in [0, 1].

    With several references, the mean over leaving each one out of min(1, matches among the others / 3): VQAv2's
    10-choose-9 average. With fewer than four references, where three matches are out of reach, a match with any is 1.
    """
    said, true = normalize(prediction), [normalize(reference) for reference in references]
    if len(true) < 4:
        return float(said in true)
    matches = true.count(said)
    return sum(min(1.0, (matches - (answer == said)) / 3) for answer in true) / len(true)
