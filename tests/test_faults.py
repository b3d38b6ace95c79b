"""The table of faults (tests/faults) matches the code: each line is found once, and each test file exists."""

import ast
from pathlib import Path

import pytest

from tests.faults.plant import ROOT, planted
from tests.faults.table import FAULTS, Fault


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.file}: {fault.name}")
def test_a_fault_can_be_planted(fault: Fault) -> None:
    sound = (ROOT / "jaxguard" / fault.file).read_text()
    broken = planted(fault, sound)
    ast.parse(broken)
    assert broken != sound
    assert "\n" not in fault.before + fault.after
    assert all((Path(__file__).parent / name).is_file() for name in fault.tests)


def test_faults_have_names_of_their_own() -> None:
    assert len({(fault.file, fault.name) for fault in FAULTS}) == len(FAULTS)


def test_a_line_that_moved_away_is_an_error() -> None:
    fault = Fault("gone", "files.py", "no such line", "", ())
    with pytest.raises(LookupError, match=r"files.py: found 0 times, must be once: no such line"):
        planted(fault, "one line\n")
