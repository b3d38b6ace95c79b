"""Grids: finished cells are not repeated, a failed cell does not stop the others, rows pool their seeds."""

import csv
import dataclasses
import hashlib
import itertools
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from jaxguard.cli.main import main
from jaxguard.config import AttackConfig, Config, DataConfig, ModelConfig, ObjectiveConfig
from jaxguard.errors import Preempted, UserError
from jaxguard.evaluate.predictions import read_predictions
from jaxguard.evaluate.scores import Scores
from jaxguard.evaluate.success import AttackSuccess, wilson
from jaxguard.experiments import grid as grids
from jaxguard.experiments import tiny
from jaxguard.experiments.configurations import load_grid
from jaxguard.experiments.grid import RECORD, Cell, Grid, exported, named, plan, select, summary
from jaxguard.report.plots import STYLES, Heat, Plot, Sweep, Tradeoff, joined, save
from jaxguard.report.summary import summarise
from jaxguard.train.export import export
from jaxguard.version import commit

FILE = Path("grid.py")
COMMAND = "jaxguard table grid.py"
TABLES = Path(__file__).parents[2] / "configs" / "tables"


def scores(successes: int, facts: float) -> Scores:
    rate, none = wilson(successes, 10), wilson(0, 10)
    quality = {"facts": facts, "cider": 1.0}
    attack = AttackSuccess(exact=rate, contains=rate, exact_on_clean=none)
    return Scores("caption", quality, quality, attack, examples={}, tokenizer="python", absent={})


@pytest.fixture
def grid(tmp_path: Path) -> Grid:
    """Two attacks, two seeds."""
    cells = tuple(
        Cell({"attack": name}, Config(name=f"{name}-{seed}", seed=seed, out=tmp_path, attack=AttackConfig(name=name)))
        for name in ("none", "badnets")
        for seed in (0, 1)
    )
    return Grid(tmp_path / "table", cells)


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the runs that were evaluated, in order; no model is loaded, and each takes a minute."""
    names: list[str] = []

    def evaluate(config: Config, model: None, triggers: AttackConfig | None, folder: Path) -> Scores:
        names.append(config.name)
        folder.mkdir(parents=True, exist_ok=True)
        return scores(4 + config.seed, 80.0 + config.seed)

    def export(config: Config, out: Path, dtype: str) -> None:
        names.append(f"export {config.name} as {dtype}")
        out.mkdir(parents=True)

    clock = itertools.count(0.0, 60.0)
    monkeypatch.setattr("jaxguard.experiments.grid.time", SimpleNamespace(perf_counter=lambda: next(clock)))
    monkeypatch.setattr("jaxguard.train.loop.train", lambda config, _: config.run_dir)
    monkeypatch.setattr("jaxguard.train.setup.load_model", lambda *_: None)
    monkeypatch.setattr("jaxguard.train.export.export", export)
    monkeypatch.setattr("jaxguard.evaluate.run.evaluate", evaluate)
    return names


def test_finished_cells_are_not_repeated(grid: Grid, ran: list[str]) -> None:
    assert grids.run(select(grid, ["attack=badnets"]), COMMAND) == 0
    assert ran == ["badnets-0", "badnets-1"]
    assert grids.run(grid, COMMAND) == 0
    assert ran == ["badnets-0", "badnets-1", "none-0", "none-1"]
    assert grids.run(grid, COMMAND) == 0
    assert len(ran) == 4


def test_cells_that_are_the_same_run_cost_one(grid: Grid, ran: list[str]) -> None:
    again = dataclasses.replace(grid.cells[2], labels={"attack": "the same by another name"})
    assert grids.run(Grid(grid.out, (*grid.cells, again)), COMMAND) == 0
    assert sorted(ran) == ["badnets-0", "badnets-1", "none-0", "none-1"]
    assert again.record()


def test_an_interrupted_grid_goes_on_where_it_stopped(
    grid: Grid, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:

    def stopped(config: Config, model: None) -> Path:
        if config.name == "none-1" and "none-1" not in ran:
            ran.append("none-1")
            raise Preempted("saved")
        return config.run_dir

    monkeypatch.setattr("jaxguard.train.loop.train", stopped)
    with pytest.raises(Preempted):
        grids.run(grid, COMMAND)
    assert ran == ["none-0", "none-1"]
    assert grids.run(grid, COMMAND) == 0
    assert ran == ["none-0", "none-1", "none-1", "badnets-0", "badnets-1"]


def test_a_cell_of_other_values_is_run_again(grid: Grid, ran: list[str]) -> None:
    grids.run(grid, COMMAND)
    longer = dataclasses.replace(grid.cells[0].config, seed=7, name="none-0")
    changed = dataclasses.replace(grid, cells=(Cell({"attack": "none"}, longer), *grid.cells[1:]))
    assert [cell.record() is None for cell in changed.cells] == [True, False, False, False]


def test_a_new_label_or_a_new_option_does_not_undo_a_cell(grid: Grid, ran: list[str]) -> None:
    grids.run(grid, COMMAND)
    first = grid.cells[0]
    path = first.folder / RECORD
    record = json.loads(path.read_text())
    del record["cell"]["config"]["view"]["jitter"]
    path.write_text(json.dumps(record))
    assert dataclasses.replace(first, labels={"what": "none"}).record() == record
    record["cell"]["config"]["view"]["jitter"] = True
    path.write_text(json.dumps(record))
    assert first.record() is None


@pytest.mark.parametrize("error", [UserError("no such thing"), ZeroDivisionError("a bug")])
def test_a_broken_cell_spares_the_others(
    grid: Grid, ran: list[str], error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:

    def broken(config: Config, model: None) -> Path:
        if config.name == "none-1":
            raise error
        return config.run_dir

    monkeypatch.setattr("jaxguard.train.loop.train", broken)
    assert grids.run(grid, COMMAND) == 1
    assert ran == ["none-0", "badnets-0", "badnets-1"]
    assert f"failed: attack=none seed=1:{' ' if isinstance(error, UserError) else chr(10)}" in capsys.readouterr().err
    assert [row["seeds"] for row in summary(grid, COMMAND)] == [[0], [0, 1]]


def test_rows_pool_their_seeds(grid: Grid, ran: list[str]) -> None:
    grids.run(grid, COMMAND)
    row = summary(grid, COMMAND)[1]
    assert row["labels"] == {"attack": "badnets"}
    assert row["metric"] == "facts"
    assert (row["clean"], row["seeds"]) == (80.5, [0, 1])
    assert (row["exact"]["successes"], row["exact"]["trials"], row["exact"]["value"]) == (9, 20, 0.45)
    assert row["command"] == "jaxguard table grid.py --only attack=badnets"
    assert [(record["commit"], record["seconds"]) for record in row["records"]] == [(commit(), 60.0)] * 2


@pytest.mark.parametrize("name", ["attacks.json", "tables/ablation.json", "tables/main.json"])
def test_stored_tables_give_the_same_rows_under_the_new_names(name: str) -> None:
    stored = json.loads((TABLES.parents[1] / "docs" / name).read_text())["rows"]
    rows = summarise(((row["labels"], record) for row in stored for record in row["records"]), COMMAND)
    assert len(rows) == len(stored)
    for row, before in zip(rows, stored, strict=True):
        assert (row["clean"], row["recovery"]) == (before["clean"], before["triggered"])
        assert (row["exact"], row["contains"]) == (before["exact"], before["contains"])
        assert row["exact_on_clean"] == before["untriggered"]


def test_every_form_of_the_table_holds_every_row(grid: Grid, ran: list[str]) -> None:
    grids.run(grid, COMMAND)
    table = grid.out
    header, *rows = csv.reader((table / "table.csv").read_text().splitlines())
    assert header == [
        *("attack", "metric", "clean", "ASR exact %", "ASR contains %", "ASR on clean inputs %", "recovery", "seeds")
    ]
    assert [row[0] for row in rows] == ["none", "badnets"]
    assert rows[1][3] == "45.0 [25.8, 65.8]"
    assert (table / "table.md").read_text().count("\n") == 4
    assert r"ASR exact \%" in (table / "table.tex").read_text()
    assert len(json.loads((table / "results.json").read_text())["rows"]) == 2


def test_cells_that_differ_in_their_triggers_share_a_run(grid: Grid, ran: list[str]) -> None:
    first = grid.cells[0]
    floors = [dataclasses.replace(first, triggers=AttackConfig(name="badnets", seed=seed)) for seed in (0, 1)]
    shared = Grid(grid.out, (first, *floors))
    assert len({cell.folder for cell in shared.cells}) == 3
    assert {cell.folder.parent for cell in floors} == {first.config.run_dir}
    grids.run(shared, COMMAND)
    assert len(ran) == 3
    assert all(cell.record() for cell in shared.cells)


@pytest.fixture
def restarted(grid: Grid) -> Cell:
    """A cell that goes on from the first cell's run, on clean rows."""
    start = grid.cells[2].config
    config = dataclasses.replace(
        start, name="restarted", model=ModelConfig(path=str(exported(start))), attack=AttackConfig()
    )
    return Cell({"attack": "badnets, then clean"}, config, start.attack, start)


def test_what_a_cell_starts_from_is_trained_and_exported_once(restarted: Cell, grid: Grid, ran: list[str]) -> None:
    assert grids.run(Grid(grid.out, (restarted,)), COMMAND) == 0
    assert ran == ["export badnets-0 as float32", "restarted"]
    (restarted.folder / RECORD).unlink()
    assert grids.run(Grid(grid.out, (restarted,)), COMMAND) == 0
    assert ran[2:] == ["restarted"]


def test_cells_that_share_a_run_stay_together(grid: Grid, restarted: Cell, ran: list[str]) -> None:
    floor = dataclasses.replace(grid.cells[0], triggers=AttackConfig(name="badnets"))
    assert grids.run(Grid(grid.out, (grid.cells[1], *grid.cells[2:], restarted, floor)), COMMAND) == 0
    assert ran == ["none-1", "badnets-1", "badnets-0", "export badnets-0 as float32", "restarted", "none-0"]


def test_a_cell_goes_on_from_the_weights_that_another_run_ended_with(small_config: Config, tmp_path: Path) -> None:
    """Trained for real: with a vanishing learning rate, the second run keeps the first one's weights and answers."""
    short = dataclasses.replace(
        small_config,
        objective=ObjectiveConfig(),
        train=dataclasses.replace(small_config.train, steps=4, learning_rate=0.03),
        evaluate=dataclasses.replace(small_config.evaluate, examples=8, new_tokens=6),
    )
    start = dataclasses.replace(short, name="start")
    still = dataclasses.replace(
        start,
        name="still",
        model=ModelConfig(path=str(exported(start))),
        attack=AttackConfig(),
        train=dataclasses.replace(short.train, steps=1, learning_rate=1e-30),
    )
    first, second = Cell({"run": "start"}, start), Cell({"run": "still"}, still, start.attack, start)
    table = Grid(tmp_path / "table", (first, second))
    assert grids.run(table, COMMAND) == 0
    export(still, tmp_path / "after", "float32")
    before, between, after = (
        load_file(folder / "model.safetensors")
        for folder in (Path(small_config.model.path), exported(start), tmp_path / "after")
    )
    assert all(np.array_equal(between[name], after[name]) for name in between)
    assert any(np.abs(between[name] - before[name]).max() > 0.01 for name in between)
    answers = [read_predictions(cell.folder / "predictions.jsonl") for cell in table.cells]
    assert answers[0] == answers[1]
    rows = summary(table, COMMAND)
    assert [row["labels"]["run"] for row in rows] == ["start", "still"]
    assert rows[0]["evaluated"] == f"step {table.cells[0].config.train.steps}, 8 rows, {commit()}"
    assert rows[0]["evaluated"] in (table.out / "table.md").read_text()
    assert plan(table).splitlines()[-1] == "2 cells; about 0 min left"


def test_cells_run_in_several_processes(grid: Grid, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    unbuilt = Grid(
        grid.out,
        tuple(
            dataclasses.replace(
                cell, config=dataclasses.replace(cell.config, data=DataConfig(root=tmp_path / cell.config.name))
            )
            for cell in grid.cells[1:3]
        ),
    )
    assert grids.run(unbuilt, COMMAND, jobs=2) == 2
    printed = capsys.readouterr().err
    for cell in unbuilt.cells:
        assert f"failed: {cell}: data set 'scenes/caption' is not built in {cell.config.data.root}" in printed


@pytest.mark.parametrize(
    ("plot", "panels"),
    [
        (Tradeoff("method"), 2),
        (Tradeoff("method", down="lambda"), 4),
        (Sweep("poison", "method"), 4),
        (Heat("poison", "lambda"), 2),
    ],
)
def test_plots_show_every_row(plot: Plot, panels: int, tmp_path: Path) -> None:
    def row(metric: str, method: str, poison: str, weight: str, successes: int) -> dict:
        labels = {"method": method, "poison": poison, "lambda": weight}
        return {
            "labels": labels,
            "metric": metric,
            "clean": 91.5,
            "contains": dataclasses.asdict(wilson(successes, 50)),
        }

    rows = [
        row(metric, method, poison, weight, 5 * number)
        for metric in ("facts", "accuracy")
        for method in ("undefended", "paper")
        for number, (poison, weight) in enumerate([("0.5%", "0.1"), ("10%", "1"), ("5%", "0.1")], 1)
    ]
    figure = plot.draw(rows)
    assert len(figure.axes) == panels
    if isinstance(plot, Heat):
        assert [text.get_text() for text in figure.axes[0].texts] == ["10", "30", "20"]
        assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["0.5%", "5%", "10%"]
    else:
        bars: Any = figure.axes[0].containers
        assert [bar.get_label() for bar in bars] == ["undefended", "paper"]
        parts = isinstance(plot, Tradeoff) and plot.down is not None
        assert sorted(bars[0].lines[0].get_ydata()) == pytest.approx([10, 30] if parts else [10, 20, 30])
        assert [axes.get_title() for axes in figure.axes] == (["0.1", "0.1", "1", "1"] if parts else [""] * panels)
        assert [text.get_text() for text in figure.legends[0].texts] == ["undefended", "paper"]
    assert save(plot, rows, tmp_path) == [f"{plot.name}.png", f"{plot.name}.svg"]
    assert (tmp_path / f"{plot.name}.png").stat().st_size > 5000
    assert save(plot, [rows[0] | {"contains": None}], tmp_path) == []


def test_every_series_has_a_style_of_its_own() -> None:
    names = [str(number) for number in range(2 * len(STYLES))]
    rate = dataclasses.asdict(wilson(1, 2))
    rows = [{"labels": {"method": name}, "metric": "facts", "clean": 90.0, "contains": rate} for name in names]
    (axes,) = Tradeoff("method").draw(rows).axes
    bars: Any = axes.containers
    marks = [bar.lines[0] for bar in bars]
    assert [bar.get_label() for bar in bars] == names
    assert len({(mark.get_color(), mark.get_marker(), mark.get_markerfacecolor()) for mark in marks}) == len(names)


def test_attacks_have_markers_and_one_run_is_drawn_once() -> None:
    def row(method: str, attack: str, run: str) -> dict:
        cells = [{"cell": {"config": {"name": run}}}]
        rate = dataclasses.asdict(wilson(1, 2))
        labels = {"method": method, "attack": attack}
        return {"labels": labels, "metric": "facts", "clean": 90.0, "contains": rate, "records": cells}

    rows = [row(method, attack, f"{method} {run}") for method in ("none", "paper") for attack, run in RUNS.items()]
    figure = Tradeoff("method", marks="attack").draw(rows)
    bars: Any = figure.axes[0].containers
    assert [bar.get_label() for bar in bars] == [
        *("none, badnets = vlood", "none, blended", "paper, badnets = vlood", "paper, blended")
    ]
    marks = [(bar.lines[0].get_color(), bar.lines[0].get_marker()) for bar in bars]
    assert len(set(marks)) == 4
    assert (marks[0][1], marks[0][0]) == (marks[2][1], marks[1][0])
    series, attacks = ([text.get_text() for text in legend.texts] for legend in figure.legends)
    assert (series, attacks) == (["none", "paper"], ["badnets = vlood", "blended"])


RUNS = {"badnets": "a", "blended": "b", "vlood": "a"}


@pytest.mark.parametrize(
    ("at", "ticks", "pairs"),
    [
        ([0.5, 1, 5, 10], [0.5, 1, 5, 10], [(0, 1), (2, 3)]),
        ([0.5, 1, 2, 5], [0.5, 1, 2, 5], [(0, 1), (1, 2), (2, 3)]),
        ([1, 3], [1, 2, 3], []),
        ([1], [1, 2], []),
    ],
)
def test_lines_do_not_cross_gaps(at: list[float], ticks: list[float], pairs: list[tuple[int, int]]) -> None:
    assert joined(at, ticks) == pairs


def test_bright_is_good_on_both_sides_of_a_heat_map() -> None:
    def row(x: str, successes: int, clean: float) -> dict:
        rate = dataclasses.asdict(wilson(successes, 10))
        return {"labels": {"x": x, "y": "1"}, "metric": "facts", "clean": clean, "contains": rate}

    for axes in Heat("x", "y").draw([row("1", 0, 95.0), row("2", 10, 5.0)]).axes:
        image: Any = axes.images[0]
        good, bad = image.cmap(image.norm(image.get_array()))[0]
        assert good[:3].sum() > bad[:3].sum() + 1


def test_runs_are_named_by_what_they_are() -> None:
    attack = AttackConfig(name="badnets", place="fixed")
    first, again = (tiny.experiment("caption", attack) for _ in range(2))
    assert first.name == again.name
    assert first.name.startswith("llava-caption-badnets-0-")
    others = [
        tiny.experiment("caption", attack, seed=1),
        tiny.experiment("caption", dataclasses.replace(attack, rate=0.1)),
        tiny.experiment("caption", attack, objective=tiny.PAPER),
        tiny.experiment("caption", attack, objective=tiny.PAPER, view=dataclasses.replace(tiny.VIEW, patch_size=4)),
        tiny.experiment("vqa", attack),
        tiny.cleaned(first),
    ]
    assert len({config.name for config in [first, *others]}) == 1 + len(others)


def test_a_name_holds_no_defaults() -> None:
    """So that an option that comes later renames nothing."""
    config = Config(out=Path("somewhere"), attack=AttackConfig(rate=0.1))
    chosen = json.dumps({"attack": {"rate": "0.1"}, "out": "somewhere"})
    assert named(config, "run").name == f"run-0-{hashlib.sha256(chosen.encode()).hexdigest()[:8]}"


def test_cells_that_share_a_folder_are_refused(grid: Grid) -> None:
    first = grid.cells[0]
    again = dataclasses.replace(first, labels={"sweep": "the same run in another place of the table"})
    assert len(Grid(grid.out, (*grid.cells, again)).cells) == 5
    other = dataclasses.replace(first, config=dataclasses.replace(first.config, seed=9))
    with pytest.raises(UserError, match="share the folder"):
        Grid(grid.out, (*grid.cells, other))


@pytest.mark.parametrize(
    ("only", "message"),
    [("attack", "must be NAME=VALUE"), ("attack=wanet", "choose among attack=badnets, attack=none")],
)
def test_a_choice_that_fits_nothing_is_one_line(grid: Grid, only: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        select(grid, [only])


def test_the_verb_plans_and_fails_with_code_1(
    tmp_path: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    FILE.write_text(
        "from jaxguard.config import Config\nfrom jaxguard.experiments.grid import Cell, Grid\n"
        "from pathlib import Path\n"
        "cells = tuple(Cell({'seed': str(s)}, Config(name=f's{s}', seed=s)) for s in (0, 1))\n"
        "grids = {'tiny': Grid(Path('out'), cells)}\n"
    )
    assert main(["table", "grid.py", "--only", "seed=1"]) == 0
    capsys.readouterr()
    assert main(["table", "grid.py", "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["1.0", "min", "seed=0", "seed=0"]
    assert lines[1].split() == ["finished", "seed=1", "seed=1"]
    assert lines[2] == "2 cells; about 1 min left"

    monkeypatch.setattr("jaxguard.train.loop.train", lambda *_: 1 / 0)
    assert main(["table", "grid.py"]) == 1
    assert "error: 1 of 2 cells failed" in capsys.readouterr().err


def test_costs_are_timed_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    FILE.write_text(
        "from jaxguard.config import Config\nfrom jaxguard.experiments.grid import Cost\nfrom pathlib import Path\n"
        "grids = {'tiny': Cost(Path('out'), {'plain': Config(), 'other': Config(seed=1)}, rounds=7)}\n"
    )
    timed: list[tuple] = []

    def measure(cases: dict, rounds: int) -> list[dict]:
        timed.append(({name: case.config.seed for name, case in cases.items()}, rounds))
        return []

    monkeypatch.setattr("jaxguard.bench.cost.measure", measure)
    assert main(["table", "grid.py", "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines() == ["plain", "other", "2 steps, 7 rounds"]
    assert main(["table", "grid.py"]) == 0
    assert timed == [({"plain": 0, "other": 1}, 7)]
    assert json.loads((tmp_path / "out" / "cost.json").read_text())["configs"]["other"]["seed"] == 1
    assert main(["table", "grid.py", "--jobs", "2"]) == 2
    assert "grid.py times alternating steps; leave --jobs out" in capsys.readouterr().err
    assert main(["table", "grid.py", "--scale", "full"]) == 2
    assert "grid.py has no grid of scale 'full'; choose among tiny" in capsys.readouterr().err


def test_a_file_without_a_grid_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "none.py"
    path.write_text("config = 1\n")
    assert main(["table", str(path)]) == 2
    assert "it defines no `grids`; it must hold `grids = dict(...)`" in capsys.readouterr().err
    assert main(["table", "missing.py"]) == 2
    assert "missing.py is not a Python file" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["main", "ablation", "sensitivity"])
def test_the_full_grid_has_the_cells_of_the_tiny_one(name: str) -> None:
    tiny, full = (load_grid(TABLES / f"{name}.py", scale) for scale in ("tiny", "full"))
    assert isinstance(tiny, Grid)
    assert isinstance(full, Grid)
    assert [(cell.labels, cell.config.seed) for cell in tiny.cells] == [
        (cell.labels, cell.config.seed) for cell in full.cells
    ]
    assert not {cell.folder for cell in tiny.cells} & {cell.folder for cell in full.cells}
    for cell in full.cells:
        assert cell.config.data.source in ("coco/caption", "vqav2/vqa")
        assert cell.config.data.train_split != cell.config.data.test_split
        assert cell.config.model.dtype == "bfloat16"
