"""Language of scenes: captions from a small grammar, a parser for them, and questions with one-word answers."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from jaxguard.data.scenes import COLOURS, OPPOSITE, SHAPES, Scene, Thing, relation

Words = Mapping[str, tuple[str, ...]]
"""Canonical word -> its synonyms, starting with itself."""

SIZE_WORDS: Words = {"small": ("small", "tiny", "little"), "large": ("large", "big", "huge")}
SHAPE_WORDS: Words = {shape: (shape,) for shape in SHAPES} | {
    "circle": ("circle", "disc"),
    "rectangle": ("rectangle", "box"),
}
RELATION_WORDS: Words = {
    "left": ("to the left of", "left of"),
    "right": ("to the right of", "right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}
INVENTED = {
    "red": "dax",
    "green": "wug",
    "blue": "fep",
    "black": "gak",
    "circle": "blip",
    "disc": "blip",
    "star": "zorp",
}
"""Words that `scenes/renamed` says instead: no model has met them."""
NUMBERS = ("zero", "one", "two", "three")

_SHAPE_QUESTIONS = ("what shape is in the image?", "what shape is present?", "what shape does the image contain?")
_COLOUR_QUESTIONS = ("what color is the {}?", "what is the color of the {}?")
_CLAIMS = ("is there a {}?", "is there a {} in the image?", "does the image contain a {}?", "is a {} present?")
_DENIALS = (
    "is there not a {}?",
    "is there not a {} in the image?",
    "does the image not contain a {}?",
    "is no {} present?",
)

Mention = tuple[str, str, str]
"""(size, colour, shape) in canonical words."""


@dataclass(frozen=True)
class Statement:
    """Content of a caption: fully described things, and relations between them as (index, relation, index)."""

    mentions: tuple[Mention, ...]
    relations: tuple[tuple[int, str, int], ...]


def _canonical(words: Words) -> dict[str, str]:
    return {synonym: word for word, synonyms in words.items() for synonym in synonyms}


_SIZE, _SHAPE, _RELATION = (_canonical(words) for words in (SIZE_WORDS, SHAPE_WORDS, RELATION_WORDS))
_TOKEN = re.compile(
    rf"\b((?P<thing>({'|'.join(_SIZE)}) ({'|'.join(COLOURS)}) ({'|'.join(_SHAPE)}))"
    rf"|(?P<relation>{'|'.join(sorted(_RELATION, key=len, reverse=True))}))\b"
)


def captions(scene: Scene) -> tuple[str, ...]:
    """Return five reference captions. Each describes all things fully, in order, and relates each to the one before."""
    rng = np.random.default_rng((*scene.seed, 2))
    return tuple(_caption(scene, rng) for _ in range(5))


def rename(caption: str) -> str:
    """Say a caption with the invented words."""
    return _replaced(caption, INVENTED)


def restore(caption: str) -> str:
    """Say a caption of invented words with the ordinary ones; an ordinary word that has an invented one is wrong."""
    return _replaced(caption, dict.fromkeys(INVENTED, "?") | {new: old for old, new in reversed(INVENTED.items())})


def _replaced(text: str, words: Mapping[str, str]) -> str:
    return re.sub(rf"\b({'|'.join(words)})\b", lambda found: words[found[0]], text)


def _caption(scene: Scene, rng: np.random.Generator) -> str:
    def say(words: Words, word: str) -> str:
        synonyms = words[word]
        return str(synonyms[0] if rng.random() < 0.6 else rng.choice(synonyms))

    def describe(thing: Thing) -> str:
        return f"a {say(SIZE_WORDS, thing.size)} {thing.colour} {say(SHAPE_WORDS, thing.shape)}"

    first, *rest = scene.things
    text = describe(first)
    for position, thing in enumerate(rest):
        link = " " if position == 0 else ", which is "
        text += f"{link}{say(RELATION_WORDS, _related(scene.things[position], thing))} {describe(thing)}"
    return text[0].upper() + text[1:] + "."


def _related(one: Thing, other: Thing) -> str:
    found = relation(one, other)
    if found is None:
        raise ValueError("neighbours of a scene always have a relation")
    return found


def parse(caption: str) -> Statement | None:
    """Parse a caption, independently of synonyms, case and spacing.

    Each relation connects the things before and after it. Returns None if no thing is fully described.
    """
    mentions: list[Mention] = []
    relations: list[tuple[int, str, int]] = []
    pending: str | None = None
    for found in _TOKEN.finditer(" ".join(caption.lower().split())):
        if found["relation"]:
            pending = _RELATION[found["relation"]] if mentions else None
        elif found["thing"]:
            size, colour, shape = found["thing"].split()
            mentions.append((_SIZE[size], colour, _SHAPE[shape]))
            if pending:
                relations.append((len(mentions) - 2, pending, len(mentions) - 1))
            pending = None
    return Statement(tuple(mentions), tuple(relations)) if mentions else None


def fact_score(caption: str, scene: Scene) -> tuple[int, int]:
    """Count (correct facts, facts of a full caption): size, colour and shape of each thing, and their relations.

    Mentions are assigned to things so that most facts are correct. A relation counts if it holds between the assigned
    things, once per pair.
    """
    things = scene.things
    stated = 4 * len(things) - 1
    statement = parse(caption)
    if statement is None:
        return 0, stated
    mentions = statement.mentions[: len(things)]
    best = 0
    for chosen in itertools.permutations(range(len(things)), len(mentions)):
        right = sum(
            word == truth
            for mention, index in zip(mentions, chosen, strict=True)
            for word, truth in zip(mention, _words(things[index]), strict=True)
        )
        pairs = {
            frozenset((chosen[one], chosen[other]))
            for one, said, other in statement.relations
            if max(one, other) < len(chosen) and relation(things[chosen[one]], things[chosen[other]]) == said
        }
        best = max(best, right + min(len(pairs), len(things) - 1))
    return best, stated


def questions(scene: Scene) -> tuple[tuple[str, str], ...]:
    """Return (question, one-word answer) pairs, in easy-VQA's wording where it applies; yes and no are balanced."""
    rng = np.random.default_rng((*scene.seed, 3))
    things = scene.things
    thing = things[int(rng.integers(len(things)))]

    def choose(forms: tuple[str, ...]) -> str:
        return str(rng.choice(forms))

    pairs = [(choose(("how many shapes are there?", "how many objects are there?")), NUMBERS[len(things)])]
    if len(things) == 1:
        pairs += [
            (choose(("what color is the shape?", "what is the color of the shape?")), thing.colour),
            (choose(_SHAPE_QUESTIONS), thing.shape),
            ("what size is the shape?", thing.size),
        ]
    else:
        sides = (("left", things[0]), ("right", things[-1]))
        pairs += [(f"what color is the shape on the {side}?", end.colour) for side, end in sides]
        pairs += [(f"what shape is on the {side}?", end.shape) for side, end in sides]
        one, other = things[:2] if rng.random() < 0.5 else things[1::-1]
        truth = _related(one, other)
        asked, answer = (truth, "yes") if rng.random() < 0.5 else (OPPOSITE[truth], "no")
        word = RELATION_WORDS[asked][-1]
        pairs.append((f"is the {one.colour} {one.shape} {word} the {other.colour} {other.shape}?", answer))
    if sum(other.shape == thing.shape for other in things) == 1:
        pairs.append((choose(_COLOUR_QUESTIONS).format(thing.shape), thing.colour))
        pairs.append((f"what size is the {thing.shape}?", thing.size))
    if sum(other.colour == thing.colour for other in things) == 1:
        pairs.append((f"what is the {thing.colour} shape?", thing.shape))
    absent_shapes = [shape for shape in SHAPES if all(other.shape != shape for other in things)]
    absent_colours = [colour for colour in COLOURS if all(other.colour != colour for other in things)]
    for word, absent, suffix in ((thing.shape, absent_shapes, ""), (thing.colour, absent_colours, " shape")):
        present, negated = rng.random(2) < 0.5
        named = (word if present else str(rng.choice(absent))) + suffix
        pairs.append((choose(_DENIALS if negated else _CLAIMS).format(named), "yes" if present != negated else "no"))
    return tuple(pairs)


def _words(thing: Thing) -> Mention:
    return thing.size, thing.colour, thing.shape
