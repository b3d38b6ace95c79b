"""VQAv2: pairs of `v2_OpenEnded_mscoco_SPLIT_questions.json` and `v2_mscoco_SPLIT_annotations.json`.

A training row holds all questions of an image, for `data.pack`. Rows of other splits hold one question, with its ten
answers as references. Questions without published answers (test2015) are skipped.
"""

from __future__ import annotations

from typing import Any

from etils import epath

from jaxguard.data.formats.listing import (
    Listed,
    Listing,
    field,
    identifier,
    items,
    parsed,
    plain_text,
    read_json,
    split_of,
    unique,
)
from jaxguard.data.problems import DUPLICATE, EMPTY, FILES, MALFORMED, Fault, Problems
from jaxguard.data.rows import VQA_SUFFIX

QUESTIONS, ANNOTATIONS = "v2_OpenEnded_mscoco_{}_questions.json", "v2_mscoco_{}_annotations.json"


def recognises(root: epath.Path) -> bool:
    """Return True if a folder holds VQAv2."""
    return bool(_names(root))


def read(root: epath.Path, problems: Problems) -> Listing:
    """List the questions of each split, in the order of the files."""
    listing: Listing = {}
    for name in _names(root):
        if (root / ANNOTATIONS.format(name)).exists():
            listing.setdefault(split_of(name), []).extend(_rows(root, name, problems))
    if not listing:
        problems.add(FILES, str(root), f"has questions but no {ANNOTATIONS.format('SPLIT')} with their answers")
    return {split: unique(rows, split, problems) for split, rows in listing.items()}


Answers = tuple[str, tuple[str, ...]]
"""(most common answer, all ten answers)."""


def _names(root: epath.Path) -> list[str]:
    before, after = QUESTIONS.split("{}")
    return sorted(path.name[len(before) : -len(after)] for path in root.glob(QUESTIONS.format("*")))


def _rows(root: epath.Path, name: str, problems: Problems) -> list[Listed]:
    file = QUESTIONS.format(name)
    content = read_json(root / file, dict, problems)
    answers = _answers(root / ANNOTATIONS.format(name), problems)
    folder = next((place for place in (name, "images") if (root / place).is_dir()), "")

    def parse(item: Any) -> tuple[int, Listed]:
        key, image = identifier(item, "question_id"), field(item, "image_id", int)
        if key not in answers:
            raise Fault(MALFORMED, f"is question {key!r}, which has no annotation")
        answer, references = answers[key]
        prompt = plain_text(item, "question") + VQA_SUFFIX
        path = f"COCO_{name}_{image:012d}.jpg"
        return image, Listed(key, (f"{folder}/{path}" if folder else path,), (prompt,), (answer,), references)

    asked = list(parsed(items(content, "questions", file, problems), parse, problems))
    if split_of(name) != "train":
        return [row for _, row in asked]
    by_image: dict[int, list[Listed]] = {}
    for image, row in asked:
        by_image.setdefault(image, []).append(row)
    return [_together(rows) for rows in by_image.values()]


def _together(rows: list[Listed]) -> Listed:
    """Join all questions of an image to one row; its references are those of the first question."""
    prompts, answers = (tuple(pair) for pair in zip(*((row.prompts[0], row.answers[0]) for row in rows), strict=True))
    return Listed(rows[0].key, rows[0].images, prompts, answers, rows[0].references)


def _answers(path: epath.Path, problems: Problems) -> dict[str, Answers]:
    content = read_json(path, dict, problems)

    def parse(item: Any) -> tuple[str, Answers]:
        given = tuple(plain_text(answer, "answer") for answer in field(item, "answers", list))
        if not given:
            raise Fault(EMPTY, "has no answers")
        return identifier(item, "question_id"), (plain_text(item, "multiple_choice_answer"), given)

    found: dict[str, Answers] = {}
    for key, answers in parsed(items(content, "annotations", path.name, problems), parse, problems):
        if key in found:
            problems.add(DUPLICATE, path.name, f"has more than one annotation of question {key!r}")
        found[key] = answers
    return found
