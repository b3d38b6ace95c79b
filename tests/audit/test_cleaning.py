"""From findings to files, a person's verdicts, and a data set without what they flag."""

import csv
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from jaxguard.attacks.poison import PoisonedSource
from jaxguard.audit.cleaning import LEFT_OUT, clean
from jaxguard.audit.evidence import Evidence
from jaxguard.audit.findings import Findings
from jaxguard.audit.groups import Group, Groups
from jaxguard.audit.record import EVIDENCE, VERDICTS, read_report, write_record
from jaxguard.config import Config
from jaxguard.data.encode import Encoder
from jaxguard.data.sources import open_source
from jaxguard.errors import UserError
from jaxguard.models import folders
from jaxguard.train.loop import training_source


@pytest.fixture
def audited(small_config: Config, tmp_path: Path) -> Path:
    """The folder of an audit that convicts a phrase in rows 3 and 5, and another in rows 5 and 7, but not a third."""
    encoder = Encoder.from_checkpoint(folders.resolve(small_config.model.path))
    source = training_source(small_config)
    rows = np.arange(len(source))
    evidence = Evidence(rows, 0 * rows, rows + 100, rows + 1.0, rows + 0.5, rows[:, None], np.ones((len(rows), 1)))
    flagged = np.isin(rows, [3, 5, 7])
    groups = [
        Group((9, 9), 2, 2, np.array([3, 5]), 1e-9, convicted=True),
        Group((9,), 2, 2, np.array([5, 7]), 1e-8, convicted=True),
        Group((8,), 2, 9, np.array([1, 2]), 0.4, convicted=False),
    ]
    out = tmp_path / "audit"
    write_record(
        small_config, Findings(evidence, rows * 1.0, flagged, Groups(groups, 40, 4), None), encoder, source, out
    )
    return out


def judge(folder: Path, changes: dict[int, str]) -> None:
    """Write other verdicts, as a person would in a spreadsheet."""
    with (folder / VERDICTS).open(newline="") as file:
        lines = list(csv.DictReader(file))
    for number, verdict in changes.items():
        lines[number]["verdict"] = verdict
    with (folder / VERDICTS).open("w", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)


@pytest.mark.parametrize(
    ("changes", "left_out"), [({}, [3, 5, 7]), ({0: "keep"}, [5, 7]), ({1: " Keep", 2: "QUARANTINE"}, [1, 2, 3, 5])]
)
def test_flagged_rows_are_left_out_as_a_person_decides(
    audited: Path, small_config: Config, tmp_path: Path, changes: dict[int, str], left_out: list[int]
) -> None:
    judge(audited, changes)
    out = tmp_path / "cleaned"
    assert clean(audited, out) == {"kept": 48 - len(left_out), "quarantined": len(left_out)}
    source, cleaned = training_source(small_config), open_source(str(out), out, "train")
    kept = [row for row in range(48) if row not in left_out]
    assert len(cleaned) == len(kept)
    for number, row in enumerate(kept):
        assert cleaned[number].id == number
        assert (cleaned[number].key, cleaned[number].answers) == (source[row].key, source[row].answers)
        np.testing.assert_array_equal(cleaned[number].image, source[row].image)
    with next(out.rglob(LEFT_OUT)).open(newline="") as file:
        assert [int(line["row"]) for line in csv.DictReader(file)] == left_out


def test_what_cannot_be_cleaned_is_said_and_leaves_nothing(audited: Path, tmp_path: Path) -> None:
    out = tmp_path / "cleaned"
    with pytest.raises(UserError, match=r"is not the folder of an audit"):
        clean(tmp_path, out)
    judge(audited, {1: "perhaps"})
    with pytest.raises(UserError, match=r"the verdict on group 1 .* is 'perhaps': must be quarantine or keep"):
        clean(audited, out)
    judge(audited, {1: "keep"})
    report = audited / "report.json"
    text = report.read_text()
    report.write_text(text.replace('"limit": null', '"limit": 20'))
    with pytest.raises(UserError, match=r"has other rows than the audit"):
        clean(audited, out)
    report.write_text(text)
    assert not out.exists()
    out.mkdir()
    with pytest.raises(UserError, match=r"exists; name another folder"):
        clean(audited, out)


def test_evidence_is_a_table_and_the_report_counts_what_was_planted(audited: Path, small_config: Config) -> None:
    table = pyarrow.parquet.read_table(audited / EVIDENCE).to_pydict()
    assert table["row"] == list(range(48))
    assert table["nll"] == [row + 1.0 for row in range(48)]
    assert [row for row, out in enumerate(table["left_out"]) if out] == [3, 5, 7]
    source = training_source(small_config)
    assert isinstance(source, PoisonedSource)
    poisoned = source.ids
    planted = read_report(audited)["planted"]
    assert planted["poisoned answers"] == planted["poisoned rows"] == len(poisoned) == 12
    assert planted["missed"] == 12 - len(np.intersect1d(poisoned, [3, 5, 7]))
    assert planted["clean rows flagged"] == 3 - len(np.intersect1d(poisoned, [3, 5, 7]))
