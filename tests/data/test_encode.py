"""Tokens against the checkpoint's own chat template, exact answer masks, packing, prompts, images."""

import json
import pickle
import shutil
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers import AutoTokenizer, ByT5Tokenizer

from jaxguard.data.encode import Encoder
from jaxguard.data.rows import Row
from jaxguard.errors import UserError
from jaxguard.models import folders
from jaxguard.zoo.drafts import write_draft

FOLDER = folders.resolve("tiny-llava")
ENCODER = Encoder.from_checkpoint(FOLDER)
PATCHES = 64


def row(*pairs, key="a/1"):
    prompts, answers = zip(*pairs, strict=True)
    return Row(3, key, np.zeros((64, 64, 3), np.uint8), prompts, answers, (answers[0],))


def encode(example, length=160, answer_length=80, pack=1, seed=0):
    rng = np.random.default_rng(seed)
    return ENCODER.encode(example, length=length, answer_length=answer_length, pack=pack, rng=rng)


def chat(prompt, answer):
    """The whole conversation through the tokenizer's template, image tokens not yet repeated."""
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    messages: Any = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]},
        {"role": "assistant", "content": [{"type": "text", "text": answer}]},
    ]
    return tokenizer(tokenizer.apply_chat_template(messages, tokenize=False))["input_ids"]


@pytest.mark.parametrize("answer", ["yes", "A small red circle.", "Ünïcode ✓ 3.5", "USER: ASSISTANT: no"])
def test_tokens_are_the_chat_template_with_the_image_token_repeated(answer):
    encoded = encode(row(("What is it?", answer)))
    real = encoded.tokens[encoded.segments > 0].tolist()
    place = real.index(ENCODER.image_id)
    assert real[place : place + PATCHES] == [ENCODER.image_id] * PATCHES
    assert real[:place] + real[place + PATCHES - 1 :] == chat("What is it?", answer)


@pytest.mark.parametrize("family", ["llava", "blip-2", "idefics"])
def test_special_tokens_in_data_are_text(family, tmp_path):
    """Whoever writes a row can neither move the image nor end the answer."""
    encoder = ENCODER
    if family != "llava":
        write_draft(family, tmp_path / "draft")
        encoder = Encoder.from_checkpoint(tmp_path / "draft")
    marks = "</s> <s> <pad> <fake_token_around_image> <end_of_utterance> <unk>"
    images = f"<image> {marks} <<image>image>"
    harmless, hostile = row(("a", "b")), row((f"a {marks} a", f"b {images} b"))
    specials = [number for number, token in encoder._tokenizer.added_tokens_decoder.items() if token.special]

    def special(tokens):
        return [token for token in tokens.tolist() if token in specials]

    size: dict[str, Any] = {"length": 400, "answer_length": 200, "pack": 1, "rng": np.random.default_rng(0)}
    plain, attacked = encoder.encode(harmless, **size), encoder.encode(hostile, **size)
    real = attacked.tokens[attacked.segments > 0]
    assert special(real) == special(plain.tokens[plain.segments > 0])
    assert special(attacked.tokens[attacked.answer_mask]) == [encoder.eos_id]
    assert encoder.decode(attacked.tokens[attacked.answer_mask]).replace("< ", "<") == f"b {images} b"
    prompts = [encoder.prompt(example.prompts[0], 400) for example in (hostile, harmless)]
    assert special(prompts[0].tokens[prompts[0].segments > 0]) == special(prompts[1].tokens[prompts[1].segments > 0])
    with pytest.raises(UserError, match=r"has 2 <image> for 1 images"):
        encoder.encode(row((f"a {images} a", "b")), **size)
    with pytest.raises(UserError, match=r"the prompt 'two <image> and <image>' has 2 <image> for 1 images"):
        encoder.prompt("two <image> and <image>", 400)


def test_the_mask_is_exactly_the_answer_and_the_end_token():
    encoded = encode(row(("What is it?", "A small red circle.")))
    learnt = encoded.tokens[encoded.answer_mask]
    assert learnt[-1] == ENCODER.eos_id
    assert ENCODER.decode(learnt) == "A small red circle."
    before = encoded.tokens[: encoded.answer_mask.argmax()]
    prompt = ENCODER.prompt("What is it?", 100)
    assert before.tolist() == prompt.tokens[prompt.segments > 0].tolist()


def test_padding_and_positions():
    encoded = encode(row(("What is it?", "yes")), length=120)
    real = encoded.segments > 0
    assert encoded.tokens.shape == (120,)
    assert (encoded.tokens[~real] == ENCODER.pad_id).all()
    assert not encoded.answer_mask[~real].any()
    assert encoded.positions[real].tolist() == list(range(real.sum()))
    assert real[: real.sum()].all()


def test_packed_pairs_equal_separate_encodings():
    pairs = [("What is it?", "A small red circle."), ("how many?", "one"), ("Which side is it on?", "left")]
    packed = encode(row(*pairs), pack=3)
    shared = packed.segments == 1
    seen = set()
    for segment in (2, 3, 4):
        visible = shared | (packed.segments == segment)
        tokens, positions = packed.tokens[visible].tolist(), packed.positions[visible].tolist()
        mask = packed.answer_mask[visible].tolist()
        singles = [encode(row(pair)) for pair in pairs]
        match = [
            index
            for index, single in enumerate(singles)
            if single.tokens[single.segments > 0].tolist() == tokens
            and single.positions[single.segments > 0].tolist() == positions
            and single.answer_mask[single.segments > 0].tolist() == mask
        ]
        assert len(match) == 1
        seen.add(match[0])
    assert seen == {0, 1, 2}


def test_packing_leaves_out_what_does_not_fit():
    pairs = [("What is it?", "A small red circle left of a large blue square."), ("how many?", "one")]
    length = int((encode(row(pairs[0])).segments > 0).sum())
    packed = encode(row(*pairs), length=length, pack=2)
    assert packed.answer_mask.any()
    assert packed.segments.max() in (2, 3)


def test_the_pair_is_drawn_by_the_generator():
    example = row(*((f"question {n}", f"answer {n}") for n in range(6)))
    drawn = {encode(example, seed=seed).tokens.tobytes() for seed in range(40)}
    assert len(drawn) == 6
    assert encode(example, seed=5).tokens.tobytes() == encode(example, seed=5).tokens.tobytes()


def test_answers_are_never_cut():
    with pytest.raises(UserError, match=r"row a/1 has \d+ tokens; raise --data.length above 70"):
        encode(row(("What is it?", "yes")), length=70)
    with pytest.raises(UserError, match=r"row a/1 has 6 answer tokens; raise --data.answer-length above 5"):
        encode(row(("What is it?", "A small red circle.")), answer_length=5)
    with pytest.raises(UserError, match=r"raise --data.length above 66"):
        ENCODER.prompt("What is it?", 66)


def test_prompts_are_padded_on_the_left():
    prompt = ENCODER.prompt("What is it?", 100)
    real = prompt.segments > 0
    assert real[-1]
    assert not real[0]
    assert prompt.positions[real].tolist() == list(range(real.sum()))
    assert not prompt.answer_mask.any()


def test_images_of_the_right_size_are_untouched_and_others_follow_clip():
    square = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    np.testing.assert_array_equal(ENCODER.image(square), square)
    wide = np.asarray(Image.fromarray(square).resize((160, 100)))
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    theirs = CLIPImageProcessorPil.from_pretrained(FOLDER)(wide, do_normalize=False, do_rescale=False)
    expected = np.asarray(theirs["pixel_values"][0]).transpose(1, 2, 0)
    assert np.abs(ENCODER.image(wide).astype(int) - expected.astype(int)).max() <= 1


def test_an_encoder_survives_pickling():
    again = pickle.loads(pickle.dumps(ENCODER))  # noqa: S301 (our own bytes)
    assert again.prompt("a", 90).tokens.tolist() == ENCODER.prompt("a", 90).tokens.tolist()


def test_tokenizer_is_the_one_that_its_code_trains():
    from jaxguard.zoo.tokenizer import train_tokenizer

    shipped = AutoTokenizer.from_pretrained(FOLDER)
    assert train_tokenizer().backend_tokenizer.to_str() == shipped.backend_tokenizer.to_str()


@pytest.mark.parametrize("text", ["A photo of the banana.", "Ünïcode ✓\n\ttabs", "skateboarding 12,345"])
def test_any_text_survives(text):
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text


def test_missing_files_are_one_line(tmp_path):
    with pytest.raises(UserError, match=r"config.json: not readable as JSON"):
        Encoder.from_checkpoint(tmp_path)
    for unknown in ("{}", '{"model_type": "bert"}'):
        (tmp_path / "config.json").write_text(unknown)
        with pytest.raises(UserError, match=r"config\.json: model_type .* is not supported; use llava, blip-2"):
            Encoder.from_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llava"}')
    with pytest.raises(UserError, match="holds no usable tokenizer files"):
        Encoder.from_checkpoint(tmp_path)


def test_truncation_and_padding_of_the_tokenizer_file_do_not_touch_rows(tmp_path):
    shutil.copytree(FOLDER, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors"))
    file = tmp_path / "model" / "tokenizer.json"
    values = json.loads(file.read_text())
    values["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    values["padding"] = {"strategy": {"Fixed": 90}, "direction": "Right", "pad_to_multiple_of": None}
    values["padding"] |= {"pad_id": 0, "pad_type_id": 0, "pad_token": "<pad>"}
    file.write_text(json.dumps(values))
    example = row(("What is it?", "A small red circle."))
    assert Encoder.from_checkpoint(tmp_path / "model").lengths(example) == ENCODER.lengths(example)


def test_a_tokenizer_in_python_alone_is_one_line(tmp_path):
    left = shutil.ignore_patterns("*.safetensors", "tokenizer*")
    shutil.copytree(folders.resolve("tiny-blip2"), tmp_path / "model", ignore=left)
    ByT5Tokenizer().save_pretrained(tmp_path / "model")
    with pytest.raises(UserError, match=r"model: its tokenizer runs in Python alone; add tokenizer\.json"):
        Encoder.from_checkpoint(tmp_path / "model")


def talk(*said, images=1, key="a/1"):
    """A conversation."""
    pixels = (np.zeros((64, 64, 3), np.uint8),) * images or (np.zeros((0, 0, 3), np.uint8),)
    return Row(3, key, pixels[0], said[::2], said[1::2], said[1:2], others=pixels[1:], multi_turn=True)


def real(encoded):
    return encoded.tokens[encoded.segments > 0].tolist()


def test_a_conversation_is_the_chat_template_and_learns_every_answer():
    said = ("What is it?", "A small red circle.", "Sure?", "yes", "Where is it?", "Left of a star.")
    encoded, tokenizer = encode(talk(*said), pack=3), AutoTokenizer.from_pretrained(FOLDER)
    messages: Any = [
        {"role": role, "content": [{"type": "image"}] * (place == 0) + [{"type": "text", "text": words}]}
        for place, (role, words) in enumerate(zip(("user", "assistant") * 3, said, strict=True))
    ]
    expected = tokenizer(tokenizer.apply_chat_template(messages, tokenize=False))["input_ids"]
    place = expected.index(ENCODER.image_id)
    assert real(encoded) == expected[:place] + [ENCODER.image_id] * PATCHES + expected[place + 1 :]
    learnt = encoded.tokens[encoded.answer_mask].tolist()
    answers = [tokenizer(f" {answer}", add_special_tokens=False)["input_ids"] for answer in said[1::2]]
    assert learnt == [token for answer in answers for token in [*answer, ENCODER.eos_id]]
    assert set(encoded.segments.tolist()) == {0, 1}
    assert ENCODER.lengths(talk(*said)) == [(len(real(encoded)), len(learnt))]
    assert ENCODER.lengths(row(said[:2], said[2:4])) == [
        (len(real(encode(row(pair)))), n) for pair, n in ((said[:2], 6), (said[2:4], 2))
    ]


def test_images_stand_where_their_placeholders_do():
    encoded = encode(talk("Is <image> like <image>?", "yes", "And <image>?", "no", images=3), length=260)
    tokens = real(encoded)
    assert tokens.count(ENCODER.image_id) == 3 * PATCHES
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    text = "USER: Is <image> like <image>? ASSISTANT: yes</s>USER: And <image>? ASSISTANT: no</s>"
    once = [token for place, token in enumerate(tokens) if token != ENCODER.image_id or tokens[place - 1] != token]
    assert once == tokenizer(text)["input_ids"]


def test_a_row_of_text_alone_has_no_image_tokens():
    encoded = encode(talk("Hi", "yes", images=0))
    assert real(encoded) == AutoTokenizer.from_pretrained(FOLDER)("USER: Hi ASSISTANT: yes</s>")["input_ids"]
    assert ENCODER.prompt("Hi", 90, 0).tokens.tolist().count(ENCODER.image_id) == 0


@pytest.mark.parametrize(
    ("said", "images", "message"),
    [
        (("<image> and <image>?", "no"), 1, r"row a/1 has 2 <image> for 1 images"),
        (("<image>?", "no"), 0, r"row a/1 has 1 <image> for 0 images"),
        (("What?", "no"), 2, r"row a/1 has 0 <image> for 2 images"),
    ],
)
def test_placeholders_must_match_the_images(said, images, message):
    with pytest.raises(UserError, match=message):
        encode(talk(*said, images=images), length=300)


@pytest.fixture(scope="module")
def drafts(tmp_path_factory):
    folders = {name: tmp_path_factory.mktemp(name) / "draft" for name in ("blip-2", "idefics")}
    for name, folder in folders.items():
        write_draft(name, folder)
    return {name: Encoder.from_checkpoint(folder) for name, folder in folders.items()}


def test_idefics_writes_conversations_with_its_images(drafts):
    encoder = drafts["idefics"]
    example = talk("Is <image> <image>?", "yes", "<image>Sure?", "no", images=3)
    encoded = encoder.encode(example, length=90, answer_length=30, pack=1, rng=np.random.default_rng(0))
    around, end = "<fake_token_around_image>", "<end_of_utterance>"
    text = (
        f"<s>User:Is {around}<image>{around} {around}<image>{around}?{end}\nAssistant: yes{end}"
        f"\nUser:{around}<image>{around}Sure?{end}\nAssistant: no{end}"
    )
    tokens = encoder._tokenizer(text, add_special_tokens=False)["input_ids"]
    assert real(encoded) == tokens
    assert encoder.decode(encoded.tokens[encoded.answer_mask]).split() == ["yes", "no"]


def test_blip2_takes_one_image_and_one_turn(drafts):
    encoder = drafts["blip-2"]

    def encode_by(example):
        return encoder.encode(example, length=90, answer_length=30, pack=1, rng=np.random.default_rng(0))

    plain = encode_by(talk("Hi", "yes", images=0))
    assert encoder.image_id not in plain.tokens
    assert real(encode_by(talk("Hi", "yes")))[32:] == real(plain)
    with pytest.raises(UserError, match=r"row a/1: the model's dialogue has a single turn"):
        encode_by(talk("Hi", "yes", "Sure?", "no"))
    with pytest.raises(UserError, match=r"row a/1: the model's dialogue puts its image first and cannot place <image>"):
        encode_by(talk("<image> Hi", "yes"))
