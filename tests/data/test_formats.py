"""Data sets in their original files: every row of the miniatures, built with the bytes of their images."""

import json
from typing import ClassVar

import fsspec
import numpy as np
import pytest
import tensorflow_datasets as tfds
from etils import epath
from fsspec.implementations.memory import MemoryFileSystem

from jaxguard.cli.main import main
from jaxguard.data import formats, shards
from jaxguard.data.check import check
from jaxguard.data.formats.listing import Listed
from jaxguard.data.formats.reading import Choices, Reading
from jaxguard.data.image_files import ImageFiles
from jaxguard.data.images import decode
from jaxguard.data.originals import Building, build_original
from jaxguard.data.rows import CAPTION_PROMPT, VQA_SUFFIX
from jaxguard.data.sources import TextSource, open_source
from jaxguard.errors import UserError
from tests.data.miniatures import MINIATURES, turns


def captioned(key, image, *captions):
    return Listed(key, (image,), (CAPTION_PROMPT,) * len(captions), captions, captions)


def asked(key, image, *pairs):
    questions, answers = zip(*pairs, strict=True)
    references = (answers[0],) * 9 + ("maybe",)
    return Listed(key, (image,), tuple(question + VQA_SUFFIX for question in questions), answers, references)


def conversation(key, images, *said):
    return Listed(key, images, said[::2], said[1::2], said[1:2], multi_turn=len(said) > 2)


CHOICES = Choices(text_rows=True)
FORTY_TWO, EIGHT = ("{0}/COCO_{0}_" + f"{number:012d}.jpg" for number in (42, 8))
EXPECTED = {
    "coco karpathy": {
        "train": [captioned(f"{name}.png", f"val2014/{name}.png", f"{name} one", f"{name} two") for name in "ab"],
        "validation": [captioned("c.png", "val2014/c.png", "c one", "c two")],
        "test": [captioned("d.png", "val2014/d.png", "d one", "d two")],
    },
    "coco 2017": {
        "train": [
            captioned("t.png", "train2017/t.png", "nine"),
            captioned("tt.png", "train2017/tt.png", "three", "three again"),
        ],
        "validation": [
            captioned("v.png", "val2017/v.png", "nine"),
            captioned("vv.png", "val2017/vv.png", "three", "three again"),
        ],
    },
    "flickr30k karpathy": {
        "train": [captioned(f"{n}.png", f"flickr30k-images/{n}.png", f"number {n}") for n in (0, 1)],
        "validation": [captioned("2.png", "flickr30k-images/2.png", "number 2")],
        "test": [captioned("3.png", "flickr30k-images/3.png", "number 3")],
    },
    "flickr30k token": {
        "train": [captioned("1.jpg", "flickr30k_images/1.jpg", "A dog .", "One dog")],
        "validation": [captioned("2.jpg", "flickr30k_images/2.jpg", "Two\tcats .")],
        "test": [captioned("3.jpg", "flickr30k_images/3.jpg", "A man")],
    },
    "vqav2": {
        "train": [
            asked("420", FORTY_TWO.format("train2014"), ("Is it red?", "yes"), ("What is it?", "a cat")),
            asked("80", EIGHT.format("train2014"), ("How many?", "2")),
        ],
        "validation": [
            asked("420", FORTY_TWO.format("val2014"), ("Is it red?", "yes")),
            asked("80", EIGHT.format("val2014"), ("How many?", "2")),
            asked("421", FORTY_TWO.format("val2014"), ("What is it?", "a cat")),
        ],
    },
    "llava": {
        "train": [
            conversation("one", ("coco/a.png",), "What?", "A cat.", "Where?", "Here."),
            conversation("two", ("coco/b.png",), "What is this?", "A dog."),
            conversation("both", ("coco/a.png", "coco/b.png"), "<image> and <image>: the same?", "No."),
            conversation("4", (), "Hi", "Bye."),
            conversation("late", ("coco/a.png",), "Ready?", "Yes.", "<image>\nWhat?", "A cat."),
        ],
        "test": [conversation("one", ("coco/a.png",), "What?", "A cat.")],
    },
    "folder": {
        "train": [
            Listed("rows.csv:2", ("x/a.png",), ("What?",), ("a, cat",), ("a, cat",)),
            Listed("rows.csv:4", ("x/a.png",), (CAPTION_PROMPT,), ("seen",), ("seen",)),
        ],
        "validation": [Listed("rows.csv:3", (), ("Only text?",), ("yes",), ("yes",))],
        "test": [
            Listed("7", ("x/a.png",), (CAPTION_PROMPT,), ("a cat",), ("a cat",)),
            Listed("more_test.jsonl:2", ("x/a.png",), ("How many?",), ("1",), ("1", "one")),
        ],
    },
}


@pytest.mark.parametrize("name", MINIATURES)
def test_rows_of_every_format(name, write):
    reading = Reading(epath.Path(write(MINIATURES[name])), choices=CHOICES)
    full = formats.recognise(reading)
    assert full == formats.TASKS[name.split()[0]]
    assert formats.listed(reading, full) == EXPECTED[name]
    assert not reading.problems.found


@pytest.mark.parametrize("name", ["coco karpathy", "vqav2", "llava", "folder"])
def test_a_build_holds_every_row_and_the_images_bytes(name, write, tmp_path, capsys):
    original, root = write(MINIATURES[name]), tmp_path / "data"
    line = ["data", "build", name.split()[0], "--from", str(original), "--root", str(root), "--name", "own/rows"]
    line += ["--text-rows"]
    assert main(line) == 0
    assert capsys.readouterr().out == f"{root}/own/rows/1.0.0\n"
    for split, rows in EXPECTED[name].items():
        source = open_source("own/rows", root, split)
        kept = tfds.builder_from_directory(root / "own" / "rows" / "1.0.0").as_data_source(split)
        assert isinstance(source, TextSource)
        assert len(source) == len(kept) == len(rows)
        for index, listed in enumerate(rows):
            row = source[index]
            assert (row.id, row.key, row.prompts, row.answers) == (index, listed.key, listed.prompts, listed.answers)
            assert (row.references, row.multi_turn) == (listed.references, listed.multi_turn)
            assert len(row.images) == len(listed.images)
            for pixels, stored, image in zip(row.images, kept[index]["images"], listed.images, strict=True):
                assert stored == (original / image).read_bytes()
                np.testing.assert_array_equal(pixels, decode(stored))
            assert [pixels.shape for pixels in source.text(index).images] == [(1, 1, 3)] * len(listed.images)
            assert source.text(index).prompts == listed.prompts
    before = (root / "own/rows/1.0.0").stat().st_mtime_ns
    assert main(line) == 0
    assert (root / "own/rows/1.0.0").stat().st_mtime_ns == before
    assert main(["data", "check", str(root / "own/rows/1.0.0")]) == 0


def test_an_interrupted_build_goes_on_behind_its_finished_shards(write, tmp_path, monkeypatch):
    original, root = write(MINIATURES["llava"]), tmp_path / "data"
    monkeypatch.setattr(shards, "ROWS_PER_SHARD", 2)
    stored, opened = ImageFiles.stored, []

    def counting(files, name):
        opened.append(name)
        if name == "coco/b.png" and opened.count(name) == 2:
            raise KeyboardInterrupt
        return stored(files, name)

    monkeypatch.setattr(ImageFiles, "stored", counting)
    build = (Reading(epath.Path(original)), root, None, Building(threads=1))
    with pytest.raises(KeyboardInterrupt):
        build_original("llava", *build)
    with pytest.raises(UserError, match="nor built in"):
        open_source("llava/conversation", root, "train")

    def noting(files, name):
        opened.append(name)
        return stored(files, name)

    monkeypatch.setattr(ImageFiles, "stored", noting)
    opened.clear()
    folder = build_original("llava", Reading(epath.Path(original)), *build[1:])
    assert opened == ["coco/a.png", "coco/b.png", "coco/a.png", "coco/a.png"]
    files = sorted(path.name for path in folder.iterdir())
    assert [file for file in files if "train" in file] == [
        f"llava_conversation-train.array_record-0000{n}-of-00003" for n in range(3)
    ]
    source = open_source("llava/conversation", root, "train")
    assert [source[index].key for index in range(5)] == ["one", "two", "both", "4", "late"]

    again = tmp_path / "again"
    build_original("llava", Reading(epath.Path(original)), again, None, Building(threads=3))
    for file in files:
        assert (again / "llava/conversation/1.0.0" / file).read_bytes() == (folder / file).read_bytes()


def test_an_interrupted_build_of_other_rows_starts_anew(write, tmp_path, monkeypatch):
    original, root = write(MINIATURES["llava"]), tmp_path / "data"
    monkeypatch.setattr(shards, "ROWS_PER_SHARD", 1)
    stored, opened = ImageFiles.stored, []

    def failing(files, name):
        opened.append(name)
        if len(opened) == 3:
            raise KeyboardInterrupt
        return stored(files, name)

    monkeypatch.setattr(ImageFiles, "stored", failing)
    with pytest.raises(KeyboardInterrupt):
        build_original("llava", Reading(epath.Path(original)), root, None, Building(threads=1))
    rows = [{"id": "new", "image": "coco/a.png", "conversations": turns("<image>\nWhy?", "So.")}]
    (original / "mix_train.json").write_text(json.dumps(rows))
    build_original("llava", Reading(epath.Path(original)), root, None, Building(threads=1))
    source = open_source("llava/conversation", root, "train")
    assert [source[index].key for index in range(len(source))] == ["new"]


def test_flickr8k_as_it_was_published(write):
    files = {
        "Flickr8k.token.txt": "".join(f"{n}.jpg#0\tA dog .\n" for n in range(3)),
        "Flickr_8k.devImages.txt": "1.jpg\n",
        "Flickr_8k.testImages.txt": "2.jpg\n",
        "Flicker8k_Dataset/0.jpg": b"",
    }
    reading = Reading(epath.Path(write(files)))
    listing = formats.listed(reading, formats.recognise(reading))
    assert {split: [row.images[0] for row in rows] for split, rows in listing.items()} == {
        "train": ["Flicker8k_Dataset/0.jpg"],
        "validation": ["Flicker8k_Dataset/1.jpg"],
        "test": ["Flicker8k_Dataset/2.jpg"],
    }


def test_second_rows_of_an_id_are_numbered(write):
    row = {"id": "x", "conversations": turns("Hi", "Bye.")}
    reading = Reading(epath.Path(write({"rows.jsonl": [row, row, {**row, "id": "y"}]})))
    assert [listed.key for listed in formats.listed(reading, "llava/conversation")["train"]] == ["x", "x#2", "y"]


class Bucket(MemoryFileSystem):
    """What `epath` asks for s3:// paths, in memory."""

    store: ClassVar[dict] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("s3:/"))


def test_original_files_are_read_from_a_bucket(tmp_path):
    fsspec.register_implementation("s3", Bucket, clobber=True)
    bucket = Bucket()
    for name, content in MINIATURES["coco 2017"].items():
        bucket.pipe(f"/own/coco/{name}", content if isinstance(content, bytes) else json.dumps(content).encode())
    root = epath.Path("s3://own/coco")
    assert formats.recognise(Reading(root)) == "coco/caption"
    folder = build_original("coco", Reading(root), tmp_path, None, Building(threads=2))
    source = open_source(str(folder), tmp_path, "validation")
    assert [source[index].answers for index in range(2)] == [("nine",), ("three", "three again")]
    bucket.rm("/own/coco/val2017/v.png")
    checked = check(Reading(root), None, None, 1)
    assert {split: len(rows) for split, rows in checked.survey.listing.items()} == {"train": 2, "validation": 2}
    assert checked.problems.report() == "missing images: 1\n  val2017/v.png does not exist; in row v.png"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("build coco", "coco is built from files you have: jaxguard data build coco --from DIR"),
        ("build vqav2/vqa", "vqav2/vqa is built from files you have: jaxguard data build vqav2/vqa --from DIR"),
        ("build scenes/caption --name own", "data build: --name goes with --from; embedded data sets keep their names"),
        ("build scenes/caption --from .", "scenes/caption is embedded: build it without --from"),
        ("build cocoa --from .", "no data set 'cocoa'; choose one of coco/caption, flickr30k/caption, vqav2/vqa"),
        ("build coco --from nowhere", "nowhere is not a folder or a file"),
        ("build coco --from .", ". holds no files of coco/caption; docs/data.md lists them"),
        ("build coco --from . --store 0", "--store is 0: must be at least 1"),
        ("build coco --from . --most-bad 2", "--most-bad is 2.0: must be between 0 and 1"),
        ("build coco --from . --images nowhere", "--images nowhere is not a folder"),
        ("build coco --from . --allow-root nowhere", "--allow-root nowhere is not a folder"),
        ("check . --columns image", "--columns: 'image' is not PART=COLUMN, as in image=filepath,answer=caption"),
        ("build coco --from . --threads 0", "--threads is 0: must be at least 1"),
        ("build coco --from . --name ../up", "--name is '../up': must be words of letters, digits"),
        ("build coco --from . --name a,b", "--name is 'a,b': must be words of letters, digits"),
        ("build coco --from . --name scenes/vqa", "scenes/vqa is the name of an embedded data set; choose another"),
        ("build coco --from . --root notes.txt", "cannot write into notes.txt: "),
        ("check", "data check: Missing from jaxguard data check: FOLDER"),
        ("check nowhere", "nowhere is not a folder"),
        (
            "check .",
            ". holds no data set of coco/caption, flickr30k/caption, vqav2/vqa, llava/conversation, messages",
        ),
        ("check . --as coco", ". holds no files of coco/caption; docs/data.md lists them"),
        ("check . --as cocoa", "no data set 'cocoa'; choose one of coco/caption,"),
        ("check . --model nowhere", "model.path 'nowhere' holds no config.json"),
        ("check . --threads -1", "--threads is -1: must be at least 1"),
    ],
)
def test_wrong_words_are_one_line(line, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").touch()
    assert main(["data", *line.split()]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(f"jaxguard: error: {message}")
    assert output.err.count("\n") == 1
