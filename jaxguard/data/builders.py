"""Builders of data sets: each is written once as ArrayRecord files that TFDS reads, without TensorFlow."""

from __future__ import annotations

import difflib
import io
import itertools
import logging
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib import resources
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from jaxguard.data import formats as originals
from jaxguard.data import scene_language, scenes
from jaxguard.data.rows import CAPTION_PROMPT, VQA_SUFFIX, Row
from jaxguard.data.shards import VERSION, Split, embedded_schema, schema, write
from jaxguard.errors import UserError


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _record(index: int, key: str, png: bytes, pairs: Iterable[tuple[str, str]], references: Iterable[str]) -> dict:
    prompts, answers = zip(*pairs, strict=True)
    return {
        "id": index,
        "key": key,
        "image": io.BytesIO(png),
        "prompts": list(prompts),
        "answers": list(answers),
        "references": list(references),
    }


def _scene_rows(split: str, task: str, start: int) -> Iterator[dict]:
    for index in range(start, scenes.SPLITS[split]):
        scene = scenes.sample(split, index)
        captions = scene_language.captions(scene)
        described = [(CAPTION_PROMPT, caption) for caption in captions]
        asked = [(question + VQA_SUFFIX, answer) for question, answer in scene_language.questions(scene)]
        if task == "vqa":
            asked = [asked[index % len(asked)]]
        renamed = [(prompt, scene_language.rename(caption)) for prompt, caption in described]
        pairs = {"caption": described, "vqa": asked, "all": described + asked, "renamed": renamed}[task]
        references = [asked[0][1]] if task == "vqa" else [answer for _, answer in pairs[: len(captions)]]
        source = "renamed_scenes" if task == "renamed" else "scenes"
        yield _record(index, f"{source}/{split}/{index}", _png(scenes.render(scene)), pairs, references)


def _scene_splits(task: str) -> dict[str, Split]:
    return {split: Split(count, partial(_scene_rows, split, task)) for split, count in scenes.SPLITS.items()}


EASY_VQA_VALIDATION = 200
"""Number of images at the end of easy-VQA's training set whose questions are the validation split."""


Asked = list[tuple[int, list[tuple[str, str]]]]
"""Image numbers, each with its questions and answers."""


def _easy_vqa_splits() -> dict[str, Split]:
    """Return easy-VQA's splits: training rows hold all questions of an image, for `data.pack`; other rows hold one."""
    import easy_vqa

    def by_image(questions: list[str], answers: list[str], images: list[int]) -> Asked:
        asked: dict[int, list[tuple[str, str]]] = {}
        for question, answer, image in zip(questions, answers, images, strict=True):
            asked.setdefault(image, []).append((question + VQA_SUFFIX, answer))
        return sorted(asked.items())

    def singly(asked: Asked) -> Asked:
        return [(image, [pair]) for image, pairs in asked for pair in pairs]

    def rows(part: str, asked: Asked, start: int) -> Iterator[dict]:
        folder = resources.files("easy_vqa") / "data" / part / "images"
        for index, (image, pairs) in enumerate(asked[start:], start):
            key = f"easy_vqa/{part}/{image}/{pairs[0][0].removesuffix(VQA_SUFFIX)}"
            yield _record(index, key, (folder / f"{image}.png").read_bytes(), pairs, [pairs[0][1]])

    train, test = by_image(*easy_vqa.get_train_questions()), by_image(*easy_vqa.get_test_questions())
    splits = {
        "train": ("train", train[:-EASY_VQA_VALIDATION]),
        "validation": ("train", singly(train[-EASY_VQA_VALIDATION:])),
        "test": ("test", singly(test)),
    }
    return {name: Split(len(asked), partial(rows, part, asked)) for name, (part, asked) in splits.items()}


SOURCES: dict[str, Callable[[], dict[str, Split]]] = {
    "scenes/caption": lambda: _scene_splits("caption"),
    "scenes/vqa": lambda: _scene_splits("vqa"),
    "scenes/all": lambda: _scene_splits("all"),
    "scenes/renamed": lambda: _scene_splits("renamed"),
    "easy_vqa/vqa": _easy_vqa_splits,
}
"""NAME/TASK -> its splits. `scenes/all` holds captions and questions of each scene, for pretraining.

`scenes/renamed` says four colours and two shapes by invented words, which a model has to learn.
"""


def folder_of(name: str, root: Path) -> Path:
    """Return the folder of a built data set."""
    return root / name / VERSION


def build(name: str, root: Path) -> Path:
    """Build an embedded data set under `root`, unless it is built already. Returns its folder.

    Raises:
        UserError: no such data set, or `root` cannot be written.
    """
    if name in originals.TASKS or name in originals.ORIGINALS:
        raise UserError(f"{name} is built from files you have: jaxguard data build {name} --from DIR")
    if name not in SOURCES:
        raise unknown(name, [*SOURCES, *originals.ORIGINALS])
    folder = folder_of(name, root)
    if folder.is_dir():
        print(f"{name} is already built in {root}", file=sys.stderr)
    else:
        write_records(name, SOURCES[name](), folder, embedded_schema(), {})
    return folder


def unknown(name: str, known: list[str]) -> UserError:
    """Return the error that there is no such data set, with the one that was probably meant."""
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"choose one of {', '.join(known)}"
    return UserError(f"no data set {name!r}; {hint}")


def write_rows(
    splits: dict[str, tuple[int, Callable[[], Iterator[Row]]]], folder: Path, name: str, extra: dict[str, str]
) -> None:
    """Write rows losslessly as a data set that `open_source` reads by its folder.

    Args:
        splits: split -> (number of rows, function that yields them in order of their ids).
        folder: must not exist.
        name: name of the data set, for display.
        extra: contents of text files to add to the folder, by name.
    """

    def records(rows: Callable[[], Iterator[Row]], start: int) -> Iterator[dict]:
        for row in itertools.islice(rows(), start, None):
            yield {
                "id": row.id,
                "key": row.key,
                "images": [_png(pixels) for pixels in row.images],
                "prompts": row.prompts,
                "answers": row.answers,
                "references": row.references,
                "chained": row.multi_turn,
                "system": row.system,
            }

    prepared = {split: Split(count, partial(records, rows)) for split, (count, rows) in splits.items()}
    write_records(name, prepared, folder, schema(), extra)


def write_records(
    name: str,
    splits: dict[str, Split],
    folder: Path,
    features: tfds.features.FeaturesDict,
    extra: dict[str, str],
    fingerprint: str | None = None,
) -> None:
    """Write records as `shards.write`, under a name that may be that of a path."""
    logging.getLogger("absl").setLevel(logging.ERROR)
    name = re.sub(r"\W", "_", name)
    write(folder, name, features, splits, extra=extra, fingerprint=fingerprint)
