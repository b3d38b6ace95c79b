"""Built data sets: order, lossless storage, one-line errors, no half-built folders."""

import dataclasses
import io
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from easy_vqa import get_test_image_paths, get_test_questions, get_train_questions
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2

from jaxguard.data import builders, scenes, shards
from jaxguard.data.rows import CAPTION_PROMPT, VQA_SUFFIX, Row
from jaxguard.data.sources import open_source
from jaxguard.errors import UserError


@pytest.fixture(scope="module")
def easy(tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    builders.build("easy_vqa/vqa", root)
    return root


def test_easy_vqa_is_complete_in_order_and_lossless(easy):
    counts = {split: len(open_source("easy_vqa/vqa", easy, split)) for split in ("train", "validation", "test")}
    assert counts == {"train": 3_800, "validation": 1_945, "test": 9_673}
    test = open_source("easy_vqa/vqa", easy, "test")
    (questions, answers, images), paths = get_test_questions(), get_test_image_paths()
    for index in (0, 1, 4_000, 9_672):
        row = test[index]
        assert row.id == index
        assert row.prompts == (questions[index] + VQA_SUFFIX,)
        assert row.answers == row.references == (answers[index],)
        np.testing.assert_array_equal(row.image, np.asarray(Image.open(paths[images[index]]).convert("RGB")))


def test_easy_vqa_trains_on_all_questions_of_an_image(easy):
    questions, answers, images = get_train_questions()
    row = open_source("easy_vqa/vqa", easy, "train")[17]
    asked = [
        (question + VQA_SUFFIX, answer)
        for question, answer, image in zip(questions, answers, images, strict=True)
        if image == 17
    ]
    assert list(zip(row.prompts, row.answers, strict=True)) == asked
    assert row.references == row.answers[:1]
    assert sum(image < 3_800 for image in images) + 1_945 == len(images)


def test_a_source_survives_pickling(easy):
    source = open_source("easy_vqa/vqa", easy, "validation")
    again = pickle.loads(pickle.dumps(source))  # noqa: S301 (our own bytes)
    assert again[7].answers == source[7].answers
    assert len(again) == len(source)


def test_building_twice_does_nothing(easy):
    folder = builders.folder_of("easy_vqa/vqa", easy)
    before = folder.stat().st_mtime_ns
    assert builders.build("easy_vqa/vqa", easy) == folder
    assert folder.stat().st_mtime_ns == before


@pytest.fixture
def few_scenes(monkeypatch):
    monkeypatch.setattr(scenes, "SPLITS", {"train": 12, "validation": 3, "test": 4})


def test_scene_tasks(few_scenes, tmp_path):
    for task in ("caption", "vqa", "all"):
        builders.build(f"scenes/{task}", tmp_path)
    caption, vqa, everything = (open_source(f"scenes/{task}", tmp_path, "train") for task in ("caption", "vqa", "all"))
    assert len(caption) == len(vqa) == len(everything) == 12
    for index in range(12):
        pixels = scenes.render(scenes.sample("train", index))
        for source in (caption, vqa, everything):
            assert source[index].id == index
            np.testing.assert_array_equal(source[index].image, pixels)
        assert caption[index].prompts == (CAPTION_PROMPT,) * 5
        assert caption[index].answers == caption[index].references
        assert len(vqa[index].prompts) == 1
        assert vqa[index].references == vqa[index].answers
        assert set(vqa[index].prompts) | set(caption[index].prompts) <= set(everything[index].prompts)


def test_a_killed_build_never_looks_built(few_scenes, tmp_path, monkeypatch):
    rendered = scenes.render

    def failing(scene):
        if scene.seed[1] == 5:
            raise KeyboardInterrupt
        return rendered(scene)

    monkeypatch.setattr(scenes, "render", failing)
    with pytest.raises(KeyboardInterrupt):
        builders.build("scenes/caption", tmp_path)
    with pytest.raises(UserError, match="is not built"):
        open_source("scenes/caption", tmp_path, "train")
    monkeypatch.setattr(scenes, "render", rendered)
    builders.build("scenes/caption", tmp_path)
    assert len(open_source("scenes/caption", tmp_path, "train")) == 12


def test_wrong_names_are_one_line(easy, tmp_path):
    with pytest.raises(UserError, match="no data set 'scene/caption'; did you mean 'scenes/caption'"):
        builders.build("scene/caption", tmp_path)
    with pytest.raises(UserError, match=r"is not built in .*: run `jaxguard data build scenes/caption`"):
        open_source("scenes/caption", tmp_path, "train")
    with pytest.raises(UserError, match=r"neither one of .* nor a data set folder"):
        open_source(str(tmp_path), tmp_path, "train")
    with pytest.raises(UserError, match="has no split 'dev'; it has"):
        open_source("easy_vqa/vqa", easy, "dev")


@pytest.fixture
def own(few_scenes, tmp_path):
    return builders.build("scenes/caption", tmp_path)


def test_a_data_folder_cannot_name_code_to_import(own):
    path = own / "features.json"
    path.write_text(path.read_text().replace("tensorflow_datasets.core.features.features_dict", "antigravity"))
    with pytest.raises(UserError, match="holds no rows in jaxguard's schema"):
        open_source(str(own), own, "train")
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize("file", ["features.json", "dataset_info.json"])
def test_a_damaged_folder_is_one_line(own, file):
    (own / file).write_text("{")
    with pytest.raises(UserError, match=r"is damaged .*; remove it and write it again"):
        open_source(str(own), own, "train")


def test_a_damaged_image_of_an_embedded_schema_is_one_line(tmp_path):
    row = {"id": 0, "key": "k", "image": b"\x89PNG damaged", "prompts": ["a"], "answers": ["b"], "references": ["b"]}
    split = shards.Split(1, lambda start: iter([row][start:]))
    shards.write(tmp_path / "hostile", "rows", shards.embedded_schema(), {"train": split}, extra={})
    source = open_source(str(tmp_path / "hostile"), tmp_path, "train")
    with pytest.raises(UserError, match="hostile: an image of row 0 of train is not a readable image"):
        source[0]


GOOD = {"id": [0], "key": [b"k"], "prompts": [b"a"], "answers": [b"b"], "references": [b"b"]}


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({}, None),
        ({"references": None}, None),  # an empty list leaves nothing in a record
        ({"id": None}, "lacks an id"),
        ({"id": [1, 2]}, "lacks an id"),
        ({"id": [-1]}, "lacks an id"),
        ({"id": [2**31]}, "lacks an id"),
        ({"id": [b"0"]}, "lacks an id"),
        ({"key": []}, "lacks an id"),
        ({"key": [b"\xff"]}, "holds no text"),
        ({"prompts": None}, "has no answer to each of its prompts"),
        ({"answers": [b"b", b"c"]}, "has no answer to each of its prompts"),
        ({"answers": [b"\xff"]}, "holds no text"),
        ({"image": [b"GIF"]}, "an image of row 0 of train is not a readable image"),
        (b"\xff\xff", "is damaged"),
    ],
)
def test_a_hostile_record_is_one_line(tmp_path, changed, fault):
    folder = tmp_path / "hostile"
    rows = {"train": (1, lambda: iter([Row(0, "k", np.zeros((1, 1, 3), np.uint8), ("a",), ("b",), ("b",))]))}
    builders.write_rows(rows, folder, "rows", {})
    png = io.BytesIO()
    Image.new("RGB", (2, 2)).save(png, "PNG")
    (shard,) = folder.glob("*.array_record*")
    writer = ArrayRecordWriter(str(shard), "group_size:1,uncompressed")
    writer.write(changed if isinstance(changed, bytes) else serialized(GOOD | {"image": [png.getvalue()]} | changed))
    writer.close()
    source = open_source(str(folder), tmp_path, "train")
    if fault is None:
        assert source[0].key == "k"
    else:
        with pytest.raises(UserError, match=fault):
            source[0]


def test_a_damaged_shard_is_one_line(own):
    shard = next(own.glob("*train*.array_record*"))
    content = bytearray(shard.read_bytes())
    middle = content.index(b"IHDR")  # inside the first record
    content[middle : middle + 4] = b"DAMA"
    shard.write_bytes(content)
    source = open_source(str(own), own, "train")
    with pytest.raises(UserError, match=r"row 0 of train is damaged .*hash mismatch"):
        source[0]


def serialized(features: dict[str, list | None]) -> bytes:
    example = tf_example_pb2.Example()
    for name, values in features.items():
        for value in values or []:
            feature = example.features.feature[name]
            (feature.bytes_list if isinstance(value, bytes) else feature.int64_list).value.append(value)
    return example.SerializeToString()


def test_rows_written_come_back_unchanged_from_many_threads(tmp_path):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (5 + i, 7, 3), dtype=np.uint8) for i in range(20)]
    rows = [Row(i, f"key/{i}é", image, ("a\n", "b"), ("x", ""), ("1", "2", "3")) for i, image in enumerate(images)]
    builders.write_rows({"train": (len(rows), lambda: iter(rows))}, tmp_path / "written", "rows", {"note.txt": "hello"})
    assert (tmp_path / "written" / "note.txt").read_text() == "hello"
    source = open_source(str(tmp_path / "written"), tmp_path, "train")
    order = rng.integers(0, len(rows), 400).tolist()
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(source.__getitem__, order))
    for index, row in zip(order, read, strict=True):
        np.testing.assert_array_equal(row.image, images[index])
        assert dataclasses.replace(row, image=images[index]) == rows[index]
