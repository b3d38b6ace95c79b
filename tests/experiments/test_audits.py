"""A table of audits: finished ones are not made again, and its figures are those of the reports."""

import dataclasses
import json
from pathlib import Path

import pytest

from jaxguard.config import AttackConfig, Config, to_dict
from jaxguard.experiments import audits
from jaxguard.experiments.audits import AuditCell, Audits
from jaxguard.experiments.configurations import load_grid
from jaxguard.experiments.grid import select

TABLE = Path(__file__).parents[2] / "configs" / "tables" / "audits.py"
CLEAN = {
    "rows": 100,
    "rows flagged": [4],
    "answers": 500,
    "tokens": 1000,
    "tokens left out": 5,
    "groups": [{"convicted": True}, {"convicted": False}],
    "smallest count": 4,
    "sight": {"mean": 2.5},
    "planted": None,
}
PLANTED = {
    "poisoned answers": 50,
    "missed": 5,
    "clean tokens left out %": 0.25,
    "poisoned rows": 10,
    "poisoned rows flagged": 9,
    "clean rows flagged": 1,
    "convicted phrases": 1,
    "false convictions": 0,
}
POISONED = CLEAN | {"rows flagged": list(range(10)), "planted": PLANTED, "groups": [{"convicted": True}], "sight": None}


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The audits that were made, in order; no model is loaded."""
    names: list[str] = []

    def make(cell: AuditCell) -> None:
        names.append(cell.config.name)
        cell.folder.mkdir(parents=True)
        report = CLEAN if cell.config.attack.name == "none" else POISONED
        (cell.folder / "report.json").write_text(json.dumps({"config": to_dict(cell.config), **report}))

    monkeypatch.setattr(audits, "_audit", make)
    return names


@pytest.fixture
def table(tmp_path: Path) -> Audits:
    configs = [Config(name=name, out=tmp_path, attack=AttackConfig(name=name)) for name in ("none", "badnets")]
    return Audits(tmp_path / "table", tuple(AuditCell({"attack": config.name}, config) for config in configs))


def test_figures_are_those_of_the_reports(table: Audits, made: list[str]) -> None:
    audits.run(table, "the command")
    clean, poisoned = json.loads((table.out / "results.json").read_text())["rows"]
    assert clean == {
        "attack": "none",
        "answers": 500,
        "poisoned answers": 0,
        "missed %": None,
        "clean tokens left out %": 0.5,
        "poisoned rows flagged %": None,
        "clean rows flagged %": 1.0,
        "convicted": 1,
        "false convictions": 1,
        "smallest count": 4,
        "sight, nats": 2.5,
    }
    assert poisoned == {
        "attack": "badnets",
        "answers": 500,
        "poisoned answers": 50,
        "missed %": 10.0,
        "clean tokens left out %": 0.25,
        "poisoned rows flagged %": 90.0,
        "clean rows flagged %": 100 / 90,
        "convicted": 1,
        "false convictions": 0,
        "smallest count": 4,
        "sight, nats": None,
    }
    lines = (table.out / "table.md").read_text().splitlines()
    assert lines[3] == "| badnets | 500 | 50 | 10.00 | 0.25 | 90.00 | 1.11 | 1 | 0 | 4 | - |"
    assert lines[-1] == "Command: `the command`"


def test_finished_audits_are_not_made_again(table: Audits, made: list[str]) -> None:
    audits.run(select(table, ["attack=badnets"]), "")
    assert made == ["badnets"]
    audits.run(table, "")
    assert made == ["badnets", "none"]
    assert audits.plan(table).count("finished") == 2
    other = dataclasses.replace(table.cells[0].config, seed=1)
    assert dataclasses.replace(table.cells[0], config=other).report() is None


def test_the_table_of_the_repository_has_every_data_set_clean_and_no_two_cells_in_one_folder() -> None:
    table = load_grid(TABLE, "tiny")
    assert isinstance(table, Audits)
    assert len({cell.folder for cell in table.cells}) == len(table.cells)
    clean = {cell.labels["data"] for cell in table.cells if cell.config.attack.name == "none"}
    assert clean == {"captions", "renamed", "questions"}
