"""TFDS builders: every data set is written once to ArrayRecord, in one schema, without TensorFlow."""

from __future__ import annotations

import contextlib
import difflib
import io
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from rich.console import Console
from rich.progress import track

from jaxguard.data import scene_language, scenes
from jaxguard.data.rows import CAPTION_PROMPT, VQA_SUFFIX, Row
from jaxguard.errors import UserError

VERSION = "1.0.0"
RELEASE_NOTES = {"1.0.0": "Scenes of one to three shapes; easy-VQA 1.0."}


@dataclass(frozen=True)
class Split:
    """One split of a source: how many rows, and how to make them in order."""

    count: int
    rows: Callable[[], Iterator[dict]]


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


def _scene_rows(split: str, task: str) -> Iterator[dict]:
    for index in range(scenes.SPLITS[split]):
        scene = scenes.sample(split, index)
        captions = scene_language.captions(scene)
        described = [(CAPTION_PROMPT, caption) for caption in captions]
        asked = [(question + VQA_SUFFIX, answer) for question, answer in scene_language.questions(scene)]
        if task == "vqa":
            asked = [asked[index % len(asked)]]
        pairs = {"caption": described, "vqa": asked, "all": described + asked}[task]
        references = [asked[0][1]] if task == "vqa" else captions
        yield _record(index, f"scenes/{split}/{index}", _png(scenes.render(scene)), pairs, references)


def _scene_splits(task: str) -> dict[str, Split]:
    return {
        split: Split(count, lambda split=split: _scene_rows(split, task))  # type: ignore[misc]
        for split, count in scenes.SPLITS.items()
    }


EASY_VQA_VALIDATION = 200
"""Images at the end of easy-VQA's training set whose questions serve as the validation split."""


Asked = list[tuple[int, list[tuple[str, str]]]]
"""Images by number, each with its questions and answers."""


def _easy_vqa_splits() -> dict[str, Split]:
    """Training rows hold all questions of an image, so that `data.pack` can ask several; the other splits' hold one."""
    import easy_vqa

    def by_image(questions: list[str], answers: list[str], images: list[int]) -> Asked:
        asked: dict[int, list[tuple[str, str]]] = {}
        for question, answer, image in zip(questions, answers, images, strict=True):
            asked.setdefault(image, []).append((question + VQA_SUFFIX, answer))
        return sorted(asked.items())

    def singly(asked: Asked) -> Asked:
        return [(image, [pair]) for image, pairs in asked for pair in pairs]

    def rows(part: str, asked: Asked) -> Iterator[dict]:
        folder = resources.files("easy_vqa") / "data" / part / "images"
        for index, (image, pairs) in enumerate(asked):
            key = f"easy_vqa/{part}/{image}/{pairs[0][0].removesuffix(VQA_SUFFIX)}"
            yield _record(index, key, (folder / f"{image}.png").read_bytes(), pairs, [pairs[0][1]])

    train, test = by_image(*easy_vqa.get_train_questions()), by_image(*easy_vqa.get_test_questions())
    splits = {
        "train": ("train", train[:-EASY_VQA_VALIDATION]),
        "validation": ("train", singly(train[-EASY_VQA_VALIDATION:])),
        "test": ("test", singly(test)),
    }
    return {
        name: Split(len(asked), lambda part=part, asked=asked: rows(part, asked))  # type: ignore[misc]
        for name, (part, asked) in splits.items()
    }


SOURCES: dict[str, Callable[[], dict[str, Split]]] = {
    "scenes/caption": lambda: _scene_splits("caption"),
    "scenes/vqa": lambda: _scene_splits("vqa"),
    "scenes/all": lambda: _scene_splits("all"),
    "easy_vqa/vqa": _easy_vqa_splits,
}
"""NAME/TASK -> its splits. `scenes/all` holds captions and questions of each scene, for pretraining."""


def schema() -> tfds.features.FeaturesDict:
    """What a stored row holds; the same for every source."""
    text = tfds.features.Sequence(tfds.features.Text())
    return tfds.features.FeaturesDict(
        {
            "id": np.int64,
            "key": tfds.features.Text(),
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
            "prompts": text,
            "answers": text,
            "references": text,
        }
    )


class RowsBuilder(tfds.core.GeneratorBasedBuilder):
    """Writes rows of any source in the common schema, in order: element i of a split has id i."""

    VERSION = tfds.core.Version(VERSION)
    RELEASE_NOTES: ClassVar = RELEASE_NOTES
    pkg_dir_path = Path(__file__).parent

    def __init__(self, *, name: str, splits: dict[str, Split], data_dir: Path):
        self._rows = splits
        self.name = name
        super().__init__(data_dir=data_dir, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(builder=self, features=schema(), disable_shuffling=True, description=self.name)

    def _split_generators(self, download_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        return {name: self._generate_examples(name) for name in self._rows}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict]]:
        rows = self._rows[split]
        label, console = f"building {self.name} {split}", Console(stderr=True)
        for record in track(rows.rows(), description=label, total=rows.count, transient=True, console=console):
            yield record["id"], record


def folder_of(name: str, root: Path) -> Path:
    """Where a built data set lies."""
    return root / name / VERSION


def build(name: str, root: Path) -> Path:
    """Build a data set under `root`, unless it is built already. Returns its folder.

    Raises:
        UserError: no such data set, or `root` cannot be written.
    """
    if name not in SOURCES:
        close = difflib.get_close_matches(name, SOURCES, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"choose one of {', '.join(SOURCES)}"
        raise UserError(f"no data set {name!r}; {hint}")
    folder = folder_of(name, root)
    if folder.is_dir():
        print(f"{name} is already built in {root}", file=sys.stderr)
    else:
        _write(name.replace("/", "_"), SOURCES[name](), folder, {})
    return folder


def write_rows(
    splits: dict[str, tuple[int, Callable[[], Iterator[Row]]]], folder: Path, name: str, extra: dict[str, str]
) -> None:
    """Write rows losslessly as a data set that `open_source` reads by its folder.

    Args:
        splits: split -> (number of rows, what yields them in order of their ids).
        folder: must not exist.
        name: for people.
        extra: text files that lie beside the rows, by name.
    """

    def records(rows: Callable[[], Iterator[Row]]) -> Iterator[dict]:
        for row in rows():
            pairs = zip(row.prompts, row.answers, strict=True)
            yield _record(row.id, row.key, _png(row.image), pairs, row.references)

    prepared = {
        split: Split(count, lambda rows=rows: records(rows))  # type: ignore[misc]
        for split, (count, rows) in splits.items()
    }
    _write(name, prepared, folder, extra)


def _write(name: str, splits: dict[str, Split], folder: Path, extra: dict[str, str]) -> None:
    """Into a folder beside the final one, then rename: a killed build never looks built."""
    partial = folder.with_name(folder.name + ".partial")
    logging.getLogger("absl").setLevel(logging.ERROR)
    tfds.disable_progress_bar()
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        builder = RowsBuilder(name=name, splits=splits, data_dir=partial)
        with contextlib.redirect_stdout(io.StringIO()):  # TFDS announces downloads that there are none of
            builder.download_and_prepare()
        for file, text in extra.items():
            (builder.data_path / file).write_text(text)
        os.replace(builder.data_path, folder)
        shutil.rmtree(partial)
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror or error}); choose another --root") from error
