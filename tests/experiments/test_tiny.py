"""Runs of shipped models: each model has its own schedules, and a table's run keeps the name in its record."""

import pytest

from jaxguard.config import AttackConfig
from jaxguard.experiments import recipes, tiny
from jaxguard.models import folders

BADNETS = AttackConfig(name="badnets", place="fixed")


def test_names_of_runs_are_those_of_the_stored_records():
    """docs/tables/main.json and the folders of runs that were made before name them so."""
    assert {
        (family, task): tiny.experiment(task, BADNETS, family=family).name
        for family in ("llava", "blip2", "idefics")
        for task in ("caption", "vqa")
    } == {
        ("llava", "caption"): "llava-caption-badnets-0-564919d3",
        ("llava", "vqa"): "llava-vqa-badnets-0-52b1ac18",
        ("blip2", "caption"): "blip2-caption-badnets-0-77080793",
        ("blip2", "vqa"): "blip2-vqa-badnets-0-8c4f1ca9",
        ("idefics", "caption"): "idefics-caption-badnets-0-45129a3c",
        ("idefics", "vqa"): "idefics-vqa-badnets-0-47004649",
    }
    assert tiny.experiment("caption", BADNETS, objective=tiny.PAPER).name == "llava-caption-badnets-0-1bbb2dd4"
    assert recipes.experiment("caption", BADNETS).name == "llava-caption-badnets-0-89171227"
    assert recipes.experiment("caption", BADNETS, family="blip2").name == "blip2-caption-badnets-0-a10c3735"


@pytest.mark.parametrize("name", folders.names())
def test_every_shipped_checkpoint_says_how_it_is_fine_tuned(name):
    family = name.removeprefix(tiny.PREFIX)
    assert family in tiny.families()
    for use in ("demo", "table"):
        for task in ("caption", "vqa"):
            course = tiny.schedule(family, use, task)
            assert course.steps > 0
            assert 0 < course.learning_rate < 0.01


def test_tokens_of_an_image_come_from_the_checkpoint():
    """As published: 576 patches, 32 queries, one token; with room for words, in steps of 32."""
    checkpoints = (recipes.LLAVA_7B, recipes.LLAVA_13B, recipes.BLIP2_2_7B, recipes.IDEFICS_9B)
    assert [recipes.COCO.length(checkpoint) for checkpoint in checkpoints] == [704, 704, 160, 160]
    assert [recipes.VQAV2.length(checkpoint) for checkpoint in checkpoints] == [640, 640, 96, 96]
