"""A run as one HTML page: opens from a file, fetches nothing, runs nothing. All text is taken to be hostile."""

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
"""Pixels of an image's longer side on the page."""
LONGEST = 400
"""Characters of a text on the page."""
STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; color: #1b1b1b; }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem }
img.figure { max-width: 100%; height: auto }
table { border-collapse: collapse } td, th { padding: .35rem .7rem; text-align: left; vertical-align: top }
.sheet tr { border-top: 1px solid #ddd } .sheet img { width: 150px; image-rendering: pixelated; display: block }
.text { unicode-bidi: isolate; overflow-wrap: anywhere; max-width: 22rem }
.caught { color: #c62828; font-weight: 600 } .faint { color: #6b6b6b } dt { float: left; width: 11rem; color: #6b6b6b }
dd { margin-left: 11.5rem }
"""
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""Even if something slipped through, a browser would run and load nothing."""


@dataclass(frozen=True)
class Answer:
    """What was seen and said: `caught` where the answer holds the attacker's target."""

    image: UInt8[np.ndarray, "H W 3"] | None
    prompt: str
    text: str
    caught: bool


@dataclass(frozen=True)
class Shown:
    """One test row on the contact sheet."""

    id: int
    references: tuple[str, ...]
    clean: Answer | None
    triggered: Answer | None


def page(title: str, facts: Mapping[str, str], figures: Mapping[str, Figure], sheet: Sequence[Shown], note: str) -> str:
    """The whole document.

    Args:
        title: of the page.
        facts: about the run, name -> value.
        figures: heading -> picture.
        sheet: rows of the contact sheet.
        note: a line below its heading.
    """
    described = "".join(f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>\n" for name, value in facts.items())
    drawn = "".join(
        f'<h2>{_text(heading)}</h2>\n<img class="figure" alt="{_text(heading)}" src="{_png(figure)}">\n'
        for heading, figure in figures.items()
    )
    rows = "".join(_row(shown) for shown in sheet)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width">
<title>{_text(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{_text(title)}</h1>
<dl>
{described}</dl>
{drawn}<h2>Answers</h2>
<p class="faint">{_text(note)}</p>
<table class="sheet">
<tr><th>row</th><th>image</th><th>answer</th><th>triggered</th><th>answer</th><th>a true answer</th></tr>
{rows}</table>
</body>
</html>
"""


def _row(shown: Shown) -> str:
    references = f'<div class="text">{_text(shown.references[0])}</div>'
    if len(shown.references) > 1:
        references += f'<div class="faint">and {len(shown.references) - 1} more</div>'
    cells = [str(shown.id), *_answer(shown.clean), *_answer(shown.triggered), references]
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>\n"


def _answer(answer: Answer | None) -> tuple[str, str]:
    if answer is None:
        return "", '<span class="faint">not asked</span>'
    kind = "text caught" if answer.caught else "text"
    said = f'<div class="{kind}">{_text(answer.text) or "(nothing)"}</div>'
    asked = f'<div class="text faint">{_text(answer.prompt)}</div>'
    return "" if answer.image is None else f'<img alt="" src="{_picture(answer.image)}">', said + asked


def _text(text: str) -> str:
    return escape(text if len(text) <= LONGEST else f"{text[:LONGEST]} ...")


def _picture(pixels: UInt8[np.ndarray, "H W 3"]) -> str:
    image = Image.fromarray(pixels)
    image.thumbnail((LARGEST, LARGEST))
    file = io.BytesIO()
    image.save(file, "PNG")
    return _data(file.getvalue())


def _png(figure: Figure) -> str:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return _data(file.getvalue())


def _data(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
