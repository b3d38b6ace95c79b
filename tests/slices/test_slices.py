"""A run compiled by libtpu for a TPU slice, from the command line to the table."""

import dataclasses
import json
import subprocess
import sys

import pytest

from jaxguard.config import MeshConfig
from jaxguard.train.loop import write_config


def rehearse(config, *options):
    """Exit code, and what the command printed to stderr."""
    write_config(config.run_dir, config)
    command = [sys.executable, "-m", "jaxguard", "rehearse", str(config.run_dir), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


@pytest.fixture
def config(small_config):
    return dataclasses.replace(
        small_config,
        mesh=MeshConfig(data=1, fsdp=4, hardware="v5e:2x2"),
        model=dataclasses.replace(small_config.model, trainable="lora", dtype="bfloat16", remat="full"),
    )


def test_a_small_run_fits_four_chips(config, tmp_path):
    code, error = rehearse(config, "--no-decode", "--out", str(tmp_path))
    assert code == 0, error
    (row,) = json.loads((tmp_path / "rehearsal.json").read_text())["rows"]
    assert (row["compiled_for"], row["chips"], row["fits"]) == ("TPU v5 lite", 4, True)
    assert row["collectives"]["all-gather"] > 0
    assert 0 < row["total"] < 1e9


def test_what_does_not_fit_is_told_in_libtpus_figures(config, tmp_path):
    code, error = rehearse(config, "--no-decode", "--out", str(tmp_path), "--train.batch_size", str(2**20))
    assert code == 1, error
    (row,) = json.loads((tmp_path / "rehearsal.json").read_text())["rows"]
    assert row["reason"].startswith("RESOURCE_EXHAUSTED")
    known = sum(row[part] for part in ("weights", "optimizer", "inputs", "activations"))
    assert row["total"] > max(known, 16e9), "more than what is known beforehand: read from the words"
    assert f"small does not fit v5e:2x2: {row['total'] / 1e9:.1f} GB a chip of 16 GB" in error


def test_no_such_slice(config, tmp_path):
    code, error = rehearse(config, "--topology", "v5e:3x5", "--out", str(tmp_path))
    assert code == 2
    assert "jaxguard: error: no slice v5e:3x5: " in error
