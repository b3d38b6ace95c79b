"""Builds from original files: what they were built from, what was left out, and how images are stored."""

import json
import os

import numpy as np
import pytest
from etils import epath
from tensorflow_datasets.core.features import FeaturesDict

from jaxguard.cli.main import main
from jaxguard.data import builders, images, shards
from jaxguard.data.formats.reading import Reading
from jaxguard.data.images import decode
from jaxguard.data.originals import Building, build_original
from jaxguard.data.rows import Row
from jaxguard.data.sources import open_source
from jaxguard.errors import UserError
from tests.data.miniatures import png, turns

ROWS = [{"image": f"{n}.png", "caption": f"number {n}"} for n in range(4)]
PICTURES = {f"{n}.png": png(n) for n in range(4)}


def build(root, out, **building):
    return build_original("folder", Reading(epath.Path(root)), out, "mine", Building(threads=1, **building))


def answers(out):
    source = open_source("mine", out, "train")
    return [source[index].answers[0] for index in range(len(source))]


def test_the_same_files_are_built_once(write, tmp_path, capsys):
    root = write({"train.jsonl": ROWS} | PICTURES)
    folder = build(root, tmp_path)
    before = folder.stat().st_mtime_ns
    os.utime(root / "0.png", (1, 1))
    assert build(root, tmp_path) == folder
    assert folder.stat().st_mtime_ns == before
    assert "mine is already built from these files" in capsys.readouterr().err
    (folder / shards.FINGERPRINT).unlink()
    build(root, tmp_path)
    assert "mine is already built by an earlier version, which does not say from what" in capsys.readouterr().err


@pytest.mark.parametrize(
    "files", [{"train.jsonl": [*ROWS[:3], ROWS[3] | {"caption": "green"}]}, {"3.png": png(9)}, {"test.jsonl": ROWS[:1]}]
)
def test_an_edited_folder_is_not_built_already(files, write, tmp_path):
    build(write({"train.jsonl": ROWS} | PICTURES), tmp_path)
    root = write(files)
    if "test.jsonl" in files:
        (root / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS[1:]))
    with pytest.raises(
        UserError, match="mine is built already, from other rows, images or options than these; give it"
    ):
        build(root, tmp_path)
    assert answers(tmp_path) == [row["caption"] for row in ROWS]


def test_bad_rows_are_left_out_by_a_word(write, tmp_path, capsys):
    rows = [*ROWS, {"image": "0.png", "caption": ""}, {"image": "9.png", "caption": "nine"}]
    root = write({"train.jsonl": rows} | PICTURES | {"2.png": b"damaged"})
    line = ["data", "build", "folder", "--from", str(root), "--root", str(tmp_path), "--name", "mine"]
    assert main(line) == 2
    assert capsys.readouterr().err.endswith("lists them; --skip-bad leaves them out\n")
    assert main([*line, "--skip-bad", "--most-bad", "0.4"]) == 2
    told = capsys.readouterr().err
    assert "3 of 6 rows are faulty (first: train.jsonl:5 has an empty 'caption'), more than --most-bad 0.4" in told
    assert not (tmp_path / "mine").exists()
    assert main([*line, "--skip-bad"]) == 0
    assert answers(tmp_path) == ["number 0", "number 1", "number 3"]
    listed = tmp_path / "mine/1.0.0/left_out.jsonl"
    told = capsys.readouterr().err
    assert f"{root}: 3 train rows (3 with images)\n" in told
    assert f"  left out: 3 rows, listed in {listed}\n" in told
    assert [json.loads(one)["where"] for one in listed.read_text().splitlines()] == [
        "train.jsonl:5",
        "2.png",
        "9.png",
        "train: train.jsonl:3",
        "train: train.jsonl:6",
    ]
    assert main([*line, "--skip-bad"]) == 0


def test_faulty_files_are_never_left_out(write, tmp_path):
    root = write({"train.jsonl": ROWS, "more.json": '[{"image": "0.png"'} | PICTURES)
    with pytest.raises(UserError, match=r"1 unreadable files \(first: more.json is not readable as JSON"):
        build(root, tmp_path, skip_bad=True, most_bad=1.0)


def test_images_are_decoded_once_a_name(write, tmp_path, monkeypatch):
    rows = [{"image": f"{n % 2}.png", "caption": f"number {n}"} for n in range(10)]
    decoded = []

    def counting(data):
        decoded.append(data)
        return decode(data)

    monkeypatch.setattr(images, "decode", counting)
    build(write({"train.jsonl": rows} | PICTURES), tmp_path)
    assert len(decoded) == 2


def test_images_are_stored_at_a_side(write, tmp_path):
    root = write({"train.jsonl": ROWS[:2], "0.png": png(0, 60, 40), "1.png": png(1, 6, 4)})
    build(root, tmp_path, side=20)
    source = open_source("mine", tmp_path, "train")
    assert source[0].image.shape == (20, 30, 3)
    np.testing.assert_array_equal(source[1].image, decode(png(1, 6, 4)))
    with pytest.raises(UserError, match="from other rows, images or options"):
        build(root, tmp_path, side=10)


def test_system_texts_are_kept(write, tmp_path):
    said = [{"from": "system", "value": "Be terse."}, *turns("<image>\nWhat?", "red")]
    rows = [{"image": "0.png", "conversations": said}, {"image": "1.png", "conversations": said[1:]}]
    build(write({"train.json": rows} | PICTURES), tmp_path)
    source = open_source("mine", tmp_path, "train")
    assert [source[index].system for index in range(2)] == ["Be terse.", ""]
    kept = [source[index] for index in range(2)]
    builders.write_rows({"train": (2, lambda: iter(kept))}, tmp_path / "again", "again", {})
    again = open_source(str(tmp_path / "again"), tmp_path, "train")
    assert [again[index].system for index in range(2)] == ["Be terse.", ""]


def test_folders_from_before_there_were_system_texts_are_read(tmp_path):
    before = FeaturesDict({name: one for name, one in shards.schema().items() if name != "system"})
    row = Row(0, "k", decode(png()), ("What?",), ("red",), ("red",))
    record = {"id": 0, "key": "k", "images": [png()], "chained": False}
    record |= {name: list(getattr(row, name)) for name in ("prompts", "answers", "references")}
    split = shards.Split(1, lambda start: iter([record][start:]))
    shards.write(tmp_path / "old", "old", before, {"train": split}, extra={})
    read = open_source(str(tmp_path / "old"), tmp_path, "train")[0]
    assert (read.answers, read.system) == (("red",), "")
    np.testing.assert_array_equal(read.image, row.image)


def test_linked_and_absolute_images_are_allowed_by_folder(write, tmp_path, capsys):
    root = write({"a.png": png()})
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/b.png").write_bytes(png(1))
    (root / "coco").symlink_to(tmp_path / "outside")
    rows = [str(root / "a.png"), "coco/b.png", str(tmp_path / "outside/b.png")]
    (root / "train.jsonl").write_text("".join(json.dumps({"image": one, "caption": "red"}) + "\n" for one in rows))
    line = ["data", "check", str(root)]
    assert main(line) == 2
    told = capsys.readouterr().out
    assert told.count("is an absolute path; --allow-root DIR allows those into DIR") == 2
    assert told.count("coco/b.png is a link that leads out of the folder") == 1
    assert main([*line, "--allow-root", str(tmp_path / "outside")]) == 2
    assert "images outside the folder: 1\n" in capsys.readouterr().out
    assert main([*line, "--allow-root", str(tmp_path / "outside"), "--allow-root", str(root)]) == 0


def test_images_lie_in_a_folder_of_their_own(write, tmp_path, capsys):
    root = write({"rows/train.json": ROWS} | {f"pictures/{name}": one for name, one in PICTURES.items()})
    assert main(["data", "check", str(root / "rows/train.json"), "--images", str(root / "pictures")]) == 0
    assert capsys.readouterr().out.startswith(f"{root}/rows/train.json: 4 train rows (4 with images)\n")
    assert main(["data", "check", str(root / "rows")]) == 2


def test_a_root_with_brackets_is_no_pattern(write, tmp_path):
    build(write({"train.jsonl": ROWS} | PICTURES), tmp_path / "built [1]")
    assert answers(tmp_path / "built [1]") == [row["caption"] for row in ROWS]
