"""What steps cost."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest

from jaxguard.bench.price import Price, measured_seconds
from jaxguard.cli.main import main
from jaxguard.errors import UserError


def test_a_price_is_the_product_and_says_what_it_is_of():
    price = Price(1800, 2.0, 16, 1.5, "least time, compiled ahead of time", least=True)
    assert price.total == 24
    assert str(price) == (
        "1800 steps x 2.000 s (least time, compiled ahead of time) x 16 chips x 1.5 an hour >= 24.00; start, "
        "compilation, evaluation and waiting come on top"
    )
    with pytest.raises(UserError, match="no step of the run was timed"):
        measured_seconds([{"step": 1, "loss": 1.0}])


def test_the_time_is_measured_or_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text('{"name": "run", "train": {"steps": 3600}}')
    lines = [{"step": n, "step_seconds": seconds} for n, seconds in enumerate((9.0, 1.0, 1.0), 1)]
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert main(["cost", str(run), "--chips", "4", "--price", "2"]) == 0
    assert "x 1.000 s (measured: median of 3 logged times) x 4 chips x 2 an hour = 8.00;" in capsys.readouterr().out
    assert main(["cost", str(run), "--chips", "4", "--price", "2", "--step_seconds", "0.5"]) == 0
    assert "x 0.500 s (given) x 4 chips x 2 an hour = 4.00;" in capsys.readouterr().out
    assert main(["cost", str(run), "--chips", "0", "--price", "2"]) == 2
    (run / "metrics.jsonl").unlink()
    assert main(["cost", str(run), "--chips", "4", "--price", "2"]) == 2
    assert "metrics.jsonl is not a readable metrics file" in capsys.readouterr().err


def test_a_rehearsal_tells_the_least_cost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the training step; decoding has no time."""
    step = SimpleNamespace(name="run", seconds={"arithmetic": 0.5}, least=0.5)
    decoding = SimpleNamespace(name="run, decoding", seconds={}, least=math.inf)
    monkeypatch.setattr("jaxguard.bench.rehearsal_table.rehearse_runs", lambda *_, decode: [step, decoding])
    monkeypatch.setattr("jaxguard.cli.bench.COMPILE_ONLY", {})
    file = tmp_path / "run.py"
    file.write_text("from jaxguard.config import *\nconfig = Config(train=TrainConfig(steps=7200))\n")
    line = ["rehearse", str(file), "--topology", "8xH100", "--price", "3", "--out", str(tmp_path / "out")]
    assert main(line) == 0
    expected = (
        "run on 8xH100: 7200 steps x 0.500 s (least time, compiled ahead of time) x 8 chips x 3 an hour >= 24.00;"
    )
    assert expected in capsys.readouterr().out
    assert main([*line, "--price", "-1"]) == 2
