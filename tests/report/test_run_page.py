"""The page of a finished run, from its files alone."""

import dataclasses
import json
import shutil

import pytest

from jaxguard.config import AttackConfig, to_dict
from jaxguard.errors import UserError
from jaxguard.evaluate.predictions import Prediction, read_predictions, write_predictions
from jaxguard.report.run_page import show
from tests.evaluate.stored import store

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


def test_the_page_says_what_was_evaluated_and_what_it_shows(run, tmp_path):
    """The run's own triggers, though others were tried last; both are named."""
    rows = read_predictions(run.run_dir / "predictions.jsonl")
    for name, attack in (("2026-1", run.attack), ("2026-2", AttackConfig(name="sig"))):
        store(run, rows, attack, name, rows=16)
    show(run, tmp_path / "page.html", images=1)
    text = (tmp_path / "page.html").read_text()
    head = text[: text.index("<dl>")]
    assert "<h2>Verdict: planted</h2>" in head
    assert "16 of 16 clean inputs get the same answer" in head
    assert "not tried: triggers of blended, wanet," in head
    for fact in ("step 8 of 8, parameters p", "triggers of badnets; 300 rows", "2026-1, 2026-1", "<dd>c</dd>"):
        assert fact.replace("300", "16") in text
    listed = text[text.index("Evaluations in this folder") : text.index("<h2>Answers")]
    assert listed.count("<tr>") == 3
    assert "triggers of sig (not the run&#39;s own)" in listed


def test_what_a_run_lacks_is_named(run, tmp_path):
    elsewhere = dataclasses.replace(run, data=dataclasses.replace(run.data, source="scenes/caption", root=tmp_path))
    show(elsewhere, tmp_path / "page.html", images=3)
    text = (tmp_path / "page.html").read_text()
    assert "without images: data set &#39;scenes/caption&#39; is not built" in text
    assert '<img alt=""' not in text
    (run.run_dir / "predictions.jsonl").unlink()
    show(run, tmp_path / "page.html", images=3)
    assert "none yet: run `jaxguard evaluate" in (tmp_path / "page.html").read_text()


def test_images_of_other_rows_are_not_shown(run, tmp_path):
    rows = [Prediction(n, f"other/{n}", "what?", "x", ("a",), False, None) for n in (0, 900)]
    write_predictions(rows, run.run_dir / "predictions.jsonl")
    show(run, tmp_path / "page.html", images=9)
    assert '<img alt=""' not in (tmp_path / "page.html").read_text()


def test_a_run_that_never_trained_has_no_page(run, tmp_path):
    shutil.rmtree(run.run_dir)
    with pytest.raises(UserError, match=r"is not a readable metrics file .*; train first"):
        show(run, tmp_path / "page.html", images=1)
    assert not (tmp_path / "page.html").exists()
