"""Every format, from its files through a build to training: each row's pixels and answer go together."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from jaxguard.batch import Batch
from jaxguard.cli.main import main
from jaxguard.config import AttackConfig, DataConfig, ObjectiveConfig
from jaxguard.data.encode import Encoder
from jaxguard.data.images import decode
from jaxguard.data.sources import open_source
from jaxguard.models import folders
from jaxguard.train import loop
from jaxguard.train.sharding import place_batch
from tests.data.containers import arrow, parquet, tar
from tests.data.miniatures import png, turns

ENCODER = Encoder.from_checkpoint(folders.resolve("tiny-llava"))
COUNT = 8
"""Rows of each format: one for each device of the tests."""
PICTURES = [png(n, 64, 64) for n in range(COUNT)]
FILES = {f"images/{n}.png": picture for n, picture in enumerate(PICTURES)}
NAMES = list(FILES)
ANSWERS = [f"number {n}" for n in range(COUNT)]
ROWS = list(enumerate(zip(NAMES, ANSWERS, strict=True)))


def messages(answer: str) -> list[dict]:
    return [{"role": "user", "content": "<image>What?"}, {"role": "assistant", "content": answer}]


def stored() -> list[dict]:
    return [{"image": {"bytes": one, "path": None}, "caption": ANSWERS[n]} for n, one in enumerate(PICTURES)]


def vqa() -> dict[str, Any]:
    """VQAv2, whose images have names of their own."""
    asked = [{"image_id": n, "question": "What?", "question_id": n} for n in range(COUNT)]
    answers = [
        {"question_id": n, "multiple_choice_answer": answer, "answers": [{"answer": answer}]}
        for n, answer in enumerate(ANSWERS)
    ]
    pictures = {f"train2014/COCO_train2014_{n:012d}.jpg": picture for n, picture in enumerate(PICTURES)}
    return {
        "v2_OpenEnded_mscoco_train2014_questions.json": {"questions": asked},
        "v2_mscoco_train2014_annotations.json": {"annotations": answers},
    } | pictures


FORMATS: dict[str, tuple[str, Callable[[], dict[str, Any]]]] = {
    "COCO": (
        "coco",
        lambda: (
            FILES
            | {
                "captions_train.json": {
                    "images": [{"id": n, "file_name": f"{n}.png"} for n, _ in ROWS],
                    "annotations": [{"image_id": n, "caption": answer} for n, (_, answer) in ROWS],
                }
            }
        ),
    ),
    "Flickr30k": (
        "flickr30k",
        lambda: FILES | {"results.token": "".join(f"{n}.png#0\t{answer}\n" for n, (_, answer) in ROWS)},
    ),
    "VQAv2": ("vqav2", vqa),
    "LLaVA": (
        "llava",
        lambda: (
            FILES
            | {
                "train.json": [
                    {"image": name, "conversations": turns("<image>\nWhat?", said)} for _, (name, said) in ROWS
                ]
            }
        ),
    ),
    "messages": (
        "messages",
        lambda: FILES | {"train.jsonl": [{"images": [name], "messages": messages(said)} for _, (name, said) in ROWS]},
    ),
    "JSON": ("folder", lambda: FILES | {"train.json": [{"image": name, "caption": said} for _, (name, said) in ROWS]}),
    "CSV": (
        "folder",
        lambda: FILES | {"train.csv": "file,title\n" + "".join(f"{name},{said}\n" for _, (name, said) in ROWS)},
    ),
    "imagefolder": (
        "folder",
        lambda: (
            {f"train/{n}.png": picture for n, picture in enumerate(PICTURES)}
            | {"train/metadata.jsonl": [{"file_name": f"{n}.png", "text": said} for n, (_, said) in ROWS]}
        ),
    ),
    "Parquet": ("folder", lambda: {"data/train-0.parquet": parquet(stored())}),
    "Arrow": ("folder", lambda: {"train/data-0.arrow": arrow(stored()), "dataset_dict.json": {"splits": ["train"]}}),
    "tar": (
        "folder",
        lambda: {
            "train-0.tar": tar(
                {f"{n}.{kind}": one for n, (_, said) in ROWS for kind, one in (("png", PICTURES[n]), ("txt", said))}
            )
        },
    ),
}


@pytest.mark.parametrize("name", FORMATS)
def test_four_steps_train_on_the_pixels_of_each_row(name, write, small_config, tmp_path, monkeypatch):
    known, files = FORMATS[name]
    original = write(files())
    line = ["data", "build", known, "--from", str(original), "--root", str(tmp_path / "data"), "--name", "mine"]
    assert main([*line, "--columns", "image=file,answer=title"] if name == "CSV" else line) == 0
    source = open_source("mine", tmp_path / "data", "train")
    assert len(source) == COUNT
    trained: list[Batch] = []

    def noted(batch, mesh):
        trained.append(batch)
        return place_batch(batch, mesh)

    monkeypatch.setattr(loop, "place_batch", noted)
    data = DataConfig(source="mine", root=tmp_path / "data", length=128, threads=1)
    train = replace(small_config.train, steps=4, batch_size=COUNT, save_every=4)
    loop.train(replace(small_config, data=data, train=train, attack=AttackConfig(), objective=ObjectiveConfig()))
    assert len(trained) == 4
    for batch in trained:
        seen = set()
        for images, tokens, mask, row in zip(batch.images, batch.tokens, batch.answer_mask, batch.ids, strict=True):
            answer = ENCODER.decode(tokens[mask])
            assert answer == source[int(row)].answers[0]
            np.testing.assert_array_equal(images[0, 0], decode(PICTURES[ANSWERS.index(answer)]))
            seen.add(answer)
        assert seen == set(ANSWERS)
