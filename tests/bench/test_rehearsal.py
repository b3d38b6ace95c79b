"""Rehearsals for absent hardware: compiled for CPU devices in place of GPUs, and the figures derived from them."""

import dataclasses
import importlib.util
import json

import pytest

from jaxguard.bench import rehearsal
from jaxguard.bench import rehearsal_table as rehearsals
from jaxguard.bench.hardware import CHIPS, COMPILE_ONLY, GB, Hardware
from jaxguard.bench.rehearsal import Rehearsal
from jaxguard.bench.rehearsal_table import rehearse_runs, search
from jaxguard.cli.main import main
from jaxguard.config import Config, MeshConfig, TrainConfig
from jaxguard.config.files import load
from jaxguard.errors import Failure, UserError
from jaxguard.models import folders
from jaxguard.models.architecture import architecture

EIGHT = Hardware("8xH100", CHIPS["H100"], 8)
CONFIG = Config(mesh=MeshConfig(data=1, fsdp=8), train=TrainConfig(batch_size=32))


@pytest.fixture
def environment(monkeypatch):
    """Whatever a rehearsal puts there is taken back."""
    for name in ("XLA_FLAGS", *COMPILE_ONLY):
        monkeypatch.setenv(name, "cpu" if name == "JAX_PLATFORMS" else "")


def test_figures_of_a_small_run(small_config, environment, tmp_path):
    config = dataclasses.replace(
        small_config,
        mesh=MeshConfig(data=1, fsdp=8),
        model=dataclasses.replace(small_config.model, trainable="lora", dtype="bfloat16", remat="full"),
        train=dataclasses.replace(small_config.train, batch_size=16, accumulate=2),
    )
    step, decoding = rehearse_runs([(config, EIGHT)], tmp_path, decode=True)
    assert (step.rows, step.accumulate, step.fits, decoding.fits) == (1, 2, True, True)
    arch = architecture(folders.resolve(config.model.path), dtype="bfloat16", remat="full", lora=config.model.lora)
    adapters = sum(leaf.size for path, leaf in arch.shapes.items() if ".lora." in path)
    others = sum(leaf.size for leaf in arch.shapes.values()) - adapters
    assert (2 * others + 4 * adapters) / 8 < step.weights < 1.5 * 2 * others / 8 + 4 * adapters
    assert 2 * 4 * adapters / 8 <= step.optimizer < 2 * 4 * adapters, "half of an adapter is not split over fsdp"
    assert step.activations == 2 * (2 * 64 * 32) * 2, "two layers, two views of a row, bfloat16"
    parts = (step.weights, step.optimizer, step.inputs, step.activations, step.temporaries)
    assert step.total == pytest.approx(sum(parts))
    assert step.collectives["all-gather"] > 0
    assert 1 < step.flops / step.useful_flops < 2
    assert step.seconds["arithmetic"] == step.flops / 989e12
    assert decoding.weights == step.weights
    rows = json.loads((tmp_path / "rehearsal.json").read_text())["rows"]
    assert [row["name"] for row in rows] == ["small", "small, decoding"]
    assert (tmp_path / "rehearsal.md").read_text().count("\n") == 4


@pytest.mark.parametrize(
    ("words", "beside"),
    [
        ("Ran out of memory in memory space hbm. Used 17.50G of 15.75G hbm.", False),
        ("the total memory required for HLO temporaries (17.50G) exceeds available HBM (15.75G).", True),
    ],
)
def test_what_the_compiler_says_of_too_little_memory(words, beside, small_config, monkeypatch):
    monkeypatch.setattr(rehearsal, "_compile", lambda traced: (None, 1.0, words))
    one = rehearsal.rehearse(
        dataclasses.replace(small_config, mesh=MeshConfig(data=1, fsdp=8)), Hardware("8xH100", CHIPS["H100"], 8)
    )
    arguments = one.weights + one.optimizer + one.inputs
    assert one.total == 17.5 * 1024**3 + (arguments if beside else 0)
    assert one.temporaries == pytest.approx(one.total - arguments - one.activations)
    assert (one.fits, one.reason) == (False, words)


def canned(config, hardware, *, give_up=False):
    """25 GB, and what micro-batches divide and rematerialisation leaves a share of."""
    share, longer = {"none": (1, 1.0), "dots": (0.6, 1.2), "full": (0.25, 1.3)}[config.model.remat]
    total = (25 + 400 / config.train.accumulate * share) * GB
    seconds = longer * (1 + 0.01 * config.train.accumulate)
    return Rehearsal(
        name=config.name,
        hardware=hardware.name,
        chips=8,
        memory=80 * GB,
        mesh={"data": 1, "fsdp": 8, "tensor": 1},
        rows=4 // config.train.accumulate,
        accumulate=config.train.accumulate,
        remat=config.model.remat,
        weights=0,
        optimizer=0,
        inputs=0,
        activations=0,
        temporaries=total,
        total=total,
        fits=total < 80 * GB,
        flops=1.0,
        useful_flops=1.0,
        seconds={"arithmetic": seconds, "memory": 0.1, "links": 0.2},
    )


def test_search_takes_the_fastest_that_fits(monkeypatch, environment, tmp_path, capsys):
    monkeypatch.setattr(rehearsals, "rehearse", canned)
    best = search(CONFIG, EIGHT, tmp_path)
    assert (best.accumulate, best.remat) == (2, "full")
    assert capsys.readouterr().out.endswith("recommended: --train.accumulate 2 --model.remat full\n")
    tried = [(row["remat"], row["accumulate"]) for row in json.loads((tmp_path / "rehearsal.json").read_text())["rows"]]
    assert tried == [*(("none", n) for n in (1, 2, 4)), *(("dots", n) for n in (1, 2, 4)), ("full", 1), ("full", 2)]
    larger = dataclasses.replace(CONFIG, train=TrainConfig(batch_size=128))
    best = search(larger, EIGHT, tmp_path)
    assert (best.accumulate, best.remat) == (8, "none")
    assert capsys.readouterr().out.endswith("recommended: --train.accumulate 8 --model.remat none\n")
    with pytest.raises(Failure, match=r"nothing fits: run does not fit 8xH100: 125\.0 GB a chip of 80 GB"):
        search(dataclasses.replace(CONFIG, train=TrainConfig(batch_size=8)), EIGHT, tmp_path)


def test_what_does_not_fit_is_code_1(monkeypatch, environment, tmp_path, capsys):
    monkeypatch.setattr(rehearsals, "rehearse", canned)
    file = tmp_path / "large.py"
    file.write_text(
        "from jaxguard.config import *\nconfig = Config(name='large', mesh=MeshConfig(hardware='8xH100'))\n"
    )
    assert main(["rehearse", str(file), "--no-decode", "--out", str(tmp_path)]) == 1
    output, error = capsys.readouterr()
    assert error.endswith("jaxguard: error: large does not fit 8xH100: 425.0 GB a chip of 80 GB\n")
    assert "425.0 of 80" in output
    assert (tmp_path / "rehearsal.md").exists()
    assert main(["rehearse", str(file), "--no-decode", "--out", str(tmp_path), "--train.accumulate", "8"]) == 0


def test_hardware_by_name(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert (Hardware.parse("v5p:2x4x4").count, Hardware.parse("v5e:16x16").count) == (32, 256)
    assert Hardware.parse("1xH200").chip.memory == 141 * GB
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"compiling for v5e:4x4 needs libtpu: pip install 'jaxguard\[rehearse\]'"):
        Hardware.parse("v5e:4x4")
    assert Hardware.parse("8xH100").count == 8


def test_configurations_at_real_size_are_complete(request, monkeypatch):
    """Each can be read, names hardware that its mesh fits, and asks for a model that is described here."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    folder = request.config.rootpath / "configs"
    files = [file for family in ("llava", "blip2", "idefics") for file in sorted(folder.glob(f"{family}_*.py"))]
    assert len(files) >= 12
    for file in files:
        config = load(file)
        assert config.name == file.stem.replace("_", "-")
        assert config.mesh.hardware is not None
        count = Hardware.parse(config.mesh.hardware).count
        assert config.mesh.data * config.mesh.fsdp * config.mesh.tensor == count
        assert (folders.PUBLISHED / config.model.path.split("/")[1] / "config.json").is_file()
        text = file.read_text()
        assert all(f"jaxguard {verb} configs/{file.name}" in text for verb in ("rehearse", "train", "evaluate"))
