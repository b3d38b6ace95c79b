"""The other processes of a job, from environment variables."""

import os
from pathlib import Path

import pytest

from jaxguard import processes
from jaxguard.cli.main import main
from jaxguard.errors import UserError

EXPLICIT = {"JAX_COORDINATOR_ADDRESS": "10.0.0.1:1234", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "3"}
SLURM = {"SLURM_JOB_ID": "7", "SLURM_PROCID": "1", "SLURM_NTASKS": "8"}


def test_nothing_means_alone() -> None:
    assert processes.find({}, tpu=False) is None


def test_an_explicit_coordinator_comes_before_all_else() -> None:
    assert processes.find(EXPLICIT | SLURM, tpu=True) == {
        "coordinator_address": "10.0.0.1:1234",
        "num_processes": 4,
        "process_id": 3,
        "cluster_detection_method": "deactivate",
    }


def test_slurm_counts_inside_a_step_of_several_tasks() -> None:
    assert processes.find(SLURM, tpu=False) == {"cluster_detection_method": "slurm"}
    assert processes.find(SLURM | {"SLURM_NTASKS": "1"}, tpu=False) is None
    assert processes.find({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8"}, tpu=False) is None


def test_a_tpu_host_is_left_to_jax_which_reads_the_metadata() -> None:
    assert processes.find({}, tpu=True) == {}


def test_one_process_is_alone_whatever_else_is_said() -> None:
    assert processes.find(EXPLICIT | SLURM | {"JAX_NUM_PROCESSES": "1"}, tpu=True) is None


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"JAX_PROCESS_ID": ""}, "JAX_COORDINATOR_ADDRESS is set but JAX_PROCESS_ID not"),
        ({"JAX_COORDINATOR_ADDRESS": ""}, "JAX_NUM_PROCESSES is set but JAX_COORDINATOR_ADDRESS not"),
        ({"JAX_PROCESS_ID": "4"}, "JAX_PROCESS_ID is '4', JAX_NUM_PROCESSES '4': must be whole numbers"),
        ({"JAX_PROCESS_ID": "-1"}, "JAX_PROCESS_ID is '-1'"),
        ({"JAX_NUM_PROCESSES": "two"}, "JAX_NUM_PROCESSES 'two'"),
        ({"JAX_COORDINATOR_ADDRESS": "10.0.0.1"}, "JAX_COORDINATOR_ADDRESS is '10.0.0.1': must be HOST:PORT"),
    ],
)
def test_half_a_description_is_refused(changed: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        processes.find(EXPLICIT | changed, tpu=False)


@pytest.mark.parametrize("verb", ["train", "evaluate"])
def test_a_wrong_description_is_one_line_before_a_device_is_touched(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.py"
    path.write_text("from jaxguard.config import Config\nconfig = Config()\n")
    monkeypatch.setitem(os.environ, "JAX_PROCESS_ID", "0")
    monkeypatch.chdir(tmp_path)
    assert main([verb, str(path)]) == 2
    assert capsys.readouterr().err == (
        "jaxguard: error: JAX_PROCESS_ID is set but JAX_COORDINATOR_ADDRESS and JAX_NUM_PROCESSES not: set all three "
        "to describe a job\n"
    )
    assert not (tmp_path / "runs").exists()


def test_a_single_process_agrees_with_itself() -> None:
    assert processes.is_main()
    assert processes.broadcast_from_main(7) == 7
    lines = ["a\u2028b", "", "ö"]
    assert processes.gather(lines) == lines
