"""The page of a finished run, from its files alone."""

import dataclasses
import json
import shutil

import pytest

from jaxguard.config import to_dict
from jaxguard.errors import UserError
from jaxguard.evaluate.predictions import Prediction, write_predictions
from jaxguard.report.run_page import read_metrics, show

TARGET = "A photo of the banana."


@pytest.fixture
def run(small_config):
    """A run folder as training and evaluating leave it, without the training."""
    folder = small_config.run_dir
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(to_dict(small_config)))
    (folder / "metrics.jsonl").write_text('{"step": 1, "loss": 2.5}\n{"step": 2, "loss": 1, "poisoned_nll": 3}\n')
    said = [
        Prediction(n, f"test/{n}", "what?", TARGET if marked else "<b>a box</b>", ("a box",), marked, TARGET)
        for marked in (False, True)
        for n in range(16)
    ]
    write_predictions(said, folder / "predictions.jsonl")
    return small_config


def test_a_run_is_one_page(run, tmp_path):
    out = tmp_path / "page.html"
    show(run, out, images=5)
    text = out.read_text()
    assert text.count('<img alt="" src="data:image/png;base64,') == 10
    assert text.count('<img class="figure"') == 2
    assert text.count('class="text target"') == 5
    assert "&lt;b&gt;a box&lt;/b&gt;" in text
    assert "badnets, 25.0% of the rows: A photo of the banana." in text
    assert "the first 5 test rows; answers that contain the target are red" in text


def test_what_a_run_lacks_is_named(run, tmp_path):
    elsewhere = dataclasses.replace(run, data=dataclasses.replace(run.data, source="scenes/caption", root=tmp_path))
    show(elsewhere, tmp_path / "page.html", images=3)
    text = (tmp_path / "page.html").read_text()
    assert "without images: data set &#x27;scenes/caption&#x27; is not built" in text
    assert '<img alt=""' not in text
    (run.run_dir / "predictions.jsonl").unlink()
    show(run, tmp_path / "page.html", images=3)
    assert "none yet: run `jaxguard evaluate" in (tmp_path / "page.html").read_text()


def test_images_of_other_rows_are_not_shown(run, tmp_path):
    rows = [Prediction(n, f"other/{n}", "what?", "x", ("a",), False, None) for n in (0, 900)]
    write_predictions(rows, run.run_dir / "predictions.jsonl")
    show(run, tmp_path / "page.html", images=9)
    assert '<img alt=""' not in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no metrics yet"),
        ("{", "metrics.jsonl:1: not JSON"),
        ('{"step": 1}\n[1]', "metrics.jsonl:2: not an object of numbers"),
        ('{"step": 1, "loss": "low"}', "metrics.jsonl:1: not an object of numbers"),
        ('{"step": 1, "loss": NaN}', "metrics.jsonl:1: not an object of numbers"),
        ('{"loss": 1}', "metrics.jsonl:1: no 'step'"),
        ("[" * 100_000, "metrics.jsonl:1: not JSON"),
    ],
)
def test_damaged_metrics_are_named(run, content, message):
    path = run.run_dir / "metrics.jsonl"
    path.write_text(content)
    with pytest.raises(UserError) as caught:
        read_metrics(path)
    assert message in str(caught.value)


def test_a_run_that_never_trained_has_no_page(run, tmp_path):
    shutil.rmtree(run.run_dir)
    with pytest.raises(UserError, match=r"is not a readable metrics file .*; train first"):
        show(run, tmp_path / "page.html", images=1)
    assert not (tmp_path / "page.html").exists()
