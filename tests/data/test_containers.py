"""Parquet, Arrow and WebDataset tars: rows, the places of their images, and the bytes there."""

import base64
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from etils import epath

from jaxguard.data.formats import columnar, inline, listed, recognise
from jaxguard.data.formats.listing import Stored
from jaxguard.data.formats.reading import Choices, Reading
from jaxguard.data.image_files import ImageFiles
from jaxguard.data.images import ImageFault
from jaxguard.data.rows import CAPTION_PROMPT
from tests.data.containers import arrow, parquet, tar
from tests.data.miniatures import png, turns

PICTURES = [png(n) for n in range(5)]
CAPTIONS = [{"image": {"bytes": one, "path": f"{n}.png"}, "caption": f"number {n}"} for n, one in enumerate(PICTURES)]
WRITERS: dict[str, Callable[[list[dict]], bytes]] = {
    "train.parquet": parquet,
    "train.arrow": arrow,
    "data/train-00000-of-00001.parquet": parquet,
    "train/data-00000-of-00001.arrow": lambda rows: arrow(rows, stream=False),
}


def read(root, **choices):
    reading = Reading(epath.Path(root), choices=Choices(**choices))
    return listed(reading, recognise(reading)), reading


@pytest.mark.parametrize("name", WRITERS)
def test_columns_hold_rows_and_images(name, write):
    listing, reading = read(write({name: WRITERS[name](CAPTIONS), "dataset_info.json": {}, "state.json": {}}))
    assert not reading.problems.found
    files = ImageFiles(reading)
    rows = listing["train"]
    assert [row.answers for row in rows] == [(f"number {n}",) for n in range(5)]
    assert [row.key for row in rows] == [f"{name}[{n}]" for n in range(5)]
    for n in (4, 0, 3, 1, 2, 4):  # in any order, across groups
        (image,) = rows[n].images
        assert isinstance(image, Stored)
        assert files.read(image) == PICTURES[n]


def test_rows_of_every_shape_are_read_from_columns(write):
    conversation = {"image": PICTURES[0], "conversations": turns("<image>\nWhat?", "red")}
    said = [
        {"role": "user", "content": [{"type": "image", "text": None}, {"type": "text", "text": "Which?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "this"}]},
    ]
    several = {"images": [{"bytes": PICTURES[1], "path": None}], "messages": said}
    named = {"image": {"bytes": None, "path": "a.png"}, "question": "What?", "answer": "a cat", "split": "test"}
    root = write({"a.parquet": parquet([conversation]), "b.parquet": parquet([several]), "c.parquet": parquet([named])})
    (first, second), (third,) = read(root)[0].values()
    files = ImageFiles(Reading(epath.Path(root)))
    assert (first.prompts, files.read(first.images[0])) == (("What?",), PICTURES[0])
    assert (second.prompts, files.read(second.images[0])) == (("Which?",), PICTURES[1])
    assert (third.prompts, third.images) == (("What?",), ("a.png",))


def test_bytes_that_nobody_reads_are_a_problem(write):
    rows = [{"pixels": PICTURES[0], "caption": "red"}]
    _, reading = read(write({"train.parquet": parquet(rows)}))
    told = "train.parquet[0] has an image in 'pixels', which is not read; --columns image=pixels reads it"
    assert [str(one) for one in reading.problems.found] == [told]
    assert len(read(reading.root, columns={"image": "pixels"})[0]["train"]) == 1


def test_damaged_containers_are_told(write, monkeypatch):
    whole = parquet(CAPTIONS)
    files = {"a.parquet": whole[:50], "b.parquet": whole, "c.arrow": b"ARROW1", "d.tar": b"x" * 700}
    monkeypatch.setattr(columnar, "MOST_GROUP", 10)
    _, reading = read(write(files | {"cache-1.arrow": arrow(CAPTIONS)}))
    told = {one.where: one.what for one in reading.problems.found}
    assert set(told) == set(files)
    assert told["a.parquet"].startswith("is not readable as Parquet (")
    assert "row group 0 has " in told["b.parquet"]
    assert told["c.arrow"].startswith("is not readable as Arrow (")
    assert told["d.tar"].startswith("is not readable as a tar (")
    assert reading.skipped == {"cache-1.arrow": "a cache of `datasets`"}


def test_no_offset_of_a_damaged_file_is_followed(write):
    """Arrow's offsets are read as they are: without a check, this one is a string of negative length."""
    whole, offsets = arrow([{"image": "a.png", "caption": "x" * 77}]), b"\0\0\0\0\x4d\0\0\0xxx"
    assert whole.count(offsets) == 1
    damaged = whole.replace(offsets, b"\x4e\0\0\0\x4d\0\0\0xxx")
    _, reading = read(write({"train.arrow": damaged}))
    (problem,) = reading.problems.found
    assert problem.what.startswith("is not readable as Arrow (")


def test_a_file_that_changed_is_a_fault(write):
    root = write({"train.parquet": parquet(CAPTIONS), "val.tar": tar({"a.png": PICTURES[0], "a.txt": "red"})})
    listing, reading = read(root)
    (root / "train.parquet").write_bytes(parquet(CAPTIONS[:1]))
    with pytest.raises(ImageFault, match="cannot be read"):
        ImageFiles(reading).read(listing["train"][4].images[0])
    os.truncate(root / "val.tar", 600)
    with pytest.raises(ImageFault, match="is cut off"):
        ImageFiles(reading).read(listing["validation"][0].images[0])


def url(picture: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(picture).decode()}"


def asking(pictures: list[bytes], answer: str) -> dict:
    parts = [{"type": "image_url", "image_url": {"url": url(one)}} for one in pictures]
    said = [{"role": "user", "content": [*parts, {"type": "text", "text": "What?"}]}]
    return {"messages": [*said, {"role": "assistant", "content": answer}], "split": answer}


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json"])
def test_images_in_the_rows_themselves_are_read(name, write, monkeypatch):
    monkeypatch.setattr(inline, "KEPT", 2)
    splits = ["train", "test", "train", "train", "test"]
    rows = [asking([one, PICTURES[0]], split) for one, split in zip(PICTURES, splits, strict=True)]
    listing, reading = read(write({name: rows}))
    assert not reading.problems.found
    files = ImageFiles(reading)
    wanted = {"train": [0, 2, 3], "test": [1, 4]}
    for split, numbers in wanted.items():  # not in the order of the file
        seen = [[files.read(image) for image in row.images] for row in listing[split]]
        assert seen == [[PICTURES[number], PICTURES[0]] for number in numbers]
    last = listing["test"][-1].images[0]
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(files.read, [last, listing["train"][0].images[1]] * 8)) == {PICTURES[4], PICTURES[0]}


def test_damaged_images_in_the_rows_are_faults(write):
    rows = [asking([PICTURES[0]], "train") for _ in range(2)]
    for row, content in zip(rows, ("data:image/png;base64,A*", "data:image/svg+xml,<svg/>"), strict=True):
        row["messages"][0]["content"][0]["image_url"]["url"] = content
    listing, reading = read(write({"rows.jsonl": rows}))
    for row, told in zip(listing["train"], ("is not in base64", "is a data: URL that is not in base64"), strict=True):
        with pytest.raises(ImageFault, match=told):
            ImageFiles(reading).read(row.images[0])
    (reading.root / "rows.jsonl").write_text("")
    with pytest.raises(ImageFault, match="is not there any more"):
        ImageFiles(reading).read(listing["train"][1].images[0])


def test_members_of_a_tar_are_rows(write):
    members: dict[str, bytes | str | dict] = {
        "x/000.jpg": PICTURES[0],
        "x/000.txt": "a red square\n",
        "x/000.json": {"url": "https://x.org/0.jpg", "caption": "not this one"},
        "x/001.png": PICTURES[1],
        "x/001.json": {"conversations": turns("<image>\nWhat?", "red")},
        "x/002.a.png": PICTURES[2],
        "x/002.b.png": PICTURES[3],
        "x/002.json": {"question": "<image> or <image>?", "answer": "both"},
        "x/003.mp4": b"0000",
        "x/003.txt": "a film",
        "x/004.png": PICTURES[4],
        "x/004.json": "{",
        "x/005.png": PICTURES[4],
    }
    listing, reading = read(write({"shard-train-0000.tar": tar(members)}))
    files = ImageFiles(reading)
    first, second, third = listing["train"]
    assert (first.key, first.prompts, first.answers) == ("x/000", (CAPTION_PROMPT,), ("a red square",))
    assert (second.prompts, second.answers) == (("What?",), ("red",))
    assert [[files.read(image) for image in row.images] for row in listing["train"]] == [
        PICTURES[:1],
        PICTURES[1:2],
        PICTURES[2:4],
    ]
    assert third.prompts == ("<image> or <image>?",)
    told = {one.where.removeprefix("shard-train-0000.tar"): one.what for one in reading.problems.found}
    assert list(told) == ["[x/003]", "[x/004]", "[x/005]"]
    assert told["[x/003]"] == "has no image; '.mp4' is 'x/003.mp4', which is not read"
    assert told["[x/004]"].startswith("has a member 'x/004.json' that is not readable as JSON (")
    assert told["[x/005]"] == "has no 'answer' (found: id, image)"
    assert reading.unread == {"shard-train-0000.tar": {"url": 1, "json.caption": 1}}
