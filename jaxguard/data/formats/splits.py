"""The one rule that gives a file its split: the split names that are words of the file's name, in any case."""

from __future__ import annotations

import re

from jaxguard.data.problems import MALFORMED, Fault

SPLITS = {
    "train": "train",
    "training": "train",
    "restval": "train",
    "val": "validation",
    "valid": "validation",
    "validate": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluate": "test",
    "evaluation": "test",
    "heldout": "test",
    "holdout": "test",
}
"""Split names of data sets -> ours. Karpathy's `restval` is the rest of COCO's validation images, used for training by
convention; Hugging Face counts `eval` as a name of the test split."""


WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
"""A run of letters, or a word of several that capitals divide."""


def named_splits(name: str) -> set[str]:
    """Return the splits that the words of a name speak of: `test-2`, `testset`, `myTestRows`."""
    words = [re.sub("(set|split|data)$", "", word.lower()) for word in WORD.findall(name)]
    return {SPLITS[word] for word in words if word in SPLITS}


def split_of(*names: str) -> str | None:
    """Return the split of the first name that speaks of one; None if none does.

    Raises:
        Fault: that name speaks of several splits.
    """
    for name in names:
        found = named_splits(name)
        if len(found) > 1:
            raise Fault(MALFORMED, f"has a name of several splits ({', '.join(sorted(found))}); rename it")
        if found:
            return found.pop()
    return None


def known_split(name: str) -> str:
    """Return our name of a split. Raises `Fault` if it is not known."""
    if name.lower() not in SPLITS:
        raise Fault(MALFORMED, f"has the split {name!r}; one of {', '.join(SPLITS)} is wanted")
    return SPLITS[name.lower()]
