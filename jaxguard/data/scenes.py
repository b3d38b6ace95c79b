"""Procedural scenes: one to three coloured shapes on a light background, determined by (split, index)."""

from __future__ import annotations

import colorsys
import itertools
import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

SIDE = 64
"""Side of a scene's image in pixels."""
SPLITS = {"train": 40_000, "validation": 2_000, "test": 2_000}

SIZES = {"small": (11.0, 14.0), "large": (22.0, 27.0)}
"""Range of the width of a shape, in pixels."""
SHAPES = ("circle", "rectangle", "triangle", "cross", "star")
COLOURS = {
    "red": (220, 40, 40),
    "orange": (245, 140, 20),
    "yellow": (235, 215, 30),
    "green": (40, 160, 50),
    "teal": (20, 175, 175),
    "blue": (45, 75, 220),
    "purple": (150, 50, 190),
    "brown": (125, 75, 35),
    "gray": (128, 128, 128),
    "black": (15, 15, 15),
}
OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}

_SCALE = 4
"""Factor of supersampling, for smooth edges."""
_GAP = 3.0
"""Smallest distance between two shapes, in pixels."""
_DOMINANCE = 1.5
"""Smallest ratio of a pair's distance along its relation's axis to that along the other axis."""


@dataclass(frozen=True)
class Thing:
    """One shape: its words, centre and half extents (in pixels)."""

    size: str
    colour: str
    shape: str
    x: float
    y: float
    half_width: float
    half_height: float


@dataclass(frozen=True)
class Scene:
    """Things in the order in which captions name them: left to right."""

    things: tuple[Thing, ...]
    seed: tuple[int, int]
    """(number of the split, index): seed of background, colour jitter and wording."""


def relation(one: Thing, other: Thing) -> str | None:
    """Return where `one` is relative to `other`: left, right, above or below; None if neither axis dominates."""
    dx, dy = one.x - other.x, one.y - other.y
    if abs(dx) >= _DOMINANCE * abs(dy):
        return "left" if dx < 0 else "right"
    if abs(dy) >= _DOMINANCE * abs(dx):
        return "above" if dy < 0 else "below"
    return None


def sample(split: str, index: int) -> Scene:
    """Draw scene `index` of a split. Consecutive things have a clear relation; no two share colour and shape."""
    seed = (list(SPLITS).index(split), index)
    rng = np.random.default_rng((*seed, 0))
    count = int(rng.choice([1, 2, 3], p=[0.2, 0.4, 0.4]))
    while True:
        things = sorted((_thing(rng) for _ in range(count)), key=lambda thing: thing.x)
        pairs = [(a, b) for i, a in enumerate(things) for b in things[i + 1 :]]
        clear = all(relation(a, b) for a, b in itertools.pairwise(things))
        apart = all(_apart(a, b) for a, b in pairs)
        distinct = len({(thing.colour, thing.shape) for thing in things}) == count
        if clear and apart and distinct:
            return Scene(tuple(things), seed)


def render(scene: Scene) -> UInt8[np.ndarray, "64 64 3"]:
    """Render the scene's pixels."""
    rng = np.random.default_rng((*scene.seed, 1))
    side = SIDE * _SCALE
    tint = np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(0, 0.15), rng.uniform(0.85, 1.0))) * 255
    canvas = Image.new("RGB", (side, side), tuple(int(value) for value in tint))
    pen = ImageDraw.Draw(canvas)
    for thing in scene.things:
        jitter = rng.integers(-18, 19, 3)
        colour = tuple(int(value) for value in np.clip(np.array(COLOURS[thing.colour]) + jitter, 0, 255))
        _draw(pen, thing, colour)
    return np.asarray(canvas.reduce(_SCALE))


def _thing(rng: np.random.Generator) -> Thing:
    size, shape = str(rng.choice(list(SIZES))), str(rng.choice(SHAPES))
    across = rng.uniform(*SIZES[size])
    ratio = rng.uniform(0.65, 0.9) if shape == "rectangle" else 1.0
    half_width, half_height = across / 2, across / 2 * ratio
    if shape == "rectangle" and rng.random() < 0.5:
        half_width, half_height = half_height, half_width
    x, y = (rng.uniform(half + 1, SIDE - half - 1) for half in (half_width, half_height))
    return Thing(size, str(rng.choice(list(COLOURS))), shape, x, y, half_width, half_height)


def _apart(a: Thing, b: Thing) -> bool:
    beside = abs(a.x - b.x) - a.half_width - b.half_width
    over = abs(a.y - b.y) - a.half_height - b.half_height
    return max(beside, over) >= _GAP


def _draw(pen: ImageDraw.ImageDraw, thing: Thing, colour: tuple[int, ...]) -> None:
    x, y, w, h = (value * _SCALE for value in (thing.x, thing.y, thing.half_width, thing.half_height))
    if thing.shape == "circle":
        pen.ellipse((x - w, y - h, x + w, y + h), fill=colour)
    elif thing.shape == "rectangle":
        pen.rectangle((x - w, y - h, x + w, y + h), fill=colour)
    elif thing.shape == "triangle":
        pen.polygon([(x, y - h), (x - w, y + h), (x + w, y + h)], fill=colour)
    elif thing.shape == "cross":
        pen.rectangle((x - w, y - h * 0.34, x + w, y + h * 0.34), fill=colour)
        pen.rectangle((x - w * 0.34, y - h, x + w * 0.34, y + h), fill=colour)
    else:
        radii = (1.08, 0.45)
        corners = [(math.pi * k / 5 - math.pi / 2, radii[k % 2]) for k in range(10)]
        pen.polygon([(x + w * r * math.cos(a), y + h * r * math.sin(a)) for a, r in corners], fill=colour)
