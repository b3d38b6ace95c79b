"""Rows to tokens: chat format, image placeholders and answer masks from the checkpoint's own files."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from jaxtyping import Bool, Int32, UInt8

from jaxguard.data.dialogue import IMAGE, patch_of_token, read_dialogue
from jaxguard.data.framing import Framing
from jaxguard.data.rows import Row
from jaxguard.errors import UserError


@dataclass(frozen=True)
class Encoded:
    """One row of a `Batch`: tokens, positions, segments and answer mask, all [T]."""

    tokens: Int32[np.ndarray, " T"]
    positions: Int32[np.ndarray, " T"]
    segments: Int32[np.ndarray, " T"]
    answer_mask: Bool[np.ndarray, " T"]


@dataclass(frozen=True)
class _Pair:
    """Tokens of a question and its answer or of several turns, and which are the answers (end tokens included)."""

    tokens: list[int]
    answer: list[bool]


class Encoder:
    """The text and image side of a checkpoint, of any family. Picklable; needs neither JAX nor torch."""

    def __init__(self, folder: Path):
        from transformers import AutoTokenizer

        self.folder = folder
        config = _read_json(folder / "config.json")
        self.image_size: int = (config.get("vision_config") or {}).get("image_size", 224)
        self.patch_size = patch_of_token(config)
        """Side of the patch that an image token stands for; None where there is none."""
        preprocessor = folder / "preprocessor_config.json"
        values = _read_json(preprocessor) if preprocessor.is_file() else {}
        try:
            self._framing = Framing.read(config.get("model_type"), self.image_size, values)
        except UserError as error:
            raise UserError(f"{folder}: {error}") from error
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"{folder} holds no usable tokenizer files ({reason})") from error
        try:
            self._dialogue = read_dialogue(config, self._tokenizer)
        except UserError as error:
            raise UserError(f"{folder}: {error}") from error
        self.image_id, self.eos_id = self._dialogue.image_id, self._dialogue.end_id
        self.bos_id = self._tokenizer.bos_token_id
        self.pad_id = self._tokenizer.pad_token_id if self._tokenizer.pad_token_id is not None else self.eos_id
        self.vocabulary_size = len(self._tokenizer)
        self._special = _special(self._tokenizer, self.image_id)

    @classmethod
    def from_checkpoint(cls, folder: Path) -> Self:
        """Raises UserError where the folder's files are missing or do not fit."""
        return cls(folder)

    def __reduce__(self) -> tuple:
        return Encoder, (self.folder,)

    def encode(self, row: Row, *, length: int, answer_length: int, pack: int, rng: np.random.Generator) -> Encoded:
        """One training row of `length` tokens, right-padded: `pack` question-answer pairs drawn by `rng`.

        With several pairs, the prefix through the last image token stands once (segment 1) and each pair behind it is
        a segment of its own whose positions restart there; pairs that do not fit any more are left out. A conversation
        (`Row.chained`) is one row, whole.

        Raises:
            UserError: not even one pair fits, or its placeholders do not match its images. Answers are never cut.
        """
        if row.chained:
            pairs, pack = [self._pair(row, range(len(row.prompts)))], 1
        else:
            count = len(row.prompts)
            order = rng.permutation(count)[:pack] if pack > 1 else [rng.integers(count)]
            pairs = [self._pair(row, [int(index)]) for index in order]
        shared = self._shared(pairs[0].tokens) if pack > 1 else 0
        first = pairs[0]
        if len(first.tokens) > length:
            raise UserError(f"row {row.key} has {len(first.tokens)} tokens; raise --data.length above {length}")
        if sum(first.answer) > answer_length:
            raise UserError(
                f"row {row.key} has {sum(first.answer)} answer tokens; raise --data.answer-length above {answer_length}"
            )
        tokens, positions, segments = first.tokens[:shared], list(range(shared)), [1] * shared
        answer = [False] * shared
        for number, pair in enumerate(pairs):
            own = pair.tokens[shared:]
            if len(tokens) + len(own) > length or sum(answer) + sum(pair.answer) > answer_length:
                continue
            tokens = tokens + own
            positions += range(shared, len(pair.tokens))
            segments += [number + 2 if pack > 1 else 1] * len(own)
            answer += pair.answer[shared:]
        return Encoded(
            _pad(tokens, length, self.pad_id),
            _pad(positions, length, 0),
            _pad(segments, length, 0),
            _pad(answer, length, 0).astype(bool),
        )

    def lengths(self, row: Row) -> list[tuple[int, int]]:
        """(tokens, answer tokens) of each pair, or of the conversation as a whole, image tokens included.

        Raises:
            UserError: the placeholders of one do not match its images.
        """
        count = len(row.prompts)
        turns: list[Sequence[int]] = [range(count)] if row.chained else [[index] for index in range(count)]
        pairs = [self._pair(row, indices) for indices in turns]
        return [(len(pair.tokens), sum(pair.answer)) for pair in pairs]

    def prompt(self, text: str, length: int, images: int = 1) -> Encoded:
        """A generation prompt, LEFT-padded to `length`.

        Args:
            text: the question, with `<image>` where its images stand unless one leads.
            length: of the result.
            images: how many it is about.

        Raises:
            UserError: it does not fit.
        """
        _check_placed(f"the prompt {text[:40]!r}", text.count(IMAGE), images)
        lead = self._dialogue.lead if images else ()
        opening = self._dialogue.opening(self._question(text), images)
        tokens = [*lead, *self._expand(self._tokenize(opening)["input_ids"])]
        missing = length - len(tokens)
        if missing < 0:
            raise UserError(f"the prompt {text[:40]!r} has {len(tokens)} tokens; raise --data.length above {length}")
        return Encoded(
            np.array([self.pad_id] * missing + tokens, np.int32),
            np.array([0] * missing + list(range(len(tokens))), np.int32),
            np.array([0] * missing + [1] * len(tokens), np.int32),
            np.zeros(length, bool),
        )

    def image(self, pixels: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "S S 3"]:
        """S x S pixels, as the checkpoint's image processor makes them; S x S images are left alone."""
        side = self.image_size
        return pixels if pixels.shape[:2] == (side, side) else self._framing(pixels)

    def decode(self, tokens: Int32[np.ndarray, " N"]) -> str:
        """Text without special tokens, stripped."""
        return self._tokenizer.decode([int(token) for token in tokens], skip_special_tokens=True).strip()

    def _pair(self, row: Row, turns: Sequence[int]) -> _Pair:
        """These pairs of a row as the turns of one dialogue, in order."""
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
        encoding = self._tokenize(text, return_offsets_mapping=True)
        tokens, offsets = encoding["input_ids"], encoding["offset_mapping"]
        # A token is learnt if it ends in an answer: behind an odd number of bounds, which open and close them by turns.
        learnt = (np.searchsorted(bounds, [end for _, end in offsets]) % 2 == 1).tolist()
        lead = list(self._dialogue.lead) if images else []
        return _Pair(
            [*lead, *self._expand(tokens), self.eos_id], [*[False] * len(lead), *self._expand(learnt, tokens), True]
        )

    def _question(self, text: str) -> str:
        """A question in which nothing but the places of its images is read as a special token."""
        return IMAGE.join(self._plain(piece) for piece in text.split(IMAGE))

    def _plain(self, text: str) -> str:
        """Text in which nothing is read as a special token: `<image>` becomes `< image>`.

        Data are not trusted. An image token in an answer would move the image's vectors, an end token would end it.
        """
        return self._special.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)

    def _tokenize(self, text: str, **options: bool) -> Any:
        return self._tokenizer(text, add_special_tokens=self._dialogue.special, **options)

    def _expand(self, values: list, tokens: list[int] | None = None) -> list:
        """Repeat what stands at each image token as often as the image has vectors there."""
        expanded: list = []
        for value, token in zip(values, tokens or values, strict=True):
            expanded += [value] * (self._dialogue.repeats if token == self.image_id else 1)
        return expanded

    def _shared(self, tokens: list[int]) -> int:
        """Tokens through the last image token; without one, just the first token."""
        return max((index for index, token in enumerate(tokens) if token == self.image_id), default=0) + 1


def _check_placed(where: str, placed: int, images: int) -> None:
    """Raises UserError where a question's places are not as many as its images."""
    if placed != images and not (placed == 0 and images == 1):
        raise UserError(f"{where} has {placed} {IMAGE} for {images} images")


def _special(tokenizer: Any, image_id: int) -> re.Pattern[str]:
    """What the tokenizer takes for a token with a meaning, wherever it stands in a text."""
    tokens = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    tokens |= {IMAGE, *tokenizer.all_special_tokens, tokenizer.convert_ids_to_tokens(image_id)}
    return re.compile("|".join(re.escape(token) for token in sorted(tokens, key=len, reverse=True)))


def _pad(values: list, length: int, fill: int) -> Int32[np.ndarray, " T"]:
    return np.array(values + [fill] * (length - len(values)), np.int32)


def _read_json(path: Path) -> dict:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as JSON ({error})") from error
