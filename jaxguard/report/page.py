"""Self-contained HTML pages: no scripts, no network. All text is treated as untrusted (templates escape it)."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from jaxtyping import UInt8
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image

from jaxguard.evaluate.judgement import Judgement

LARGEST = 224
"""Longer side of an image on the page, in pixels."""
LONGEST = 400
"""Characters of a text on the page; the rest is cut."""
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""Second line of defence: a browser runs and loads nothing, even if some text were not escaped."""


@dataclass(frozen=True)
class Answer:
    """One input and its answer. `contains_target` is True if the answer contains the attacker's target."""

    image: UInt8[np.ndarray, "h w 3"] | None
    prompt: str
    text: str
    contains_target: bool


@dataclass(frozen=True)
class ExampleRow:
    """One test row with its answers."""

    id: int
    references: tuple[str, ...]
    clean: Answer | None
    triggered: Answer | None


@dataclass(frozen=True)
class RunPage:
    """What the page of a run shows.

    Attributes:
        title: Title of the page.
        facts: Facts about the run: name -> value.
        judgement: Verdict and warnings, on top; None without an evaluation.
        figures: Heading -> figure.
        evaluations: Descriptions of all evaluations in the run folder.
        examples: Rows of the table of answers.
        note: Line above that table.
    """

    title: str
    facts: Mapping[str, str]
    judgement: Judgement | None
    figures: Mapping[str, Figure]
    evaluations: Sequence[str]
    examples: Sequence[ExampleRow]
    note: str


def page(run: RunPage) -> str:
    """Make the HTML document of a run."""
    shown = {name: getattr(run, name) for name in RunPage.__dataclass_fields__}
    return _environment().get_template("run.html").render(policy=POLICY, **shown)


def document(title: str, facts: Mapping[str, str], body: str) -> str:
    """Make an HTML document.

    Args:
        title: Title of the page.
        facts: What it is about: name -> value.
        body: HTML whose texts are escaped.
    """
    template = _environment().get_template("document.html")
    return template.render(policy=POLICY, title=title, facts=facts, body=Markup(body))


def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("jaxguard", "report/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"cut": cut, "picture": picture, "drawing": drawing}
    return made


def cut(text: str) -> str:
    """Cut a text to `LONGEST` characters."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."


def escaped(text: str) -> str:
    """Escape a text, cut to `LONGEST` characters."""
    return escape(cut(text))


def picture(pixels: UInt8[np.ndarray, "h w 3"]) -> str:
    """Return an image as an address that holds it."""
    image = Image.fromarray(pixels)
    image.thumbnail((LARGEST, LARGEST))
    file = io.BytesIO()
    image.save(file, "PNG")
    return _address(file.getvalue())


def drawing(figure: Figure) -> str:
    """Return a figure as an address that holds it."""
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return _address(file.getvalue())


def _address(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
