"""VQAv2: pairs of `v2_OpenEnded_mscoco_SPLIT_questions.json` and `v2_mscoco_SPLIT_annotations.json`.

A training row holds all questions of an image, for `data.pack`. Rows of other splits hold one question, with its ten
answers as references. Questions without published answers (test2015) are skipped.
"""

from __future__ import annotations

from typing import Any

from jaxguard.data.formats.files import read_json
from jaxguard.data.formats.listing import Listed, Listing, field, identifier, items, parsed, plain_text, unique
from jaxguard.data.formats.reading import Reading
from jaxguard.data.formats.splits import split_of
from jaxguard.data.problems import DUPLICATE, EMPTY, FILES, MALFORMED, Fault
from jaxguard.data.rows import VQA_SUFFIX

QUESTIONS, ANNOTATIONS = "v2_OpenEnded_mscoco_{}_questions.json", "v2_mscoco_{}_annotations.json"


def recognises(reading: Reading) -> bool:
    """Return True if a folder holds VQAv2."""
    return bool(_names(reading))


def read(reading: Reading) -> Listing:
    """List the questions of each split, in the order of the files."""
    listing: Listing = {}
    for name in _names(reading):
        if ANNOTATIONS.format(name) not in reading.names:
            reading.skipped[QUESTIONS.format(name)] = "no annotations with its answers"
            continue
        try:
            split = split_of(name) or "train"
        except Fault as fault:
            reading.problems.add(FILES, QUESTIONS.format(name), fault)
            continue
        rows = _rows(reading, name, split)
        reading.took(QUESTIONS.format(name), split, len(rows))
        reading.helpers[ANNOTATIONS.format(name)] = "gives questions their answers"
        listing.setdefault(split, []).extend(rows)
    if not listing:
        what = f"has questions but no {ANNOTATIONS.format('SPLIT')} with their answers"
        reading.problems.add(FILES, str(reading.root), what)
    return {split: unique(rows, split, reading.problems) for split, rows in listing.items()}


Answers = tuple[str, tuple[str, ...]]
"""(most common answer, all ten answers)."""


def _names(reading: Reading) -> list[str]:
    before, after = QUESTIONS.split("{}")
    found = [name for name in reading.names if name.startswith(before) and name.endswith(after)]
    return [name[len(before) : -len(after)] for name in found]


def _rows(reading: Reading, name: str, split: str) -> list[Listed]:
    file, problems = QUESTIONS.format(name), reading.problems
    content = read_json(reading, file, dict)
    answers = _answers(reading, ANNOTATIONS.format(name))
    folder = reading.folder_of_images((name, "images"))

    def parse(item: Any) -> tuple[int, Listed]:
        key, image = identifier(item, "question_id"), field(item, "image_id", int)
        if key not in answers:
            raise Fault(MALFORMED, f"is question {key!r}, which has no annotation")
        answer, references = answers[key]
        prompt = plain_text(item, "question") + VQA_SUFFIX
        path = f"COCO_{name}_{image:012d}.jpg"
        return image, Listed(key, (f"{folder}/{path}" if folder else path,), (prompt,), (answer,), references)

    asked = list(parsed(items(content, "questions", file, problems), parse, problems))
    if split != "train":
        return [row for _, row in asked]
    by_image: dict[int, list[Listed]] = {}
    for image, row in asked:
        by_image.setdefault(image, []).append(row)
    return [_together(rows) for rows in by_image.values()]


def _together(rows: list[Listed]) -> Listed:
    """Join all questions of an image to one row; its references are those of the first question."""
    prompts, answers = (tuple(pair) for pair in zip(*((row.prompts[0], row.answers[0]) for row in rows), strict=True))
    return Listed(rows[0].key, rows[0].images, prompts, answers, rows[0].references)


def _answers(reading: Reading, file: str) -> dict[str, Answers]:
    content, problems = read_json(reading, file, dict), reading.problems

    def parse(item: Any) -> tuple[str, Answers]:
        given = tuple(plain_text(answer, "answer") for answer in field(item, "answers", list))
        if not given:
            raise Fault(EMPTY, "has no answers")
        return identifier(item, "question_id"), (plain_text(item, "multiple_choice_answer"), given)

    found: dict[str, Answers] = {}
    for key, answers in parsed(items(content, "annotations", file, problems), parse, problems):
        if key in found:
            problems.add(DUPLICATE, file, f"has more than one annotation of question {key!r}")
        found[key] = answers
    return found
