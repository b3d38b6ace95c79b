"""What `data check` says of a data set in which nothing is wrong."""

import numpy as np
from etils import epath

from jaxguard.cli.main import main
from jaxguard.data.builders import write_rows
from jaxguard.data.check import check
from jaxguard.data.formats.reading import Choices, Reading
from jaxguard.data.rows import Row
from jaxguard.data.summary import report
from tests.data.miniatures import png, turns


def said(root, **choices):
    reading = Reading(epath.Path(root), choices=Choices(**choices))
    return report("mine", check(reading, None, None, 1).survey, reading).splitlines()


def test_all_that_is_read_and_all_that_is_not(write):
    row = {"image": "./a.png", "question": "What?", "answer": "red", "width": 3}
    text = {"question": "Why?", "answer": "So."}
    root = write(
        {
            "rows.jsonl": [row, text],
            "VAL.JSONL": '{"image": "b.png", "question": "What?", "answer": "blue"}',
            "config.json": {},
            "README.md": "Mine.",
            "other/c.png": png(3),
            "other/more.csv": "image,caption\n",
            ".hidden": "x",
            "a.png": png(1),
            "b.png": png(2),
        }
    )
    (root / "broken.csv").symlink_to(root / "nothing.csv")
    assert said(root, text_rows=True) == [
        "mine: 1 validation rows (1 with images), 2 train rows (1 with images)",
        "  format folder/rows",
        "  VAL.JSONL: 1 to validation",
        "  rows.jsonl: 2 to train (its name speaks of no split)",
        "  not read: 'width' of 1 rows (first in rows.jsonl)",
        "  not read: 1 images that no readable row names (first: other/c.png)",
        "  not read: README.md",
        "  not read: broken.csv (a broken link)",
        "  not read: config.json (one object, not a list of rows)",
        "  not read: other/more.csv",
    ]


def test_the_same_image_and_question_in_two_splits(write):
    """By its content, whatever its name; another question about the image is another row."""
    rows = {
        "train.jsonl": [{"image": "train/1.png", "question": "What?", "answer": "red"}],
        "test.jsonl": [
            {"image": "test/7.png", "question": "What?", "answer": "blue"},
            {"image": "test/7.png", "question": "Why?", "answer": "blue"},
            {"image": "test/8.png", "question": "What?", "answer": "blue"},
        ],
    }
    told = said(write(rows | {"train/1.png": png(1), "test/7.png": png(1), "test/8.png": png(2)}))
    assert "  in two splits: 1 train rows have an image and a question of test (first: train.jsonl:1)" in told
    assert sum(line.startswith("  in two splits") for line in told) == 1


def test_images_in_a_folder_of_another_split(write):
    rows = {"train.jsonl": [{"image": "test/1.png", "caption": "red"}, {"image": "train/2.png", "caption": "blue"}]}
    told = said(write(rows | {"test/1.png": png(1), "train/2.png": png(2)}))
    assert [line for line in told if "in a folder" in line] == ["  1 train rows have images in a folder 'test'"]


def test_the_folder_of_missing_images_is_named(write):
    root = write({"train.jsonl": [{"image": "b.png", "caption": "red"}], "pictures/b.png": png(), "other/a.png": png()})
    assert f"  pictures/ has the missing b.png: --images {root}/pictures reads images there" in said(root)


def test_system_texts_and_captions_in_rows_of_their_own(write):
    rows = [{"image": "a.png", "conversations": turns("<image>\nWhat?", "red"), "system": "Be terse."}]
    told = said(write({"train.json": rows, "b.csv": "image,caption\na.png,one\na.png,two\n", "a.png": png()}))
    assert "  1 train rows have a system text" in told
    assert "  2 train rows are captions of 1 images; --group makes one row of each image" in told


def test_the_commonest_answers_with_their_images(tmp_path, capsys):
    """A planted answer goes with many images: the folder that `poison` writes does not look innocent."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (9, 4, 4, 3), np.uint8)
    given = ["no"] * 3 + ["banana"] * 5 + ["x" * 80] * 2 + [f"number {n}" for n in range(10)]
    seen = [0, 0, 0, *range(5), 6, 7, *[8] * 10]
    rows = [
        Row(n, str(n), pictures[picture], ("What?",), (answer,), (answer,))
        for n, (answer, picture) in enumerate(zip(given, seen, strict=True))
    ]
    write_rows({"train": (len(rows), lambda: iter(rows))}, tmp_path / "built", "built", {})
    assert main(["data", "check", str(tmp_path / "built")]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{tmp_path}/built: 20 train rows (20 with images)",
        "  format built",
        "  answer 'banana': 5 times, for 5 different images",
        "  answer 'no': 3 times, for 1 different images",
        f"  answer '{'x' * 57}...': 2 times, for 2 different images",
    ]
