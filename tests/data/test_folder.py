"""Rows as people have them: each is read right, or refused with a line that names what is wrong."""

import json

import pytest
from etils import epath

from jaxguard.data.formats import listed, recognise
from jaxguard.data.formats.listing import Listed
from jaxguard.data.formats.reading import Choices, Reading
from jaxguard.data.rows import CAPTION_PROMPT
from jaxguard.errors import UserError
from tests.data.miniatures import turns


def read(root, **choices):
    reading = Reading(epath.Path(root), choices=Choices(**choices))
    return listed(reading, recognise(reading)), reading


def messages(*said, system=None, images=0):
    """A conversation as OpenAI writes it, with parts of type image before the first question."""
    parts = [{"type": "image"}] * images
    content = [*parts, {"type": "text", "text": said[0]}] if images else said[0]
    first = [{"role": "system", "content": system}] if system else []
    rest = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(said)]
    return [*first, {"role": "user", "content": content}, *rest[1:]]


ASKED = Listed("KEY", ("a.png",), ("What?",), ("red",), ("red",))
CAPTIONED = Listed("KEY", ("a.png",), (CAPTION_PROMPT,), ("red",), ("red",))
SYSTEM = Listed("KEY", ("a.png",), ("What?",), ("red",), ("red",), system="Be terse.")
SAID = turns("<image>\nWhat?", "red")
PARTS = messages("What?", "red", images=1)
URL = {"type": "image_url", "image_url": {"url": "a.png"}}

ROWS = {
    "llava": ({"id": "KEY", "image": "a.png", "conversations": SAID}, ASKED),
    "images": ({"images": ["a.png"], "conversations": SAID}, ASKED),
    "no id, file_name": ({"file_name": "a.png", "conversations": SAID}, ASKED),
    "no value": ({"image": "a.png", "file_name": None, "conversations": SAID}, ASKED),
    "system turn": (
        {"image": "a.png", "conversations": [{"from": "system", "value": "Be terse."}, *SAID]},
        SYSTEM,
    ),
    "system": ({"image": "a.png", "conversations": SAID, "system": "Be terse."}, SYSTEM),
    "system_prompt": ({"image": "a.png", "conversations": SAID, "system_prompt": "Be terse."}, SYSTEM),
    "system twice": (
        {
            "image": "a.png",
            "conversations": [{"from": "system", "value": "Be terse."}, *SAID],
            "system": "Be terse.",
        },
        SYSTEM,
    ),
    "system of a question": ({"image": "a.png", "query": "What?", "response": "red", "system": "Be terse."}, SYSTEM),
    "plain messages": ({"images": ["a.png"], "messages": messages("<image>What?", "red")}, ASKED),
    "parts": ({"images": ["a.png"], "messages": PARTS}, ASKED),
    "parts with the image": (
        {
            "messages": [
                {"role": "user", "content": [{"type": "image", "image": "a.png"}, *PARTS[0]["content"][1:]]},
                PARTS[1],
            ]
        },
        ASKED,
    ),
    "parts with a URL": ({"messages": [{"role": "user", "content": [URL, *PARTS[0]["content"][1:]]}, PARTS[1]]}, ASKED),
    "parts with nulls": (
        {
            "images": [{"path": "a.png", "bytes": None}],
            "messages": [
                {"role": "user", "content": [{"type": "image", "text": None}, {"type": "text", "text": "What?"}]},
                {"role": "assistant", "content": [{"type": "text", "text": "red"}]},
            ],
        },
        ASKED,
    ),
    "messages with system": (
        {"images": ["a.png"], "messages": messages("What?", "red", system="Be terse.", images=1)},
        SYSTEM,
    ),
    "developer": (
        {"image": "a.png", "messages": [{"role": "developer", "content": "Be terse."}, *PARTS]},
        SYSTEM,
    ),
    "TRL": ({"prompt": PARTS[:1], "completion": PARTS[1:], "images": ["a.png"]}, ASKED),
    "ms-swift": ({"query": "<image>What?", "response": "red", "images": ["a.png"]}, ASKED),
    "ms-swift's history": (
        {"query": "Why?", "response": "So.", "history": [["<image>What?", "red"]], "images": ["a.png"]},
        Listed("KEY", ("a.png",), ("What?", "Why?"), ("red", "So."), ("red",), multi_turn=True),
    ),
    "LLaMA-Factory": ({"instruction": "What?", "input": "", "output": "red", "images": ["a.png"]}, ASKED),
    "an input": (
        {"instruction": "What?", "input": "Say one word.", "output": "red", "images": ["a.png"]},
        Listed("KEY", ("a.png",), ("What?\nSay one word.",), ("red",), ("red",)),
    ),
    "caption": ({"image": "a.png", "caption": "red"}, CAPTIONED),
    "captions": (
        {"image": "a.png", "caption": ["red", "a red square"]},
        Listed("KEY", ("a.png",), (CAPTION_PROMPT,) * 2, ("red", "a red square"), ("red", "a red square")),
    ),
    "answers": (
        {"image": "a.png", "question": "What?", "answers": ["blue", "red", "red"]},
        Listed("KEY", ("a.png",), ("What?",), ("red",), ("blue", "red", "red")),
    ),
    "answers of VQA": ({"image": "a.png", "question": "What?", "answers": [{"answer": "red", "answer_id": 1}]}, ASKED),
    "two images": (
        {"images": ["a.png", "b.png"], "prompt": "<image> or <image>?", "answer": "red"},
        Listed("KEY", ("a.png", "b.png"), ("<image> or <image>?",), ("red",), ("red",)),
    ),
    **{
        name: ({name: "a.png", "Caption": "red"}, CAPTIONED)
        for name in ("Image", "image_path", "image-file", "ImageName", "filepath", "File Path", "img", "path")
    },
}


@pytest.mark.parametrize("name", ROWS)
def test_rows_are_read(name, write):
    item, wanted = ROWS[name]
    for file in ("train.jsonl", "train.json"):
        root = write({file: [item]})
        listing, reading = read(root)
        assert not reading.problems.found
        (row,) = listing["train"]
        assert (row.images, row.prompts, row.answers) == (wanted.images, wanted.prompts, wanted.answers)
        assert (row.references, row.multi_turn, row.system) == (wanted.references, wanted.multi_turn, wanted.system)
        assert not reading.unread, "all keys are read"
        (root / file).unlink()


REFUSED = [
    (
        {"image_url": "https://x.org/a.png", "caption": "red"},
        "has no image; 'image_url' is 'https://x.org/a.png', which is",
    ),
    (
        {"photos": ["b/c.jpeg"], "caption": "red"},
        "'photos' is 'b/c.jpeg', which is not read; --columns image=photos reads it",
    ),
    (
        {"picture_data": "data:image/png;base64,AAAA", "caption": "red"},
        "'picture_data' is 'data:image/png;base64,AAAA'",
    ),
    (
        {"url": "https://x.org/a", "caption": "red"},
        "has no image (found: url, caption); --text-rows allows rows of text",
    ),
    ({"question": "What?", "answer": "red"}, "has no image (found: question, answer)"),
    ({"image": [], "caption": "red"}, "has no image (found: image, caption)"),
    ({"photo_1": "a.png", "conversations": turns("What?", "red")}, "has no image; 'photo_1' is 'a.png'"),
    (
        {"video": "v.mp4", "conversations": turns("<video>\nWhat?", "red")},
        "has no image; 'video' is 'v.mp4', which is not",
    ),
    ({"conversations": turns("<img>a.png</img>What?", "red")}, "has <img> in its text; name images in 'image'"),
    ({"conversations": turns("<video>\nWhat?", "red")}, "has <video> in its text"),
    ({"conversations": turns("What?", "red", "<|image_pad|>And?", "so")}, "has <|image_pad|> in its text"),
    ({"image": "a.png", "question": "<image_1> What?", "answer": "red"}, "has <image_1> in its text"),
    ({"image": "a.png", "question": "<IMAGE> What?", "answer": "red"}, "has <IMAGE> in its text"),
    (
        {"image": "a.png", "conversations": turns("What?", "red")},
        "has 0 <image> for 1 images; write <image> where each",
    ),
    ({"image": "a.png", "messages": [*PARTS, {"role": "tool", "content": "x"}]}, "has 'tool' as the speaker of turn 2"),
    ({"image": "a.png", "messages": [*PARTS, {"role": "system", "content": "x"}]}, "'system' as the speaker of turn 2"),
    (
        {"image": "b.png", "messages": [{"role": "user", "content": [{"type": "image", "image": "a.png"}]}, PARTS[1]]},
        "names 1 images in its turns and 1 beside them",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "video", "video": "v.mp4"}]}, PARTS[1]]},
        "has a part of type 'video' in turn 0; only text and images are read",
    ),
    ({"image": "a.png", "messages": PARTS, "system": "x <image>"}, "has <image> as part of 'system'"),
    (
        {"image": "a.png", "conversations": [{"from": "system", "value": "One."}, *SAID], "system": "Two."},
        "has two different system texts",
    ),
    ({"image": "a.png", "question": "What?", "answer": 3}, "has a whole number as 'answer', where a text is wanted"),
    ({"image": "a.png", "question": "What?", "answer": []}, "has no 'answer'"),
    ({"image": "a.png", "query": "What?", "response": "red", "history": ["x"]}, "has a history that is not a list of"),
    ({"image": "a.png", "label": 3}, "has no 'answer' (found: image, label)"),
]


@pytest.mark.parametrize(("item", "message"), REFUSED, ids=range(len(REFUSED)))
def test_rows_are_refused(item, message, write):
    listing, reading = read(write({"train.jsonl": [item]}))
    assert not listing
    (problem,) = reading.problems.found
    assert message in str(problem)
    assert problem.where == "train.jsonl:1"


def test_text_rows_are_allowed_by_a_word(write):
    root = write({"train.jsonl": [{"question": "What?", "answer": "red"}, {"conversations": turns("Hi", "Bye.")}]})
    assert len(read(root, text_rows=True)[0]["train"]) == 2
    listing, reading = read(root)
    assert len(listing["train"]) == 1, "a conversation may be of text alone"
    assert len(reading.problems.found) == 1


def test_keys_that_are_not_read_are_counted(write):
    row = {"image": "a.png", "caption": "red", "width": 3}
    _, reading = read(write({"train.jsonl": [row, row | {"license": 1}], "val.csv": "image,caption,url\na.png,x,y\n"}))
    assert reading.unread == {"train.jsonl": {"width": 2, "license": 1}, "val.csv": {"url": 1}}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("train.csv", "image,caption\na.png,red\n"),
        ("TRAIN.CSV", "image,caption\na.png,red\n"),
        ("train.tsv", "image\tcaption\na.png\tred\n"),
        ("train.csv", "image;caption\na.png;red\n"),
        ("train.csv", "image| comment_number| comment\na.png| 0| red\n"),
        ("train.csv", "image, caption\na.png, red\n\n"),
        ("train.csv", '"image","caption"\r\n"a.png","red"\r\n'),
        ("train.txt", "image,caption\na.png,red\n"),
        ("train.json", '{"image": "a.png", "caption": "red"}\n{"image": "b.png", "caption": "red"}\n'),
        ("train.jsonl", '[\n {"image": "a.png", "caption": "red"}\n]'),
        ("train.ndjson", '{"image": "a.png", "caption": "red"}'),
        ("captions_train.json", '[{"image": "a.png", "caption": "red"}]'),
        (
            "dataset_flickr8k.json",
            '{"images": [{"filename": "a.png", "split": "train", "sentences": [{"raw": "red"}]}]}',
        ),
    ],
)
def test_files_are_read(name, text, write):
    listing, reading = read(write({name: text}))
    assert not reading.problems.found
    row = listing["train"][0]
    assert (row.images, row.prompts, row.answers) == (("a.png",), (CAPTION_PROMPT,), ("red",))


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        (
            'image,caption\na.png,"red\nb.png,blue\nc.png,green"\n',
            "train.csv:2",
            "has a quote that swallows 2 rows behind",
        ),
        (
            'caption,image\nso,z.png\n"red,a.png\nblue,b.png\ngreen",c.png\n',
            "train.csv:3",
            "a quote that swallows 1 rows",
        ),
        (
            'image,caption\na.png,red\nb.png,"blue\nc.png,green\n',
            "train.csv",
            "(behind line 2: unexpected end of data)",
        ),
        ('image,caption\na.png,red\nb.png,"blue" sky\n', "train.csv", "(behind line 2: ',' expected after '\"')"),
        ("a.png,red\nb.png,blue\n", "train.csv", "(its first line is a row, not the names of the columns: a.png,red)"),
        ("image,caption,caption\na.png,red,blue\n", "train.csv", "(two columns are named caption)"),
    ],
)
def test_quotes_and_columns_hide_no_rows(text, where, what, write):
    _, reading = read(write({"train.csv": text}))
    problem = reading.problems.found[0]
    assert (problem.where, what in problem.what) == (where, True)


def test_a_caption_of_several_lines_is_one_row(write):
    listing, reading = read(write({"train.csv": 'image,caption\na.png,"red, and\nblue"\nb.png,"1, 2\n3, 4"\n'}))
    assert not reading.problems.found
    assert [row.answers for row in listing["train"]] == [("red, and\nblue",), ("1, 2\n3, 4",)]
    assert [row.key for row in listing["train"]] == ["train.csv:2", "train.csv:4"]


def test_columns_are_named_by_the_user(write):
    root = write({"train.csv": "where;what;caption\na.png;red;no\n"})
    listing, reading = read(root, columns={"image": "where", "answer": "what"})
    assert (listing["train"][0].images, listing["train"][0].answers) == (("a.png",), ("red",))
    assert reading.unread == {"train.csv": {"caption": 1}}
    _, reading = read(root, columns={"image": "place"}, text_rows=True)
    assert "has no column 'place', which --columns gives image (found: " in str(reading.problems.found[-1])
    with pytest.raises(UserError, match=r"--columns: a row has no part 'imag'; did you mean 'image'\?"):
        read(root, columns={"imag": "where"})


def test_rows_of_one_image_are_grouped(write):
    rows = [{"image": f"{n % 2}.png", "caption": f"caption {n}"} for n in range(4)]
    asked = [{"image": "0.png", "question": "What?", "answer": answer} for answer in ("red", "pink")]
    root = write({"train.jsonl": [*rows, *asked]})
    assert len(read(root)[0]["train"]) == 6
    first, second, third = read(root, group=True)[0]["train"]
    assert (first.images, first.prompts, first.references) == (
        ("0.png",), (CAPTION_PROMPT,) * 2, ("caption 0", "caption 2")
    )  # fmt: skip
    assert second.answers == second.references == ("caption 1", "caption 3")
    assert (third.prompts, third.references) == (("What?", "What?"), ("red", "pink"))


SPLITS = {
    "train": "train",
    "eval": "test",
    "evaluation": "test",
    "testing": "test",
    "TEST": "test",
    "my-test.v2": "test",
    "validate": "validation",
    "llava_val_2": "validation",
    "dev": "validation",
    "rows": "train",
    "latest": "train",
    "testset": "test",
    "myEvalRows": "test",
    "VALIDATION-DATA": "validation",
    "dev2014": "validation",
}


@pytest.mark.parametrize("name", SPLITS)
def test_a_files_name_gives_its_split(name, write):
    listing, _ = read(write({f"{name}.JSONL": json.dumps({"image": "a.png", "caption": "red"})}))
    assert list(listing) == [SPLITS[name]]


def test_a_name_of_two_splits_is_a_problem(write):
    _, reading = read(write({"train_and_test.jsonl": [{"image": "a.png", "caption": "red"}]}))
    told = "train_and_test.jsonl has a name of several splits (test, train); rename it"
    assert [str(one) for one in reading.problems.found] == [told]


def test_images_in_a_splits_folder_are_its_own(write):
    """A metadata.csv at the top, with images in train/ and test/ (imagefolder): the file speaks of no split."""
    listing, _ = read(write({"metadata.csv": "file_name,text\ntrain/a.png,red\ntest/b.png,red\nx/test/c.png,red\n"}))
    assert {split: [row.images[0] for row in rows] for split, rows in listing.items()} == {
        "train": ["train/a.png", "x/test/c.png"],
        "test": ["test/b.png"],
    }


def test_every_split_of_an_imagefolder_has_its_metadata(write):
    row = {"file_name": "a.png", "text": "red"}
    root = write({"train/metadata.jsonl": [row], "validation/metadata.csv": "file_name,text\nb/c.png,red\n"})
    listing, reading = read(root)
    assert {split: rows[0].images for split, rows in listing.items()} == {
        "train": ("train/a.png",),
        "validation": ("validation/b/c.png",),
    }
    assert list(reading.rows) == ["train/metadata.jsonl", "validation/metadata.csv"]


@pytest.mark.parametrize("names", [("all", "part_1", "part_2"), ("part_1", "part_2", "whole"), ("test", "train")])
def test_a_whole_beside_its_parts_is_a_problem(names, write):
    rows = [{"image": f"{n}.png", "caption": "red"} for n in range(4)]
    parts = {name: rows[:2] if "1" in name or name == "test" else rows[2:] for name in names}
    parts |= {name: rows for name in names if name in ("all", "whole", "train")}
    _, reading = read(write({f"{name}.jsonl": items for name, items in parts.items()}))
    told = [str(one) for one in reading.problems.found]
    small = [name for name in names if len(parts[name]) == 2]
    assert told == [
        f"{name}.jsonl has no row that {next(iter(set(names) - set(small)))}.jsonl does not have: "
        "remove one of them, or name one file"
        for name in small
    ]  # fmt: skip


def test_copies_of_a_row_are_no_whole(write):
    rows = [{"image": f"{n}.png", "caption": "red"} for n in range(4)]
    _, reading = read(write({"a.jsonl": rows[:3], "b.jsonl": [rows[0], rows[0], rows[0], rows[3]]}))
    assert not reading.problems.found
    assert reading.notes == ["1 rows of b.jsonl are also in a.jsonl"]


def test_some_rows_in_two_files_are_told(write):
    rows = [{"image": f"{n}.png", "caption": "red"} for n in range(5)]
    _, reading = read(write({"train.jsonl": rows[:3], "val.jsonl": rows[2:]}))
    assert not reading.problems.found
    assert reading.notes == ["1 rows of val.jsonl are also in train.jsonl"]


def test_files_without_rows_are_told(write):
    said = {"image": "a.png", "conversations": turns("<image>\nWhat?", "red")}
    root = write({"mine.json": [said], "dataset_info.json": {"mine": {}}, "config.json": {"a": 1}, "notes.txt": "Hi."})
    listing, reading = read(root)
    assert len(listing["train"]) == 1
    assert set(reading.skipped) == {"dataset_info.json", "config.json", "notes.txt"}
    (root / "mine.json").unlink()
    with pytest.raises(
        UserError, match=r"found: config.json: one object that begins with 'a', not a list of rows, dataset_info.json"
    ):
        read(root)


@pytest.mark.parametrize(
    ("name", "why"),
    [("rows.jsonl.gz", "compressed: unpack it"), ("a.xlsx", "a spreadsheet: save it as CSV"), ("a.pkl", "pickled: it")],
)
def test_files_that_are_never_read_say_what_to_do(name, why, write):
    with pytest.raises(UserError, match=f"found: {name}: {why}"):
        read(write({name: b"x"}))


def test_the_folder_that_holds_the_rows_is_named(write):
    with pytest.raises(UserError, match=r"found: part/rows.csv: give part, default/x/0.parquet: give default/x\)"):
        read(write({"part/rows.csv": "image,caption\n", "default/x/0.parquet": b""}))


def test_the_models_opening_turn_is_told(write):
    opening = [{"from": "gpt", "value": "Hello."}, *SAID]
    with_system = [{"from": "system", "value": "Be terse."}, *opening]
    rows = [{"image": "a.png", "conversations": one} for one in (SAID, opening, with_system)]
    listing, reading = read(write({"train.json": rows}))
    assert [row.prompts for row in listing["train"]] == [("What?",)] * 3
    assert reading.notes == ["not read: the model's turn before the first question of 2 rows in train.json"]
