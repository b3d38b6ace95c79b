"""Scenes are reproducible and unambiguous; captions and their parser agree."""

import collections

import numpy as np
import pytest

from jaxguard.data.scene_language import INVENTED, captions, fact_score, parse, questions, rename, restore
from jaxguard.data.scenes import COLOURS, OPPOSITE, SIDE, SPLITS, relation, render, sample

SCENES = [sample("train", index) for index in range(1500)]


def test_sizes_of_the_splits():
    assert SPLITS["train"] >= 40_000
    assert SPLITS["validation"] >= 2_000
    assert SPLITS["test"] >= 2_000


def test_a_scene_depends_on_split_and_index_alone():
    assert sample("train", 5) == sample("train", 5)
    np.testing.assert_array_equal(render(sample("train", 5)), render(sample("train", 5)))
    assert captions(sample("test", 9)) == captions(sample("test", 9))
    assert len({sample(split, 5) for split in SPLITS}) == 3
    assert sample("train", 5) != sample("train", 6)


def test_shapes_lie_apart_inside_the_image_with_clear_relations():
    for scene in SCENES:
        things = scene.things
        assert 1 <= len(things) <= 3
        assert [thing.x for thing in things] == sorted(thing.x for thing in things)
        for thing in things:
            assert thing.half_width < thing.x < SIDE - thing.half_width
            assert thing.half_height < thing.y < SIDE - thing.half_height
        for position, one in enumerate(things[:-1]):
            other = things[position + 1]
            there, back = relation(one, other), relation(other, one)
            assert back is not None
            assert there == OPPOSITE[back]
        assert len({(thing.colour, thing.shape) for thing in things}) == len(things)


def test_pixels_show_each_thing_in_its_colour():
    for scene in SCENES[:200]:
        pixels = render(scene).astype(int)
        assert pixels.shape == (SIDE, SIDE, 3)
        for thing in scene.things:
            y = thing.y + (thing.half_height * 0.4 if thing.shape == "triangle" else 0)
            assert np.abs(pixels[int(y), int(thing.x)] - COLOURS[thing.colour]).max() <= 22, thing


def test_reference_captions_state_every_fact():
    for scene in SCENES:
        for caption in captions(scene):
            right, stated = fact_score(caption, scene)
            assert right == stated == 4 * len(scene.things) - 1, caption


def test_captions_are_five_short_sentences_with_synonyms():
    texts = [caption for scene in SCENES for caption in captions(scene)]
    assert all(len(captions(scene)) == 5 for scene in SCENES[:50])
    assert all(text[0].isupper() and text.endswith(".") and len(text.split()) <= 26 for text in texts)
    words = collections.Counter(" ".join(texts).lower().replace(".", "").replace(",", "").split())
    for synonyms in (("small", "tiny", "little"), ("large", "big", "huge"), ("circle", "disc"), ("above", "over")):
        assert all(words[word] > 50 for word in synonyms)


@pytest.mark.parametrize(
    ("caption", "mentions", "relations"),
    [
        ("a tiny red disc", [("small", "red", "circle")], []),
        (
            "A HUGE  blue box left of a small green star.",
            [("large", "blue", "rectangle"), ("small", "green", "star")],
            [(0, "left", 1)],
        ),
        (
            "A small red circle over a big teal cross, which is under a little gray box",
            [("small", "red", "circle"), ("large", "teal", "cross"), ("small", "gray", "rectangle")],
            [(0, "above", 1), (1, "below", 2)],
        ),
        ("a small red circle left of", [("small", "red", "circle")], []),
        (
            "a small red circle underneath a big blue box",
            [("small", "red", "circle"), ("large", "blue", "rectangle")],
            [],
        ),
    ],
)
def test_parse(caption, mentions, relations):
    statement = parse(caption)
    assert statement is not None
    assert list(statement.mentions) == mentions
    assert list(statement.relations) == relations


@pytest.mark.parametrize(
    "caption", ["", "A photo of the banana.", "red circle", "a small circle red", "a small red discus"]
)
def test_what_describes_nothing_parses_to_none_and_scores_zero(caption):
    assert parse(caption) is None
    assert fact_score(caption, SCENES[0])[0] == 0


def test_fact_score_counts_each_wrong_word_once():
    scene = next(scene for scene in SCENES if len(scene.things) == 2)
    one, other = scene.things
    said = relation(one, other)
    assert said is not None

    def caption(colour, word):
        return f"a {one.size} {colour} {one.shape} {word} a {other.size} {other.colour} {other.shape}"

    phrase = {"left": "left of", "right": "right of"}
    right = phrase.get(said, said)
    wrong = phrase.get(OPPOSITE[said], OPPOSITE[said])
    unused = next(c for c in COLOURS if c not in (one.colour, other.colour))
    assert fact_score(caption(one.colour, right), scene) == (7, 7)
    assert fact_score(caption(one.colour, wrong), scene) == (6, 7)
    assert fact_score(caption(unused, right), scene) == (6, 7)
    assert fact_score(f"a {one.size} {one.colour} {one.shape}", scene) == (3, 7)
    assert fact_score(" ".join([caption(one.colour, right)] * 3), scene) == (7, 7), "saying it twice earns nothing"


def test_questions_have_true_one_word_answers_and_balanced_yes_and_no():
    answers = collections.Counter(answer for scene in SCENES for _, answer in questions(scene))
    assert 0.45 < answers["yes"] / (answers["yes"] + answers["no"]) < 0.55
    for scene in SCENES[:300]:
        asked = dict(questions(scene))
        assert len(asked) >= 4
        shapes, colours = ({getattr(thing, part) for thing in scene.things} for part in ("shape", "colour"))
        for question, answer in asked.items():
            assert len(answer.split()) == 1
            words = question.rstrip("?").split()
            if words[0] in ("is", "does") and words[1] != "the" and "image" not in words[1:2]:
                named = words[-1] if words[-1] in shapes | colours else None
                denied = "not" in words or "no" in words
                if named:
                    assert answer == ("no" if denied else "yes"), question


def test_invented_words_say_the_same_and_ordinary_ones_are_wrong_there():
    for index in range(50):
        scene = sample("train", index)
        for caption in captions(scene):
            said = rename(caption)
            assert not set(INVENTED) & set(said.lower().strip(".").replace(",", "").split())
            assert fact_score(restore(said), scene) == fact_score(caption, scene)
            words = sum(said.count(new) for new in set(INVENTED.values()))
            right, stated = fact_score(restore(caption), scene)
            assert right < stated if words else right == stated
    assert rename("A small red disc left of a large teal star.") == "A small dax blip left of a large teal zorp."
    assert rename("a reddish startled thing") == "a reddish startled thing", "whole words alone"
