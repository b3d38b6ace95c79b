"""One function opens every file: byte order marks, brackets, links, folders named like data, foreign contents."""

import gzip
import json

import pytest
from etils import epath

from jaxguard.data.formats import files, listed, recognise
from jaxguard.data.formats.reading import Choices, Reading
from tests.data.miniatures import png, turns

ROW = {"image": "a.png", "caption": "été"}


def rows_of(root, name=None, **choices):
    reading = Reading(epath.Path(root), choices=Choices(**choices))
    return listed(reading, name or recognise(reading)), reading


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("train.json", json.dumps([ROW], ensure_ascii=False)),
        ("train.jsonl", json.dumps(ROW, ensure_ascii=False)),
        ("train.csv", "image,caption\r\na.png,été\r\n"),
        ("train.tsv", "image\tcaption\na.png\tété\n"),
        ("dataset_coco.json", '{"images": [{"filename": "a.png", "split": "train", "sentences": [{"raw": "été"}]}]}'),
        ("results.token", "a.png#0\tété\n"),
    ],
)
def test_any_unicode_is_read_with_its_mark(encoding, name, text, write):
    listing, reading = rows_of(write({name: text.encode(encoding)}))
    assert not reading.problems.found
    ((row,),) = listing.values()
    assert (row.images, row.answers) == (("a.png",), ("été",))


def test_a_mark_hides_no_image_from_its_split(write):
    """Notepad's mark once made the first held-out image of val.txt a training row."""
    tokens = "".join(f"{n}.jpg#0\tA dog .\n" for n in (1, 2, 3))
    listing, _ = rows_of(write({"results.token": tokens, "val.txt": b"\xef\xbb\xbf1\n2\n"}))
    assert {split: [row.key for row in rows] for split, rows in listing.items()} == {
        "validation": ["1.jpg", "2.jpg"],
        "train": ["3.jpg"],
    }


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("é".encode("latin-1"), "'utf-8' codec can't decode"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "Git LFS pointer, not the file: run `git lfs"),
        (gzip.compress(b"[]", mtime=0), "it is compressed by gzip: unpack it"),
    ],
)
def test_what_is_no_text_is_said(content, told, write):
    _, reading = rows_of(write({"train.csv": content}), "folder/rows")
    assert [str(one) for one in reading.problems.found if told in str(one)]


def test_brackets_in_paths_are_no_patterns(tmp_path):
    root = tmp_path / "my [new] data*"
    (root / "a[1]").mkdir(parents=True)
    (root / "a[1]/x.png").write_bytes(png())
    (root / "train.jsonl").write_text(json.dumps({"image": "a[1]/x.png", "caption": "red"}))
    (root / "captions_val[1].json").write_text("[]")
    listing, _ = rows_of(root)
    assert listing["train"][0].images == ("a[1]/x.png",)


def test_folders_named_like_data_are_no_files(write):
    listing, reading = rows_of(write({"train.jsonl": [ROW], "val.jsonl/a.png": png(), "test.json/x.txt": "x"}))
    assert list(listing) == ["train"]
    assert not reading.problems.found


def test_links_to_files_of_rows_stay_inside(write, tmp_path):
    root = write({"a.png": png()})
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs/b").write_text(json.dumps(ROW))
    (root / "train.jsonl").symlink_to(tmp_path / "blobs/b")
    _, reading = rows_of(root, "folder/rows")
    (problem,) = reading.problems.found
    assert "train.jsonl is not readable as text (it is a link that leads out of the folder; --allow-root" in str(
        problem
    )
    listing, reading = rows_of(root, allowed=(str(tmp_path / "blobs"),))
    assert len(listing["train"]) == 1
    assert not reading.problems.found


@pytest.mark.parametrize("chunk", [1, 2, 7, 2**20])
def test_a_list_is_read_piece_by_piece(chunk, write, monkeypatch):
    monkeypatch.setattr(files, "CHUNK", chunk)
    values = [{"a": 'x\u2028\\"]', "b": [1, 2.5e-3, None, True]}, 12345, "é😀", [], {}]
    root = write({"a.json": json.dumps(values, indent=1), "b.json": " [ ] ", "c.json": json.dumps(values)})
    reading = Reading(epath.Path(root))
    for name, wanted in (("a.json", values), ("b.json", []), ("c.json", values)):
        assert list(files.read_json_items(reading, name)) == [(f"{name}[{n}]", one) for n, one in enumerate(wanted)]
    assert not reading.problems.found


@pytest.mark.parametrize("chunk", [1, 2**20])
@pytest.mark.parametrize(
    ("content", "read", "told"),
    [
        ("[1, 2", 2, "Expecting ',' or ']' behind item 1, character 5"),
        ("[1, ]", 1, "Expecting value in item 1, character 4"),
        ('[1, {"a" 2}]', 1, "Expecting ':' delimiter in item 1, character 9"),
        ('[1, "a', 1, "Unterminated string starting at in item 1, character 4"),
        ("[1] 2", 1, "Extra data behind the list, character 4"),
        ("", 0, "Expecting value"),
    ],
)
def test_a_broken_list_says_where(content, read, told, chunk, write, monkeypatch):
    monkeypatch.setattr(files, "CHUNK", chunk)
    reading = Reading(epath.Path(write({"a.json": content})))
    assert len(list(files.read_json_items(reading, "a.json"))) == read
    (problem,) = reading.problems.found
    assert told in str(problem)


def test_lines_and_items_have_a_largest_size(write, monkeypatch):
    monkeypatch.setattr(files, "MOST_ITEM", 100)
    monkeypatch.setattr(files, "CHUNK", 10)
    reading = Reading(epath.Path(write({"a.json": json.dumps(["x" * 300]), "b.jsonl": '{"x": "' + "x" * 300 + '"}'})))
    for name in ("a.json", "b.jsonl"):
        assert list(files.read_json_items(reading, name)) == []
    assert ["item 0 has more than 100" in str(one) for one in reading.problems.found] == [True, False]
    assert "line 1 has 100 characters or more" in str(reading.problems.found[1])


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.json", '[{"a": 1}]', "list"),
        ("a.jsonl", '[\n{"a": 1}]', "list"),
        ("a.json", '{"a": 1}\n{"a": 2}\n', "lines"),
        ("a.jsonl", '{"a": 1}', "lines"),
        ("a.json", '{"a": 1}', "object"),
        ("a.json", '{\n"a": 1}', "object"),
    ],
)
def test_contents_and_not_suffixes_say_what_a_file_is(name, content, kind, write):
    assert files.json_content(Reading(epath.Path(write({name: content}))), name) == kind


def test_one_file_is_read_alone(write):
    said = {"id": 1, "image": "a.png", "conversations": turns("<image>\nWhat?", "A cat.")}
    root = write({"train.json": [said], "test.json": [said], "a.png": png()})
    reading = Reading(epath.Path(root), "test.json")
    assert {split: len(rows) for split, rows in listed(reading, recognise(reading)).items()} == {"test": 1}
