"""Miniatures of the data sets' original distributions: file name -> content."""

import io
from typing import Any

import numpy as np
from PIL import Image


def png(seed: int = 0, width: int = 6, height: int = 4) -> bytes:
    """A small picture."""
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def turns(*said: str) -> list[dict[str, str]]:
    """A conversation that a human opens."""
    return [{"from": ("human", "gpt")[place % 2], "value": value} for place, value in enumerate(said)]


MINIATURES: dict[str, dict[str, Any]] = {
    "coco karpathy": {
        "dataset_coco.json": {
            "images": [
                {
                    "filepath": "val2014",
                    "filename": f"{name}.png",
                    "split": split,
                    "sentences": [{"raw": f"{name} one"}, {"raw": f" {name} two\n"}],
                    "cocoid": 7,
                }
                for name, split in (("a", "train"), ("b", "restval"), ("c", "val"), ("d", "test"))
            ],
            "dataset": "coco",
        },
        **{f"val2014/{name}.png": png(place) for place, name in enumerate("abcd")},
    },
    "coco 2017": {
        **{
            f"annotations/captions_{split}2017.json": {
                "info": {},
                "images": [{"id": 9, "file_name": f"{name}.png"}, {"id": 3, "file_name": f"{name}{name}.png"}],
                "annotations": [
                    {"image_id": 3, "id": 1, "caption": "three"},
                    {"image_id": 9, "id": 2, "caption": "nine"},
                    {"image_id": 3, "id": 3, "caption": "three again"},
                ],
            }
            for split, name in (("train", "t"), ("val", "v"))
        },
        "annotations/instances_train2017.json": "no captions",
        **{f"train2017/{name}.png": png(1) for name in ("t", "tt")},
        **{f"val2017/{name}.png": png(2) for name in ("v", "vv")},
    },
    "flickr30k karpathy": {
        "dataset_flickr30k.json": {
            "images": [
                {"filename": f"{place}.png", "split": split, "sentences": [{"raw": f"number {place}"}], "imgid": place}
                for place, split in enumerate(("train", "train", "val", "test"))
            ]
        },
        **{f"flickr30k-images/{place}.png": png(place) for place in range(4)},
    },
    "flickr30k token": {
        "results_20130124.token": "1.jpg#0\tA dog .\n1.jpg#1\tOne dog\n\n2.jpg#0\tTwo\tcats .\n3.jpg#0\tA man\n",
        "val.txt": "2\n",
        "test.txt": "3\n",
        **{f"flickr30k_images/{place}.jpg": png(place) for place in (1, 2, 3)},
    },
    "vqav2": {
        **{
            f"v2_OpenEnded_mscoco_{split}_questions.json": {
                "questions": [
                    {"image_id": 42, "question": "Is it red?", "question_id": 420},
                    {"image_id": 8, "question": "How many?", "question_id": 80},
                    {"image_id": 42, "question": "What is it?", "question_id": 421},
                ]
            }
            for split in ("train2014", "val2014", "test2015")
        },
        **{
            f"v2_mscoco_{split}_annotations.json": {
                "annotations": [
                    {
                        "question_id": question,
                        "image_id": 0,
                        "multiple_choice_answer": answer,
                        "answers": [{"answer": answer, "answer_id": n} for n in range(9)] + [{"answer": "maybe"}],
                    }
                    for question, answer in ((421, "a cat"), (420, "yes"), (80, "2"))
                ]
            }
            for split in ("train2014", "val2014")
        },
        **{
            f"{split}/COCO_{split}_{image:012d}.jpg": png(image)
            for split in ("train2014", "val2014")
            for image in (8, 42)
        },
    },
    "llava": {
        "mix_train.json": [
            {"id": "one", "image": "coco/a.png", "conversations": turns("<image>\nWhat?", "A cat.", "Where?", "Here.")},
            {"id": "two", "image": "coco/b.png", "conversations": turns("What is this?\n<image>", "A dog.")},
            {
                "id": "both",
                "image": ["coco/a.png", "coco/b.png"],
                "conversations": turns("<image> and <image>: the same?", "No."),
            },
            {"id": 4, "conversations": [{"from": "gpt", "value": "Hello."}, *turns("Hi", "Bye.")]},
            {"id": "late", "image": "coco/a.png", "conversations": turns("Ready?", "Yes.", "<image>\nWhat?", "A cat.")},
        ],
        "test.jsonl": [{"id": "one", "image": "coco/a.png", "conversations": turns("<image>\nWhat?", "A cat.")}],
        "coco/a.png": png(1),
        "coco/b.png": png(2),
    },
    "folder": {
        "rows.csv": '\ufeffimage,question,answer,split\nx/a.png,What?,"a, cat",\n,Only text?,yes,val\nx/a.png,,seen,\n',
        "more_test.jsonl": [
            {"file_name": "x/a.png", "caption": "a cat", "id": 7},
            {"image": "x/a.png", "prompt": "How many?", "text": "1", "references": ["1", "one"]},
        ],
        "x/a.png": png(3),
    },
}
