"""Rows to tokens: chat format, image placeholders and answer masks from the checkpoint's own files."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from jaxtyping import Bool, Int32, UInt8
from PIL import Image

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
    """Tokens of one question and answer, and which of them are the answer (end token included)."""

    tokens: list[int]
    answer: list[bool]


class Encoder:
    """The text and image side of a checkpoint in LLaVA layout. Picklable; needs neither JAX nor torch."""

    def __init__(self, folder: Path):
        from transformers import AutoTokenizer

        self.folder = folder
        config = _read_json(folder / "config.json")
        vision = config.get("vision_config") or {}
        self.image_size: int = vision.get("image_size", 224)
        self.patch_size: int = vision.get("patch_size", 32)
        patches = (self.image_size // self.patch_size) ** 2
        self.tokens_per_image = patches + (config.get("vision_feature_select_strategy", "default") == "full")
        self.image_id: int = config.get("image_token_index", config.get("image_token_id", 32000))
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"{folder} holds no usable tokenizer files ({reason})") from error
        if not self._tokenizer.chat_template:
            raise UserError(f"{folder} has no chat template; add chat_template.jinja")
        self.bos_id, self.eos_id = self._tokenizer.bos_token_id, self._tokenizer.eos_token_id
        self.pad_id = self._tokenizer.pad_token_id if self._tokenizer.pad_token_id is not None else self.eos_id
        self.vocabulary_size = len(self._tokenizer)

    @classmethod
    def from_checkpoint(cls, folder: Path) -> Self:
        """Raises UserError where the folder's files are missing or do not fit."""
        return cls(folder)

    def __reduce__(self) -> tuple:
        return Encoder, (self.folder,)

    def encode(self, row: Row, *, length: int, answer_length: int, pack: int, rng: np.random.Generator) -> Encoded:
        """One training row of `length` tokens, right-padded: `pack` question-answer pairs drawn by `rng`.

        With several pairs, the prefix through the last image token stands once (segment 1) and each pair behind it is
        a segment of its own whose positions restart there; pairs that do not fit any more are left out.

        Raises:
            UserError: not even one pair fits. Answers are never cut.
        """
        count = len(row.prompts)
        order = rng.permutation(count)[:pack] if pack > 1 else [rng.integers(count)]
        pairs = [self._pair(row.prompts[index], row.answers[index]) for index in order]
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

    def prompt(self, text: str, length: int) -> Encoded:
        """A generation prompt, LEFT-padded to `length`.

        Raises:
            UserError: it does not fit.
        """
        tokens = self._expand(self._tokenizer(_chat(self._tokenizer, text))["input_ids"])
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
        """Shortest edge to S (bicubic), centre S x S, as CLIP's image processor does; S x S images are left alone."""
        side = self.image_size
        height, width = pixels.shape[:2]
        if (height, width) == (side, side):
            return pixels
        scale = side / min(height, width)
        size = (max(side, int(width * scale)), max(side, int(height * scale)))
        resized = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
        top, left = (resized.shape[0] - side) // 2, (resized.shape[1] - side) // 2
        return resized[top : top + side, left : left + side]

    def decode(self, tokens: Int32[np.ndarray, " N"]) -> str:
        """Text without special tokens, stripped."""
        return self._tokenizer.decode([int(token) for token in tokens], skip_special_tokens=True).strip()

    def _pair(self, prompt: str, answer: str) -> _Pair:
        opening = _chat(self._tokenizer, prompt)
        text = f"{opening} {answer}{self._tokenizer.eos_token}"
        encoding = self._tokenizer(text, return_offsets_mapping=True)
        tokens, offsets = encoding["input_ids"], encoding["offset_mapping"]
        learnt = [end > len(opening) for _, end in offsets]
        return _Pair(self._expand(tokens), self._expand(learnt, tokens))

    def _expand(self, values: list, tokens: list[int] | None = None) -> list:
        """Repeat what stands at each image token once per patch."""
        expanded: list = []
        for value, token in zip(values, tokens or values, strict=True):
            expanded += [value] * (self.tokens_per_image if token == self.image_id else 1)
        return expanded

    def _shared(self, tokens: list[int]) -> int:
        """Tokens through the last image token; without one, just the first token."""
        return max((index for index, token in enumerate(tokens) if token == self.image_id), default=0) + 1


_PLACE = "\ufffc"
"""Stands for the prompt in a rendered template, so that each checkpoint's template is rendered once."""


@functools.lru_cache(maxsize=8)
def _template(tokenizer: Any) -> str:
    content = [{"type": "image"}, {"type": "text", "text": _PLACE}]
    messages = [{"role": "user", "content": content}]
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def _chat(tokenizer: Any, prompt: str) -> str:
    return _template(tokenizer).replace(_PLACE, prompt)


def _pad(values: list, length: int, fill: int) -> Int32[np.ndarray, " T"]:
    return np.array(values + [fill] * (length - len(values)), np.int32)


def _read_json(path: Path) -> dict:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as JSON ({error})") from error
