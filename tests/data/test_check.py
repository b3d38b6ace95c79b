"""Faulty and hostile data sets: every mistake has its own message, is counted, and ends with exit code 2."""

import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from etils import epath
from PIL import Image

from jaxguard.cli.main import main
from jaxguard.data.builders import write_rows
from jaxguard.data.check import check
from jaxguard.data.formats.reading import Choices, Reading
from jaxguard.data.rows import Row
from jaxguard.models import folders
from tests.data.miniatures import MINIATURES, png, turns

CAPTIONS = "captions_train.json"
QUESTIONS, ANNOTATIONS = "v2_OpenEnded_mscoco_train2014_questions.json", "v2_mscoco_train2014_annotations.json"


def coco(image=None, annotation=None, picture=None, **files):
    """One captioned picture, with some fields of its entries changed (to `...`: left out)."""
    images = [_changed({"id": 1, "file_name": "a.png"}, image)]
    annotations = [_changed({"id": 5, "image_id": 1, "caption": "a cat"}, annotation)]
    return {CAPTIONS: {"images": images, "annotations": annotations} | files, "a.png": picture or png()}


def karpathy(**changed):
    image = {"filename": "a.png", "split": "train", "sentences": [{"raw": "a cat"}]}
    return {"dataset_coco.json": {"images": [_changed(image, changed)]}, "a.png": png()}


def token(line):
    return {"results.token": line}


def vqav2(question=None, annotation=None, **files):
    asked = _changed({"image_id": 1, "question": "What?", "question_id": 2}, question)
    given = {"question_id": 2, "image_id": 1, "multiple_choice_answer": "cat", "answers": [{"answer": "cat"}]}
    picture = {"COCO_train2014_000000000001.jpg": png()}
    given = _changed(given, annotation)
    return {QUESTIONS: {"questions": [asked]}, ANNOTATIONS: {"annotations": [given]}} | picture | files


def llava(*said, **changed):
    said = said or ("<image>\nWhat?", "A cat.")
    row = {"id": "x", "image": "a.png", "conversations": turns(*said)}
    return {"rows.jsonl": [_changed(row, changed)], "a.png": png()}


def table(text):
    return {"rows.csv": text, "a.png": png()}


def _changed(item, changes):
    return {name: value for name, value in (item | (changes or {})).items() if value is not ...}


def encoded(kind, **options):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)).save(buffer, kind, **options)
    return buffer.getvalue()


def header(width, height):
    """A PNG of that size by its header, and next to nothing behind it."""
    chunks = (b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT" + zlib.compress(b"\0"))
    framed = (struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


UNKNOWN = "a.png is not a readable image (none of BMP, GIF, JPEG, PNG, PPM, TIFF, WEBP)"
BAD = [
    # files
    ({CAPTIONS: "{"}, "captions_train.json is not readable as JSON (Expecting property name"),
    ({CAPTIONS: ""}, "captions_train.json is not readable as JSON (Expecting value"),
    ({CAPTIONS: b'{"a": "\xff"}'}, "captions_train.json is not readable as JSON ('utf-8' codec can't decode"),
    ({CAPTIONS: b"\xff\xfe{}"}, "captions_train.json is not readable as JSON (Expecting value"),
    ({CAPTIONS: "[" * 200_000}, "captions_train.json is not readable as JSON (maximum recursion depth exceeded"),
    ({CAPTIONS: "[3]"}, "captions_train.json[0] is a whole number, not an object"),
    ({CAPTIONS: '{"a": ' + "1" * 5_000}, "captions_train.json is not readable as JSON (Exceeds the limit"),
    ({CAPTIONS: {"annotations": []}}, "captions_train.json has no 'images'"),
    (coco(images="none"), "captions_train.json has a text as 'images', where a list is wanted"),
    (coco(annotations=None), "captions_train.json has null as 'annotations', where a list is wanted"),
    # what COCO says of images
    (coco(images=[3]), "captions_train.json: images[0] is a whole number, not an object"),
    (coco({"id": ...}), "captions_train.json: images[0] has no 'id'"),
    (coco({"id": [1]}), "images[0] has a list as 'id', where a whole number or a text is wanted"),
    (coco({"id": True}), "images[0] has true or false as 'id', where a whole number or a text is wanted"),
    (coco({"id": 1.5}), "images[0] has a number as 'id', where a whole number or a text is wanted"),
    (coco({"file_name": ...}), "images[0] has no 'file_name'"),
    (coco({"file_name": " "}), "images[0] has an empty 'file_name'"),
    (coco(images=[{"id": 1, "file_name": "a.png"}] * 2), "captions_train.json has more than one image '1'"),
    (coco(annotation={"image_id": 9}), "annotations[0] is about image '9', which 'images' does not list"),
    (coco(annotation={"caption": "\n"}), "annotations[0] has an empty 'caption'"),
    (coco(annotation={"caption": None}), "annotations[0] has null as 'caption', where a text is wanted"),
    (coco(annotation={"caption": "an <image>"}), "annotations[0] has <image> as part of 'caption'"),
    (coco(annotation={"caption": "\ud800"}), "annotations[0] has invalid characters in 'caption'"),
    (coco(annotation={"caption": "a\0b"}), "annotations[0] has invalid characters in 'caption'"),
    (coco(annotation={"caption": "a" * 100_001}), "has 100001 characters as 'caption'; at most 100000 are read"),
    (coco(annotations=[]), "captions_train.json: image '1' has no caption"),
    (karpathy(split="trian"), "dataset_coco.json: images[0] has the split 'trian'; one of train, training, restval"),
    (karpathy(split=...), "images[0] has no 'split'"),
    (karpathy(sentences=...), "images[0] has no 'sentences'"),
    (karpathy(sentences=[]), "images[0] has no caption"),
    (karpathy(sentences=["a cat"]), "images[0] is a text, not an object"),
    (karpathy(filename=7), "images[0] has a whole number as 'filename', where a text is wanted"),
    # where images lie
    (coco({"file_name": "b.png"}), "b.png does not exist"),
    (coco({"file_name": "."}), ". names no file"),
    (coco({"file_name": "http://example.com/a.png"}), "http://example.com/a.png is a URL; only files are read"),
    (coco({"file_name": "file:a.png"}), "file:a.png is a URL; only files are read"),
    (coco({"file_name": "data:image/png;base64,AA"}), "data:image/png;base64,AA is a URL; only files are read"),
    (coco({"file_name": "/etc/passwd"}), "/etc/passwd is an absolute path; --allow-root DIR allows those into DIR"),
    (coco({"file_name": "../original/a.png"}), "../original/a.png leads out of the folder"),
    (karpathy(filepath="../original"), "../original/a.png leads out of the folder"),
    (coco({"file_name": "x" * 300}), "does not exist"),
    # what images hold
    (coco(picture=b"\0"), UNKNOWN),
    (coco(picture=b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), UNKNOWN),
    (coco(picture=b"<svg xmlns='http://www.w3.org/2000/svg'/>"), UNKNOWN),
    (coco(picture=encoded("PNG")[:900]), "a.png is not a readable image (image file is truncated"),
    (coco(picture=encoded("JPEG")[:900]), "a.png is not a readable image (image file is truncated"),
    (coco(picture=encoded("GIF")[:1500]), "a.png is not a readable image (image file is truncated"),
    (coco(picture=encoded("PNG")[:-30] + bytes(30)), "a.png is not a readable image (broken data stream"),
    (coco(picture=encoded("PNG").replace(b"IDAT", b"IDAX")), UNKNOWN),
    (coco(picture=header(9_000, 9_000)), "a.png has 9000 x 9000 pixels; at most 67108864 are read"),
    (coco(picture=header(60_000, 60_000)), "a.png is not a readable image (Image size (3600000000 pixels) exceeds"),
    # Flickr30k
    (token("1.jpg#0 A dog\n"), "results.token:1 is not IMAGE#NUMBER, a tab and a caption"),
    (token("1.jpg\tA dog\n"), "results.token:1 is not IMAGE#NUMBER, a tab and a caption"),
    (token("#0\tA dog\n"), "results.token:1 is not IMAGE#NUMBER, a tab and a caption"),
    (token("1.jpg#0\t \n"), "results.token:1 has an empty 'caption'"),
    (token(b"1.jpg#0\t\xff\n"), "results.token is not readable as text ('utf-8' codec can't decode"),
    # VQAv2
    ({QUESTIONS: {"questions": []}}, "has questions but no v2_mscoco_SPLIT_annotations.json with their answers"),
    (vqav2(**{ANNOTATIONS: "}"}), "v2_mscoco_train2014_annotations.json is not readable as JSON"),
    (vqav2({"question_id": 3}), "questions[0] is question '3', which has no annotation"),
    (vqav2({"image_id": "1"}), "questions[0] has a text as 'image_id', where a whole number is wanted"),
    (vqav2({"image_id": 2}), "COCO_train2014_000000000002.jpg does not exist"),
    (vqav2(annotation={"answers": []}), "annotations[0] has no answers"),
    (vqav2(annotation={"answers": [{}]}), "annotations[0] has no 'answer'"),
    (vqav2(annotation={"multiple_choice_answer": ""}), "annotations[0] has an empty 'multiple_choice_answer'"),
    # LLaVA
    ({"rows.json": {"conversations": []}}, "rows.json holds an object, not a list"),
    ({"rows.jsonl": '{"conversations": \n'}, "rows.jsonl:1 is not readable as JSON (Expecting value"),
    ({"rows.json": [{"conversations": []}, None]}, "rows.json[1] is null, not an object"),
    (llava(conversations=[]), "rows.jsonl:1 has no turns"),
    (llava(conversations=["Hi"]), "rows.jsonl:1 is a text, not an object"),
    (llava(conversations=[{"from": "gpt", "value": "Hi"}]), "rows.jsonl:1 has no turns"),
    (llava(conversations=[{"from": "system", "value": "Be."}]), "rows.jsonl:1 has no turns"),
    (llava(conversations=turns("Hi", "Hi")[:1] * 2), "has 'human' as the speaker of turn 1, where 'gpt' is wanted"),
    (llava("<image>\nWhat?", "A cat.", "And?"), "rows.jsonl:1 ends with a question that has no answer"),
    (llava("What?", "A cat."), "rows.jsonl:1 has 0 <image> for 1 images"),
    (llava("<image><image>\nWhat?", "A cat."), "rows.jsonl:1 has 2 <image> for 1 images"),
    (llava(image=...), "rows.jsonl:1 has 1 <image> for 0 images"),
    (llava(image=["a.png", "a.png"]), "rows.jsonl:1 has 1 <image> for 2 images"),
    (llava("<image>\nWhat?", "An <image>."), "rows.jsonl:1 has <image> as part of 'value'"),
    (llava("<image>\nWhat?", " "), "rows.jsonl:1 has an empty 'value'"),
    (llava("<image>\n", "A cat."), "rows.jsonl:1 has an empty question"),
    (llava(image=7), "rows.jsonl:1 has a whole number as 'image', where a text or a list is wanted"),
    (llava(image=["a.png", 7]), "rows.jsonl:1 has a whole number as 'image', where a text or a list is wanted"),
    (llava(image=[["a.png"]]), "rows.jsonl:1 has a list as 'image', where a text is wanted"),
    (llava(image={"height": 3}), "rows.jsonl:1 has an object without 'bytes' or 'path' as 'image'"),
    ({"rows.jsonl": llava()["rows.jsonl"] * 2, "a.png": png()}, "train has row 2 of the id 'x'"),
    # tables
    (table("image,label\na.png,3\n"), "rows.csv:2 has no 'answer' (found: image, label)"),
    (table("image,answer\na.png,one,two\n"), "rows.csv:2 has more cells than the header"),
    (table('image,answer\na.png,"one\n'), "rows.csv is not readable as CSV (behind line 1: unexpected end of data)"),
    (table("image,answer,split\na.png,one,trian\n"), "rows.csv:2 has the split 'trian'; one of train"),
    (table("image,answer,id\na.png,one,3\na.png,two,3\n"), "train has row 2 of the id '3'"),
    (table("image,answer\na.png,a <image>\n"), "rows.csv:2 has <image> as part of 'answer'"),
    ({"rows.jsonl": [{"image": "a", "answer": "a", "references": []}]}, "rows.jsonl:1 has no 'references'"),
    (
        {"rows.jsonl": [{"image": "a", "answer": "a", "references": "a"}]},
        "has a text as 'references', where a list is wanted",
    ),
    ({"rows.jsonl": ["a"]}, "rows.jsonl:1 is a text, not an object"),
]


def test_there_are_enough():
    assert len({json.dumps(files, default=repr) for files, _ in BAD}) == len(BAD) >= 60


@pytest.mark.parametrize(("files", "message"), BAD, ids=range(len(BAD)))
def test_a_mistake_is_told_in_its_own_words(files, message, write, capsys):
    root = write(files)
    assert main(["data", "check", str(root)]) == 2
    output = capsys.readouterr()
    told = output.out.splitlines()
    assert any(line.startswith("  ") and message in line for line in told), output.out
    assert output.err == f"jaxguard: error: {root} has {_count(told)} problems, listed above\n"


def _count(lines):
    return sum(int(line.rpartition(": ")[2]) for line in lines[1:] if not line.startswith(" "))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (coco(annotations=[]), "{}: 1 empty texts (first: captions_train.json: image '1' has no caption); `jaxguard "),
        (
            coco({"file_name": "../a.png"}),
            "{}: 1 images outside the folder (first: ../a.png leads out of the folder; in row ../a.png); `jaxguard",
        ),
        (coco(picture=b"\0"), "{}: 1 unreadable images (first: " + UNKNOWN),
        (table("image,answer\n"), "{} holds no rows of folder/rows"),
    ],
)
def test_no_build_begins_or_ends_with_a_mistake(files, message, write, tmp_path, capsys):
    root, name = write(files), "coco" if CAPTIONS in files else "folder"
    assert main(["data", "build", name, "--from", str(root), "--root", str(tmp_path / "data")]) == 2
    output = capsys.readouterr()
    assert output.err.startswith("jaxguard: error: " + message.format(root, root))
    assert output.err.count("\n") == 1
    assert not list(tmp_path.glob("data/**/dataset_info.json"))


@pytest.mark.parametrize("name", MINIATURES)
def test_what_is_right_passes(name, write, capsys):
    root = write(MINIATURES[name])
    assert main(["data", "check", str(root), "--text-rows"]) == 0
    assert capsys.readouterr().out.startswith(f"{root}: ")


def test_links_may_not_lead_out(write, tmp_path):
    root = write(coco({"file_name": "link/secret.png"}))
    (tmp_path / "secret.png").write_bytes(png())
    (root / "link").symlink_to(tmp_path)
    found = check(Reading(epath.Path(root)), None, None, 1).problems.found
    way = "--allow-root DIR allows those into DIR; in row link/secret.png"
    assert [str(one) for one in found] == [f"link/secret.png is a link that leads out of the folder; {way}"]
    allowed = Choices(allowed=(str(tmp_path),))
    assert not check(Reading(epath.Path(root), choices=allowed), None, None, 1).problems
    (root / "inside").mkdir()
    (root / "inside/secret.png").write_bytes(png())
    (root / "link").unlink()
    (root / "link").symlink_to(root / "inside")
    assert not check(Reading(epath.Path(root)), None, None, 1).problems


@pytest.mark.parametrize("name", [[], ["--as", "llava"]], ids=["recognised", "named"])
@pytest.mark.parametrize("other", [{"mine": {"file_name": "mine.json"}}, {"splits": {"train": {"name": "train"}}}])
def test_other_tools_dataset_info_is_no_built_data_set(other, name, write, capsys):
    """LLaMA-Factory's, and that of `datasets`."""
    row = {"image": "a.png", "conversations": turns("<image>\nWhat?", "red")}
    root = write({"dataset_info.json": other, "mine.json": [row], "a.png": png()})
    assert main(["data", "check", str(root), *name]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == f"{root}: 1 train rows (1 with images)"
    assert any(line.startswith("  not read: dataset_info.json (one object that begins with ") for line in told)


def test_names_move_no_cursor(write, capsys):
    root = write({"rows.jsonl": [{"answer": "a", "image": "a  b\x1b[2J\n.png"}]})
    assert main(["data", "check", str(root)]) == 2
    assert "  a  b\\x1b[2J .png does not exist; in row rows.jsonl:1\n" in capsys.readouterr().out


def test_ten_of_each_kind_are_shown_and_all_are_counted(write, capsys):
    rows = [{"answer": "" if place % 2 else "a", "image": f"{place}.png"} for place in range(50)]
    root = write({"rows.jsonl": rows})
    assert main(["data", "check", str(root), "--threads", "3"]) == 2
    told = [
        "empty texts: 25",
        *(f"  rows.jsonl:{place + 1} has an empty 'answer'" for place in range(1, 20, 2)),
        "  ... and 15 more (--all shows them)",
        "missing images: 25",
        *(f"  {place}.png does not exist; in row rows.jsonl:{place + 1}" for place in range(0, 20, 2)),
        "  ... and 15 more (--all shows them)",
    ]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{root}: 25 train rows (25 with images)"
    assert lines[-len(told) :] == told


def test_all_problems_are_shown_or_written(write, tmp_path, capsys):
    root = write({"rows.jsonl": [{"answer": "a", "image": f"{place}.png"} for place in range(20)]})
    assert main(["data", "check", str(root), "--all", "--report", str(tmp_path / "all.jsonl")]) == 2
    assert "  19.png does not exist; in row rows.jsonl:20" in capsys.readouterr().out.splitlines()
    problems = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    assert [problem["where"] for problem in problems] == [f"{place}.png" for place in range(20)]
    assert set(problems[0]) == {"kind", "where", "what"}


def test_lengths_are_counted_in_a_models_tokens(write, capsys):
    said = ("Hi", "word " * 40, "And?", "word " * 40)
    rows = [{"id": name, "conversations": turns(*said[:count])} for name, count in (("a", 2), ("b", 4))]
    root = write({"rows.jsonl": rows})
    line = ["data", "check", str(root), "--model", "tiny-llava"]
    assert main([*line, "--length", "200", "--answer-length", "100"]) == 0
    told = capsys.readouterr().out
    assert "  --data.length 97 keeps all rows, 97 keeps 99%, 97 keeps 95%\n" in told
    assert "  --data.answer_length 82 keeps all rows, 82 keeps 99%, 82 keeps 95%\n" in told
    assert (
        sum(
            line.endswith("tokens:        1 rows ########################################")
            for line in told.splitlines()
        )
        == 2
    )
    assert main([*line, "--length", "90", "--answer-length", "40"]) == 2
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "rows beyond the budget: 2",
        "  train: a has 41 answer tokens; --answer-length is 40",
        "  train: b has 97 tokens; --length is 90",
    ]


def test_built_rows_are_checked_too(tmp_path, capsys):
    image = np.zeros((4, 4, 3), np.uint8)
    rows = [Row(place, str(place), image, ("a <image> b",), (answer,), ("c",)) for place, answer in enumerate("cd")]
    rows[1] = Row(1, "1", image, ("<image> or <image>?",), ("an <image>",), ("c",))
    write_rows({"train": (2, lambda: iter(rows))}, tmp_path / "built", "built", {})
    line = ["data", "check", str(tmp_path / "built"), "--model", str(folders.resolve("tiny-llava"))]
    assert main(line) == 2
    told = "train: row 1 cannot be encoded (row 1 has 2 <image> for 1 images)"
    assert told in capsys.readouterr().out
    Path(tmp_path / "built/dataset_info.json").write_text("{}")
    assert main(line) == 2
    assert "dataset_info.json is damaged ('splits'); write the data set again" in capsys.readouterr().err
