"""Pages and figures of a run: whatever a model answers, the page executes nothing and fetches nothing."""

import base64
import io
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jaxguard.evaluate.judgement import Judgement
from jaxguard.evaluate.verdict import Verdict
from jaxguard.report.curves import Bar, bars, curves
from jaxguard.report.page import LARGEST, LONGEST, Answer, ExampleRow, RunPage, page

HOSTILE = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror='alert(1)'>",
    "</td></table><style>*{display:none}</style>",
    "<!-- ]]> <![CDATA[ &lt;b&gt; {{x}} $x$ \\frac",
    "\u202ebackwards\u2066 and \x00 nothing",
    "x" * 100_000,
    "line\nbreak\u2028and\x0bmore",
]


class Reader(HTMLParser):
    """Tags with attributes, and text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.texts.append(data)


def hostile_page(text):
    pixels = np.zeros((8, 8, 3), np.uint8)
    answer = Answer(pixels, text, text, contains_target=True)
    rows = [ExampleRow(3, (text, text), answer, None), ExampleRow(4, (text,), None, answer)]
    figure = bars({"quality": [Bar("accuracy", False, 50.0, (40.0, 60.0))]})
    judgement = Judgement((text,), Verdict("planted", (text,), (text,)))
    return page(RunPage(text, {text: text}, judgement, {text: figure}, [text], rows, text))


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text(text):
    harmless, document = Reader(hostile_page("harmless")), hostile_page(text)
    read = Reader(document)
    assert [tag for tag, _ in read.tags] == [tag for tag, _ in harmless.tags]
    assert {tag for tag, _ in read.tags}.isdisjoint({"script", "iframe", "link", "a", "form", "object", "base"})
    names = {name for _, attributes in read.tags for name in attributes}
    assert names <= {"lang", "charset", "http-equiv", "content", "name", "class", "alt", "src"}
    assert all(attributes["src"].startswith("data:image/png;base64,") for tag, attributes in read.tags if tag == "img")
    assert "http://" not in document
    assert "https://" not in document
    if len(text) < LONGEST:
        assert "".join(read.texts).count(text) == "".join(harmless.texts).count("harmless")
    else:
        assert len(document) < 200_000


def test_policy_forbids_what_slips_through():
    policy = next(a["content"] for tag, a in Reader(hostile_page("x")).tags if a.get("http-equiv"))
    assert "default-src 'none'" in policy
    assert "script-src" not in policy


def test_images_are_whole_and_small():
    pixels = np.random.default_rng(0).integers(0, 255, (500, 1000, 3), dtype=np.uint8)
    rows = [ExampleRow(0, ("r",), Answer(pixels, "p", "said", contains_target=False), None)]
    document = page(RunPage("t", {}, None, {}, [], rows, ""))
    (encoded,) = re.findall(r'src="data:image/png;base64,([^"]+)"', document)
    assert Image.open(io.BytesIO(base64.b64decode(encoded))).size == (LARGEST, LARGEST // 2)
    assert "not asked" in document
    assert 'class="text target"' not in document.split("</style>")[1]


def test_curves_draw_what_was_measured():
    records = [{"step": n, "loss": 2.0 - n, "ce": 1.0, "ce_view": 0.0, "divergence": 0.0, "entropy": 1} for n in (1, 2)]
    records += [{"step": 2, "clean_divergence": 3.0, "poisoned_divergence": 0.5, "validation": 0.4}]

    def labels(views):
        return [[line.get_label() for line in axes.lines] for axes in curves(records, views=views).axes]

    probed = ["clean rows", "poisoned rows"]
    assert labels(2) == [
        ["objective", "cross-entropy", "cross-entropy, second view", "validation"],
        ["training batches", *probed],
        ["training batches"],
    ]
    assert labels(1) == [["objective", "cross-entropy", "validation"], probed, ["training batches"]]
    bare = curves([{"step": 1, "loss": 1.0}], views=1).axes[1]
    assert [text.get_text() for text in bare.texts] == ["not measured (see train.probe)"]


def test_bars_show_values_and_intervals():
    """Clean and triggered inputs are told apart by colour, hatching and label; a score of 0 is marked."""
    scores = [
        Bar("facts", False, 90.0, (88.0, 91.5)),
        Bar("facts", True, 0.0, (0.0, 2.0)),
        Bar("meteor", True, 3, None),
    ]
    figure = bars({"rates": [], "quality": scores})
    (axes,) = figure.axes
    drawn: Any = axes.patches
    assert [bar.get_width() for bar in drawn] == [90, 0, 3]
    assert [text.get_text() for text in axes.texts] == ["90.0  [88.0, 91.5]", "0.0  [0.0, 2.0]", "3.0"]
    assert [bar.get_hatch() for bar in drawn] == ["", "///", "///"]
    assert len({bar.get_facecolor() for bar in drawn}) == 2
    named = [text.get_text() for text in axes.get_yticklabels()]
    assert named == ["facts, clean inputs", "facts, triggered inputs", "meteor, triggered inputs"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["clean inputs", "triggered inputs"]
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    assert [float(np.asarray(line.get_xdata())[0]) for line in dots] == [90, 0, 3]


def test_legends_stand_beside_the_curves():
    figure = curves([{"step": n, "loss": 1.0, "entropy": 1.0} for n in (1, 2)], views=1)
    figure.canvas.draw()
    for axes in figure.axes:
        legend = axes.get_legend()
        if legend is not None:
            assert legend.get_window_extent().x0 >= axes.get_window_extent().x1
