"""Tables hold the values of their rows; the picture is drawn."""

from typing import Any

import numpy as np
from PIL import Image

from jaxguard.evaluate.success import wilson
from jaxguard.report.pictures import Answers, PictureRow, demo_picture
from jaxguard.report.tables import Column, comma_separated, latex, markdown, rate_text, terminal, transposed

COLUMNS = [Column("model", lambda row: row["name"]), Column("ASR", lambda row: rate_text(row["rate"]))]
ROWS: list[dict[str, Any]] = [{"name": "a|b", "rate": wilson(1, 2)}, {"name": "c", "rate": None}]


def test_markdown():
    assert markdown(ROWS, COLUMNS) == "| model | ASR |\n| --- | --- |\n| a\\|b | 50.0 [9.5, 90.5] |\n| c | - |\n"


def test_terminal_table_has_every_row():
    table = terminal(ROWS, COLUMNS, "title")
    assert table.row_count == 2
    assert [column.header for column in table.columns] == ["model", "ASR"]


def test_transposed_table_has_a_column_for_every_row():
    table = transposed(ROWS, COLUMNS, "title")
    assert [column.header for column in table.columns] == ["", "a|b", "c"]
    assert [list(column.cells) for column in table.columns] == [["ASR"], ["50.0 [9.5, 90.5]"], ["-"]]


def test_latex_and_csv_escape_what_they_must():
    percent = [Column("50 %", lambda row: row["name"] + "_x,")]
    assert r"50 \%" in latex(ROWS, percent)
    assert r"a|b\_x, \\" in latex(ROWS, percent)
    assert comma_separated(ROWS, percent) == '50 %\n"a|b_x,"\n"c_x,"\n'


def test_rate_of_nothing():
    assert rate_text(wilson(0, 0)) == "-"


def test_picture(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    answers = (Answers("undefended", "A red box.", "A photo of the banana."), Answers("paper", "", "A red box. " * 9))
    path = tmp_path / "picture.png"
    demo_picture(
        [PictureRow("p", pixels, pixels, pixels, pixels, answers)] * 2,
        "A photo of the banana.",
        "Two of two rows.",
        path,
    )
    drawn = np.asarray(Image.open(path).convert("RGB")).astype(int)
    assert drawn.shape[1] > 1000
    red = (drawn[..., 0] > 170) & (drawn[..., 1] < 70) & (drawn[..., 2] < 70)
    columns = np.flatnonzero(red[:, drawn.shape[1] // 2 :].any(0))
    assert len(columns) > 50, "the answer with the target is red, in the column of the triggered images"
    assert {file.name for file in tmp_path.iterdir()} == {"picture.png"}
