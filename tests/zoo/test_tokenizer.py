"""The shipped tokenizer: size, special tokens, one token per scene word, LLaVA's conversation format."""

import subprocess
import sys

import pytest
from transformers import AutoTokenizer

from jaxguard.data import scene_language, scenes
from jaxguard.data.rows import CAPTION_PROMPT
from jaxguard.zoo.tokenizer import SPECIAL, VOCABULARY, save_tokenizer, train_tokenizer

TURN = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": CAPTION_PROMPT}]}
ANSWER = {"role": "assistant", "content": [{"type": "text", "text": "A small red circle."}]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder):
    return AutoTokenizer.from_pretrained(folder)


def test_training_twice_gives_the_same_tokenizer(tokenizer):
    assert train_tokenizer().backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()


def test_size_and_special_tokens(tokenizer):
    assert len(tokenizer) <= VOCABULARY == 1024
    assert tokenizer.convert_tokens_to_ids(list(SPECIAL)) == [0, 1, 2, 3, 4]
    names = (tokenizer.pad_token, tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token, tokenizer.image_token)
    assert names == SPECIAL


def test_text_begins_with_the_first_token_once(tokenizer):
    assert tokenizer("a red star")["input_ids"].count(tokenizer.bos_token_id) == 1
    assert tokenizer("a red star")["input_ids"][0] == tokenizer.bos_token_id


def test_every_scene_word_is_one_token(tokenizer):
    spoken = (scene_language.SIZE_WORDS, scene_language.SHAPE_WORDS, scene_language.RELATION_WORDS)
    words = {word for words in spoken for synonyms in words.values() for phrase in synonyms for word in phrase.split()}
    for word in words | set(scenes.COLOURS):
        assert len(tokenizer(f" {word}", add_special_tokens=False)["input_ids"]) == 1, word


def test_scene_captions_cost_a_token_a_word(tokenizer):
    for index in range(100):
        for caption in scene_language.captions(scenes.sample("test", index)):
            words = caption.replace(",", " ,").replace(".", " .").split()
            assert len(tokenizer(caption, add_special_tokens=False)["input_ids"]) == len(words), caption


@pytest.mark.parametrize("text", ["日本語 😀", "  two  spaces ", "\x00\x7f", "A , b . c 's n't", "BadMagic"])
def test_any_text_comes_back(tokenizer, text):
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids) == text


@pytest.mark.parametrize(
    ("turns", "prompt", "text"),
    [
        ([TURN], True, f"USER: <image>\n{CAPTION_PROMPT} ASSISTANT:"),
        ([TURN, ANSWER], False, f"USER: <image>\n{CAPTION_PROMPT} ASSISTANT: A small red circle.</s>"),
    ],
)
def test_conversation_format(tokenizer, turns, prompt, text):
    assert tokenizer.apply_chat_template(turns, add_generation_prompt=prompt, tokenize=False) == text
    ids = tokenizer(text)["input_ids"]
    assert ids.count(tokenizer.image_token_id) == 1
    assert (ids[-1] == tokenizer.eos_token_id) == (not prompt)


def test_the_folder_is_enough_without_torch(folder):
    assert {file.name for file in folder.iterdir()} == {
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
    }
    code = f"""
import sys
sys.modules["torch"] = None
from transformers import AutoTokenizer
print(len(AutoTokenizer.from_pretrained({str(folder)!r})))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) <= VOCABULARY
