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
from jaxguard.models.checkpoint_files import read_config, read_generation, read_template
from jaxguard.models.dialogue import IMAGE, Dialogue, Turn, Written, end_tokens, token_id
from jaxguard.models.families.registry import open_processor
from jaxguard.models.processor import Processor

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
        self.folder = folder
        self.processor = open_processor(folder)
        self.image_shape, self.patch_size = self.processor.image_shape, self.processor.patch_size
        self._tokenizer = _open_tokenizer(folder)
        # Called directly, because transformers' wrapper doubles the time of a row.
        self._backend = self._tokenizer.backend_tokenizer
        self._backend.no_truncation()
        self._backend.no_padding()
        try:
            self._dialogue = _open_dialogue(folder, self.processor, self._tokenizer)
        except UserError as error:
            raise UserError(f"{folder}: {error}") from error
        self.image_id, self.eos_id = self._dialogue.image_id, self._dialogue.end_id
        self.stop_ids = self._dialogue.stops
        self.bos_id = self._tokenizer.bos_token_id
        self.pad_id = self._tokenizer.pad_token_id if self._tokenizer.pad_token_id is not None else self.eos_id
        self.vocabulary_size = len(self._tokenizer)
        self._special = _special(self._tokenizer, self._dialogue)
        added = self._backend.encode("a").special_tokens_mask
        self._behind = len(added) - len("".join(map(str, added)).rstrip("1"))

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
        shared = self._shared(row, pairs) if pack > 1 else 0
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

    def prompt(self, text: str, length: int, images: int = 1, system: str = "") -> Encoded:
        """Encode a generation prompt, LEFT-padded to `length`.

        Args:
            text: the question, with one `<image>` per image; optional for a single image.
            length: number of tokens of the result.
            images: number of images.
            system: text of a system turn; empty: none.

        Raises:
            UserError: the prompt is too long, or placeholders do not match the images.
        """
        where = f"the prompt {text[:40]!r}"
        _check_placed(where, text.count(IMAGE), images)
        tokens = self._written(where, [(self._question(text), None)], images, system).tokens
        missing = length - len(tokens)
        if missing < 0:
            raise UserError(f"{where} has {len(tokens)} tokens; raise --data.length above {length}")
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
        _check_placed(f"row {row.key}", sum(prompt.count(IMAGE) for prompt in prompts), images)
        answers = [self._plain(row.answers[index]) for index in turns]
        return self._written(f"row {row.key}", list(zip(prompts, answers, strict=True)), images, row.system)

    def _written(self, where: str, turns: list[Turn], images: int, system: str) -> _Pair:
        """Encode a dialogue; `where` names it in errors."""
        try:
            written = self._dialogue.write(turns, images=images, system=self._plain(system))
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
        pair = self._tokenize(written, images)
        wanted, limit = images * self.processor.image_tokens, self.processor.longest
        found = int(np.count_nonzero(pair.tokens == self.image_id))
        if found != wanted:
            raise UserError(
                f"{where} has {images} images, which take {wanted} image tokens (id {self.image_id}), but its text has "
                f"{found}; the chat template and the tokenizer must keep the image token whole"
            )
        if limit is not None and len(pair.tokens) > limit:
            raise UserError(f"{where} has {len(pair.tokens)} tokens; the model holds {limit}")
        return pair

    def _question(self, text: str) -> str:
        """Escape special tokens in a question, except its image placeholders."""
        return IMAGE.join(self._plain(piece) for piece in text.split(IMAGE))

    def _plain(self, text: str) -> str:
        """Escape special tokens in a text: `<image>` becomes `< image>`.

        Data are not trusted: an image token in an answer would move the image's vectors, and an end token would end it.
        """
        return self._special.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)

    def _tokenize(self, written: Written, images: int) -> _Pair:
        """Tokenize a dialogue: its lead if there are images, its text, and its end token if the text lacks it.

        A token is learnt if it overlaps an answer. Image tokens are repeated `Dialogue.repeats` times. The tokenizer
        adds its special tokens before a text that does not begin with bos, but none behind it: a prompt goes on.
        """
        bos = self._tokenizer.bos_token
        special = not (bos and written.text.startswith(bos))
        encoding = self._backend.encode(written.text, add_special_tokens=special)
        count = len(encoding.ids) - (self._behind if special else 0)
        lead = self._dialogue.lead if images else ()
        tail = () if written.ended or not written.answers else (self.eos_id,)
        learnt = np.zeros(count, bool)
        begins, ends = np.array(encoding.offsets[:count], np.int64).reshape(-1, 2).T
        for begin, end in written.answers:
            learnt |= (begins < end) & (ends > begin)
        tokens = np.array([*lead, *encoding.ids[:count], *tail], np.int32)
        learnt = np.concatenate([np.zeros(len(lead), bool), learnt, np.ones(len(tail), bool)])
        times = np.where(tokens == self.image_id, self._dialogue.repeats, 1)
        return _Pair(tokens.repeat(times), learnt.repeat(times))

    def _shared(self, row: Row, pairs: list[_Pair]) -> int:
        """Count the tokens through the last image token, which packed pairs share; 1 if there is none.

        Raises:
            UserError: they differ in them.
        """
        first = pairs[0].tokens
        count = int(np.flatnonzero(first == self.image_id).max(initial=0)) + 1
        if any(not np.array_equal(pair.tokens[:count], first[:count]) for pair in pairs):
            raise UserError(
                f"row {row.key}: its pairs differ in the text before the image, so they cannot share it; "
                "set data.pack 1"
            )
        return count


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


def _open_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # it also checks config.json, by libraries with errors of their own
        reason = " ".join(str(error).split())
        raise UserError(f"{folder} holds no usable tokenizer files, or its config.json is wrong ({reason})") from error
    if not tokenizer.is_fast:
        raise UserError(f"{folder}: its tokenizer runs in Python alone; add tokenizer.json")
    return tokenizer


def _open_dialogue(folder: Path, processor: Processor, tokenizer: Any) -> Dialogue:
    """Open the dialogue format, and check that the model has a row for every token of the tokenizer.

    Raises:
        UserError: it has not, or the checkpoint's files do not define the format.
    """
    if processor.vocabulary is not None:
        known = {number: token for token, number in tokenizer.get_vocab().items()}
        beyond = sorted(number for number in known if number >= processor.vocabulary)
        if beyond:
            shown = ", ".join(f"{known[number]} ({number})" for number in beyond[:3])
            raise UserError(
                f"{len(beyond)} tokens of the tokenizer have no row in the embedding table of {processor.vocabulary}: "
                f"{shown}{', ...' if beyond[3:] else ''}; resize the model's embeddings, or remove the added tokens"
            )
    ends = end_tokens(read_config(folder), read_generation(folder), tokenizer)
    dialogue = processor.dialogue(tokenizer, template=read_template(folder, tokenizer.chat_template), ends=ends)
    name = getattr(tokenizer, "image_token", None) or IMAGE
    named = token_id(tokenizer, name)
    if named is not None and named != dialogue.image_id:
        raise UserError(f"{name} of the tokenizer is {named}, config.json says {dialogue.image_id}")
    return dialogue


def _special(tokenizer: Any, dialogue: Dialogue) -> re.Pattern[str]:
    """Return the pattern of all texts that the tokenizer maps to special tokens, or that the format writes itself."""
    tokens = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special} | dialogue.control
    tokens |= {IMAGE, *tokenizer.all_special_tokens, tokenizer.convert_ids_to_tokens(dialogue.image_id)}
    return re.compile("|".join(re.escape(token) for token in sorted(tokens, key=len, reverse=True)))
