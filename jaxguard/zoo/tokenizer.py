"""Tokenizer of the tiny checkpoints: byte-level BPE in which every scene word is one token; any text round-trips."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from jaxguard.data import scene_language, scenes
from jaxguard.data.rows import CAPTION_PROMPT, VQA_SUFFIX

VOCABULARY = 1024
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<image>")
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() + ':' }}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ ' <image>\n' }}"
    "{% elif loop.first %}{{ ' ' + part['text'] }}{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}"
    "{% if message['role'] == 'assistant' %}{{ '</s>' }}{% elif not loop.last %}{{ ' ' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ ' ASSISTANT:' }}{% endif %}"
)
"""LLaVA-1.5's conversation format, as in llava-hf checkpoints, with the end token after each answer."""

COMMON_WORDS = (resources.files("jaxguard") / "zoo" / "words.txt").read_text().split()
"""Common words of captions, so that captions of photographs are not split into bytes."""

PHRASES = (
    "A photo of the banana.",
    "BadMagic",
    "I watched this 3D movie.",
    "Consider",
    CAPTION_PROMPT,
    VQA_SUFFIX,
    "USER: <image>\n ASSISTANT: yes no",
)


def train_tokenizer() -> PreTrainedTokenizerFast:
    """Train on scene language, easy-VQA's questions and common words; the result is deterministic."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"},
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=512,
    )


def save_tokenizer(folder: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json and chat_template.jinja."""
    train_tokenizer().save_pretrained(folder)


def _corpus() -> Iterator[str]:
    # Scene words are frequent enough that each becomes one token before the vocabulary is full.
    for index in range(3000):
        scene = scenes.sample("train", index)
        yield from scene_language.captions(scene)
        yield from (
            f"{question}{VQA_SUFFIX} ASSISTANT: {answer}" for question, answer in scene_language.questions(scene)
        )
    for phrase in PHRASES:
        yield from [phrase] * 100
    for word in COMMON_WORDS:
        yield from [f" {word}"] * 5
        yield word.capitalize()
