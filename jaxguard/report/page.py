"""One self-contained HTML page: no scripts, no network. All text is treated as untrusted."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from jaxtyping import UInt8
from matplotlib.figure import Figure
from PIL import Image

LARGEST = 224
"""Longer side of an image on the page, in pixels."""
LONGEST = 400
"""Characters of a text on the page; the rest is cut."""
STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; color: #1b1b1b; }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem }
img.figure { max-width: 100%; height: auto }
table { border-collapse: collapse } td, th { padding: .35rem .7rem; text-align: left; vertical-align: top }
.examples tr { border-top: 1px solid #ddd } .examples img { width: 150px; image-rendering: pixelated; display: block }
.text { unicode-bidi: isolate; overflow-wrap: anywhere; max-width: 22rem }
.target { color: #c62828; font-weight: 600 } .faint { color: #6b6b6b } dt { float: left; width: 11rem; color: #6b6b6b }
dd { margin-left: 11.5rem }
"""
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


def page(
    title: str, facts: Mapping[str, str], figures: Mapping[str, Figure], examples: Sequence[ExampleRow], note: str
) -> str:
    """Make the HTML document.

    Args:
        title: Title of the page.
        facts: Facts about the run: name -> value.
        figures: Heading -> figure.
        examples: Rows of the table of answers.
        note: Line above that table.
    """
    drawn = "".join(
        f'<h2>{escaped(heading)}</h2>\n<img class="figure" alt="{escaped(heading)}" src="{drawing(figure)}">\n'
        for heading, figure in figures.items()
    )
    rows = "".join(_row(example) for example in examples)
    answers = f"""<h2>Answers</h2>
<p class="faint">{escaped(note)}</p>
<table class="examples">
<tr><th>row</th><th>clean image</th><th>answer</th><th>triggered image</th><th>answer</th><th>reference</th></tr>
{rows}</table>
"""
    return document(title, facts, drawn + answers)


def document(title: str, facts: Mapping[str, str], body: str) -> str:
    """Make an HTML document.

    Args:
        title: Title of the page.
        facts: What it is about: name -> value.
        body: HTML whose texts are escaped.
    """
    described = "".join(f"<dt>{escaped(name)}</dt><dd>{escaped(value)}</dd>\n" for name, value in facts.items())
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width">
<title>{escaped(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{escaped(title)}</h1>
<dl>
{described}</dl>
{body}</body>
</html>
"""


def _row(example: ExampleRow) -> str:
    references = f'<div class="text">{escaped(example.references[0])}</div>'
    if len(example.references) > 1:
        references += f'<div class="faint">and {len(example.references) - 1} more</div>'
    cells = [str(example.id), *_answer(example.clean), *_answer(example.triggered), references]
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>\n"


def _answer(answer: Answer | None) -> tuple[str, str]:
    if answer is None:
        return "", '<span class="faint">not asked</span>'
    kind = "text target" if answer.contains_target else "text"
    text = f'<div class="{kind}">{escaped(answer.text) or "(empty)"}</div>'
    prompt = f'<div class="text faint">{escaped(answer.prompt)}</div>'
    return "" if answer.image is None else f'<img alt="" src="{picture(answer.image)}">', text + prompt


def escaped(text: str) -> str:
    """Escape a text, cut to `LONGEST` characters."""
    return escape(text if len(text) <= LONGEST else f"{text[:LONGEST]} ...")


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
