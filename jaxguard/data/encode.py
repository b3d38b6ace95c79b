"""Encoding of rows to tokens: chat format, image placeholders and answer masks, from the checkpoint's files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, Int32, UInt8

from jaxguard.data.rows import Row
from jaxguard.errors import UserError
from jaxguard.models.dialogue import IMAGE
from jaxguard.models.families.registry import open_processor

FIRST_PACKED = 2
"""Segment of the first pair behind a shared prefix."""


@dataclass(frozen=True)
class Encoded:
    """The text fields of one row of a `Batch`.

    Attributes:
        drawn: the row's pairs that it shows; packed ones are segments 2, 3, ... in this order. A dialogue is pair 0.
    """

    tokens: Int32[np.ndarray, " T"]
    positions: Int32[np.ndarray, " T *axes"]
    segments: Int32[np.ndarray, " T"]
    answer_mask: Bool[np.ndarray, " T"]
    drawn: tuple[int, ...] = (0,)

    @property
    def pair(self) -> int:
        """The only pair that the row shows; -1: several, packed."""
        return self.drawn[0] if len(self.drawn) == 1 else -1

    def answer_pairs(self) -> Int[np.ndarray, " A"]:
        """The pair that each answer token belongs to, in the order of the tokens."""
        segments = self.segments[self.answer_mask]
        return np.array(self.drawn)[np.maximum(segments - FIRST_PACKED, 0)]


@dataclass(frozen=True)
class _Pair:
    """Tokens of a question-answer pair or of several turns, and which of them are answers (end tokens included)."""

    tokens: Int32[np.ndarray, " N"]
    answer: Bool[np.ndarray, " N"]

    @property
    def answers(self) -> int:
        """Number of answer tokens."""
        return int(np.count_nonzero(self.answer))


class Encoder:
    """Tokenizer, dialogue format and image preprocessing of a checkpoint. Picklable; needs neither JAX nor torch."""

    def __init__(self, folder: Path):
        from transformers import AutoTokenizer

        self.folder = folder
        self.processor = open_processor(folder)
        self.image_shape, self.patch_size = self.processor.image_shape, self.processor.patch_size
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"{folder} holds no usable tokenizer files ({reason})") from error
        if not self._tokenizer.is_fast:
            raise UserError(f"{folder}: its tokenizer runs in Python alone; add tokenizer.json")
        # Called directly, because transformers' wrapper doubles the time of a row.
        self._backend = self._tokenizer.backend_tokenizer
        self._backend.no_truncation()
        self._backend.no_padding()
        try:
            self._dialogue = self.processor.dialogue(self._tokenizer)
        except UserError as error:
            raise UserError(f"{folder}: {error}") from error
        self.image_id, self.eos_id = self._dialogue.image_id, self._dialogue.end_id
        self.bos_id = self._tokenizer.bos_token_id
        self.pad_id = self._tokenizer.pad_token_id if self._tokenizer.pad_token_id is not None else self.eos_id
        self.vocabulary_size = len(self._tokenizer)
        self._special = _special(self._tokenizer, self.image_id)

    @classmethod
    def from_checkpoint(cls, folder: Path) -> Encoder:
        """Open a checkpoint's encoder. Raises UserError if files are missing or do not fit together."""
        return cls(folder)

    def __reduce__(self) -> tuple:
        return Encoder, (self.folder,)

    def encode(self, row: Row, *, length: int, answer_length: int, pack: int, rng: np.random.Generator) -> Encoded:
        """Encode one training row of `length` tokens, right-padded: `pack` question-answer pairs drawn by `rng`.

        With several pairs, the prefix through the last image token appears once (segment 1). Each pair after it is a
        segment of its own, whose positions restart after the prefix; pairs that do not fit are left out. A conversation
        (`Row.multi_turn`) is always encoded whole. Answers are never truncated.

        Raises:
            UserError: not even one pair fits, or placeholders do not match the images.
        """
        drawn = draw_pairs(row, pack, rng)
        if row.multi_turn:
            pairs, pack = [self._pair(row, range(len(row.prompts)))], 1
        else:
            pairs = [self._pair(row, [index]) for index in drawn]
        shared = self._shared(pairs[0].tokens) if pack > 1 else 0
        first = pairs[0]
        if len(first.tokens) > length:
            raise UserError(f"row {row.key} has {len(first.tokens)} tokens; raise --data.length above {length}")
        if first.answers > answer_length:
            raise UserError(
                f"row {row.key} has {first.answers} answer tokens; raise --data.answer-length above {answer_length}"
            )
        tokens, answer = np.full(length, self.pad_id, np.int32), np.zeros(length, bool)
        positions = np.zeros((length, *self.processor.position_axes), np.int32)
        segments = np.zeros(length, np.int32)
        tokens[:shared], segments[:shared] = first.tokens[:shared], 1
        positions[:shared] = self.processor.positions(first.tokens)[:shared]
        end, learnt = shared, 0
        for number, pair in enumerate(pairs):
            own = slice(end, end + len(pair.tokens) - shared)
            if own.stop > length or learnt + pair.answers > answer_length:
                continue
            tokens[own], answer[own] = pair.tokens[shared:], pair.answer[shared:]
            positions[own] = self.processor.positions(pair.tokens)[shared:]
            segments[own] = number + FIRST_PACKED if pack > 1 else 1
            end, learnt = own.stop, learnt + pair.answers
        return Encoded(tokens, positions, segments, answer, drawn)

    def lengths(self, row: Row) -> list[tuple[int, int]]:
        """Count (tokens, answer tokens) of each pair, or of the whole conversation, image tokens included.

        Raises:
            UserError: placeholders do not match the images.
        """
        count = len(row.prompts)
        turns: list[Sequence[int]] = [range(count)] if row.multi_turn else [[index] for index in range(count)]
        pairs = [self._pair(row, indices) for indices in turns]
        return [(len(pair.tokens), pair.answers) for pair in pairs]

    def prompt(self, text: str, length: int, images: int = 1) -> Encoded:
        """Encode a generation prompt, LEFT-padded to `length`.

        Args:
            text: the question, with one `<image>` per image; optional for a single image.
            length: number of tokens of the result.
            images: number of images.

        Raises:
            UserError: the prompt is too long, or placeholders do not match the images.
        """
        _check_placed(f"the prompt {text[:40]!r}", text.count(IMAGE), images)
        opening = self._dialogue.opening(self._question(text), images)
        tokens, _ = self._tokenize(opening, images)
        missing = length - len(tokens)
        if missing < 0:
            raise UserError(f"the prompt {text[:40]!r} has {len(tokens)} tokens; raise --data.length above {length}")
        padding, axes = (missing, 0), [(0, 0)] * len(self.processor.position_axes)
        return Encoded(
            np.pad(tokens, padding, constant_values=self.pad_id),
            np.pad(self.processor.positions(tokens), (padding, *axes)),
            np.pad(np.ones(len(tokens), np.int32), padding),
            np.zeros(length, bool),
        )

    def image(self, pixels: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h2 w2 3"]:
        """Preprocess pixels to `image_shape` as the checkpoint does; pixels of that shape are returned unchanged."""
        return pixels if pixels.shape[:2] == self.image_shape else self.processor.image(pixels)

    def decode(self, tokens: Int32[np.ndarray, " N"]) -> str:
        """Decode tokens to text without special tokens, stripped."""
        return self._tokenizer.decode([int(token) for token in tokens], skip_special_tokens=True).strip()

    def piece(self, token: int) -> str:
        """The text of one token inside a sentence, with the blank before it; special tokens by their names."""
        name = self._tokenizer.convert_ids_to_tokens(token)
        return name if name in self._tokenizer.all_special_tokens else self._backend.decoder.decode([name])

    def _pair(self, row: Row, turns: Sequence[int]) -> _Pair:
        """Encode these pairs of a row as the turns of one dialogue, in order."""
        prompts, images = [self._question(row.prompts[index]) for index in turns], len(row.images)
        placed = sum(prompt.count(IMAGE) for prompt in prompts)
        _check_placed(f"row {row.key}", placed, images)
        try:
            text = self._dialogue.opening(prompts[0], 0 if placed else images)
            bounds: list[int] = []
            for number, (index, prompt) in enumerate(zip(turns, prompts, strict=True)):
                if number:
                    bounds.append(len(text) + len(self._dialogue.end))
                    text += self._dialogue.following(prompt)
                bounds.append(len(text))
                text += f" {self._plain(row.answers[index])}"
        except UserError as error:
            raise UserError(f"row {row.key}: {error}") from error
        tokens, ends = self._tokenize(text, images, (self.eos_id,))
        # A token is learnt if it ends in an answer: after an odd number of bounds, which open and close in turn.
        return _Pair(tokens, np.searchsorted(bounds, ends) % 2 == 1)

    def _question(self, text: str) -> str:
        """Escape special tokens in a question, except its image placeholders."""
        return IMAGE.join(self._plain(piece) for piece in text.split(IMAGE))

    def _plain(self, text: str) -> str:
        """Escape special tokens in a text: `<image>` becomes `< image>`.

        Data are not trusted: an image token in an answer would move the image's vectors, and an end token would end it.
        """
        return self._special.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)

    def _tokenize(
        self, text: str, images: int, tail: tuple[int, ...] = ()
    ) -> tuple[Int32[np.ndarray, " N"], Int[np.ndarray, " N"]]:
        """Tokenize a text; return its tokens followed by `tail`, and the end of each token in the text (in characters).

        If there are images, the dialogue's lead comes first and ends at 0. The tail ends after the text. Image tokens
        are repeated `Dialogue.repeats` times.
        """
        encoding = self._backend.encode(text, add_special_tokens=self._dialogue.special)
        lead, behind = self._dialogue.lead if images else (), len(text) + 1
        tokens = np.array([*lead, *encoding.ids, *tail], np.int32)
        ends = np.array([0] * len(lead) + [end for _, end in encoding.offsets] + [behind] * len(tail))
        times = np.where(tokens == self.image_id, self._dialogue.repeats, 1)
        return tokens.repeat(times), ends.repeat(times)

    def _shared(self, tokens: Int32[np.ndarray, " N"]) -> int:
        """Count the tokens through the last image token; 1 if there is none."""
        return int(np.flatnonzero(tokens == self.image_id).max(initial=0)) + 1


def draw_pairs(row: Row, pack: int, rng: np.random.Generator) -> tuple[int, ...]:
    """Draw the question-answer pairs of a row that are packed; a conversation counts as one."""
    count = len(row.prompts)
    if row.multi_turn:
        return (0,)
    return tuple(rng.permutation(count)[:pack].tolist()) if pack > 1 else (int(rng.integers(count)),)


def _check_placed(where: str, placed: int, images: int) -> None:
    """Raise UserError if the number of placeholders is not the number of images; a single image needs none."""
    if placed != images and not (placed == 0 and images == 1):
        raise UserError(f"{where} has {placed} {IMAGE} for {images} images")


def _special(tokenizer: Any, image_id: int) -> re.Pattern[str]:
    """Return the pattern of all texts that the tokenizer maps to special tokens."""
    tokens = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    tokens |= {IMAGE, *tokenizer.all_special_tokens, tokenizer.convert_ids_to_tokens(image_id)}
    return re.compile("|".join(re.escape(token) for token in sorted(tokens, key=len, reverse=True)))
