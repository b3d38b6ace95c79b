"""The pages in a headless Chromium, where one is on PATH: no console message, and nothing wider than the window."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxguard.evaluate.judgement import Judgement
from jaxguard.evaluate.verdict import Verdict
from jaxguard.report.curves import Bar, bars, curves
from jaxguard.report.page import Answer, ExampleRow, RunPage, page

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "chrome-headless-shell")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
WIDTHS = (400, 1280)
PROBE = """<script>
addEventListener("load", () => {
  document.documentElement.setAttribute("data-wide", document.documentElement.scrollWidth - innerWidth);
});
</script>"""


def long_page() -> str:
    """Texts without a space, many lines, images, curves and bars."""
    word, pixels = "x" * 390, np.full((64, 64, 3), 90, np.uint8)
    records = [{"step": n, "loss": 1 / n, "ce": 0.5 / n, "divergence": 1.0, "entropy": 2.0} for n in range(1, 9)]
    scores = [Bar("facts", False, 90.0, (88.0, 91.5)), Bar("facts", True, 0.0, (0.0, 2.0))]
    answer = Answer(pixels, word, word, contains_target=True)
    judgement = Judgement((word, "a short one"), Verdict("inconclusive", (word,), (word,)))
    return page(
        RunPage(
            title=word,
            facts={"run": word, word: "a fact"},
            judgement=judgement,
            figures={"Training": curves(records, views=2), "Scores": bars({"quality": scores})},
            evaluations=[word, "step 8 of 8"],
            examples=[ExampleRow(n, (word, word), answer, answer) for n in range(3)],
            note=word,
        )
    )


def browse(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    assert BROWSER is not None
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr"]
    return subprocess.run(
        [BROWSER, *flags, f"--user-data-dir={path.parent / 'profile'}", *arguments, path.as_uri()],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on PATH; test_page.py checks the pages by rules")
@pytest.mark.parametrize("width", WIDTHS)
def test_a_page_fits_its_window_and_the_console_is_silent(width: int, tmp_path: Path) -> None:
    text, path, picture = long_page(), tmp_path / "page.html", tmp_path / "page.png"
    path.write_text(text)
    done = browse(path, f"--screenshot={picture}", f"--window-size={width},2400")
    assert "CONSOLE" not in done.stderr
    with Image.open(picture) as drawn:
        assert drawn.size == (width, 2400)
        assert len(set(drawn.convert("L").tobytes())) > 10, "something is drawn"

    path.write_text(re.sub(r"<meta http-equiv=[^>]*>", PROBE, text))
    dumped = browse(path, "--dump-dom", f"--window-size={width},2400").stdout
    found = re.search(r'data-wide="(-?\d+)"', dumped)
    assert found is not None
    assert int(found[1]) <= 0
